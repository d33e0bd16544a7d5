//! Comparing a container's upper folder with what lies below it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, openat, statat};
use rustix::io::Errno;

use super::attributes;
use super::folder::{Child, MAX_DEPTH, children, join, open_child};

/// A path that is not as it is in the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Absolute, in the container. Not necessarily UTF-8.
    pub path: Vec<u8>,
    /// What happened to it.
    pub kind: ChangeKind,
}

/// What happened to a path. The numbers are those of Docker's API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is another file, or has other metadata; of folders also: something in it has changed.
    Modified = 0,
    /// It was not there.
    Added = 1,
    /// It is not there any more.
    Deleted = 2,
}

/// A folder that is being compared.
struct Level {
    upper: OwnedFd,
    /// The same folder below, unless it is hidden or was none.
    lower: Option<OwnedFd>,
    path: Vec<u8>,
    left: std::vec::IntoIter<Child>,
    deleted: Vec<Vec<u8>>,
    /// Where this folder's own line belongs, if it has none yet.
    place: Option<usize>,
}

/// Compares two folders with all in them. `lower` shows all layers below as one.
pub(super) fn compare(upper: OwnedFd, lower: OwnedFd) -> io::Result<Vec<Change>> {
    let mut found = Vec::new();
    let mut open = vec![Level::new(upper, Some(lower), Vec::new(), None)?];
    while let Some(level) = open.last_mut() {
        let Some(child) = level.left.next() else {
            if let Some(done) = open.pop() {
                done.end(&mut found);
            }
            continue;
        };
        let path = join(&level.path, &child.name);
        let below = level.below(&child)?;
        if child.is_whiteout() {
            // Deletions come last in their folder.
            level.deleted.extend(below.map(|_| path));
            continue;
        }
        let same = match &below {
            None => {
                found.push(change(&path, ChangeKind::Added));
                false
            }
            Some(below) if level.differs(&child, below)? => {
                found.push(change(&path, ChangeKind::Modified));
                false
            }
            Some(_) => true,
        };
        if !child.is_folder() {
            continue;
        }
        let Some(folder) = open_child(&level.upper, &child.name)? else { continue };
        let was_folder =
            below.is_some_and(|below| FileType::from_raw_mode(below.st_mode) == FileType::Directory);
        let lower = match &level.lower {
            Some(lower) if was_folder => open_child(lower, &child.name)?,
            _ => None,
        };
        if open.len() == MAX_DEPTH {
            return Err(Errno::NAMETOOLONG.into());
        }
        let place = same.then_some(found.len());
        open.push(Level::new(folder, lower, path, place)?);
    }
    Ok(found)
}

fn change(path: &[u8], kind: ChangeKind) -> Change {
    Change { path: [b"/", path].concat(), kind }
}

impl Level {
    fn new(
        upper: OwnedFd,
        lower: Option<OwnedFd>,
        path: Vec<u8>,
        place: Option<usize>,
    ) -> Result<Self, Errno> {
        let own = children(&upper)?;
        let mut deleted = Vec::new();
        if let Some(lower) = &lower
            && attributes::is_opaque(&upper)?
        {
            // Of what was below, only that has remained which was made again.
            let remains = |child: &Child| own.binary_search_by(|other| other.name.cmp(&child.name)).is_ok();
            let below = children(reopen(lower)?)?;
            deleted
                .extend(below.iter().filter(|child| !remains(child)).map(|child| join(&path, &child.name)));
        }
        Ok(Self { upper, lower, path, left: own.into_iter(), deleted, place })
    }

    /// What this folder has under the child's name below.
    fn below(&self, child: &Child) -> Result<Option<Stat>, Errno> {
        let Some(lower) = &self.lower else { return Ok(None) };
        match statat(lower, &*child.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// As dockerd: size and time of folders do not count, and capabilities do.
    fn differs(&self, child: &Child, below: &Stat) -> Result<bool, Errno> {
        let (new, old) = (&child.stat, below);
        if new.st_mode != old.st_mode
            || (new.st_uid, new.st_gid) != (old.st_uid, old.st_gid)
            || new.st_rdev != old.st_rdev
        {
            return Ok(true);
        }
        if child.is_folder() {
            return Ok(false);
        }
        if new.st_size != old.st_size || !same_time(new, old) {
            return Ok(true);
        }
        if child.kind() != FileType::RegularFile {
            return Ok(false);
        }
        let capability = |folder: &OwnedFd| {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            attributes::capability(openat(folder, &*child.name, flags, Mode::empty())?)
        };
        match &self.lower {
            Some(lower) => Ok(capability(&self.upper)? != capability(lower)?),
            None => Ok(true),
        }
    }

    /// Adds what can be said at the end only.
    fn end(self, found: &mut Vec<Change>) {
        found.extend(self.deleted.iter().map(|path| change(path, ChangeKind::Deleted)));
        if let Some(place) = self.place.filter(|place| *place < found.len()) {
            found.insert(place, change(&self.path, ChangeKind::Modified));
        }
    }
}

/// Times without nanoseconds come from archives that have none.
fn same_time(one: &Stat, other: &Stat) -> bool {
    let nanos = (one.st_mtime_nsec, other.st_mtime_nsec);
    one.st_mtime == other.st_mtime && (nanos.0 == nanos.1 || nanos.0 == 0 || nanos.1 == 0)
}

/// A detached mount is a path only; this can be read.
pub(super) fn reopen(folder: impl AsFd) -> Result<OwnedFd, Errno> {
    openat(folder, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}
