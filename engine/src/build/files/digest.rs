//! What files are, as a number: names, kinds, modes, owners, links, attributes and bytes; not their times. Attributes and bytes of
//! each file have a digest of their own, by which it is known again ([`Known`]).

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fstat, openat, readlinkat, statat};
use rustix::io::Errno;
use wherry_image_ref::{Digest, Hasher};

use super::known::Known;
use super::place::{Root, is_folder, names, split};
use super::tree::{Exclude, Owner, attributes};
use super::{FileError, MAX_DEPTH, Selected, below_pivot, failed, join};

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const BUFFER_BYTES: usize = 128 << 10;

/// The digest of what was selected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Digested {
    /// Of names, modes, owners and bytes.
    pub(in super::super) digest: Digest,
    /// Whether it is one folder.
    pub(in super::super) is_folder: bool,
}

/// The digest of something that was selected. With `owner` all belongs to that one, whoever owns it. With a `pivot` it is that
/// of what a copy brings that keeps the folders below this one. What is `known` is not read.
pub(in super::super) fn digest(
    root: Root<'_>,
    selected: &Selected,
    (owner, pivot): (Owner, Option<&[u8]>),
    exclude: Exclude<'_>,
    known: Option<&Known>,
) -> Result<Digested, FileError> {
    let buffer = vec![0; BUFFER_BYTES].into_boxed_slice();
    let mut walk = Walk { hasher: Hasher::default(), owner, exclude, known, buffer };
    let path = &selected.path;
    if let Some(pivot) = pivot {
        walk.below_pivot(root, pivot, path)?;
    } else if selected.is_folder {
        let folder = root.open_folder(path)?;
        walk.below(folder.as_fd(), b"", 0)?;
    } else {
        // A link at the end is followed, inside the root.
        let file = root.open(path, OFlags::RDONLY | OFlags::NONBLOCK).map_err(failed("open", path))?;
        let stat = fstat(&file).map_err(failed("stat", path))?;
        walk.head(split(path).1, &stat);
        let content = walk.content(&stat, || Ok(file)).map_err(failed("read", path))?;
        walk.field(content.as_bytes());
    }
    Ok(Digested { digest: walk.hasher.finish(), is_folder: selected.is_folder })
}

struct Walk<'a> {
    hasher: Hasher,
    owner: Owner,
    exclude: Exclude<'a>,
    known: Option<&'a Known>,
    buffer: Box<[u8]>,
}

impl Walk<'_> {
    /// The folders between, as they are kept, and the entry itself, no link at its end followed. The path below the pivot is what
    /// is excluded, as where it is copied.
    fn below_pivot(&mut self, root: Root<'_>, pivot: &[u8], path: &[u8]) -> Result<(), FileError> {
        let below = below_pivot(path, pivot);
        let (folders, name) = split(below);
        let mut at = pivot.to_vec();
        let mut folder = root.open_folder(&at)?;
        for part in folders.split(|b| *b == b'/').filter(|part| !part.is_empty()) {
            at = join(&at, part);
            folder = root.open_folder(&at)?;
            let stat = fstat(&folder).map_err(failed("stat", &at))?;
            self.head(&at, &stat);
            attributes_into(&mut self.hasher, folder.as_fd()).map_err(failed("read", &at))?;
        }
        if name.is_empty() {
            return self.below(folder.as_fd(), b"", 0);
        }
        self.entry(folder.as_fd(), name, below, 0)
    }

    fn below(&mut self, folder: BorrowedFd<'_>, path: &[u8], depth: usize) -> Result<(), FileError> {
        if depth > MAX_DEPTH {
            return Err(failed("open", path)(Errno::NAMETOOLONG));
        }
        for name in names(folder).map_err(failed("read", path))? {
            self.entry(folder, &name, &join(path, &name), depth)?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        folder: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
        depth: usize,
    ) -> Result<(), FileError> {
        let stat = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed("lstat", path))?;
        if (self.exclude)(path, is_folder(&stat)) {
            return Ok(());
        }
        self.head(path, &stat);
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let child = openat(folder, name, FOLDER, Mode::empty()).map_err(failed("open", path))?;
                attributes_into(&mut self.hasher, child.as_fd()).map_err(failed("read", path))?;
                self.below(child.as_fd(), path, depth + 1)?;
            }
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let content = self.content(&stat, || openat(folder, name, flags, Mode::empty()));
                self.field(content.map_err(failed("read", path))?.as_bytes());
            }
            FileType::Symlink => {
                let link = readlinkat(folder, name, Vec::new()).map_err(failed("readlink", path))?;
                self.field(link.as_bytes());
            }
            _ => {}
        }
        Ok(())
    }

    fn head(&mut self, path: &[u8], stat: &Stat) {
        self.field(path);
        let (uid, gid) = self.owner.unwrap_or((stat.st_uid, stat.st_gid));
        let device = match FileType::from_raw_mode(stat.st_mode) {
            FileType::CharacterDevice | FileType::BlockDevice => stat.st_rdev,
            _ => 0,
        };
        for number in [u64::from(stat.st_mode), u64::from(uid), u64::from(gid), device] {
            self.hasher.update(&number.to_le_bytes());
        }
    }

    /// The digest of a file's attributes and bytes.
    fn content(
        &mut self,
        stat: &Stat,
        open: impl FnOnce() -> Result<OwnedFd, Errno>,
    ) -> Result<Digest, Errno> {
        if let Some(digest) = self.known.and_then(|known| known.get(stat)) {
            return Ok(digest);
        }
        let mut file = File::from(open()?);
        let mut hasher = Hasher::default();
        attributes_into(&mut hasher, file.as_fd())?;
        length_into(&mut hasher, stat.st_size);
        let mut left = u64::try_from(stat.st_size).unwrap_or(0);
        while left > 0 {
            let read = match file.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error)),
            };
            hasher.update(self.buffer.get(..read).unwrap_or_default());
            left = left.saturating_sub(read as u64);
        }
        let digest = hasher.finish();
        if let Some(known) = self.known {
            known.put(stat, digest);
        }
        Ok(digest)
    }

    fn field(&mut self, bytes: &[u8]) {
        field_into(&mut self.hasher, bytes);
    }
}

/// The digest of a file that has no attributes, as its bytes come.
pub(in super::super) struct Incoming {
    hasher: Hasher,
    left: i64,
}

impl Incoming {
    /// Of a file that will have so many bytes.
    pub(in super::super) fn new(size: i64) -> Self {
        let mut hasher = Hasher::default();
        length_into(&mut hasher, size);
        Self { hasher, left: size }
    }

    /// The next ones.
    pub(in super::super) fn add(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.left = self.left.saturating_sub_unsigned(bytes.len() as u64);
    }

    /// What has come; `None` if it is not as much as was said.
    pub(in super::super) fn finish(self) -> Option<Digest> {
        (self.left == 0).then(|| self.hasher.finish())
    }
}

/// Comes after the attributes and before the bytes, so that no content can look like another attribute.
fn length_into(hasher: &mut Hasher, size: i64) {
    hasher.update(&size.to_le_bytes());
}

fn attributes_into(hasher: &mut Hasher, file: BorrowedFd<'_>) -> Result<(), Errno> {
    for (name, value) in attributes(file)? {
        field_into(hasher, &name);
        field_into(hasher, &value);
    }
    Ok(())
}

fn field_into(hasher: &mut Hasher, bytes: &[u8]) {
    hasher.update(&(bytes.len() as u64).to_le_bytes());
    hasher.update(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_has_the_digest_of_what_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for content in [&b""[..], b"x", &[7; 300 << 10]] {
            std::fs::write(&path, content).unwrap();
            let stat = rustix::fs::stat(&path).unwrap();
            let buffer = vec![0; BUFFER_BYTES].into_boxed_slice();
            let mut walk =
                Walk { hasher: Hasher::default(), owner: None, exclude: &|_, _| false, known: None, buffer };
            let read = walk.content(&stat, || Ok(File::open(&path).unwrap().into())).unwrap();
            let come = |size| {
                let mut incoming = Incoming::new(size);
                content.chunks(1000).for_each(|piece| incoming.add(piece));
                incoming.finish()
            };
            assert_eq!(come(stat.st_size), Some(read));
            assert_eq!((come(stat.st_size + 1), come(stat.st_size - 1)), (None, None));
        }
    }
}
