//! Entries as `docker logs` sends them.

use std::collections::BTreeMap;

use crate::entry::{Entry, Stream};

/// How the two streams share a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// The bytes as they are.
    Raw,
    /// Each entry behind [`write_header`]'s 8 bytes.
    Multiplexed,
}

/// What is written for each entry.
#[derive(Debug, Clone, Copy)]
pub struct Format {
    /// How the streams share the connection.
    pub framing: Framing,
    /// Whether the entry's time and a space come first.
    pub timestamps: bool,
    /// Whether the attributes (`a=b,c=d`, URL-encoded) and a space come before the text.
    pub details: bool,
}

impl Format {
    /// Appends `entry`.
    pub fn write(&self, entry: &Entry<'_>, out: &mut Vec<u8>) {
        let start = out.len();
        if self.framing == Framing::Multiplexed {
            out.extend_from_slice(&[0; 8]);
        }
        let body = out.len();
        if self.timestamps {
            wherry_rfc3339::write_fixed(entry.time_ns, out);
            out.push(b' ');
        }
        if self.details {
            write_details(entry.attributes, out);
            out.push(b' ');
        }
        out.extend_from_slice(entry.text);
        if self.framing == Framing::Multiplexed {
            let length = out.len() - body;
            out[start..body].copy_from_slice(&write_header(entry.stream, length));
        }
    }
}

/// The header of a piece of `length` bytes: stream number, three zeros, big-endian length.
#[must_use]
pub fn write_header(stream: Stream, length: usize) -> [u8; 8] {
    let [a, b, c, d] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    [stream.number(), 0, 0, 0, a, b, c, d]
}

fn write_details(attributes: &[u8], out: &mut Vec<u8>) {
    let Ok(attributes) = serde_json::from_slice::<BTreeMap<String, String>>(attributes) else { return };
    for (index, (key, value)) in attributes.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_query_escaped(key, out);
        out.push(b'=');
        write_query_escaped(value, out);
    }
}

/// As Go's `url.QueryEscape`.
fn write_query_escaped(text: &str, out: &mut Vec<u8>) {
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte),
            b' ' => out.push(b'+'),
            _ => {
                let digit = |value: u8| b"0123456789ABCDEF"[usize::from(value & 15)];
                out.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte)]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_what_docker_logs_writes() {
        let entry = Entry {
            text: b"hi\n",
            stream: Stream::Stderr,
            time_ns: 1_500_000_000,
            attributes: br#"{"FOO":"x\u003cy","a":"b","c":"d e\u0026,"}"#,
        };
        for (framing, timestamps, details, expect) in [
            (Framing::Raw, false, false, &b"hi\n"[..]),
            (Framing::Raw, true, true, b"1970-01-01T00:00:01.500000000Z FOO=x%3Cy,a=b,c=d+e%26%2C hi\n"),
            (Framing::Multiplexed, false, false, b"\x02\0\0\0\0\0\0\x03hi\n"),
            (Framing::Multiplexed, true, false, b"\x02\0\0\0\0\0\0\x221970-01-01T00:00:01.500000000Z hi\n"),
        ] {
            let mut out = b"before".to_vec();
            Format { framing, timestamps, details }.write(&entry, &mut out);
            assert_eq!(&out[6..], expect);
        }
        let mut out = Vec::new();
        let plain = Entry { attributes: b"", ..entry };
        Format { framing: Framing::Raw, timestamps: false, details: true }.write(&plain, &mut out);
        assert_eq!(out, b" hi\n", "as dockerd: the space is there without attributes, too");
    }
}
