//! `tmpcopyup`: a tmpfs that begins with what it covers.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, RawDir, Stat, Uid};
use rustix::io::Errno;

/// How deep folders may be nested: each level takes a part of the stack.
const MAX_DEPTH: u32 = 64;

/// Copies the content of one folder to another, with owners and permissions, links as links.
pub(crate) fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let from = rustix::fs::openat(from, c".", flags, Mode::empty())?;
    copy_folder(&from, to, MAX_DEPTH)
}

fn copy_folder(from: &OwnedFd, to: BorrowedFd<'_>, depth: u32) -> Result<(), Errno> {
    let depth = depth.checked_sub(1).ok_or(Errno::LOOP)?;
    let mut buffer = [MaybeUninit::<u8>::uninit(); 2048];
    let mut entries = RawDir::new(from, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            copy_entry(from, to, name, depth)?;
        }
    }
    Ok(())
}

fn copy_entry(from: &OwnedFd, to: BorrowedFd<'_>, name: &CStr, depth: u32) -> Result<(), Errno> {
    let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            rustix::fs::mkdirat(to, name, mode)?;
            let source =
                rustix::fs::openat(from, name, flags | OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
            let copy =
                rustix::fs::openat(to, name, flags | OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
            copy_folder(&source, copy.as_fd(), depth)?;
            own(to, name, &stat)?;
            rustix::fs::fchmod(copy, mode)
        }
        FileType::RegularFile => {
            let source = rustix::fs::openat(from, name, flags | OFlags::RDONLY, Mode::empty())?;
            let copy =
                rustix::fs::openat(to, name, flags | OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL, mode)?;
            while rustix::fs::sendfile(&copy, &source, None, 1 << 20)? != 0 {}
            own(to, name, &stat)?;
            rustix::fs::fchmod(copy, mode)
        }
        FileType::Symlink => {
            let mut text = [MaybeUninit::<u8>::uninit(); libc::PATH_MAX as usize];
            let (text, rest) = rustix::fs::readlinkat_raw(from, name, &mut text)?;
            let end = rest.first_mut().ok_or(Errno::NAMETOOLONG)?;
            end.write(0);
            symlink(text, to, name)?;
            own(to, name, &stat)
        }
        kind => {
            rustix::fs::mknodat(to, name, kind, mode, stat.st_rdev)?;
            own(to, name, &stat)
        }
    }
}

fn symlink(text: &[u8], to: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    let mut buffer = [0_u8; libc::PATH_MAX as usize];
    buffer.get_mut(..text.len()).ok_or(Errno::NAMETOOLONG)?.copy_from_slice(text);
    let text = CStr::from_bytes_until_nul(&buffer).map_err(|_| Errno::NAMETOOLONG)?;
    rustix::fs::symlinkat(text, to, name)
}

fn own(to: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> Result<(), Errno> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
}
