//! Logs that are read from disk: of containers that do not run, or up to now.

use wherry_container_log as log;
use wherry_monitor_api::{self as api, Framing, LogsRequest};

use super::record::Record;
use super::streams::{self, blocking_stream};
use crate::engine::Engine;
use crate::error::Error;
use crate::server::Reply;

/// How much is sent at a time.
const PIECE: usize = 64 << 10;

/// Sends what the log holds now.
///
/// # Errors
/// The log cannot be opened.
pub(super) fn send(
    engine: &Engine,
    record: &Record,
    wanted: &LogsRequest,
    content_type: &'static str,
) -> Result<Reply, Error> {
    let path = super::logging::file(record, &engine.config().data_root)
        .ok_or_else(|| Error::NotImplemented("configured logging driver does not support reading".into()))?;
    let query = log::Query {
        stdout: wanted.stdout,
        stderr: wanted.stderr,
        since_ns: wanted.since_ns,
        until_ns: wanted.until_ns,
        tail: wanted.tail,
        follow: false,
    };
    let format = log::Format {
        framing: framing(wanted.framing),
        timestamps: wanted.timestamps,
        details: wanted.details,
    };
    Ok(blocking_stream(content_type, move |emit| pieces(&path, query, &format, emit)))
}

/// Answers a client that attaches for the log so far and nothing else; the connection is its own.
pub(super) fn send_raw(engine: &Engine, record: &Record, wanted: api::AttachRequest) -> Reply {
    let Some(path) = super::logging::file(record, &engine.config().data_root) else {
        // The log of a driver that keeps none is empty. (dockerd leaves the client without an end.)
        return streams::say(wanted.head, Vec::new());
    };
    let query = log::Query {
        stdout: wanted.stdout,
        stderr: wanted.stderr,
        since_ns: None,
        until_ns: None,
        tail: None,
        follow: false,
    };
    let format = log::Format { framing: framing(wanted.framing), timestamps: false, details: false };
    streams::say_in_pieces(wanted.head, move |emit| pieces(&path, query, &format, emit))
}

fn framing(framing: Framing) -> log::Framing {
    match framing {
        Framing::Raw => log::Framing::Raw,
        Framing::Multiplexed => log::Framing::Multiplexed,
    }
}

/// Reads a log to its end, or until `emit` says that nobody wants more. Blocks.
fn pieces(
    path: &std::path::Path,
    query: log::Query,
    format: &log::Format,
    emit: &mut dyn FnMut(Vec<u8>) -> bool,
) -> Result<(), Error> {
    let step = |e| Error::io("read", path.display())(e);
    let mut reader = log::Reader::open(path, query).map_err(step)?;
    loop {
        let mut piece = Vec::with_capacity(PIECE + 4096);
        let filled = reader.fill(&mut piece, format, PIECE).map_err(step)?;
        let more = matches!(filled, log::Filled::More);
        if !piece.is_empty() && !emit(piece) || !more {
            return Ok(());
        }
    }
}
