//! Removing by descriptors.

use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;

use super::Error;

/// How folders are entered: never through a link.
pub(super) const ENTER: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The names in a folder.
pub(super) fn names(folder: BorrowedFd<'_>, path: &str) -> Result<Vec<String>, Error> {
    let mut found = Vec::new();
    let entries = Dir::read_from(folder).map_err(Error::disk("list", path))?;
    for entry in entries {
        let entry = entry.map_err(Error::disk("list", path))?;
        match entry.file_name().to_str() {
            Ok("." | "..") => {}
            Ok(name) => found.push(name.to_string()),
            // What travels is text: nothing else was ever put into such a folder, and images may have it.
            Err(_) => {
                let name = entry.file_name().to_string_lossy().into_owned();
                return Err(Error::Path { path: format!("{path}/{name}"), reason: "it is not valid UTF-8" });
            }
        }
    }
    Ok(found)
}

/// Removes a file or a whole folder; what is not there is no error.
pub(super) fn remove(folder: BorrowedFd<'_>, name: &str, path: &str) -> Result<(), Error> {
    match rustix::fs::unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(Error::disk("remove", path)(errno)),
    }
    let inner = rustix::fs::openat(folder, name, ENTER, Mode::empty()).map_err(Error::disk("enter", path))?;
    for child in names(rustix::fd::AsFd::as_fd(&inner), path)? {
        remove(rustix::fd::AsFd::as_fd(&inner), &child, path)?;
    }
    rustix::fs::unlinkat(folder, name, AtFlags::REMOVEDIR).map_err(Error::disk("remove", path))
}
