//! Paths below a root.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat, fstat, mkdirat, openat2};
use rustix::io::Errno;

use super::tree::{Owner, set_owner};
use super::{FileError, failed};

/// The root of a file system that others have written. Paths are resolved as if it were the root of all links.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Root<'a>(pub(in super::super) BorrowedFd<'a>);

/// `path` without empty parts, `.` and `..`, which leads nowhere above the root. Without a slash at both ends; empty for the root.
pub(in super::super) fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// The folder and the name of a clean path.
pub(in super::super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(at) => (path.get(..at).unwrap_or_default(), path.get(at + 1..).unwrap_or_default()),
        None => (b"", path),
    }
}

impl Root<'_> {
    /// Opens what is at `path`, links followed inside.
    pub(in super::super) fn open(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let path = if path.is_empty() { b"." } else { path };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        openat2(self.0, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
    }

    /// What is at `path`, links followed inside; `None` if nothing is.
    pub(in super::super) fn stat(&self, path: &[u8]) -> Result<Option<Stat>, FileError> {
        match self.open(path, OFlags::PATH) {
            Ok(file) => rustix::fs::fstat(&file).map(Some).map_err(failed("stat", path)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(failed("lstat", path)(errno)),
        }
    }

    /// Opens a folder to read it.
    pub(in super::super) fn open_folder(&self, path: &[u8]) -> Result<OwnedFd, FileError> {
        self.open(path, OFlags::RDONLY | OFlags::DIRECTORY).map_err(failed("open", path))
    }

    /// Opens the folder at a clean `path`; it and those above it are made if they are not there, with `mode` and owners (root if
    /// none). Whether it was made.
    pub(in super::super) fn ensure(
        &self,
        path: &[u8],
        (parents, owner): (Owner, Owner),
        mode: u32,
    ) -> Result<(OwnedFd, bool), FileError> {
        match self.open(path, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(folder) => return Ok((folder, false)),
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(failed("open", path)(errno)),
        }
        let (above, name) = split(path);
        let (parent, _) = self.ensure(above, (parents, parents), mode)?;
        match mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(failed("mkdir", path)(errno)),
        }
        let folder = self.open(path, OFlags::RDONLY | OFlags::DIRECTORY).map_err(failed("open", path))?;
        set_owner(&folder, owner).map_err(failed("chown", path))?;
        // What a folder inherits of its parent stays: the group's bit.
        let inherited = fstat(&folder).map_or(0, |stat| stat.st_mode & Mode::SGID.bits());
        let mode = Mode::from_raw_mode(mode | inherited);
        rustix::fs::fchmod(&folder, mode).map_err(failed("chmod", path))?;
        Ok((folder, true))
    }

    /// As [`Root::ensure`], with one owner for all that is made.
    pub(in super::super) fn ensure_all(
        &self,
        path: &[u8],
        owner: Owner,
        mode: u32,
    ) -> Result<(OwnedFd, bool), FileError> {
        self.ensure(path, (owner, owner), mode)
    }
}

/// Whether it is a folder.
pub(super) fn is_folder(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// The entries of a folder by name, `.` and `..` left out.
pub(super) fn names(folder: impl AsFd) -> Result<Vec<Vec<u8>>, Errno> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    names.sort_unstable();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_below() {
        for (path, expect) in [
            ("/a/./b//c/", "a/b/c"),
            ("../../x", "x"),
            ("/", ""),
            ("a/..", ""),
            (".", ""),
            ("a/../../b", "b"),
        ] {
            assert_eq!(clean(path), expect, "{path}");
        }
        assert_eq!(split(b"a/b/c"), (&b"a/b"[..], &b"c"[..]));
        assert_eq!(split(b"c"), (&b""[..], &b"c"[..]));
    }
}
