//! From a layer's tar to its folder.

mod decompress;
mod entry;
mod extract;
mod folders;
mod ingest;
mod pipeline;
mod rebuild;
mod record;
mod xz;

pub(crate) use decompress::{Compression, decompress};
pub use extract::{Extract, extract, is_archive};
pub(crate) use folders::clean;
pub use ingest::Expected;
pub(crate) use ingest::Staged;
pub(crate) use record::{FILE as HEADERS, Record, Recorder};

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use rustix::io::Errno;

use crate::tar::{Reader, TarError};

/// Why a layer could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The archive is malformed, or its source failed.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// A path or the target of a hard link leads out of the layer.
    #[error("{path:?} is outside of the layer")]
    Escapes {
        /// As it stands in the archive.
        path: PathBuf,
    },
    /// The archive has a kind of entry that a file system has not.
    #[error("{path:?}: unhandled tar header type {flag}")]
    Kind {
        /// The entry's path.
        path: PathBuf,
        /// Its type flag.
        flag: u8,
    },
    /// A user or group id does not fit in 32 bits.
    #[error("{path:?}: user or group id out of range")]
    Owner {
        /// The entry's path.
        path: PathBuf,
    },
    /// The compressed data expand beyond any honest ratio.
    #[error("the layer expands to more than {limit} times its size")]
    Bomb {
        /// The greatest ratio that is accepted.
        limit: u64,
    },
    /// A file operation in the layer failed.
    #[error("{action} {path:?}: {source}")]
    Entry {
        /// The operation.
        action: &'static str,
        /// The entry's path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A folder stands where a file is to come, or the other way round, and is to be kept.
    #[error("{path:?} is already there, and {} a folder", if *folder { "is not" } else { "is" })]
    Replaces {
        /// The entry's path.
        path: PathBuf,
        /// Whether the entry is a folder.
        folder: bool,
    },
    /// The headers, which `save` needs, cannot be written.
    #[error("write the layer's headers: {0}")]
    Record(io::Error),
}

pub(crate) fn failed(action: &'static str, path: &[u8]) -> impl FnOnce(Errno) -> UnpackError {
    let path = display(path);
    move |errno| UnpackError::Entry { action, path, source: errno.into() }
}

pub(crate) fn display(path: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(path.to_vec()))
}

/// Unpacks an archive into the empty folder `root` and records its headers. Returns the size of
/// all files, in bytes. The caller has read the source to its end then.
pub(crate) fn unpack(source: impl Read, root: OwnedFd, recorder: Recorder) -> Result<u64, UnpackError> {
    let mut reader = Reader::new(source, recorder);
    let mut target = entry::Target::new(folders::Folders::new(root), entry::Rules::default());
    while let Some(entry) = reader.next()? {
        target.apply(&entry, &mut reader)?;
    }
    let size_bytes = target.finish()?;
    reader.into_tap().finish().map_err(UnpackError::Record)?;
    Ok(size_bytes)
}
