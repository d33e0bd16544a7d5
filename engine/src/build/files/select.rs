//! Which files a path or a pattern means.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, OFlags, statat};
use rustix::io::Errno;

use super::place::{Root, is_folder, names, split};
use super::{FileError, MAX_DEPTH, failed, join};
use crate::images::pattern;

/// Something that a source means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Selected {
    /// Where it is below the root: clean, without a slash in front; empty for the root itself.
    pub(in super::super) path: Vec<u8>,
    /// Whether it is a folder, a link at its end followed.
    pub(in super::super) is_folder: bool,
}

impl Selected {
    /// Its own name.
    pub(in super::super) fn name(&self) -> &[u8] {
        split(&self.path).1
    }
}

/// Whether a path has wildcards.
pub(super) fn is_pattern(path: &str) -> bool {
    path.contains(['*', '?', '[', '\\'])
}

/// All that a clean path or pattern means, sorted. A plain path that means nothing is an error, a pattern is not. Where it is
/// `deep`, a part `**` stands for any number of folders, none as well.
pub(in super::super) fn select(root: Root<'_>, path: &str, deep: bool) -> Result<Vec<Selected>, FileError> {
    if !is_pattern(path) {
        return select_one(root, path).map(|one| vec![one]);
    }
    let mut found = vec![Vec::new()];
    let mut parts = path.split('/').peekable();
    while let Some(part) = parts.next() {
        let mut next = Vec::new();
        for above in &found {
            match deep && part == "**" && parts.peek().is_some() {
                true => folders(root, above, 0, &mut next)?,
                false => below(root, above, part, &mut next)?,
            }
        }
        // Two ways may lead to the same.
        next.sort_unstable();
        next.dedup();
        found = next;
    }
    let mut selected = Vec::new();
    for path in found {
        // A link that leads nowhere means nothing.
        if let Some(stat) = root.stat(&path)? {
            selected.push(Selected { path, is_folder: is_folder(&stat) });
        }
    }
    Ok(selected)
}

/// What is at a clean path, whatever letters it has.
pub(in super::super) fn select_one(root: Root<'_>, path: &str) -> Result<Selected, FileError> {
    match root.stat(path.as_bytes())? {
        Some(stat) => Ok(Selected { path: path.as_bytes().to_vec(), is_folder: is_folder(&stat) }),
        None => Err(failed("stat", path.as_bytes())(rustix::io::Errno::NOENT)),
    }
}

/// Adds the folder `above`, if it is one, and all below it; no links are followed there.
fn folders(root: Root<'_>, above: &[u8], depth: usize, found: &mut Vec<Vec<u8>>) -> Result<(), FileError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    let folder = match root.open(above, flags) {
        Ok(folder) => folder,
        // No folder, or a link.
        Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(failed("open", above)(errno)),
    };
    if depth > MAX_DEPTH {
        return Err(failed("open", above)(Errno::NAMETOOLONG));
    }
    found.push(above.to_vec());
    for name in names(folder.as_fd()).map_err(failed("read", above))? {
        let stat = statat(&folder, &*name, AtFlags::SYMLINK_NOFOLLOW);
        if stat.is_ok_and(|stat| is_folder(&stat)) {
            folders(root, &join(above, &name), depth + 1, found)?;
        }
    }
    Ok(())
}

/// Adds what `part` means in the folder `above`, if it is one.
fn below(root: Root<'_>, above: &[u8], part: &str, found: &mut Vec<Vec<u8>>) -> Result<(), FileError> {
    let Ok(folder) = root.open(above, OFlags::RDONLY | OFlags::DIRECTORY) else { return Ok(()) };
    if !is_pattern(part) {
        // No file is called so: a pattern is for names.
        if matches!(part, "." | "..") {
            return Ok(());
        }
        if statat(&folder, part, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
            found.push(join(above, part.as_bytes()));
        }
        return Ok(());
    }
    for name in names(folder.as_fd()).map_err(failed("read", above))? {
        // Patterns are text; a name that is none is matched by what can be shown of it.
        match pattern::matches(part, &String::from_utf8_lossy(&name)) {
            Ok(true) => found.push(join(above, &name)),
            Ok(false) => {}
            Err(pattern::BadPattern) => {
                return Err(failed("syntax error in pattern", part.as_bytes())(rustix::io::Errno::INVAL));
            }
        }
    }
    Ok(())
}
