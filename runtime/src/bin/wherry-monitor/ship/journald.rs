//! systemd's native journal protocol: fields, each `NAME=value`, or with its length where the value has newlines.

use super::{Entry, syslog};

/// A message of all fields.
pub(super) fn message(fields: &[(String, String)], entry: &Entry<'_>, ordinal: u64) -> Vec<u8> {
    let mut message = Vec::new();
    field("PRIORITY", syslog::severity(entry.stream).to_string().as_bytes(), &mut message);
    field("MESSAGE", entry.text, &mut message);
    for (name, value) in fields {
        field(name, value.as_bytes(), &mut message);
    }
    field("CONTAINER_LOG_ORDINAL", ordinal.to_string().as_bytes(), &mut message);
    field("SYSLOG_TIMESTAMP", wherry_rfc3339::trimmed(entry.time_ns).as_bytes(), &mut message);
    if let Some(part) = entry.part {
        field("CONTAINER_PARTIAL_ID", format!("{:016x}", part.line).as_bytes(), &mut message);
        field("CONTAINER_PARTIAL_ORDINAL", part.ordinal.to_string().as_bytes(), &mut message);
        field("CONTAINER_PARTIAL_LAST", part.last.to_string().as_bytes(), &mut message);
        if !part.last {
            field("CONTAINER_PARTIAL_MESSAGE", b"true", &mut message);
        }
    }
    message
}

fn field(name: &str, value: &[u8], message: &mut Vec<u8>) {
    message.extend_from_slice(name.as_bytes());
    if value.contains(&b'\n') {
        message.push(b'\n');
        message.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        message.push(b'=');
    }
    message.extend_from_slice(value);
    message.push(b'\n');
}
