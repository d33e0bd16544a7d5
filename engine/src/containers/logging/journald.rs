//! `journald`.

use std::path::Path;

use wherry_monitor_api::{LogFormat, LogTarget, RemoteLog, WhenFull};

use super::{BLOCKING_BYTES, Reason, attributes, tag};
use crate::containers::record::Record;

const SOCKET: &str = "/run/systemd/journal/socket";

/// The journal, and what it is told.
pub(super) fn remote(record: &Record) -> Result<RemoteLog, Reason> {
    if !Path::new(SOCKET).exists() {
        return Err("journald is not enabled on this host".into());
    }
    let tag = tag::render(record, "{{.ID}}")?;
    let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let mut fields = vec![
        field("CONTAINER_ID", record.short_id()),
        field("CONTAINER_ID_FULL", &record.id),
        field("CONTAINER_NAME", &record.name),
        field("CONTAINER_TAG", &tag),
        field("IMAGE_NAME", &record.config.image),
        field("SYSLOG_IDENTIFIER", &tag),
        // Tells the runs of a container apart, in which ordinals begin anew.
        field("CONTAINER_LOG_EPOCH", &crate::id::hex64()),
    ];
    fields.extend(attributes::of(record)?.into_iter().map(|(name, value)| (field_name(&name), value)));
    let (targets, format) = (vec![LogTarget::UnixDatagram(SOCKET.into())], LogFormat::Journald { fields });
    let when_full = WhenFull::Block;
    Ok(RemoteLog {
        targets,
        format,
        when_full,
        buffer_bytes: BLOCKING_BYTES,
        retries: 10,
        retry_wait_ms: 200,
    })
}

/// A field's name has capitals, digits and underscores, and does not begin with one of those.
fn field_name(name: &str) -> String {
    let letters = name.chars().map(|c| match c {
        'a'..='z' => c.to_ascii_uppercase(),
        'A'..='Z' | '0'..='9' => c,
        _ => '_',
    });
    letters.skip_while(|c| *c == '_').collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_of_fields() {
        assert_eq!(super::field_name("__com.Docker-1"), "COM_DOCKER_1");
    }
}
