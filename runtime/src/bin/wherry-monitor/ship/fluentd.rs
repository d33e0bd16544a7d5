//! Fluentd's forward protocol, in its message mode: `[tag, time, record, options]` in MessagePack.

use std::collections::BTreeMap;

use super::{Entry, Part};

/// A record. `chunk` asks the server to confirm it.
pub(super) fn message(
    tag: &str,
    fields: &BTreeMap<String, String>,
    nanoseconds: bool,
    chunk: Option<u64>,
    entry: &Entry<'_>,
) -> Vec<u8> {
    let mut message = vec![0x94];
    text(tag.as_bytes(), &mut message);
    time(entry.time_ns, nanoseconds, &mut message);
    let source: &[u8] = entry.stream.name().as_bytes();
    let part = entry.part.map(part_fields).unwrap_or_default();
    map_head(fields.len() + part.len() + 2, &mut message);
    let own = [(&b"source"[..], source), (b"log", entry.text)];
    let given = fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    let parts = part.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    for (name, value) in given.chain(own).chain(parts) {
        text(name, &mut message);
        text(value, &mut message);
    }
    match chunk {
        None => map_head(0, &mut message),
        Some(number) => {
            map_head(1, &mut message);
            text(b"chunk", &mut message);
            text(chunk_name(number).as_bytes(), &mut message);
        }
    }
    message
}

/// Whether an answer confirms the record that was sent: it names the chunk with which that ends.
pub(super) fn confirms(answer: &[u8], message: &[u8]) -> bool {
    let name = message.last_chunk::<16>();
    name.is_some_and(|name| answer.windows(name.len()).any(|window| window == name))
}

fn chunk_name(number: u64) -> String {
    format!("{:04x}{:012x}", std::process::id() & 0xffff, number & 0xffff_ffff_ffff)
}

fn part_fields(part: Part) -> Vec<(&'static str, String)> {
    vec![
        ("partial_message", "true".into()),
        ("partial_id", format!("{:016x}", part.line)),
        ("partial_ordinal", part.ordinal.to_string()),
        ("partial_last", part.last.to_string()),
    ]
}

fn time(time_ns: i64, nanoseconds: bool, out: &mut Vec<u8>) {
    let seconds = time_ns.div_euclid(1_000_000_000);
    let short = u32::try_from(seconds).unwrap_or(0);
    if nanoseconds {
        // Extension 0 of eight bytes: EventTime.
        out.extend_from_slice(&[0xd7, 0x00]);
        out.extend_from_slice(&short.to_be_bytes());
        let rest = u32::try_from(time_ns.rem_euclid(1_000_000_000)).unwrap_or(0);
        out.extend_from_slice(&rest.to_be_bytes());
    } else {
        out.push(0xd3);
        out.extend_from_slice(&seconds.to_be_bytes());
    }
}

fn text(bytes: &[u8], out: &mut Vec<u8>) {
    match bytes.len() {
        short @ 0..32 => out.push(0xa0 | short as u8),
        medium @ 32..256 => out.extend_from_slice(&[0xd9, medium as u8]),
        long @ 256..65536 => {
            out.push(0xda);
            out.extend_from_slice(&(long as u16).to_be_bytes());
        }
        huge => {
            out.push(0xdb);
            out.extend_from_slice(&u32::try_from(huge).unwrap_or(u32::MAX).to_be_bytes());
        }
    }
    out.extend_from_slice(bytes);
}

fn map_head(entries: usize, out: &mut Vec<u8>) {
    if entries < 16 {
        out.push(0x80 | entries as u8);
    } else {
        out.push(0xde);
        out.extend_from_slice(&u16::try_from(entries).unwrap_or(u16::MAX).to_be_bytes());
    }
}
