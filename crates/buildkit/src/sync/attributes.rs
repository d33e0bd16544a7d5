//! A file's properties between Go's `FileMode`, as they travel, and the kernel's.

use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, FileType, Gid, Mode, RawMode, Timespec, Timestamps, Uid, XattrFlags};

use super::Error;
use crate::pb::services::Stat;

const GO_DIR: u32 = 1 << 31;
const GO_SYMLINK: u32 = 1 << 27;
const GO_DEVICE: u32 = 1 << 26;
const GO_FIFO: u32 = 1 << 25;
const GO_SOCKET: u32 = 1 << 24;
const GO_SETUID: u32 = 1 << 23;
const GO_SETGID: u32 = 1 << 22;
const GO_CHAR_DEVICE: u32 = 1 << 21;
const GO_STICKY: u32 = 1 << 20;
const GO_TYPES: u32 =
    GO_DIR | GO_SYMLINK | GO_DEVICE | GO_FIFO | GO_SOCKET | GO_CHAR_DEVICE | (1 << 19/* irregular */);
const NANOS: i64 = 1_000_000_000;

/// The kind of a listed file, or none where it is unknown.
pub(super) fn kind(stat: &Stat) -> Option<FileType> {
    Some(match stat.mode & GO_TYPES {
        0 => FileType::RegularFile,
        GO_DIR => FileType::Directory,
        GO_SYMLINK => FileType::Symlink,
        GO_DEVICE => FileType::BlockDevice,
        kind if kind == GO_DEVICE | GO_CHAR_DEVICE => FileType::CharacterDevice,
        GO_FIFO => FileType::Fifo,
        GO_SOCKET => FileType::Socket,
        _ => return None,
    })
}

/// Its permissions, with set-id bits.
pub(super) fn permissions(stat: &Stat) -> Mode {
    let mut mode = Mode::from_raw_mode(stat.mode & 0o777);
    mode.set(Mode::SUID, stat.mode & GO_SETUID != 0);
    mode.set(Mode::SGID, stat.mode & GO_SETGID != 0);
    mode.set(Mode::SVTX, stat.mode & GO_STICKY != 0);
    mode
}

/// The mode of a file here, as it travels.
pub(super) fn go_mode(raw: RawMode) -> u32 {
    let kind = match FileType::from_raw_mode(raw) {
        FileType::Directory => GO_DIR,
        FileType::Symlink => GO_SYMLINK,
        FileType::BlockDevice => GO_DEVICE,
        FileType::CharacterDevice => GO_DEVICE | GO_CHAR_DEVICE,
        FileType::Fifo => GO_FIFO,
        FileType::Socket => GO_SOCKET,
        FileType::RegularFile | FileType::Unknown => 0,
    };
    let mode = Mode::from_raw_mode(raw);
    let mut bits = kind | (raw & 0o777);
    for (flag, bit) in [(Mode::SUID, GO_SETUID), (Mode::SGID, GO_SETGID), (Mode::SVTX, GO_STICKY)] {
        if mode.contains(flag) {
            bits |= bit;
        }
    }
    bits
}

/// Nanoseconds since the epoch of a file's change.
pub(super) fn changed_at(stat: &rustix::fs::Stat) -> i64 {
    let nanos = i64::try_from(stat.st_mtime_nsec).unwrap_or(0);
    stat.st_mtime.saturating_mul(NANOS).saturating_add(nanos)
}

/// Times for a listed file; the access time is the same, as fsutil has it.
fn times(stat: &Stat) -> Timestamps {
    let time =
        Timespec { tv_sec: stat.mod_time.div_euclid(NANOS), tv_nsec: stat.mod_time.rem_euclid(NANOS) as _ };
    Timestamps { last_access: time, last_modification: time }
}

/// Whether a file here is what is listed, content included as far as its size and time tell.
pub(super) fn same(here: &rustix::fs::Stat, listed: &Stat) -> bool {
    let kind_here = FileType::from_raw_mode(here.st_mode);
    Some(kind_here) == kind(listed)
        && here.st_uid == listed.uid
        && here.st_gid == listed.gid
        && changed_at(here) == listed.mod_time
        && (kind_here == FileType::Symlink || Mode::from_raw_mode(here.st_mode) == permissions(listed))
        && (kind_here != FileType::RegularFile || here.st_size == listed.size)
}

/// Gives an open file the listed owner, permissions, extended attributes and time.
pub(super) fn apply(file: BorrowedFd<'_>, stat: &Stat) -> Result<(), Error> {
    if stat.uid != 0 || stat.gid != 0 {
        rustix::fs::fchown(file, Some(Uid::from_raw(stat.uid)), Some(Gid::from_raw(stat.gid)))
            .map_err(Error::disk("set the owner of", &stat.path))?;
    }
    rustix::fs::fchmod(file, permissions(stat)).map_err(Error::disk("set the mode of", &stat.path))?;
    for (name, value) in &stat.xattrs {
        // Overlayfs' own attributes would change what a layer means. Capabilities of a client's files do not come along: with
        // BuildKit they are lost when the owner is set. The rest a file system may lack: as BuildKit, go on.
        if !name.starts_with("user.") || name.starts_with("user.overlay.") {
            continue;
        }
        if let Err(error) = rustix::fs::fsetxattr(file, name.as_str(), value, XattrFlags::empty()) {
            tracing::debug!(path = stat.path, name, %error, "attribute not set");
        }
    }
    rustix::fs::futimens(file, &times(stat)).map_err(Error::disk("set the time of", &stat.path))
}

/// Gives what cannot be opened (links, devices) the listed owner and time.
pub(super) fn apply_at(folder: BorrowedFd<'_>, name: &str, stat: &Stat) -> Result<(), Error> {
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    if stat.uid != 0 || stat.gid != 0 {
        rustix::fs::chownat(
            folder,
            name,
            Some(Uid::from_raw(stat.uid)),
            Some(Gid::from_raw(stat.gid)),
            flags,
        )
        .map_err(Error::disk("set the owner of", &stat.path))?;
    }
    rustix::fs::utimensat(folder, name, &times(stat), flags)
        .map_err(Error::disk("set the time of", &stat.path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_survive() {
        for raw in [0o100_644, 0o104_755, 0o102_755, 0o041_777, 0o120_777, 0o060_600, 0o020_600, 0o010_600] {
            let stat = Stat { mode: go_mode(raw), ..Stat::default() };
            assert_eq!(kind(&stat), Some(FileType::from_raw_mode(raw)), "{raw:o}");
            assert_eq!(permissions(&stat).as_raw_mode(), raw & 0o7777, "{raw:o}");
        }
        assert_eq!(go_mode(0o040_755), 2_147_484_141, "what buildx sends for a folder");
        assert_eq!(kind(&Stat { mode: GO_DIR | GO_SYMLINK, ..Stat::default() }), None);
    }
}
