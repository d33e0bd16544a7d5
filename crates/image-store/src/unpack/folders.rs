//! Finding the folder that an entry belongs to, without ever leaving the layer.
//!
//! Symbolic links in the middle of a path are followed, as dockerd does, but by the kernel and as
//! if the layer were the root (`openat2`, RESOLVE_IN_ROOT), so neither `..` nor an absolute link
//! leads out. The last component of a path is never followed.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, chmodat, mkdirat, openat2, readlinkat};
use rustix::io::Errno;

use super::{UnpackError, display, failed};

/// Folders that the archive uses but does not have an entry for.
const IMPLIED_MODE: u32 = 0o755;
/// As many links as the kernel follows.
const MAX_LINKS: u32 = 40;

/// So many folders are kept open: archives go back and forth between a few.
const MAX_OPEN: usize = 128;

/// Opens folders of a layer, and remembers them.
#[derive(Debug)]
pub(crate) struct Folders {
    root: OwnedFd,
    resolve: ResolveFlags,
    /// So many links whose targets are not there are followed, and their targets made.
    links: u32,
    open: HashMap<Vec<u8>, OwnedFd>,
}

impl Folders {
    /// Below `root`, on its own file system.
    pub(crate) fn new(root: OwnedFd) -> Self {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        Self { root, resolve, links: 0, open: HashMap::new() }
    }

    /// Below `root`, and in what is mounted there. As with `docker cp` to dockerd, links lead to folders that are made then.
    pub(crate) fn with_mounts(root: OwnedFd) -> Self {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        Self { root, resolve, links: MAX_LINKS, open: HashMap::new() }
    }

    /// To be called when a folder or link was removed: a remembered one may have been it, or below it.
    pub(crate) fn forget(&mut self) {
        self.open.clear();
    }

    /// The folder at `path`, made with all above it if it is not there.
    pub(crate) fn ensure(&mut self, path: &[u8]) -> Result<BorrowedFd<'_>, UnpackError> {
        if !self.open.contains_key(path) {
            let folder = match self.open(path) {
                Err(Errno::NOENT) => self.make(path)?,
                opened => opened.map_err(failed("open", path))?,
            };
            if self.open.len() == MAX_OPEN {
                self.open.clear();
            }
            self.open.insert(path.to_vec(), folder);
        }
        Ok(self.open.get(path).map_or(self.root.as_fd(), OwnedFd::as_fd))
    }

    /// The folder at `path`, which must be there.
    /// All links are resolved as if the root were theirs.
    pub(crate) fn open(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let path = if path.is_empty() { b"." } else { path };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat2(&self.root, path, flags, Mode::empty(), self.resolve)
    }

    fn make(&self, path: &[u8]) -> Result<OwnedFd, UnpackError> {
        self.make_through(path, self.links)
    }

    /// Also makes the folder that a link leads to, where it is not there; at most so many links deep.
    fn make_through(&self, path: &[u8], links: u32) -> Result<OwnedFd, UnpackError> {
        let mut folder = self.open(b"").map_err(failed("open", path))?;
        let ends = path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at).chain([path.len()]);
        let mut start = 0;
        for end in ends {
            let (so_far, name) =
                (path.get(..end).unwrap_or_default(), path.get(start..end).unwrap_or_default());
            let parent = path.get(..start.saturating_sub(1)).unwrap_or_default();
            start = end + 1;
            folder = match self.open(so_far) {
                Err(Errno::NOENT) => match mkdirat(&folder, name, Mode::from_raw_mode(IMPLIED_MODE)) {
                    Err(Errno::EXIST) => {
                        let left =
                            links.checked_sub(1).ok_or(Errno::EXIST).map_err(failed("mkdir", so_far))?;
                        let link = readlinkat(&folder, name, Vec::new()).map_err(failed("open", so_far))?;
                        self.make_through(&led_to(parent, link.as_bytes()), left)?
                    }
                    made => {
                        made.map_err(failed("mkdir", so_far))?;
                        let mode = Mode::from_raw_mode(IMPLIED_MODE);
                        // Whatever our umask is; made a moment ago, so it is no link.
                        chmodat(&folder, name, mode, AtFlags::empty()).map_err(failed("chmod", so_far))?;
                        self.open(so_far).map_err(failed("open", so_far))?
                    }
                },
                opened => opened.map_err(failed("open", so_far))?,
            };
        }
        Ok(folder)
    }
}

/// Where a link in the folder `parent` leads to, if nothing on the way is a link. Above the root there is the root.
fn led_to(parent: &[u8], link: &[u8]) -> Vec<u8> {
    let start = if link.starts_with(b"/") { &[][..] } else { parent };
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in start.split(|b| *b == b'/').chain(link.split(|b| *b == b'/')) {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join(&b'/')
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
