//! Reading and writing the tar format: ustar, GNU and PAX, as Go's `archive/tar` understands it,
//! because that is what made the layers of this world and what other engines read them with.
//!
//! Archives come from strangers. The reader bounds what it keeps in memory, and where two
//! fields contradict each other (a PAX size and a header size, say) it decides as Go does, so
//! that nobody can hide an entry from one engine and show it to another.

mod encode;
mod header;
mod pax;
mod reader;
mod sparse;
mod writer;

pub(crate) use encode::encode;
pub(crate) use header::{BLOCK, Header, Kind};
pub(crate) use reader::{Entry, Reader, Tap, truncated};
pub(crate) use sparse::Region;
pub(crate) use writer::{Member, Writer};

use std::io;

/// Why an archive cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The source of the bytes failed.
    #[error(transparent)]
    Read(#[from] io::Error),
    /// It ends within an entry.
    #[error("unexpected EOF")]
    Truncated,
    /// A header's checksum or a number in it is wrong, or something else stands there.
    #[error("archive/tar: invalid tar header")]
    Header,
    /// A PAX record is malformed.
    #[error("archive/tar: invalid tar header: malformed PAX record")]
    Pax,
    /// The map of a sparse file is malformed.
    #[error("archive/tar: invalid tar header: malformed map of a sparse file")]
    Sparse,
    /// A name, PAX header or map of a sparse file is longer than any honest one.
    #[error("archive/tar: header field too long")]
    TooLong,
    /// More entries than any honest archive has.
    #[error("archive/tar: too many entries")]
    TooManyEntries,
}
