//! Transfers of file trees, in the packets of fsutil: one side lists its files in order, the other asks for the bytes of
//! those that it does not have.
//!
//! [`receive`] keeps a folder equal to what the other side lists: what is there already, by kind, size, mode, owner and
//! time of change, is not asked for again, and what is not listed is removed. [`memory`] takes a few small files.
//! [`send`] is the other role. All of them are blocking state machines without sockets; [`crate::session`] moves their
//! packets.
//!
//! Names come from strangers: a path must be relative, without empty, `.` or `..` parts, in order, and below a folder that
//! was listed before. Folders are entered by descriptors and never through links.

mod attributes;
pub mod memory;
pub mod receive;
mod remove;
pub mod send;

use std::io;

/// What goes wrong in a transfer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The other side gave up.
    #[error("error from sender: {0}")]
    Sender(String),
    /// The other side gave up.
    #[error("error from receiver: {0}")]
    Receiver(String),
    /// A name that is not allowed, or out of order.
    #[error("invalid path {path:?} in a transfer of files: {reason}")]
    Path {
        /// The name.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A packet that does not fit.
    #[error("a transfer of files broke its protocol: {0}")]
    Protocol(&'static str),
    /// Too much.
    #[error("a transfer of files has more than {limit} {what}")]
    Limit {
        /// Of what.
        what: &'static str,
        /// How much is taken.
        limit: usize,
    },
    /// The disk.
    #[error("{step} {path:?}: {source}")]
    Disk {
        /// What was being done.
        step: &'static str,
        /// To what.
        path: String,
        /// Why it failed.
        source: io::Error,
    },
}

impl Error {
    /// For `map_err` of system calls on `path`.
    pub(crate) fn disk(step: &'static str, path: &str) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |errno| Self::Disk { step, path: path.to_string(), source: errno.into() }
    }
}

/// The most files of one transfer.
pub(crate) const MAX_ENTRIES: usize = 1 << 21;
/// The longest path.
const MAX_PATH_BYTES: usize = 4095;
/// The longest part of a path.
const MAX_NAME_BYTES: usize = 255;

/// Checks a listed path by itself and against the one before it.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check_path(path: &str, previous: &str) -> Result<(), Error> {
    let refuse = |reason| Err(Error::Path { path: path.to_string(), reason });
    if path.len() > MAX_PATH_BYTES {
        return refuse("it is too long");
    }
    for part in path.split('/') {
        match part {
            "" => return refuse("it has an empty part"),
            "." | ".." => return refuse("it has a part that leads elsewhere"),
            _ if part.len() > MAX_NAME_BYTES => return refuse("a part of it is too long"),
            _ if part.contains('\0') => return refuse("it has a NUL byte"),
            _ => {}
        }
    }
    if !previous.is_empty() && path.split('/').cmp(previous.split('/')).is_le() {
        return refuse("it is out of order");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::check_path;

    #[test]
    fn paths_are_clean_and_in_order() {
        for (path, previous) in [("a", ""), ("a/b", "a"), ("a/b", "a/a/z"), ("a.b", "a/z"), ("ä ö", "a")] {
            assert!(check_path(path, previous).is_ok(), "{path} after {previous}");
        }
        let long = "x".repeat(256);
        for (path, previous) in [
            ("", ""),
            ("/etc/passwd", ""),
            ("..", ""),
            ("a/../../b", ""),
            ("a//b", ""),
            ("a/", ""),
            ("./a", ""),
            ("a\0b", ""),
            ("a", "a"),
            ("a/z", "a.b"),
            ("a", "b"),
            (long.as_str(), ""),
        ] {
            assert!(check_path(path, previous).is_err(), "{path:?} after {previous:?}");
        }
    }
}
