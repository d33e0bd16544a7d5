//! GELF 1.1: JSON, in datagrams that are compressed and cut, or over TCP with a zero byte behind each.

use std::io::Write;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use serde_json::{Map, Value, json};
use wherry_monitor_api::GelfCompression;

use super::{Entry, link, syslog};

/// The longest datagram that is sent.
const DATAGRAM: usize = 1420;
/// What says that a datagram is a piece, before 8 bytes of the message's name, its number and their count.
const MAGIC: [u8; 2] = [0x1e, 0x0f];
const PIECE: usize = DATAGRAM - 12;
/// No message has more pieces.
const MOST_PIECES: usize = 128;

/// The document; none for an empty line, which servers refuse.
pub(super) fn json(hostname: &str, fields: &Map<String, Value>, entry: &Entry<'_>) -> Option<Vec<u8>> {
    if entry.text.is_empty() {
        return None;
    }
    let mut document = fields.clone();
    document.insert("version".into(), "1.1".into());
    document.insert("host".into(), hostname.into());
    document.insert("short_message".into(), String::from_utf8_lossy(entry.text).into());
    document.insert("timestamp".into(), json!((entry.time_ns / 1_000_000) as f64 / 1000.0));
    document.insert("level".into(), syslog::severity(entry.stream).into());
    serde_json::to_vec(&document).ok()
}

/// The datagrams of a document; none at all for one that is too long.
pub(super) fn datagrams(json: &[u8], compression: GelfCompression, ordinal: u64) -> Vec<u8> {
    let bytes = match compression {
        GelfCompression::None => json.to_vec(),
        GelfCompression::Gzip(level) => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level.min(9)));
            // Writing to a vector cannot fail.
            let _ = encoder.write_all(json);
            encoder.finish().unwrap_or_default()
        }
        GelfCompression::Zlib(level) => {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::new(level.min(9)));
            let _ = encoder.write_all(json);
            encoder.finish().unwrap_or_default()
        }
    };
    let mut message = Vec::new();
    if bytes.len() <= DATAGRAM {
        link::push_datagram(&bytes, &mut message);
        return message;
    }
    let pieces = bytes.chunks(PIECE);
    let count = pieces.len();
    if count > MOST_PIECES {
        return message;
    }
    // Not the same for two senders on one machine, nor for two messages of one.
    let name = (u64::from(std::process::id()) << 40 ^ ordinal).to_be_bytes();
    for (number, piece) in pieces.enumerate() {
        let place = [u8::try_from(number).unwrap_or(0), u8::try_from(count).unwrap_or(0)];
        link::push_datagram(&[&MAGIC[..], &name, &place, piece].concat(), &mut message);
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_documents_are_cut() {
        let cut = |length: usize| {
            let message = datagrams(&vec![b'x'; length], GelfCompression::None, 7);
            let (mut rest, mut lengths) = (&message[..], Vec::new());
            while let Some((length, after)) = rest.split_first_chunk::<4>() {
                let (datagram, after) = after.split_at(u32::from_be_bytes(*length) as usize);
                lengths.push((datagram.len(), datagram[..2] == MAGIC, datagram[datagram.len().min(10)]));
                rest = after;
            }
            lengths
        };
        assert_eq!(cut(1420), [(1420, false, b'x')]);
        assert_eq!(cut(1421), [(1420, true, 0), (25, true, 1)]);
        assert_eq!(cut(PIECE * 128).len(), 128);
        assert_eq!(cut(PIECE * 128 + 1), []);
    }
}
