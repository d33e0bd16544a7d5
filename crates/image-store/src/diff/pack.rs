//! A folder with all in it as a tar.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;

use rustix::fs::{FileType, Mode, OFlags, Stat, fstat, major, minor, openat, readlinkat};
use rustix::io::Errno;

use super::folder::{Child, MAX_DEPTH, children, join, open_child};
use super::{attributes, sparse};
use crate::tar::{BLOCK, Entry, Kind, Region, encode};

const BUFFER_BYTES: usize = 256 << 10;
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// What overlayfs's marks of deletion are in the tar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whiteouts {
    /// The whiteouts of image layers.
    Translated,
    /// There are none: whatever looks like one is a file.
    AreFiles,
}

/// Where the bytes of a tar go.
pub(super) trait Sink {
    /// Headers, padding, the end.
    fn raw(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// `size` bytes from `offset` on of the file at `path` are the next content.
    fn begin(&mut self, path: &[u8], offset: u64, size: u64) -> io::Result<()>;
    /// A piece of that.
    fn content(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Nothing more will come.
    fn end(&mut self) -> io::Result<()>;
}

/// To whom it is all the same.
impl<W: Write> Sink for W {
    fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn begin(&mut self, _: &[u8], _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn content(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn end(&mut self) -> io::Result<()> {
        self.flush()
    }
}

/// Writes a tar.
pub(super) struct Packer<W> {
    out: W,
    /// Sum of the sizes of all files, as layers are counted.
    size_bytes: u64,
    whiteouts: Whiteouts,
    /// The first path of files that have several.
    linked: HashMap<(u64, u64), Vec<u8>>,
    buffer: Box<[u8]>,
}

struct Level {
    folder: OwnedFd,
    path: Vec<u8>,
    left: std::vec::IntoIter<Child>,
}

impl Level {
    fn new(folder: OwnedFd, path: Vec<u8>) -> Result<Self, Errno> {
        let left = children(&folder)?.into_iter();
        Ok(Self { folder, path, left })
    }
}

impl<W: Sink> Packer<W> {
    pub(super) fn new(out: W, whiteouts: Whiteouts) -> Self {
        let buffer = vec![0; BUFFER_BYTES].into_boxed_slice();
        Self { out, size_bytes: 0, whiteouts, linked: HashMap::new(), buffer }
    }

    /// Adds all that is in `root`, not itself, sorted by name and every folder before its content.
    pub(super) fn tree(&mut self, root: OwnedFd) -> io::Result<()> {
        self.below(root, Vec::new())
    }

    /// Adds the file `child` of a folder, and all that is in it, under another name.
    pub(super) fn under_name(&mut self, parent: &OwnedFd, child: &Child, name: &[u8]) -> io::Result<()> {
        if !child.is_folder() {
            return self.entry(parent, child, name.to_vec()).map_err(|e| about(&child.name, e));
        }
        let Some(folder) = open_child(parent, &child.name)? else { return Err(Errno::NOENT.into()) };
        self.folder(&folder, name)?;
        self.below(folder, name.to_vec())
    }

    fn below(&mut self, root: OwnedFd, path: Vec<u8>) -> io::Result<()> {
        let mut open = vec![Level::new(root, path)?];
        while let Some(level) = open.last_mut() {
            let Some(child) = level.left.next() else {
                open.pop();
                continue;
            };
            let path = join(&level.path, &child.name);
            if child.is_folder() {
                let Some(folder) = open_child(&level.folder, &child.name)? else { continue };
                self.folder(&folder, &path)?;
                if open.len() == MAX_DEPTH {
                    return Err(Errno::NAMETOOLONG.into());
                }
                open.push(Level::new(folder, path)?);
            } else {
                self.entry(&level.folder, &child, path).map_err(|e| about(&child.name, e))?;
            }
        }
        Ok(())
    }

    /// Writes the end of the archive.
    pub(super) fn finish(self) -> io::Result<()> {
        self.into_sink().map(drop)
    }

    /// As [`Self::finish`]. Returns the sink and the size of all files.
    pub(super) fn into_sink(mut self) -> io::Result<(W, u64)> {
        self.out.raw(&[0; 2 * BLOCK])?;
        self.out.end()?;
        Ok((self.out, self.size_bytes))
    }

    fn folder(&mut self, folder: &OwnedFd, path: &[u8]) -> io::Result<()> {
        let stat = fstat(folder)?;
        let mut entry = Entry { kind: Kind::Folder, ..head(path, &stat) };
        entry.xattrs = attributes::all(folder)?;
        self.out.raw(&encode(&entry))?;
        if self.whiteouts == Whiteouts::Translated && attributes::is_opaque(folder)? {
            self.out.raw(&encode(&whiteout(join(path, OPAQUE), &stat)))?;
        }
        Ok(())
    }

    fn entry(&mut self, folder: &OwnedFd, child: &Child, path: Vec<u8>) -> io::Result<()> {
        if self.whiteouts == Whiteouts::Translated {
            if child.is_whiteout() {
                let (parent, _) = path.split_at(path.len() - child.name.len());
                let hidden = [parent, WHITEOUT, &child.name].concat();
                return self.out.raw(&encode(&whiteout(hidden, &child.stat)));
            }
            if child.name.starts_with(WHITEOUT) {
                let reason = "a layer cannot have files whose names begin with .wh.";
                return Err(io::Error::new(io::ErrorKind::InvalidFilename, reason));
            }
        }
        let mut entry = head(&path, &child.stat);
        let inode = (child.stat.st_dev, child.stat.st_ino);
        if let Some(first) = self.linked.get(&inode) {
            (entry.kind, entry.link) = (Kind::HardLink, first.clone());
            return self.out.raw(&encode(&entry));
        }
        let written = match child.kind() {
            FileType::RegularFile => self.file(folder, child, entry)?,
            _ => self.without_content(folder, child, entry)?,
        };
        if written && child.stat.st_nlink > 1 {
            self.linked.insert(inode, path);
        }
        Ok(())
    }

    /// Whether there is something that a tar can have.
    fn without_content(&mut self, folder: &OwnedFd, child: &Child, mut entry: Entry) -> io::Result<bool> {
        entry.kind = match child.kind() {
            FileType::Symlink => match readlinkat(folder, &*child.name, Vec::new()) {
                Ok(target) => {
                    entry.link = target.into_bytes();
                    self.size_bytes += entry.link.len() as u64;
                    Kind::Symlink
                }
                Err(Errno::NOENT) => return Ok(false),
                Err(errno) => return Err(errno.into()),
            },
            FileType::CharacterDevice => Kind::CharDevice,
            FileType::BlockDevice => Kind::BlockDevice,
            FileType::Fifo => Kind::Fifo,
            // A socket is of no use without the process that made it; tar has no kind for it.
            FileType::Socket | FileType::RegularFile | FileType::Directory | FileType::Unknown => {
                return Ok(false);
            }
        };
        self.out.raw(&encode(&entry))?;
        Ok(true)
    }

    /// Whether it was still there.
    fn file(&mut self, folder: &OwnedFd, child: &Child, mut entry: Entry) -> io::Result<bool> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOATIME | OFlags::CLOEXEC;
        let mut file = match openat(folder, &*child.name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT | Errno::LOOP) => return Ok(false), // gone, or something else by now
            Err(errno) => return Err(errno.into()),
        };
        let stat = fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(false);
        }
        entry.xattrs = attributes::all(&file)?;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        entry.stored_bytes = size;
        let mut regions = vec![Region { offset: 0, length: size }];
        if let Some(found) = sparse::regions(&file, &stat)? {
            entry.stored_bytes = found.iter().map(|region| region.length).sum();
            entry.sparse = Some((size, found.clone()));
            regions = found;
        }
        self.out.raw(&encode(&entry))?;
        self.size_bytes += size;
        for Region { offset, length } in regions {
            file.seek(SeekFrom::Start(offset))?;
            self.out.begin(&entry.path, offset, length)?;
            self.copy(&mut file, length)?;
        }
        let padding = entry.stored_bytes.next_multiple_of(BLOCK as u64) - entry.stored_bytes;
        self.out.raw([0; BLOCK].get(..usize::try_from(padding).unwrap_or(0)).unwrap_or_default())?;
        Ok(true)
    }

    /// Copies exactly `length` bytes: a file that has become shorter since is filled up with zeros.
    fn copy(&mut self, file: &mut File, length: u64) -> io::Result<()> {
        let mut left = length;
        while left > 0 {
            let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
            let read = match file.read(self.buffer.get_mut(..wanted).unwrap_or_default()) {
                Ok(0) => return self.zeros(left),
                Ok(read) => read,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            self.out.content(self.buffer.get(..read).unwrap_or_default())?;
            left -= read as u64;
        }
        Ok(())
    }

    fn zeros(&mut self, mut count: u64) -> io::Result<()> {
        let zeros = [0; 4096];
        while count > 0 {
            let length = count.min(zeros.len() as u64);
            self.out.content(zeros.get(..usize::try_from(length).unwrap_or(0)).unwrap_or_default())?;
            count -= length;
        }
        Ok(())
    }
}

/// Says which file it was.
fn about(name: &[u8], error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::BrokenPipe => error, // that was not the file
        kind => io::Error::new(kind, format!("{}: {error}", String::from_utf8_lossy(name))),
    }
}

/// An entry without content.
fn head(path: &[u8], stat: &Stat) -> Entry {
    let device = match FileType::from_raw_mode(stat.st_mode) {
        FileType::CharacterDevice | FileType::BlockDevice => (major(stat.st_rdev), minor(stat.st_rdev)),
        _ => (0, 0),
    };
    Entry {
        path: path.to_vec(),
        link: Vec::new(),
        kind: Kind::File,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid.into(),
        gid: stat.st_gid.into(),
        mtime: (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)),
        device,
        xattrs: Vec::new(),
        stored_bytes: 0,
        sparse: None,
    }
}

/// Only its name says anything. It has whole seconds, for the sake of a short header.
fn whiteout(path: Vec<u8>, stat: &Stat) -> Entry {
    Entry { mode: 0o600, mtime: (stat.st_mtime, 0), device: (0, 0), ..head(&path, stat) }
}
