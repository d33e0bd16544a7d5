//! Options of `fluentd`.

use std::collections::BTreeMap;
use std::path::Path;

use wherry_monitor_api::{LogFormat, RemoteLog, TlsServer, WhenFull};

use super::address::Address;
use super::local::boolean;
use super::{BLOCKING_BYTES, BUFFER_BYTES, Options, Reason, attributes, known, reach, tag};
use crate::containers::record::Record;
use crate::daemon::program;
use crate::text::{BINARY, go_quote, go_size};

const PORT: u16 = 24224;
const HOST: &str = "127.0.0.1";
const OWN: [&str; 8] = [
    "fluentd-address",
    "fluentd-async",
    "fluentd-async-reconnect-interval",
    "fluentd-buffer-limit",
    "fluentd-max-retries",
    "fluentd-request-ack",
    "fluentd-retry-wait",
    "fluentd-sub-second-precision",
];

/// What the options mean.
struct Settings {
    asynchronous: bool,
    buffer_bytes: u64,
    retries: u32,
    retry_wait_ms: u64,
    acknowledged: bool,
    nanoseconds: bool,
}

/// Checks the options.
pub(super) fn check(options: &Options) -> Result<(), Reason> {
    known(options, &OWN, |name| format!("unknown log opt '{name}' for fluentd log driver"))?;
    let full = full_address(options);
    address(options, &full)?;
    settings(options).map(|_| ())
}

/// With its scheme.
fn full_address(options: &Options) -> String {
    match options.get("fluentd-address").map_or("", String::as_str) {
        "" => format!("tcp://{HOST}:{PORT}"),
        given if given.contains("://") => given.to_owned(),
        given => format!("tcp://{given}"),
    }
}

fn address<'a>(options: &Options, full: &'a str) -> Result<Address<'a>, Reason> {
    let given = options.get("fluentd-address").map_or("", String::as_str);
    let wrong = |reason: &str| format!("invalid fluentd-address ({given}): {reason}");
    let address = Address::parse(full).map_err(|reason| wrong(&reason))?;
    match address.scheme {
        "unix" if address.path.trim_start_matches('/').is_empty() => Err(wrong("path is empty")),
        "unix" => Ok(address),
        "tcp" | "tls" if address.path.is_empty() => Ok(address),
        "tcp" | "tls" => Err(wrong("should not contain a path element")),
        scheme => Err(wrong(&format!("unsupported scheme: '{scheme}'"))),
    }
}

fn settings(options: &Options) -> Result<Settings, Reason> {
    let flag = |name: &str| options.get(name).map_or(Ok(false), |value| boolean(value));
    let buffer_bytes =
        options.get("fluentd-buffer-limit").map_or(Ok(BUFFER_BYTES), |size| go_size(size, BINARY))?;
    let retry_wait_ms = match options.get("fluentd-retry-wait") {
        None => 1000,
        Some(text) => {
            let wait = wherry_rfc3339::duration(text).map_err(|e| e.to_string())?;
            u64::try_from(wait / 1_000_000).unwrap_or(0)
        }
    };
    let retries = match options.get("fluentd-max-retries") {
        None => u32::MAX,
        Some(text) => text
            .parse()
            .map_err(|_| format!("strconv.ParseUint: parsing {}: invalid syntax", go_quote(text)))?,
    };
    let asynchronous = flag("fluentd-async")?;
    if let Some(text) = options.get("fluentd-async-reconnect-interval") {
        let wrong = |reason: String| format!("invalid value for fluentd-async-reconnect-interval: {reason}");
        let interval = wherry_rfc3339::duration(text).map_err(|e| wrong(e.to_string()))?;
        if interval != 0 && !(100_000_000..=10_000_000_000).contains(&interval) {
            return Err(wrong(format!("value ({}) must be between 100ms and 10s", go_quote(text))));
        }
    }
    let nanoseconds = flag("fluentd-sub-second-precision")?;
    let acknowledged = flag("fluentd-request-ack")?;
    Ok(Settings { asynchronous, buffer_bytes, retries, retry_wait_ms, acknowledged, nanoseconds })
}

/// The server, and what it is told.
pub(super) fn remote(record: &Record) -> Result<RemoteLog, Reason> {
    let options = &record.host_config.log_config.config;
    let settings = settings(options)?;
    let full = full_address(options);
    let address = address(options, &full)?;
    let (host, port) = address.host_and_port();
    let (host, port) = (if host.is_empty() { HOST } else { host }, port.unwrap_or(PORT));
    let server = |address| TlsServer {
        program: program::own(),
        container: record.id.clone(),
        address,
        name: host.to_owned(),
        authorities: None,
        identity: None,
        verify: true,
        answers: settings.acknowledged,
    };
    let targets = match address.scheme {
        "unix" => reach::unix(Path::new(address.path), settings.asynchronous)?,
        "tls" => reach::tls((host, port), settings.asynchronous, server)?,
        _ => reach::tcp(host, port, settings.asynchronous)?,
    };
    let mut fields = BTreeMap::from([
        ("container_id".to_owned(), record.id.clone()),
        ("container_name".to_owned(), format!("/{}", record.name)),
    ]);
    fields.extend(attributes::of(record)?);
    let (nanoseconds, acknowledged) = (settings.nanoseconds, settings.acknowledged);
    let format =
        LogFormat::Fluentd { tag: tag::render(record, "{{.ID}}")?, fields, nanoseconds, acknowledged };
    let (when_full, buffer_bytes) = if settings.asynchronous {
        (WhenFull::Drop, settings.buffer_bytes)
    } else {
        (WhenFull::Block, BLOCKING_BYTES)
    };
    let (retries, retry_wait_ms) = (settings.retries, settings.retry_wait_ms);
    Ok(RemoteLog { targets, format, when_full, buffer_bytes, retries, retry_wait_ms })
}
