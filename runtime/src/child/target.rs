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
    let fd = with_parent(root, path, follow, |parent, name| {
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

/// Calls `act` with the path's folder, which is made if it is missing, and its last component. A symbolic link that leads
/// nowhere is followed to where it would lead inside the root (the last component's with `follow` only), as runc does it:
/// images have such links for files that are mounted.
pub(crate) fn with_parent<T>(
    root: BorrowedFd<'_>,
    path: &CStr,
    follow: bool,
    act: impl FnOnce(BorrowedFd<'_>, &CStr) -> Result<T, Errno>,
) -> Result<T, Errno> {
    let mut walk = Walk::new(path)?;
    let parent = walk.open_parent(root, follow)?;
    act(parent.as_ref().map_or(root, AsFd::as_fd), name(&walk.path, walk.start)?)
}

/// How many links that lead nowhere are followed; the kernel follows so many others.
const LINKS_MAX: u32 = 40;

/// A path inside the root that is gone along component by component, made as it is missing.
struct Walk {
    /// NUL-terminated; links that lead nowhere have been replaced by what they say.
    path: [u8; libc::PATH_MAX as usize],
    /// Where the current component begins.
    start: usize,
    /// What the last link says, NUL-terminated.
    link: [u8; libc::PATH_MAX as usize],
    /// Links that have been replaced.
    links: u32,
}

/// What a component of a path is.
enum Component {
    Folder(OwnedFd),
    /// A link that leads nowhere; what it says is in [`Walk::link`].
    Link,
    /// The last one, which is for others to make.
    Last,
}

impl Walk {
    fn new(path: &CStr) -> Result<Self, Errno> {
        let empty = [0; libc::PATH_MAX as usize];
        let mut walk = Walk { path: empty, start: 0, link: empty, links: 0 };
        append(&mut walk.path, path.to_bytes())?;
        Ok(walk)
    }

    /// Opens the folder of the last component; `None` for the root itself.
    fn open_parent(&mut self, root: BorrowedFd<'_>, follow: bool) -> Result<Option<OwnedFd>, Errno> {
        let mut parent: Option<OwnedFd> = None;
        loop {
            let rest = self.path.get(self.start..).ok_or(Errno::INVAL)?;
            let length = rest.iter().position(|b| matches!(b, b'/' | 0)).ok_or(Errno::INVAL)?;
            let end = self.start + length;
            let last = self.path.get(end) == Some(&0);
            if last && !follow {
                return Ok(parent);
            }
            if length > 0 {
                self.put(end, 0);
                let component = self.look(root, parent.as_ref().map_or(root, AsFd::as_fd), last)?;
                self.put(end, if last { 0 } else { b'/' });
                match component {
                    Component::Folder(folder) => parent = Some(folder),
                    Component::Last => return Ok(parent),
                    Component::Link => {
                        self.replace(end)?;
                        parent = None;
                        continue;
                    }
                }
            }
            self.start = end + 1;
        }
    }

    /// Looks at the current component, after which the path ends for now; makes a folder that is missing.
    fn look(&mut self, root: BorrowedFd<'_>, parent: BorrowedFd<'_>, last: bool) -> Result<Component, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        if !last {
            let whole = CStr::from_bytes_until_nul(&self.path).map_err(|_| Errno::INVAL)?;
            match open(root, whole, flags) {
                Err(Errno::NOENT) => {}
                other => return other.map(Component::Folder),
            }
        }
        let name = name(&self.path, self.start)?;
        self.link = [0; libc::PATH_MAX as usize];
        let (_, room) = self.link.split_last_mut().ok_or(Errno::INVAL)?;
        match rustix::fs::readlinkat_raw(parent, name, room) {
            Ok(_) => return Ok(Component::Link),
            // it is something else, or nothing
            Err(Errno::INVAL | Errno::NOENT) if last => return Ok(Component::Last),
            Err(Errno::INVAL | Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
        match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(parent, name, flags, Mode::empty()).map(Component::Folder)
    }

    /// Puts what the link says in the place of the current component, which ends at `end`, and begins anew.
    fn replace(&mut self, end: usize) -> Result<(), Errno> {
        self.links += 1;
        if self.links > LINKS_MAX {
            return Err(Errno::LOOP);
        }
        let mut text = CStr::from_bytes_until_nul(&self.link).map_err(|_| Errno::NAMETOOLONG)?.to_bytes();
        while let Some(without_slash) = text.strip_suffix(b"/") {
            text = without_slash;
        }
        let before = if text.starts_with(b"/") { Some(&[][..]) } else { self.path.get(..self.start) };
        let after = self.path.get(end..).and_then(|after| CStr::from_bytes_until_nul(after).ok());
        let (Some(before), Some(after)) = (before, after) else { return Err(Errno::INVAL) };
        let mut path = [0; libc::PATH_MAX as usize];
        let mut length = 0;
        for part in [before, text, after.to_bytes()] {
            length += append(path.get_mut(length..).ok_or(Errno::NAMETOOLONG)?, part)?;
        }
        (self.path, self.start) = (path, 0);
        Ok(())
    }

    fn put(&mut self, at: usize, byte: u8) {
        if let Some(place) = self.path.get_mut(at) {
            *place = byte;
        }
    }
}

/// The component that begins at `start`, which is looked for in its folder and so must be a name: `..` would lead out of it.
fn name(path: &[u8], start: usize) -> Result<&CStr, Errno> {
    let name = path.get(start..).ok_or(Errno::INVAL)?;
    let name = CStr::from_bytes_until_nul(name).map_err(|_| Errno::INVAL)?;
    if matches!(name.to_bytes(), b"" | b"." | b"..") { Err(Errno::NOENT) } else { Ok(name) }
}

/// Copies to the begin of a buffer of zeros, of which one must be left. Gives the length.
fn append(buffer: &mut [u8], part: &[u8]) -> Result<usize, Errno> {
    let room = buffer.len().checked_sub(1).and_then(|most| buffer.get_mut(..most)).unwrap_or_default();
    room.get_mut(..part.len()).ok_or(Errno::NAMETOOLONG)?.copy_from_slice(part);
    Ok(part.len())
}

/// Makes a symbolic link; one that is there already stays.
pub(crate) fn symlink<'p>(root: BorrowedFd<'_>, text: &CStr, path: &'p CStr) -> Done<'p> {
    with_parent(root, path, false, |parent, name| match rustix::fs::symlinkat(text, parent, name) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno),
    })
    .at(Step::Symlink, path)
}
