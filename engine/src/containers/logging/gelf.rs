//! Options of `gelf`.

use serde_json::Map;
use wherry_monitor_api::{GelfCompression, LogFormat, RemoteLog, WhenFull};

use super::address::Address;
use super::{ATTRIBUTES, BLOCKING_BYTES, Options, Reason, attributes, reach, tag};
use crate::containers::record::Record;
use crate::text::go_quote;

/// Checks the options.
pub(super) fn check(options: &Options) -> Result<(), Reason> {
    let scheme = address(options)?.scheme;
    for (name, value) in options {
        let unknown = || {
            format!("unknown value {} for log opt {} for gelf log driver", go_quote(value), go_quote(name))
        };
        match name.as_str() {
            "gelf-address" => {}
            common if ATTRIBUTES.contains(&common) => {}
            "gelf-compression-level" | "gelf-compression-type" if scheme != "udp" => {
                return Err("compression is only supported on UDP".into());
            }
            "gelf-compression-level" if level(value).is_none() => return Err(unknown()),
            "gelf-compression-type" if !matches!(value.as_str(), "gzip" | "zlib" | "none") => {
                return Err(unknown());
            }
            "gelf-compression-level" | "gelf-compression-type" => {}
            "gelf-tcp-max-reconnect" | "gelf-tcp-reconnect-delay" => {
                if scheme != "tcp" {
                    return Err(format!("{} is only valid for TCP", go_quote(name)));
                }
                if value.parse::<u32>().is_err() {
                    return Err(format!("{} must be a positive integer", go_quote(name)));
                }
            }
            _ => return Err(format!("unknown log opt {} for gelf log driver", go_quote(name))),
        }
    }
    Ok(())
}

/// -1 stands for the default, 6.
fn level(text: &str) -> Option<u32> {
    match text.parse::<i32>().ok()? {
        -1 => Some(6),
        level @ 0..=9 => u32::try_from(level).ok(),
        _ => None,
    }
}

fn address(options: &Options) -> Result<Address<'_>, Reason> {
    let text = options.get("gelf-address").map_or("", String::as_str);
    if text.is_empty() {
        return Err("gelf-address is a required parameter".into());
    }
    let address = Address::parse(text)?;
    if !matches!(address.scheme, "udp" | "tcp") {
        return Err("gelf: endpoint needs to be TCP or UDP".into());
    }
    match address.host_and_port().1 {
        Some(_) => Ok(address),
        None => Err("gelf: please provide gelf-address as proto://host:port".into()),
    }
}

/// The server, and what it is told.
pub(super) fn remote(record: &Record) -> Result<RemoteLog, Reason> {
    let options = &record.host_config.log_config.config;
    let address = address(options)?;
    let (host, port) = address.host_and_port();
    let (host, port) = (if host.is_empty() { "localhost" } else { host }, port.unwrap_or_default());
    let number = |name: &str, default: u32| options.get(name).and_then(|v| v.parse().ok()).unwrap_or(default);
    let targets = if address.scheme == "udp" {
        reach::udp(host, port)?
    } else {
        reach::tcp(host, port, false)
            .map_err(|reason| format!("gelf: cannot connect to GELF endpoint: {host}:{port} {reason}"))?
    };
    let level = options.get("gelf-compression-level").and_then(|text| level(text)).unwrap_or(1);
    let compression = match options.get("gelf-compression-type").map_or("gzip", String::as_str) {
        "none" => GelfCompression::None,
        "zlib" => GelfCompression::Zlib(level),
        _ => GelfCompression::Gzip(level),
    };
    let hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let format = LogFormat::Gelf { hostname, fields: fields(record)?, compression };
    Ok(RemoteLog {
        targets,
        format,
        when_full: WhenFull::Block,
        buffer_bytes: BLOCKING_BYTES,
        retries: number("gelf-tcp-max-reconnect", 3),
        retry_wait_ms: u64::from(number("gelf-tcp-reconnect-delay", 1)) * 1000,
    })
}

fn fields(record: &Record) -> Result<Map<String, serde_json::Value>, Reason> {
    let command: Vec<&str> = std::iter::once(&record.path).chain(&record.args).map(String::as_str).collect();
    let mut fields = Map::new();
    for (name, value) in [
        ("_container_id", record.id.clone()),
        ("_container_name", record.name.clone()),
        ("_image_id", record.image.clone()),
        ("_image_name", record.config.image.clone()),
        ("_command", command.join(" ")),
        ("_tag", tag::render(record, "{{.ID}}")?),
        ("_created", crate::clock::rfc3339(record.created_ns)),
    ] {
        fields.insert(name.into(), value.into());
    }
    for (name, value) in attributes::of(record)? {
        let name = if name.starts_with('_') { name } else { format!("_{name}") };
        fields.insert(name, value.into());
    }
    Ok(fields)
}
