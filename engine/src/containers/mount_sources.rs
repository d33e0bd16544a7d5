//! The host's side of a container's mounts, made ready at each start: missing sources of binds, and
//! the first contents of volumes, copied from the image.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, openat, openat2};
use wherry_image_store::{Mountable, mount_detached};

use super::record::{MountExtra, Record};
use crate::engine::Engine;
use crate::error::Error;

/// Prepares all mounts. Blocking.
///
/// # Errors
/// With dockerd's text for a missing source; those of copying.
pub(super) fn prepare(engine: &Engine, record: &Record) -> Result<(), Error> {
    super::image_mounts::prepare(engine, record)?;
    let plain = MountExtra::default();
    for mount in &record.mounts {
        let extra = record.mount_extras.get(&mount.destination).unwrap_or(&plain);
        let source = Path::new(&mount.source);
        match mount.kind.as_str() {
            "bind" => prepare_bind(source, extra)?,
            "volume" => {
                crate::volumes::attach(engine, &mount.name, &record.id, &mount.destination, mount.rw)?;
                if extra.copy_up {
                    fill_volume(engine, record, &mount.destination, source)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Makes the source of a bind, if it is not there and may be made.
///
/// # Errors
/// With dockerd's text where it may not.
pub(super) fn prepare_bind(source: &Path, extra: &MountExtra) -> Result<(), Error> {
    if source.exists() {
        return Ok(());
    }
    if !extra.create_source {
        return Err(Error::InvalidParameter(format!(
            "invalid mount config for type \"bind\": bind source path does not exist: {}",
            source.display()
        )));
    }
    std::fs::create_dir_all(source).map_err(|e| {
        Error::server(format!("error while creating mount source path '{}': {e}", source.display()))
    })
}

/// Copies what the image has at `destination` into an empty volume.
fn fill_volume(engine: &Engine, record: &Record, destination: &str, volume: &Path) -> Result<(), Error> {
    let target = openat(CWD, volume, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| Error::io("open", volume.display())(e.into()))?;
    if entries(target.as_fd(), volume)?.next().is_some() {
        return Ok(());
    }
    let writable = engine.store.writable(&record.id)?;
    let root = mount_detached(Mountable::Writable(&writable))?;
    let below = destination.trim_start_matches('/');
    // In the root: `VOLUME /../..` and links of the image lead nowhere else (CVE-2022-23648).
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let source = match openat2(&root, below, flags, Mode::empty(), ResolveFlags::IN_ROOT) {
        Ok(source) => source,
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(()),
        Err(e) => return Err(Error::io("open", destination)(e.into())),
    };
    copy_folder(source.as_fd(), target.as_fd(), Path::new(destination))
}

type Entry = (std::ffi::CString, FileType);

fn entries(folder: BorrowedFd<'_>, shown: &Path) -> Result<impl Iterator<Item = Entry>, Error> {
    let fail = |e: rustix::io::Errno| Error::io("read", shown.display())(e.into());
    let mut found = Vec::new();
    for entry in Dir::read_from(folder).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            found.push((entry.file_name().to_owned(), entry.file_type()));
        }
    }
    Ok(found.into_iter())
}

/// Copies a folder's contents and its own owner, mode and times. No link is followed: names are opened one by one, each
/// in the folder that is open already.
fn copy_folder(source: BorrowedFd<'_>, target: BorrowedFd<'_>, shown: &Path) -> Result<(), Error> {
    for (name, kind) in entries(source, shown)? {
        let path = shown.join(std::ffi::OsStr::new(&*name.to_string_lossy()));
        copy_entry(source, target, &name, kind).map_err(|e| Error::io("copy", path.display())(e.into()))?;
        if kind == FileType::Directory {
            let open = |folder| openat(folder, &name, FOLDER, Mode::empty());
            let fail = |e: rustix::io::Errno| Error::io("open", path.display())(e.into());
            let (from, to) = (open(source).map_err(fail)?, open(target).map_err(fail)?);
            copy_folder(from.as_fd(), to.as_fd(), &path)?;
        }
    }
    let meta = rustix::fs::fstat(source).and_then(|stat| copy_metadata(target, &stat));
    meta.map_err(|e| Error::io("copy the attributes of", shown.display())(e.into()))
}

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

fn copy_entry(
    source: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    name: &std::ffi::CStr,
    kind: FileType,
) -> rustix::io::Result<()> {
    let stat = rustix::fs::statat(source, name, AtFlags::SYMLINK_NOFOLLOW)?;
    match kind {
        FileType::Directory => rustix::fs::mkdirat(target, name, Mode::from_raw_mode(0o700)),
        FileType::RegularFile => copy_file(source, target, name, &stat),
        FileType::Symlink => {
            let link = rustix::fs::readlinkat(source, name, Vec::new())?;
            rustix::fs::symlinkat(&link, target, name)?;
            own(target, name, &stat)
        }
        _ => {
            let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
            rustix::fs::mknodat(target, name, kind, mode, stat.st_rdev)?;
            own(target, name, &stat)?;
            rustix::fs::chmodat(target, name, mode, AtFlags::empty())
        }
    }
}

fn own(folder: BorrowedFd<'_>, name: &std::ffi::CStr, stat: &Stat) -> rustix::io::Result<()> {
    let (uid, gid) = (rustix::fs::Uid::from_raw(stat.st_uid), rustix::fs::Gid::from_raw(stat.st_gid));
    rustix::fs::chownat(folder, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
}

fn copy_file(
    source: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    name: &std::ffi::CStr,
    stat: &Stat,
) -> rustix::io::Result<()> {
    let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let from: OwnedFd = openat(source, name, read, Mode::empty())?;
    let to: OwnedFd = openat(target, name, write, Mode::from_raw_mode(0o600))?;
    let (mut reader, mut writer) = (std::fs::File::from(from), std::fs::File::from(to));
    std::io::copy(&mut reader, &mut writer)
        .map_err(|e| e.raw_os_error().map_or(rustix::io::Errno::IO, rustix::io::Errno::from_raw_os_error))?;
    copy_metadata(writer.as_fd(), stat)
}

fn copy_metadata(target: BorrowedFd<'_>, stat: &Stat) -> rustix::io::Result<()> {
    let (uid, gid) = (rustix::fs::Uid::from_raw(stat.st_uid), rustix::fs::Gid::from_raw(stat.st_gid));
    rustix::fs::fchown(target, Some(uid), Some(gid))?;
    // After the owner, whose change clears the setuid bit.
    rustix::fs::fchmod(target, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    let time = |seconds: i64, nanoseconds: u64| rustix::fs::Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or(0),
    };
    let times = rustix::fs::Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    };
    rustix::fs::futimens(target, &times)
}
