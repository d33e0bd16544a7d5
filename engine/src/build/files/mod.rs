//! Files on their way into an image. All of it goes by descriptors: what a context or a stage has under a path is opened below
//! its root, links lead nowhere out of it, and nothing is followed where a link itself is meant.

mod crew;
mod digest;
mod known;
mod mode;
mod place;
mod select;
mod tree;

pub(super) use digest::{Digested, Incoming, digest};
pub(super) use known::Known;
pub(super) use mode::ModeChange;
pub(super) use place::{Root, clean, split};
pub(super) use select::{Selected, select, select_one};
pub(super) use tree::{Copier, Owner, times};

use rustix::io::Errno;

/// Most folders in one another.
const MAX_DEPTH: usize = 1000;

/// A file operation that failed.
#[derive(Debug, thiserror::Error)]
#[error("{action} {path}: {source}")]
pub(super) struct FileError {
    /// What was tried.
    pub(super) action: &'static str,
    /// On what.
    pub(super) path: String,
    /// Why not.
    pub(super) source: std::io::Error,
}

impl FileError {
    /// Whether there is nothing under the path.
    pub(super) fn is_missing(&self) -> bool {
        self.source.kind() == std::io::ErrorKind::NotFound
    }
}

/// Adds what was tried, and on what.
pub(super) fn failed(action: &'static str, path: &[u8]) -> impl FnOnce(Errno) -> FileError {
    let path = String::from_utf8_lossy(path).into_owned();
    move |errno| FileError { action, path, source: errno.into() }
}

/// `path` with `name` below it.
pub(super) fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    match path {
        b"" => name.to_vec(),
        [.., b'/'] => [path, name].concat(),
        path => [path, b"/", name].concat(),
    }
}

/// The part of a path that is below the folder `pivot`.
pub(super) fn below_pivot<'a>(path: &'a [u8], pivot: &[u8]) -> &'a [u8] {
    let below = path.get(pivot.len()..).unwrap_or_default();
    below.strip_prefix(b"/").unwrap_or(below)
}
