//! A container's log as Docker's json-file driver keeps it: one JSON object a
//! line, in a current file and rotated older ones (`NAME.1` is the newest of those).
//!
//! [`Writer`] cuts the bytes of the two output streams into entries and appends
//! them; [`Reader`] gives entries back, from the tail or from a time on, and can go on as
//! more is written, across rotation. [`Query`] and [`Format`] say what is wanted
//! and how `docker logs` frames it. This crate knows nothing of processes, sockets
//! or HTTP; it runs in the caller's thread. A log's file has one writer, the container's
//! monitor; readers may be in any process and need no lock, because a line is complete or skipped.

mod entry;
mod escape;
mod files;
mod format;
mod lines;
mod pack;
mod parse;
mod reader;
mod writer;

pub use entry::{Entry, Stream};
pub use format::{Format, Framing, write_header};
pub use lines::{MAX_ENTRY, Splitter};
pub use reader::{Filled, Query, Reader};
pub use writer::{Options, Writer};
