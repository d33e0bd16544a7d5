//! The sending role: a folder's files are listed in order, and their bytes sent when asked for.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bytes::Bytes;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};

use super::remove::{ENTER, names};
use super::{Error, MAX_ENTRIES, attributes};
use crate::pb::services::{Packet, PacketType, Stat};

/// The size of the pieces in which a file travels, as fsutil has it.
const PIECE_BYTES: usize = 32 << 10;

/// A folder that is being sent.
#[derive(Debug)]
pub struct Sender {
    root: OwnedFd,
    /// Paths of regular files by their place in the list.
    files: HashMap<u32, String>,
    listed: usize,
    /// The first path of a file with several names.
    first_names: HashMap<(u64, u64), String>,
}

impl Sender {
    /// Begins to send a folder.
    #[must_use]
    pub fn new(root: OwnedFd) -> Self {
        Self { root, files: HashMap::new(), listed: 0, first_names: HashMap::new() }
    }

    /// Lists all files, ending with the packet that says so. `out` says whether to go on.
    ///
    /// # Errors
    /// Those of the disk; too many files; names that are no text.
    pub fn list(&mut self, out: &mut dyn FnMut(Packet) -> bool) -> Result<(), Error> {
        let root =
            rustix::fs::openat(&self.root, ".", ENTER, Mode::empty()).map_err(Error::disk("enter", "."))?;
        if self.list_folder(root.as_fd(), "", out)? {
            out(Packet { r#type: PacketType::Stat as i32, ..Packet::default() });
        }
        Ok(())
    }

    fn list_folder(
        &mut self,
        folder: BorrowedFd<'_>,
        path: &str,
        out: &mut dyn FnMut(Packet) -> bool,
    ) -> Result<bool, Error> {
        let mut entries = names(folder, path)?;
        entries.sort_unstable();
        for name in entries {
            let path = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
            let stat = self.stat(folder, &name, &path)?;
            let is_folder = attributes::kind(&stat) == Some(FileType::Directory);
            if !out(Packet { r#type: PacketType::Stat as i32, stat: Some(stat), ..Packet::default() }) {
                return Ok(false);
            }
            if is_folder {
                let inner = rustix::fs::openat(folder, name.as_str(), ENTER, Mode::empty())
                    .map_err(Error::disk("enter", &path))?;
                if !self.list_folder(inner.as_fd(), &path, out)? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    fn stat(&mut self, folder: BorrowedFd<'_>, name: &str, path: &str) -> Result<Stat, Error> {
        if self.listed >= MAX_ENTRIES {
            return Err(Error::Limit { what: "files", limit: MAX_ENTRIES });
        }
        let id = u32::try_from(self.listed).unwrap_or(u32::MAX);
        self.listed += 1;
        let here = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(Error::disk("look at", path))?;
        let mut stat = Stat {
            path: path.to_string(),
            mode: attributes::go_mode(here.st_mode),
            uid: here.st_uid,
            gid: here.st_gid,
            mod_time: attributes::changed_at(&here),
            ..Stat::default()
        };
        match FileType::from_raw_mode(here.st_mode) {
            FileType::RegularFile => {
                stat.size = here.st_size;
                if here.st_nlink > 1 {
                    let first =
                        self.first_names.entry((here.st_dev, here.st_ino)).or_insert_with(|| path.into());
                    if first != path {
                        stat.linkname.clone_from(first);
                    }
                }
                self.files.insert(id, path.to_string());
            }
            FileType::Symlink => {
                let target =
                    rustix::fs::readlinkat(folder, name, Vec::new()).map_err(Error::disk("read", path))?;
                stat.linkname = target.to_string_lossy().into_owned();
                stat.size = here.st_size;
            }
            FileType::BlockDevice | FileType::CharacterDevice => {
                stat.devmajor = rustix::fs::major(here.st_rdev).into();
                stat.devminor = rustix::fs::minor(here.st_rdev).into();
            }
            _ => {}
        }
        Ok(stat)
    }

    /// Sends a file's bytes, ending with an empty piece. `out` says whether to go on.
    ///
    /// # Errors
    /// A place of the list that is no file; those of the disk.
    pub fn content(&self, id: u32, out: &mut dyn FnMut(Packet) -> bool) -> Result<(), Error> {
        let Some(path) = self.files.get(&id) else {
            return Err(Error::Protocol("the receiver asked for what is no file"));
        };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = rustix::fs::openat2(&self.root, path.as_str(), flags, Mode::empty(), resolve);
        let mut file = File::from(opened.map_err(Error::disk("open", path))?);
        loop {
            let mut piece = vec![0; PIECE_BYTES];
            let read = file.read(&mut piece).map_err(|source| Error::Disk {
                step: "read",
                path: path.clone(),
                source,
            })?;
            piece.truncate(read);
            let packet =
                Packet { r#type: PacketType::Data as i32, id, data: Bytes::from(piece), ..Packet::default() };
            if !out(packet) || read == 0 {
                return Ok(());
            }
        }
    }
}
