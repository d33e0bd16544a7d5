//! Finding and making what is mounted upon, inside the container's root and nowhere else.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::{At, Done};
use crate::error::Step;

/// Opens a path inside the root as `O_PATH`. Symbolic links are followed inside the root; those of
/// procfs that lead elsewhere are not.
pub(crate) fn open(root: BorrowedFd<'_>, path: &CStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let mut tries = 0;
    loop {
        match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            // somebody renames in the tree while we walk it; the kernel would not vouch for the result
            Err(Errno::AGAIN) if tries < 128 => tries += 1,
            other => return other,
        }
    }
}

/// A mount's target.
pub(crate) struct Target {
    pub(crate) fd: OwnedFd,
    /// Whether it was missing.
    pub(crate) made: bool,
}

/// Opens a mount's target, which is made if it is missing.
pub(crate) fn open_or_make(
    root: BorrowedFd<'_>,
    path: &CStr,
    folder: bool,
    follow: bool,
) -> Result<Target, Errno> {
    let mut flags = OFlags::PATH;
    if folder {
        flags |= OFlags::DIRECTORY;
    }
    if !follow {
        flags |= OFlags::NOFOLLOW;
    }
    match open(root, path, flags) {
        Err(Errno::NOENT) => {}
        other => return Ok(Target { fd: other?, made: false }),
    }
    let fd = with_parent(root, path, |parent, name| {
        if folder {
            match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
        } else {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            match rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o755)) {
                Ok(_) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
        }
        rustix::fs::openat(parent, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
    })?;
    Ok(Target { fd, made: true })
}

/// Calls `act` with the path's folder, which is made if it is missing, and its last component.
pub(crate) fn with_parent<T>(
    root: BorrowedFd<'_>,
    path: &CStr,
    act: impl FnOnce(BorrowedFd<'_>, &CStr) -> Result<T, Errno>,
) -> Result<T, Errno> {
    let bytes = path.to_bytes_with_nul();
    let mut prefix = [0_u8; libc::PATH_MAX as usize];
    if bytes.len() > prefix.len() {
        return Err(Errno::NAMETOOLONG);
    }
    let mut parent: Option<OwnedFd> = None;
    let mut start = 0; // of the current component
    for (at, byte) in bytes.iter().enumerate() {
        if *byte != b'/' {
            continue;
        }
        let (Some(to), Some(from)) = (prefix.get_mut(..at), bytes.get(..at)) else {
            return Err(Errno::INVAL);
        };
        to.copy_from_slice(from); // the byte after is still 0
        let whole = CStr::from_bytes_until_nul(&prefix).map_err(|_| Errno::INVAL)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let next = match open(root, whole, flags) {
            Err(Errno::NOENT) => {
                let name = prefix
                    .get(start..)
                    .and_then(|p| CStr::from_bytes_until_nul(p).ok())
                    .ok_or(Errno::INVAL)?;
                let at = parent.as_ref().map_or(root, AsFd::as_fd);
                match rustix::fs::mkdirat(at, name, Mode::from_raw_mode(0o755)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(errno) => return Err(errno),
                }
                rustix::fs::openat(at, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?
            }
            other => other?,
        };
        parent = Some(next);
        start = at + 1;
        if let Some(slash) = prefix.get_mut(at) {
            *slash = b'/';
        }
    }
    let name = bytes.get(start..).and_then(|n| CStr::from_bytes_with_nul(n).ok()).ok_or(Errno::INVAL)?;
    act(parent.as_ref().map_or(root, AsFd::as_fd), name)
}

/// Makes a symbolic link; one that is there already stays.
pub(crate) fn symlink<'p>(root: BorrowedFd<'_>, text: &CStr, path: &'p CStr) -> Done<'p> {
    with_parent(root, path, |parent, name| match rustix::fs::symlinkat(text, parent, name) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno),
    })
    .at(Step::Symlink, path)
}
