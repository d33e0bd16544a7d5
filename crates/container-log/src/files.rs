//! The names of a log's files, and what is in them.

use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use crate::pack;

/// Which file it is: device, inode, and when it was made, since the number of a file that has gone is used again.
pub(crate) type Identity = (u64, u64, u64);

/// The name of the `number`th rotated file; 0 is the current one.
pub(crate) fn rotated(path: &Path, number: u32) -> PathBuf {
    if number == 0 { path.to_owned() } else { suffixed(path, &format!(".{number}")) }
}

/// The same file once it is compressed.
pub(crate) fn packed(path: &Path) -> PathBuf {
    suffixed(path, ".gz")
}

pub(crate) fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

pub(crate) fn identity(metadata: &Metadata) -> Identity {
    let made = metadata.created().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    (metadata.dev(), metadata.ino(), made.map_or(0, |made| made.as_nanos() as u64))
}

/// A file of a log.
#[derive(Debug)]
pub(crate) struct Part {
    file: File,
    packed: bool,
    identity: Identity,
}

impl Part {
    fn plain(file: File) -> io::Result<Self> {
        let identity = identity(&file.metadata()?);
        Ok(Self { file, packed: false, identity })
    }

    fn packed(file: File) -> io::Result<Self> {
        let own = identity(&file.metadata()?);
        let identity = pack::origin(&file).unwrap_or(own);
        Ok(Self { file, packed: true, identity })
    }

    /// Which file it is, or was before it was compressed.
    pub(crate) fn identity(&self) -> Identity {
        self.identity
    }

    /// Of the file as it is on the disk.
    pub(crate) fn metadata(&self) -> io::Result<Metadata> {
        self.file.metadata()
    }

    /// The text, which is unpacked if it must be, beside the log at `path`.
    pub(crate) fn text(&mut self, path: &Path) -> io::Result<&File> {
        if self.packed {
            self.file = pack::unpack(&self.file, path)?;
            self.packed = false;
        }
        Ok(&self.file)
    }

    /// As [`Part::text`], for good.
    pub(crate) fn into_text(mut self, path: &Path) -> io::Result<File> {
        self.text(path)?;
        Ok(self.file)
    }
}

/// All files of the log at `path`, the newest first. They are opened in that order so that a rotation
/// meanwhile shows a file twice (it is dropped) and never hides one.
pub(crate) fn open_all(path: &Path) -> io::Result<Vec<Part>> {
    let mut parts: Vec<Part> = Vec::new();
    for number in 0.. {
        match open(path, number) {
            Ok(part) => {
                if !parts.iter().any(|known| known.identity == part.identity) {
                    parts.push(part);
                }
            }
            // The current file may be missing for an instant, while it is rotated.
            Err(e) if e.kind() == io::ErrorKind::NotFound && number == 0 => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => break,
            Err(e) => return Err(e),
        }
    }
    Ok(parts)
}

fn open(path: &Path, number: u32) -> io::Result<Part> {
    let name = rotated(path, number);
    match File::open(&name) {
        // A packed file is in its place before the other goes.
        Err(e) if e.kind() == io::ErrorKind::NotFound && number > 0 => {
            Part::packed(File::open(packed(&name))?)
        }
        file => Part::plain(file?),
    }
}
