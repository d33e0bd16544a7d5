//! Finding the folder that an entry belongs to, without ever leaving the layer.
//!
//! Symbolic links in the middle of a path are followed, as dockerd does, but by the kernel and as
//! if the layer were the root (`openat2`, RESOLVE_IN_ROOT), so neither `..` nor an absolute link
//! leads out. The last component of a path is never followed.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, chmodat, mkdirat, openat2};
use rustix::io::Errno;

use super::{UnpackError, display, failed};

/// Folders that the archive uses but does not have an entry for.
const IMPLIED_MODE: u32 = 0o755;

/// Opens folders of a layer, and remembers the last one: archives list folder by folder.
#[derive(Debug)]
pub(crate) struct Folders {
    root: OwnedFd,
    resolve: ResolveFlags,
    last: Option<(Vec<u8>, OwnedFd)>,
}

impl Folders {
    /// Below `root`, on its own file system.
    pub(crate) fn new(root: OwnedFd) -> Self {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        Self { root, resolve, last: None }
    }

    /// Below `root`, and in what is mounted there.
    pub(crate) fn with_mounts(root: OwnedFd) -> Self {
        Self { root, resolve: ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS, last: None }
    }

    /// To be called when a folder or link was removed: the remembered one may have been it.
    pub(crate) fn forget(&mut self) {
        self.last = None;
    }

    /// The folder at `path`, made with all above it if it is not there.
    pub(crate) fn ensure(&mut self, path: &[u8]) -> Result<BorrowedFd<'_>, UnpackError> {
        if self.last.as_ref().is_none_or(|(known, _)| known != path) {
            let folder = match self.open(path) {
                Err(Errno::NOENT) => self.make(path)?,
                opened => opened.map_err(failed("open", path))?,
            };
            self.last = Some((path.to_vec(), folder));
        }
        Ok(self.last.as_ref().map_or(self.root.as_fd(), |(_, folder)| folder.as_fd()))
    }

    /// The folder at `path`, which must be there.
    /// All links are resolved as if the root were theirs.
    pub(crate) fn open(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let path = if path.is_empty() { b"." } else { path };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat2(&self.root, path, flags, Mode::empty(), self.resolve)
    }

    fn make(&self, path: &[u8]) -> Result<OwnedFd, UnpackError> {
        let mut folder = self.open(b"").map_err(failed("open", path))?;
        let ends = path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at).chain([path.len()]);
        let mut start = 0;
        for end in ends {
            let (so_far, name) =
                (path.get(..end).unwrap_or_default(), path.get(start..end).unwrap_or_default());
            start = end + 1;
            folder = match self.open(so_far) {
                Err(Errno::NOENT) => {
                    let mode = Mode::from_raw_mode(IMPLIED_MODE);
                    mkdirat(&folder, name, mode).map_err(failed("mkdir", so_far))?;
                    // Whatever our umask is; made a moment ago, so it is no link.
                    chmodat(&folder, name, mode, AtFlags::empty()).map_err(failed("chmod", so_far))?;
                    self.open(so_far).map_err(failed("open", so_far))?
                }
                opened => opened.map_err(failed("open", so_far))?,
            };
        }
        Ok(folder)
    }
}

/// Makes a path of an archive plain: no empty, `.` or `..` components, relative to the layer.
/// An empty result is the layer's own folder.
pub(crate) fn clean(path: &[u8]) -> Result<Vec<u8>, UnpackError> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop().ok_or_else(|| UnpackError::Escapes { path: display(path) })?;
            }
            part => parts.push(part),
        }
    }
    Ok(parts.join(&b'/'))
}

/// Parent and name of a clean path.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(slash) => (path.get(..slash).unwrap_or_default(), path.get(slash + 1..).unwrap_or_default()),
        None => (b"", path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_and_may_not_escape() {
        let check = |path: &str, expect: Option<&str>| {
            let cleaned = clean(path.as_bytes()).ok().map(|p| String::from_utf8(p).unwrap());
            assert_eq!(cleaned.as_deref(), expect, "{path}");
        };
        check("./", Some(""));
        check("/", Some(""));
        check("./a//b/./c/", Some("a/b/c"));
        check("/etc/passwd", Some("etc/passwd"));
        check("a/../b", Some("b"));
        check("a/../..", None);
        check("../a", None);
        check("/../a", None);
        assert_eq!(split(b"a/b/c"), (&b"a/b"[..], &b"c"[..]));
        assert_eq!(split(b"c"), (&b""[..], &b"c"[..]));
    }
}
