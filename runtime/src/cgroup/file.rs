//! Reading and writing the small files of cgroups.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use crate::Error;

/// Writes a value in one `write`, as the kernel wants it.
pub(crate) fn write(folder: &Path, name: &str, value: &str) -> Result<(), Error> {
    let path = folder.join(name);
    let result = rustix::fs::openat(CWD, &path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
        .and_then(|file| rustix::io::write(&file, value.as_bytes()));
    match result {
        Ok(_) => Ok(()),
        Err(Errno::NOENT) if exists(folder, "cgroup.procs") => Err(super::missing::error(folder, name)),
        Err(errno) => Err(Error::system("write", format!("{value:?} to {}", path.display()), errno)),
    }
}

/// Whether the folder has that file.
pub(crate) fn exists(folder: &Path, name: &str) -> bool {
    rustix::fs::access(folder.join(name), rustix::fs::Access::EXISTS).is_ok()
}

/// A file's text; `None` if there is no such file (or the kernel will not say it).
pub(crate) fn read(folder: &Path, name: &str) -> Option<String> {
    std::fs::read_to_string(folder.join(name)).ok()
}

/// A file with one number; `max` is `u64::MAX`. `None` if there is none.
pub(crate) fn read_number(folder: &Path, name: &str) -> Option<u64> {
    number(read(folder, name)?.trim())
}

/// A number, or `max`.
pub(crate) fn number(text: &str) -> Option<u64> {
    if text == "max" { Some(u64::MAX) } else { text.parse().ok() }
}

/// The lines `key value` of a file.
pub(crate) fn pairs(text: &str) -> impl Iterator<Item = (&str, u64)> {
    text.lines().filter_map(|line| {
        let (key, value) = line.split_once(' ')?;
        Some((key, number(value.trim())?))
    })
}

/// Opens for writing.
pub(crate) fn open_write(path: &Path) -> Result<OwnedFd, Error> {
    rustix::fs::openat(CWD, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| Error::system("open", path.display(), errno))
}

/// Opens a folder.
pub(crate) fn open_folder(path: &Path) -> Result<OwnedFd, Error> {
    rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| Error::system("open", path.display(), errno))
}

/// Makes a folder and those above it that are missing. Says whether the folder itself is new.
pub(crate) fn make_folder(path: &Path) -> Result<bool, Error> {
    let mode = Mode::from_raw_mode(0o755);
    match rustix::fs::mkdirat(CWD, path, mode) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(Errno::NOENT) => {
            if let Some(parent) = path.parent() {
                make_folder(parent)?;
            }
            match rustix::fs::mkdirat(CWD, path, mode) {
                Ok(()) => Ok(true),
                Err(Errno::EXIST) => Ok(false),
                Err(errno) => Err(Error::system("make cgroup", path.display(), errno)),
            }
        }
        Err(errno) => Err(Error::system("make cgroup", path.display(), errno)),
    }
}
