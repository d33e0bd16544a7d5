//! Making the files of a layer, entry by entry.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{
    AtFlags, Dev, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags, chownat, fchmod,
    fchown, fsetxattr, futimens, linkat, makedev, mkdirat, mknodat, openat, setxattr, statat, symlinkat,
    unlinkat, utimensat,
};
use rustix::io::Errno;

use super::folders::{Folders, clean, split};
use super::record::Record;
use super::{UnpackError, display, failed};
use crate::tar::{Entry, Kind, Reader, Region, Tap, TarError, truncated};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Notes of aufs; they mean nothing to anybody else.
const AUFS: &[u8] = b".wh..wh.";
const OPAQUE_ATTRIBUTE: &str = "trusted.overlay.opaque";
/// Most bytes of the paths of all folders together.
const MAX_LATER: usize = 32 << 20;
const BUFFER_BYTES: usize = 128 << 10;

/// How a layer differs from other archives.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rules {
    /// Names that begin with `.wh.` are files like others.
    pub(crate) no_whiteouts: bool,
    /// Folders and other files do not replace each other.
    pub(crate) keep_kinds: bool,
    /// Everything belongs to this user and group, whatever the archive says.
    pub(crate) owner: Option<(u32, u32)>,
}

/// The folder that a layer is unpacked into. Its own metadata stay as they are, as with dockerd.
pub(crate) struct Target {
    folders: Folders,
    rules: Rules,
    /// Mode and time of folders, set at the end: what comes later in the archive changes the times,
    /// and a folder's own rights must not be in the way.
    later: HashMap<Vec<u8>, (Mode, Timestamps)>,
    /// Bytes of the paths in it.
    later_bytes: usize,
    size_bytes: u64,
    buffer: Box<[u8]>,
}

/// Owner, mode and time of an entry, checked.
struct Metadata {
    uid: Uid,
    gid: Gid,
    mode: Mode,
    times: Timestamps,
}

type Source<'a, R, T> = &'a mut Reader<R, T>;

impl Target {
    pub(crate) fn new(folders: Folders, rules: Rules) -> Self {
        Self {
            folders,
            rules,
            later: HashMap::new(),
            later_bytes: 0,
            size_bytes: 0,
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
        }
    }

    /// Makes the file that `entry` describes; one that stands in the way is replaced.
    pub(crate) fn apply<R: Read, T: Record>(
        &mut self,
        entry: &Entry,
        source: Source<'_, R, T>,
    ) -> Result<(), UnpackError> {
        let path = clean(&entry.path)?;
        let (parent, name) = split(&path);
        if name.is_empty() {
            return Ok(()); // dockerd leaves the layer's own folder as it is
        }
        if name.starts_with(WHITEOUT) && !self.rules.no_whiteouts {
            return self.whiteout(parent, name);
        }
        let metadata = Metadata::of(entry, self.rules.owner)?;
        match entry.kind {
            Kind::File => self.file(entry, &path, &metadata, source),
            Kind::Folder => self.folder(entry, &path, &metadata),
            Kind::HardLink => self.hard_link(entry, &path),
            Kind::Symlink => self.symlink(entry, &path, &metadata),
            Kind::CharDevice => self.node(entry, &path, &metadata, FileType::CharacterDevice),
            Kind::BlockDevice => self.node(entry, &path, &metadata, FileType::BlockDevice),
            Kind::Fifo => self.node(entry, &path, &metadata, FileType::Fifo),
            Kind::Other(flag) => Err(UnpackError::Kind { path: display(&path), flag }),
            Kind::GnuLongName | Kind::GnuLongLink | Kind::GnuSparse | Kind::Pax | Kind::PaxGlobal => Ok(()),
        }
    }

    /// Sets what had to wait. Returns the size of all files.
    pub(crate) fn finish(self) -> Result<u64, UnpackError> {
        for (path, (mode, times)) in &self.later {
            let (parent, name) = split(path);
            let folder = match self.folders.open(parent).and_then(|parent| {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                openat(parent, name, flags, Mode::empty())
            }) {
                // Something else took its place later in the archive.
                Err(Errno::NOTDIR | Errno::NOENT | Errno::LOOP) => continue,
                opened => opened.map_err(failed("open", path))?,
            };
            fchmod(&folder, *mode).map_err(failed("chmod", path))?;
            futimens(&folder, times).map_err(failed("set the time of", path))?;
        }
        Ok(self.size_bytes)
    }

    fn file<R: Read, T: Record>(
        &mut self,
        entry: &Entry,
        path: &[u8],
        metadata: &Metadata,
        source: Source<'_, R, T>,
    ) -> Result<(), UnpackError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file =
            self.make(path, "create", |parent, name| openat(parent, name, flags, Mode::RUSR | Mode::WUSR))?;
        let mut file = File::from(file);
        let io_failed = |source| UnpackError::Entry { action: "write", path: display(path), source };
        match &entry.sparse {
            None => {
                source.tap().content(path, 0, entry.stored_bytes).map_err(UnpackError::Record)?;
                copy(source, &mut file, entry.stored_bytes, &mut self.buffer, io_failed)?;
                self.size_bytes += entry.stored_bytes;
            }
            Some((real_size, regions)) => {
                for Region { offset, length } in regions {
                    file.seek(SeekFrom::Start(*offset)).map_err(io_failed)?;
                    source.tap().content(path, *offset, *length).map_err(UnpackError::Record)?;
                    copy(source, &mut file, *length, &mut self.buffer, io_failed)?;
                }
                file.set_len(*real_size).map_err(io_failed)?;
                self.size_bytes += real_size;
            }
        }
        metadata.apply_owner(&file, path)?;
        set_attributes(entry, path, |name, value| fsetxattr(&file, name, value, XattrFlags::empty()))?;
        fchmod(&file, metadata.mode).map_err(failed("chmod", path))?;
        futimens(&file, &metadata.times).map_err(failed("set the time of", path))
    }

    fn folder(&mut self, entry: &Entry, path: &[u8], metadata: &Metadata) -> Result<(), UnpackError> {
        let (parent, name) = split(path);
        let (mut replaced, mut opaque) = (false, false);
        loop {
            let parent = self.folders.ensure(parent)?;
            match mkdirat(parent, name, Mode::RWXU) {
                Err(Errno::EXIST) if !replaced => {
                    let there =
                        statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed("stat", path))?;
                    if FileType::from_raw_mode(there.st_mode) == FileType::Directory {
                        break;
                    }
                    if self.rules.keep_kinds {
                        return Err(UnpackError::Replaces { path: display(path), folder: true });
                    }
                    // Whoever deletes a folder and makes it again does not want the old content.
                    opaque = is_whiteout(&there);
                    self.remove(path)?;
                    replaced = true;
                }
                made => {
                    made.map_err(failed("mkdir", path))?;
                    break;
                }
            }
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder =
            openat(self.folders.ensure(parent)?, name, flags, Mode::empty()).map_err(failed("open", path))?;
        metadata.apply_owner(&folder, path)?;
        set_attributes(entry, path, |name, value| fsetxattr(&folder, name, value, XattrFlags::empty()))?;
        if opaque {
            fsetxattr(&folder, OPAQUE_ATTRIBUTE, b"y", XattrFlags::empty())
                .map_err(failed("setxattr", path))?;
        }
        if self.later.insert(path.to_vec(), (metadata.mode, metadata.times.clone())).is_none() {
            self.later_bytes += path.len();
            if self.later_bytes > MAX_LATER {
                return Err(TarError::TooManyEntries.into());
            }
        }
        Ok(())
    }

    fn hard_link(&mut self, entry: &Entry, path: &[u8]) -> Result<(), UnpackError> {
        let target = clean(&entry.link)?;
        let (target_parent, target_name) = split(&target);
        if target_name.is_empty() {
            return Err(UnpackError::Escapes { path: display(&entry.link) });
        }
        if target == path {
            return Ok(());
        }
        let target_folder = self.folders.open(target_parent).map_err(failed("open", &target))?;
        self.make(path, "link", |parent, name| {
            linkat(&target_folder, target_name, parent, name, AtFlags::empty())
        })
    }

    fn symlink(&mut self, entry: &Entry, path: &[u8], metadata: &Metadata) -> Result<(), UnpackError> {
        self.make(path, "symlink", |parent, name| symlinkat(&*entry.link, parent, name))?;
        self.size_bytes += entry.link.len() as u64;
        let (parent, name) = split(path);
        let parent = self.folders.ensure(parent)?;
        metadata.apply_owner_at(parent, name, path)?;
        utimensat(parent, name, &metadata.times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(failed("set the time of", path))
    }

    fn node(
        &mut self,
        entry: &Entry,
        path: &[u8],
        metadata: &Metadata,
        kind: FileType,
    ) -> Result<(), UnpackError> {
        let device: Dev = match kind {
            FileType::Fifo => 0,
            _ => makedev(entry.device.0, entry.device.1),
        };
        self.make(path, "mknod", |parent, name| mknodat(parent, name, kind, metadata.mode, device))?;
        let (parent, name) = split(path);
        let parent = self.folders.ensure(parent)?;
        metadata.apply_owner_at(parent, name, path)?;
        // Made a moment ago, and no link: to follow it is safe.
        rustix::fs::chmodat(parent, name, metadata.mode, AtFlags::empty()).map_err(failed("chmod", path))?;
        utimensat(parent, name, &metadata.times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(failed("set the time of", path))
    }

    /// `.wh.NAME` hides what lower layers have under NAME, `.wh..wh..opq` all that they have in the
    /// folder. What this very layer has stays.
    fn whiteout(&mut self, parent: &[u8], name: &[u8]) -> Result<(), UnpackError> {
        if name == OPAQUE {
            let folder = self.folders.ensure(parent)?;
            return make_opaque(folder).map_err(failed("setxattr", parent));
        }
        let Some(hidden) = name.strip_prefix(WHITEOUT).filter(|hidden| !hidden.is_empty()) else {
            return Ok(());
        };
        if name.starts_with(AUFS) {
            return Ok(());
        }
        // these always exist, and are not this folder's to hide
        if matches!(hidden, b"." | b"..") {
            return Err(UnpackError::Escapes { path: display(name) });
        }
        let folder = self.folders.ensure(parent)?;
        match mknodat(folder, hidden, FileType::CharacterDevice, Mode::empty(), 0) {
            Err(Errno::EXIST) => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                match openat(folder, hidden, flags, Mode::empty()) {
                    Ok(own) => fsetxattr(&own, OPAQUE_ATTRIBUTE, b"y", XattrFlags::empty()),
                    Err(_) => Ok(()), // a file hides what lies below it anyway
                }
            }
            made => made,
        }
        .map_err(failed("whiteout", hidden))
    }

    /// Makes something new at `path`; what is there is removed first.
    fn make<T>(
        &mut self,
        path: &[u8],
        action: &'static str,
        create: impl Fn(BorrowedFd<'_>, &[u8]) -> Result<T, Errno>,
    ) -> Result<T, UnpackError> {
        let (parent, name) = split(path);
        match create(self.folders.ensure(parent)?, name) {
            Err(Errno::EXIST) => {
                self.remove(path)?;
                create(self.folders.ensure(parent)?, name).map_err(failed(action, path))
            }
            result => result.map_err(failed(action, path)),
        }
    }

    /// Removes what an earlier entry made at `path`.
    fn remove(&mut self, path: &[u8]) -> Result<(), UnpackError> {
        let (parent, name) = split(path);
        let folder = self.folders.ensure(parent)?;
        let there = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed("stat", path))?;
        let freed = match FileType::from_raw_mode(there.st_mode) {
            FileType::Directory if self.rules.keep_kinds => {
                return Err(UnpackError::Replaces { path: display(path), folder: false });
            }
            FileType::Directory => remove_tree(folder, name).map_err(failed("remove", path))?,
            _ => {
                unlinkat(folder, name, AtFlags::empty()).map_err(failed("remove", path))?;
                freed_bytes(&there)
            }
        };
        self.size_bytes = self.size_bytes.saturating_sub(freed);
        self.folders.forget();
        Ok(())
    }
}

impl Metadata {
    fn of(entry: &Entry, owner: Option<(u32, u32)>) -> Result<Self, UnpackError> {
        let id = |id: u64| u32::try_from(id).ok().filter(|id| *id != u32::MAX);
        let owner = owner.or_else(|| id(entry.uid).zip(id(entry.gid)));
        let (uid, gid) = owner.ok_or_else(|| UnpackError::Owner { path: display(&entry.path) })?;
        let (seconds, nanos) = entry.mtime;
        // As dockerd: times from before the epoch are the epoch.
        let time = Timespec { tv_sec: seconds.max(0), tv_nsec: if seconds < 0 { 0 } else { nanos.into() } };
        Ok(Self {
            uid: Uid::from_raw(uid),
            gid: Gid::from_raw(gid),
            mode: Mode::from_raw_mode(entry.mode & 0o7777),
            times: Timestamps { last_access: time, last_modification: time },
        })
    }

    /// New files belong to root already: no folder has its set-group-id bit before the end.
    fn is_root(&self) -> bool {
        self.uid.is_root() && self.gid.is_root()
    }

    fn apply_owner(&self, file: impl AsFd, path: &[u8]) -> Result<(), UnpackError> {
        if self.is_root() {
            return Ok(());
        }
        fchown(file, Some(self.uid), Some(self.gid)).map_err(failed("chown", path))
    }

    fn apply_owner_at(&self, parent: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> Result<(), UnpackError> {
        if self.is_root() {
            return Ok(());
        }
        let nofollow = AtFlags::SYMLINK_NOFOLLOW;
        chownat(parent, name, Some(self.uid), Some(self.gid), nofollow).map_err(failed("chown", path))
    }
}

/// Sets the extended attributes that came with an entry. Those of overlayfs itself are ours to set;
/// what the file system does not support is left out, as dockerd does.
fn set_attributes(
    entry: &Entry,
    path: &[u8],
    set: impl Fn(&[u8], &[u8]) -> Result<(), Errno>,
) -> Result<(), UnpackError> {
    for (name, value) in &entry.xattrs {
        if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") {
            continue;
        }
        match set(name, value) {
            Err(Errno::OPNOTSUPP) => {}
            Err(Errno::PERM) if name.starts_with(b"user.") => {} // dockerd's exception
            result => result.map_err(failed("setxattr", path))?,
        }
    }
    Ok(())
}

fn make_opaque(folder: BorrowedFd<'_>) -> Result<(), Errno> {
    // The folder was opened by path only, which takes no attributes directly.
    use std::os::fd::AsRawFd;
    let path = format!("/proc/self/fd/{}", folder.as_raw_fd());
    setxattr(path, OPAQUE_ATTRIBUTE, b"y", XattrFlags::empty())
}

fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// What counts no more when this file is unlinked.
fn freed_bytes(stat: &Stat) -> u64 {
    let counts = matches!(FileType::from_raw_mode(stat.st_mode), FileType::RegularFile | FileType::Symlink);
    if counts && stat.st_nlink == 1 { u64::try_from(stat.st_size).unwrap_or(0) } else { 0 }
}

/// Removes a folder and all below it; returns the bytes freed.
fn remove_tree(parent: BorrowedFd<'_>, name: &[u8]) -> Result<u64, Errno> {
    let mut freed = 0;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut open = vec![(name.to_vec(), openat(parent, name, flags, Mode::empty())?)];
    while let Some((name, folder)) = open.pop() {
        let mut below = None;
        for entry in rustix::fs::Dir::read_from(&folder)? {
            let entry = entry?;
            let child = entry.file_name().to_bytes();
            if child == b"." || child == b".." {
                continue;
            }
            let stat = statat(&folder, child, AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                below = Some((child.to_vec(), openat(&folder, child, flags, Mode::empty())?));
                break;
            }
            unlinkat(&folder, child, AtFlags::empty())?;
            freed += freed_bytes(&stat);
        }
        if let Some(below) = below {
            open.push((name, folder));
            open.push(below);
        } else {
            let above = open.last().map_or(parent, |(_, folder)| folder.as_fd());
            unlinkat(above, &*name, AtFlags::REMOVEDIR)?;
        }
    }
    Ok(freed)
}

/// Copies `length` bytes of an entry's content.
fn copy<R: Read, T: Tap>(
    source: Source<'_, R, T>,
    file: &mut File,
    length: u64,
    buffer: &mut [u8],
    write_failed: impl Fn(io::Error) -> UnpackError,
) -> Result<(), UnpackError> {
    let mut left = length;
    while left > 0 {
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let piece = buffer.get_mut(..wanted).unwrap_or_default();
        let read = source.read(piece).map_err(truncated)?;
        let piece = piece.get(..read).unwrap_or_default();
        file.write_all(piece).map_err(&write_failed)?;
        left -= read as u64;
    }
    Ok(())
}
