//! Copying files and whole folders.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags, chmodat, chownat,
    copy_file_range, fchmod, fchown, fgetxattr, flistxattr, fsetxattr, fstat, futimens, linkat, mkdirat,
    mknodat, openat, readlinkat, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::{Errno, read, retry_on_intr, write};

use super::crew::{Crew, Hands, Pair};
use super::place::{is_folder, names};
use super::{FileError, MAX_DEPTH, ModeChange, failed, join};

/// User and group; `None` for the source's own.
pub(in super::super) type Owner = Option<(u32, u32)>;

/// How folders are opened that lie in an open one.
const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// How many files with several names are remembered, each with a descriptor.
const MAX_LINKED: usize = 512;
/// Longest list of attributes, and longest value, that Linux has.
const MAX_ATTRIBUTES: usize = 64 << 10;
/// Up to this many bytes a file is small.
const SMALL_BYTES: usize = 128 << 10;

/// Whether something stays out: its path below the source, and whether it is a folder.
pub(in super::super) type Exclude<'a> = &'a (dyn Fn(&[u8], bool) -> bool + 'a);

/// What becomes of owners and modes.
#[derive(Clone, Copy)]
pub(in super::super) struct Rules<'a> {
    /// Of all that is copied.
    pub(in super::super) owner: Owner,
    /// What becomes of the modes.
    pub(in super::super) mode: Option<&'a ModeChange>,
    /// Setuid and setgid go, as where the owner is changed after the mode.
    pub(in super::super) clears_set_ids: bool,
}

/// Copies files, with owners and modes as they are wanted.
pub(in super::super) struct Copier<'a> {
    /// Owners and modes.
    pub(in super::super) rules: Rules<'a>,
    /// What stays out.
    pub(in super::super) exclude: Exclude<'a>,
    /// The copies of files that have several names.
    linked: HashMap<(u64, u64), OwnedFd>,
    buffer: Buffer,
}

impl<'a> Copier<'a> {
    /// One that changes nothing but the owner.
    pub(in super::super) fn new(owner: Owner, mode: Option<&'a ModeChange>, exclude: Exclude<'a>) -> Self {
        let rules = Rules { owner, mode, clears_set_ids: false };
        Self { rules, exclude, linked: HashMap::new(), buffer: Buffer::default() }
    }

    /// Copies `name` of `source`, whatever it is, to `target_name` in `target`. What is there is replaced; a folder is added to.
    /// `path` is where it lies below the source, for messages and exclusions.
    pub(in super::super) fn entry(
        &mut self,
        source: BorrowedFd<'_>,
        name: &[u8],
        (target, target_name): (BorrowedFd<'_>, &[u8]),
        path: &[u8],
    ) -> Result<(), FileError> {
        let stat = statat(source, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed("lstat", path))?;
        if !is_folder(&stat) {
            return self.known_entry(source, name, &stat, (target, target_name), path);
        }
        let from = openat(source, name, FOLDER, Mode::empty()).map_err(failed("open", path))?;
        let (to, _) =
            make_folder(target, target_name).map_err(failed("cannot copy to non-directory", path))?;
        self.walk((from, to), (path.to_vec(), Some(stat)))
    }

    /// Copies all that is in a folder, and nothing of the folder itself.
    pub(in super::super) fn contents(
        &mut self,
        source: BorrowedFd<'_>,
        target: BorrowedFd<'_>,
    ) -> Result<(), FileError> {
        let own =
            |folder: BorrowedFd<'_>| openat(folder, ".", FOLDER, Mode::empty()).map_err(failed("open", b""));
        self.walk((own(source)?, own(target)?), (Vec::new(), None))
    }

    /// Copies what is in a folder; with `stat`, its attributes in the end.
    fn walk(
        &mut self,
        folders: (OwnedFd, OwnedFd),
        (path, stat): (Vec<u8>, Option<Stat>),
    ) -> Result<(), FileError> {
        let crew = Crew::new(self.rules);
        let walked = std::thread::scope(|scope| {
            let mut hands = Hands::new(scope, &crew);
            let top = Pair::new(&crew, folders, (path.clone(), stat), None);
            let walked = self.below(&top, &crew, &mut hands, (&path, 0));
            hands.finish();
            walked
        });
        walked.and(crew.result())
    }

    fn below<'scope>(
        &mut self,
        pair: &Arc<Pair<'scope>>,
        crew: &'scope Crew<'scope>,
        hands: &mut Hands<'scope, '_>,
        (path, depth): (&[u8], usize),
    ) -> Result<(), FileError> {
        if depth > MAX_DEPTH {
            return Err(failed("open", path)(Errno::NAMETOOLONG));
        }
        let (source, target) = (&pair.source, &pair.target);
        for name in names(source).map_err(failed("read", path))? {
            // The threads have said why.
            if crew.has_failed() {
                return Ok(());
            }
            let path = join(path, &name);
            let stat = statat(source, &*name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed("lstat", &path))?;
            if (self.exclude)(&path, is_folder(&stat)) {
                continue;
            }
            if is_folder(&stat) {
                let from = openat(source, &*name, FOLDER, Mode::empty()).map_err(failed("open", &path))?;
                let (to, _) = make_folder(target.as_fd(), &name)
                    .map_err(failed("cannot copy to non-directory", &path))?;
                let inner = Pair::new(crew, (from, to), (path.clone(), Some(stat)), Some(pair.clone()));
                self.below(&inner, crew, hands, (&path, depth + 1))?;
            } else if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_nlink == 1 {
                hands.copy(pair, name, path);
            } else {
                self.known_entry(source.as_fd(), &name, &stat, (target.as_fd(), &name), &path)?;
            }
        }
        Ok(())
    }

    /// Copies anything but a folder.
    fn known_entry(
        &mut self,
        source: BorrowedFd<'_>,
        name: &[u8],
        stat: &Stat,
        place: (BorrowedFd<'_>, &[u8]),
        path: &[u8],
    ) -> Result<(), FileError> {
        replacing(place, || self.try_entry(source, name, stat, place)).map_err(failed("copy", path))
    }

    /// Copies an open file to `target_name` in `target`. What is there is replaced.
    pub(in super::super) fn open_file(
        &mut self,
        file: &OwnedFd,
        place: (BorrowedFd<'_>, &[u8]),
        path: &[u8],
    ) -> Result<(), FileError> {
        replacing(place, || self.new_file(file, place)).map_err(failed("copy", path))
    }

    /// Makes anything but a folder. `EXIST` if something has its place.
    fn try_entry(
        &mut self,
        source: BorrowedFd<'_>,
        name: &[u8],
        stat: &Stat,
        (target, target_name): (BorrowedFd<'_>, &[u8]),
    ) -> Result<(), Errno> {
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => self.file(source, name, stat, (target, target_name)),
            FileType::Symlink => {
                let link = readlinkat(source, name, Vec::new())?;
                symlinkat(&link, target, target_name)?;
                self.rules.node_metadata(target, target_name, stat, None)
            }
            // A socket is of no use without its program.
            FileType::Socket | FileType::Directory | FileType::Unknown => Ok(()),
            // In a layer this says that something is not there. By way of the overlay it is refused, too.
            FileType::CharacterDevice if stat.st_rdev == 0 => Err(Errno::PERM),
            kind => {
                let mode = Mode::from_raw_mode(self.rules.mode_of(stat));
                mknodat(target, target_name, kind, mode, stat.st_rdev)?;
                self.rules.node_metadata(target, target_name, stat, Some(mode))
            }
        }
    }

    fn file(
        &mut self,
        source: BorrowedFd<'_>,
        name: &[u8],
        stat: &Stat,
        (target, target_name): (BorrowedFd<'_>, &[u8]),
    ) -> Result<(), Errno> {
        if let Some(first) = self.linked.get(&(stat.st_dev, stat.st_ino)) {
            let first = format!("/proc/self/fd/{}", first.as_raw_fd());
            match linkat(rustix::fs::CWD, first, target, target_name, AtFlags::SYMLINK_FOLLOW) {
                // Another file has taken its place since, or it lies in another mount: it is copied again.
                Err(Errno::NOENT | Errno::XDEV) => {}
                linked => return linked,
            }
        }
        let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        self.new_file(&openat(source, name, read, Mode::empty())?, (target, target_name))
    }

    /// Makes the copy of a file, which may have further names.
    fn new_file(
        &mut self,
        from: &OwnedFd,
        (target, target_name): (BorrowedFd<'_>, &[u8]),
    ) -> Result<(), Errno> {
        let stat = self.rules.new_file(from, (target, target_name), &mut self.buffer)?;
        if stat.st_nlink > 1 && self.linked.len() < MAX_LINKED {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let kept = openat(target, target_name, flags, Mode::empty())?;
            self.linked.insert((stat.st_dev, stat.st_ino), kept);
        }
        Ok(())
    }
}

impl Rules<'_> {
    /// Makes the copy of an open file, with its bytes and all that it has beside them.
    pub(super) fn new_file(
        &self,
        from: &OwnedFd,
        (target, target_name): (BorrowedFd<'_>, &[u8]),
        buffer: &mut Buffer,
    ) -> Result<Stat, Errno> {
        let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let stat = fstat(from)?;
        // As it will be for the most part, so that there is less to set; nobody else sees it before it is done.
        let mode = Mode::from_raw_mode(self.mode_of(&stat) & 0o777);
        let to = openat(target, target_name, write, mode)?;
        copy_bytes(from, &to, &stat, buffer)?;
        self.metadata(from.as_fd(), to.as_fd(), &stat)?;
        Ok(stat)
    }

    fn mode_of(&self, stat: &Stat) -> u32 {
        let folder = is_folder(stat);
        let mode = self.mode.map_or(stat.st_mode & 0o7777, |change| change.apply(stat.st_mode, folder));
        match self.clears_set_ids && !folder && self.owner.is_some() {
            true if mode & 0o010 != 0 => mode & !0o6000,
            true => mode & !0o4000,
            false => mode,
        }
    }

    /// Owner, attributes, mode and times of an open file or folder.
    pub(in super::super) fn metadata(
        &self,
        source: BorrowedFd<'_>,
        target: BorrowedFd<'_>,
        stat: &Stat,
    ) -> Result<(), Errno> {
        let there = fstat(target)?;
        let (uid, gid) = self.owner.unwrap_or((stat.st_uid, stat.st_gid));
        let is_other = (there.st_uid, there.st_gid) != (uid, gid);
        // To set what is so already costs as much as to change it.
        if is_other {
            set_owner(target, Some((uid, gid)))?;
        }
        let has_attributes = copy_attributes(source, target)?;
        // After the owner, whose change clears the setuid bit; an access list may change the mode, too.
        let mode = self.mode_of(stat);
        if is_other || has_attributes || there.st_mode & 0o7777 != mode {
            fchmod(target, Mode::from_raw_mode(mode))?;
        }
        futimens(target, &times(stat))
    }

    fn node_metadata(
        &self,
        folder: BorrowedFd<'_>,
        name: &[u8],
        stat: &Stat,
        mode: Option<Mode>,
    ) -> Result<(), Errno> {
        let (uid, gid) = self.owner.unwrap_or((stat.st_uid, stat.st_gid));
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        chownat(folder, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        if let Some(mode) = mode {
            // Made a moment ago, and no link: to follow it is safe.
            chmodat(folder, name, mode, AtFlags::empty())?;
        }
        utimensat(folder, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)
    }
}

/// Makes something new at a place; what is there, if it is no folder, is removed first.
pub(super) fn replacing(
    (folder, name): (BorrowedFd<'_>, &[u8]),
    mut make: impl FnMut() -> Result<(), Errno>,
) -> Result<(), Errno> {
    match make() {
        Err(Errno::EXIST) => {
            unlinkat(folder, name, AtFlags::empty())?;
            make()
        }
        made => made,
    }
}

/// Opens the folder `name`, which is made if it is not there. Whether it was.
fn make_folder(parent: BorrowedFd<'_>, name: &[u8]) -> Result<(OwnedFd, bool), Errno> {
    let made = match mkdirat(parent, name, Mode::RWXU) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(errno) => return Err(errno),
    };
    Ok((openat(parent, name, FOLDER, Mode::empty())?, made))
}

/// Gives a file or folder to somebody; `None` to root.
pub(super) fn set_owner(file: impl AsFd, owner: Owner) -> Result<(), Errno> {
    let (uid, gid) = owner.unwrap_or((0, 0));
    fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
}

/// The times of a file, to be set on another.
pub(in super::super) fn times(stat: &Stat) -> Timestamps {
    let time = |seconds: i64, nanoseconds: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or(0),
    };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

/// For the bytes of small files.
pub(super) type Buffer = Vec<u8>;

/// Copies the content: a small one through `buffer`, a large one in the kernel where it can do that, which takes more calls and
/// a pipe where the file systems differ.
fn copy_bytes(from: &OwnedFd, to: &OwnedFd, stat: &Stat, buffer: &mut Buffer) -> Result<(), Errno> {
    let mut left = usize::try_from(stat.st_size).unwrap_or(0);
    while left > SMALL_BYTES {
        match copy_file_range(from, None, to, None, left) {
            Ok(0) => return Ok(()), // it has become shorter
            Ok(copied) => left = left.saturating_sub(copied),
            Err(Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => {
                let duplicate = |fd: &OwnedFd| fd.try_clone().map(File::from).map_err(|_| Errno::MFILE);
                let copied = std::io::copy(&mut duplicate(from)?, &mut duplicate(to)?);
                return copied
                    .map(drop)
                    .map_err(|e| e.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error));
            }
            Err(errno) => return Err(errno),
        }
    }
    buffer.resize(SMALL_BYTES, 0);
    while left > 0 {
        let read = retry_on_intr(|| read(from, &mut buffer[..]))?;
        let mut rest = buffer.get(..read).unwrap_or_default();
        if rest.is_empty() {
            return Ok(()); // it has become shorter
        }
        left = left.saturating_sub(read);
        while !rest.is_empty() {
            let written = match retry_on_intr(|| write(to, rest))? {
                0 => return Err(Errno::IO),
                written => written,
            };
            rest = rest.get(written..).unwrap_or_default();
        }
    }
    Ok(())
}

/// Copies the attributes that belong to the content: capabilities, access lists, `user.`; not those of overlayfs and of security
/// modules, which belong to this host. Whether there are any.
fn copy_attributes(source: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<bool, Errno> {
    let attributes = attributes(source)?;
    for (name, value) in &attributes {
        fsetxattr(target, &**name, value, XattrFlags::empty())?;
    }
    Ok(!attributes.is_empty())
}

/// Name and value.
pub(super) type Attribute = (Vec<u8>, Vec<u8>);

/// The attributes that are copied, sorted by name.
pub(super) fn attributes(file: BorrowedFd<'_>) -> Result<Vec<Attribute>, Errno> {
    let mut list = [0; 1024];
    let length = match flistxattr(file, &mut list[..]) {
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Ok(length) => length,
        Err(Errno::RANGE) => return large_attributes(file),
        Err(errno) => return Err(errno),
    };
    read_attributes(file, list.get(..length).unwrap_or_default())
}

fn large_attributes(file: BorrowedFd<'_>) -> Result<Vec<Attribute>, Errno> {
    let mut list = vec![0; MAX_ATTRIBUTES];
    let length = flistxattr(file, &mut list[..])?;
    read_attributes(file, list.get(..length).unwrap_or_default())
}

fn read_attributes(file: BorrowedFd<'_>, list: &[u8]) -> Result<Vec<Attribute>, Errno> {
    let mut found = Vec::new();
    for name in list.split(|b| *b == 0).filter(|name| belongs(name)) {
        let mut value = vec![0; MAX_ATTRIBUTES];
        match fgetxattr(file, name, &mut value[..]) {
            Ok(length) => value.truncate(length),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => continue,
            Err(errno) => return Err(errno),
        }
        found.push((name.to_vec(), value));
    }
    found.sort_unstable();
    Ok(found)
}

fn belongs(name: &[u8]) -> bool {
    let of_overlay = name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.");
    !name.is_empty() && !of_overlay && (name == b"security.capability" || !name.starts_with(b"security."))
}
