//! The receiving role: a folder becomes what the other side lists.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};

use super::attributes::{self, apply, apply_at, same};
use super::remove::{ENTER, names, remove};
use super::{Error, MAX_ENTRIES, check_path};
use crate::pb::services::{Packet, PacketType, Stat};

/// So many files may be written at the same time: each is open.
const MAX_WRITING: usize = 128;
/// So many bytes may a file's extended attributes have: Linux keeps no more in a list of names, nor in a value.
const MAX_ATTRIBUTES: usize = 64 << 10;

/// Sees the bytes of files as they come.
pub trait Contents: Send {
    /// The bytes of the file with this number in the list begin to come.
    fn begin(&mut self, id: u32, stat: &Stat);
    /// A piece of them.
    fn piece(&mut self, id: u32, bytes: &[u8]);
    /// All of it is there, and so is what was listed of it; nothing of it will be changed but the number of its names.
    fn complete(&mut self, id: u32, file: BorrowedFd<'_>);
}

/// For who need not see them.
impl Contents for () {
    fn begin(&mut self, _: u32, _: &Stat) {}
    fn piece(&mut self, _: u32, _: &[u8]) {}
    fn complete(&mut self, _: u32, _: BorrowedFd<'_>) {}
}

/// A folder that is being made equal to a list.
#[derive(Debug)]
pub struct Receiver<C = ()> {
    root: OwnedFd,
    contents: C,
    /// The folders that lead to the last listed file, the root first.
    open: Vec<Folder>,
    previous: String,
    listed: usize,
    list_ended: bool,
    /// Files whose bytes have been asked for.
    wanted: HashMap<u32, Stat>,
    /// Those of them that have begun to come.
    writing: HashMap<u32, File>,
    /// Made when all bytes are there.
    links: Vec<Stat>,
    /// Their times are set when nothing more is made in them.
    folders: Vec<Stat>,
    /// Where the last file was made: mostly, the next one belongs there, too.
    place: Option<(String, OwnedFd)>,
    /// Bytes of content that came.
    content: u64,
}

#[derive(Debug)]
struct Folder {
    path: String,
    fd: OwnedFd,
    /// What is in it and has not been listed so far.
    unlisted: HashSet<String>,
}

/// What to do after a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing.
    Continue,
    /// Ask for the bytes of this file.
    Request(u32),
    /// Everything is there: say so.
    Finish,
}

impl<C: Contents> Receiver<C> {
    /// Begins to make `root` equal to the list that will come.
    ///
    /// # Errors
    /// Those of reading the folder.
    pub fn new(root: OwnedFd, contents: C) -> Result<Self, Error> {
        // A descriptor of its own: reading the folder moves the place in it.
        let fd = rustix::fs::openat(&root, ".", ENTER, Mode::empty()).map_err(Error::disk("enter", "."))?;
        let unlisted = names(fd.as_fd(), ".")?.into_iter().collect();
        Ok(Self {
            root,
            contents,
            open: vec![Folder { path: String::new(), fd, unlisted }],
            previous: String::new(),
            listed: 0,
            list_ended: false,
            wanted: HashMap::new(),
            writing: HashMap::new(),
            links: Vec::new(),
            folders: Vec::new(),
            place: None,
            content: 0,
        })
    }

    /// How many files were listed, and how many bytes of content came.
    #[must_use]
    pub fn counts(&self) -> (usize, u64) {
        (self.listed, self.content)
    }

    /// Takes the next packet.
    ///
    /// # Errors
    /// Hostile names, broken protocol, too many files, and those of the disk.
    pub fn packet(&mut self, packet: Packet) -> Result<Next, Error> {
        match PacketType::try_from(packet.r#type) {
            Ok(PacketType::Stat) => match packet.stat {
                Some(stat) => self.entry(stat),
                None => self.end_of_list(),
            },
            Ok(PacketType::Data) => self.data(packet.id, &packet.data),
            Ok(PacketType::Err) => Err(Error::Sender(String::from_utf8_lossy(&packet.data).into_owned())),
            Ok(PacketType::Fin) => Err(Error::Protocol("the sender ended it too early")),
            Ok(PacketType::Req) | Err(_) => {
                Err(Error::Protocol("the sender sent what only a receiver sends"))
            }
        }
    }

    fn entry(&mut self, stat: Stat) -> Result<Next, Error> {
        if self.list_ended {
            return Err(Error::Protocol("files were listed after the end of the list"));
        }
        if self.listed >= MAX_ENTRIES {
            return Err(Error::Limit { what: "files", limit: MAX_ENTRIES });
        }
        check_path(&stat.path, &self.previous)?;
        if stat.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() > MAX_ATTRIBUTES {
            return Err(Error::Limit {
                what: "bytes of a file's extended attributes",
                limit: MAX_ATTRIBUTES,
            });
        }
        let id = u32::try_from(self.listed).unwrap_or(u32::MAX);
        self.listed += 1;
        self.previous.clone_from(&stat.path);
        let (parent, name) = stat.path.rsplit_once('/').unwrap_or(("", &stat.path));
        self.leave_until(parent)?;
        let Some(folder) = self.open.last_mut().filter(|f| f.path == parent) else {
            return Err(Error::Path { path: stat.path, reason: "its folder was not listed" });
        };
        let Some(kind) = attributes::kind(&stat) else {
            return Err(Error::Path { path: stat.path, reason: "its kind is unknown" });
        };
        let was_there = folder.unlisted.remove(name);
        let here = if was_there {
            rustix::fs::statat(&folder.fd, name, AtFlags::SYMLINK_NOFOLLOW).ok()
        } else {
            None
        };
        let is_hard_link = kind == FileType::RegularFile && !stat.linkname.is_empty();
        let unchanged = !is_hard_link && here.as_ref().is_some_and(|here| same(here, &stat));
        let is_kept_folder = kind == FileType::Directory
            && here.as_ref().is_some_and(|here| FileType::from_raw_mode(here.st_mode) == FileType::Directory);
        if unchanged && kind == FileType::RegularFile {
            return Ok(Next::Continue);
        }
        if unchanged && kind == FileType::Symlink {
            let target = rustix::fs::readlinkat(&folder.fd, name, Vec::new());
            if target.is_ok_and(|target| target.as_bytes() == stat.linkname.as_bytes()) {
                return Ok(Next::Continue);
            }
        }
        if was_there && !is_kept_folder {
            remove(folder.fd.as_fd(), name, &stat.path)?;
        }
        match kind {
            FileType::RegularFile if is_hard_link => self.links.push(stat),
            FileType::RegularFile => {
                self.wanted.insert(id, stat);
                return Ok(Next::Request(id));
            }
            FileType::Directory => {
                let entered = enter(folder.fd.as_fd(), name, &stat.path, is_kept_folder)?;
                self.open.push(entered);
                self.folders.push(stat);
            }
            _ => make_other(folder.fd.as_fd(), name, kind, &stat)?,
        }
        Ok(Next::Continue)
    }

    /// Leaves folders until the innermost is `parent` or contains it; what they have and was not listed goes.
    fn leave_until(&mut self, parent: &str) -> Result<(), Error> {
        while let Some(last) = self.open.last() {
            let inside = last.path.is_empty()
                || parent
                    .strip_prefix(&last.path)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
            if inside {
                return Ok(());
            }
            self.leave()?;
        }
        Ok(())
    }

    fn leave(&mut self) -> Result<(), Error> {
        if let Some(folder) = self.open.pop() {
            for name in &folder.unlisted {
                remove(folder.fd.as_fd(), name, &format!("{}/{name}", folder.path))?;
            }
        }
        Ok(())
    }

    fn end_of_list(&mut self) -> Result<Next, Error> {
        if self.list_ended {
            return Err(Error::Protocol("the list ended twice"));
        }
        self.list_ended = true;
        while !self.open.is_empty() {
            self.leave()?;
        }
        self.finish_if_complete()
    }

    fn data(&mut self, id: u32, data: &[u8]) -> Result<Next, Error> {
        let Some(stat) = self.wanted.get(&id) else {
            return Err(Error::Protocol("the sender sent bytes that nobody had asked for"));
        };
        let disk = |step| {
            let path = stat.path.clone();
            move |source| Error::Disk { step, path, source }
        };
        if self.writing.len() >= MAX_WRITING && !self.writing.contains_key(&id) {
            return Err(Error::Limit { what: "files at the same time", limit: MAX_WRITING });
        }
        let file = match self.writing.entry(id) {
            std::collections::hash_map::Entry::Occupied(begun) => begun.into_mut(),
            std::collections::hash_map::Entry::Vacant(begun) => {
                self.contents.begin(id, stat);
                begun.insert(create(&self.root, &mut self.place, &stat.path)?)
            }
        };
        if !data.is_empty() {
            self.content += data.len() as u64;
            file.write_all(data).map_err(disk("write"))?;
            self.contents.piece(id, data);
            return Ok(Next::Continue);
        }
        apply(file.as_fd(), stat)?;
        self.contents.complete(id, file.as_fd());
        self.writing.remove(&id);
        self.wanted.remove(&id);
        self.finish_if_complete()
    }

    fn finish_if_complete(&mut self) -> Result<Next, Error> {
        if !self.list_ended || !self.wanted.is_empty() {
            return Ok(Next::Continue);
        }
        for link in std::mem::take(&mut self.links) {
            check_path(&link.linkname, "")?;
            let target = beneath(&self.root, &link.linkname, OFlags::PATH | OFlags::NOFOLLOW)?;
            let (parent, name) = link.path.rsplit_once('/').unwrap_or((".", &link.path));
            let folder = beneath(&self.root, parent, OFlags::PATH | OFlags::DIRECTORY)?;
            // By procfs: linking by an empty path asks for a capability that engines in containers lack.
            let by_fd = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&target));
            rustix::fs::linkat(CWD, by_fd, &folder, name, AtFlags::SYMLINK_FOLLOW)
                .map_err(Error::disk("link", &link.path))?;
        }
        // Innermost first: a folder without write or search permission is closed when all within is done.
        for stat in std::mem::take(&mut self.folders).iter().rev() {
            let folder = beneath(&self.root, &stat.path, OFlags::RDONLY | OFlags::DIRECTORY)?;
            apply(folder.as_fd(), stat)?;
        }
        Ok(Next::Finish)
    }
}

/// Opens what lies below the root, through no link.
fn beneath(root: &OwnedFd, path: &str, flags: OFlags) -> Result<OwnedFd, Error> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
        .map_err(Error::disk("open", path))
}

/// Makes a file whose bytes come now, in its folder, which is `place` if the last one's was the same.
fn create(root: &OwnedFd, place: &mut Option<(String, OwnedFd)>, path: &str) -> Result<File, Error> {
    let (parent, name) = path.rsplit_once('/').unwrap_or((".", path));
    let folder = match place.take() {
        Some(last) if last.0 == parent => last.1,
        _ => beneath(root, parent, OFlags::PATH | OFlags::DIRECTORY)?,
    };
    let (_, folder) = place.insert((parent.to_owned(), folder));
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(folder, name, flags, Mode::RUSR | Mode::WUSR)
        .map(File::from)
        .map_err(Error::disk("create", path))
}

/// Enters a folder, which is made unless it is kept.
fn enter(parent: BorrowedFd<'_>, name: &str, path: &str, is_kept: bool) -> Result<Folder, Error> {
    if !is_kept {
        rustix::fs::mkdirat(parent, name, Mode::RWXU).map_err(Error::disk("make", path))?;
    }
    let fd = rustix::fs::openat(parent, name, ENTER, Mode::empty()).map_err(Error::disk("enter", path))?;
    let unlisted = if is_kept { names(fd.as_fd(), path)?.into_iter().collect() } else { HashSet::new() };
    Ok(Folder { path: path.to_string(), fd, unlisted })
}

/// Makes what is neither file nor folder.
fn make_other(folder: BorrowedFd<'_>, name: &str, kind: FileType, stat: &Stat) -> Result<(), Error> {
    let make = Error::disk("make", &stat.path);
    match kind {
        FileType::Symlink => {
            if stat.linkname.is_empty() || stat.linkname.len() > 4095 || stat.linkname.contains('\0') {
                return Err(Error::Path { path: stat.path.clone(), reason: "its target is no path" });
            }
            rustix::fs::symlinkat(stat.linkname.as_str(), folder, name).map_err(make)?;
        }
        // A socket is where a process listens: there is nothing to transfer.
        FileType::Socket => return Ok(()),
        _ => {
            let number =
                |n: i64| u32::try_from(n).map_err(|_| Error::Protocol("a device has no such number"));
            let device = rustix::fs::makedev(number(stat.devmajor)?, number(stat.devminor)?);
            rustix::fs::mknodat(folder, name, kind, Mode::empty(), device).map_err(make)?;
            rustix::fs::chmodat(folder, name, attributes::permissions(stat), AtFlags::empty())
                .map_err(Error::disk("set the mode of", &stat.path))?;
        }
    }
    apply_at(folder, name, stat)
}
