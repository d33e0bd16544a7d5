//! The entries of one folder, and the way down.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, openat, statat};
use rustix::io::Errno;

/// How folders are opened: a link in its place is refused.
pub(super) const FLAGS: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Deepest nesting that is walked: as deep as the longest path that Linux takes.
pub(super) const MAX_DEPTH: usize = 2048;

/// An entry of a folder.
#[derive(Debug, Clone)]
pub(super) struct Child {
    pub(super) name: Vec<u8>,
    pub(super) stat: Stat,
}

impl Child {
    pub(super) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    pub(super) fn is_folder(&self) -> bool {
        self.kind() == FileType::Directory
    }

    /// Whether overlayfs means by it that nothing is here.
    pub(super) fn is_whiteout(&self) -> bool {
        self.kind() == FileType::CharacterDevice && self.stat.st_rdev == 0
    }
}

/// All that is in a folder, sorted by name. What vanishes meanwhile is left out.
pub(super) fn children(folder: impl AsFd) -> Result<Vec<Child>, Errno> {
    let mut children = Vec::new();
    for entry in rustix::fs::Dir::read_from(&folder)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        match statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => children.push(Child { name: name.to_vec(), stat }),
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    children.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(children)
}

/// The folder `name` in `parent`, `None` if it is gone or is no folder any more.
pub(super) fn open_child(parent: &OwnedFd, name: &[u8]) -> Result<Option<OwnedFd>, Errno> {
    match openat(parent, name, FLAGS, Mode::empty()) {
        Ok(folder) => Ok(Some(folder)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// `path` with `name` below it.
pub(super) fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    match path {
        b"" => name.to_vec(),
        b"/" => [path, name].concat(),
        path => [path, b"/", name].concat(),
    }
}
