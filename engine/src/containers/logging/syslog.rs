//! Options of `syslog`.

use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;

use wherry_monitor_api::{LogFormat, LogTarget, RemoteLog, SyslogForm, WhenFull};

use super::address::Address;
use super::{BLOCKING_BYTES, Options, Reason, known, reach, tag};
use crate::containers::record::Record;
use crate::text::go_error;

const PORT: u16 = 514;
/// Where a local daemon listens.
const SOCKETS: [&str; 3] = ["/dev/log", "/var/run/syslog", "/var/run/log"];
/// Their place is their number.
const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", "",
    "", "", "", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
];

/// Checks the options.
pub(super) fn check(options: &Options) -> Result<(), Reason> {
    let own = ["syslog-address", "syslog-facility", "syslog-format"];
    let tls = ["syslog-tls-ca-cert", "syslog-tls-cert", "syslog-tls-key", "syslog-tls-skip-verify"];
    known(options, &[&own[..], &tls[..]].concat(), |name| {
        format!("unknown log opt '{name}' for syslog log driver")
    })?;
    let address = options.get("syslog-address").map_or("", String::as_str);
    if !address.is_empty() {
        check_address(address)?;
    }
    facility(options)?;
    form(options)?;
    Ok(())
}

fn check_address(text: &str) -> Result<(), Reason> {
    let address = Address::parse(text)?;
    match address.scheme {
        "unix" | "unixgram" => match std::fs::metadata(address.path) {
            Ok(_) => Ok(()),
            Err(error) => Err(format!("stat {}: {}", address.path, go_error(&error))),
        },
        "tcp" | "udp" => Ok(()),
        "tcp+tls" => Err("syslog over TLS is not supported: send to a local daemon that relays it".into()),
        scheme => Err(format!("unsupported scheme: '{scheme}'")),
    }
}

/// The facility's number, times 8.
fn facility(options: &Options) -> Result<u8, Reason> {
    let Some(wanted) = options.get("syslog-facility").filter(|name| !name.is_empty()) else {
        return Ok(3 << 3);
    };
    let by_name = FACILITIES.iter().position(|name| name == wanted);
    let number = by_name.or_else(|| wanted.parse().ok().filter(|number| *number < FACILITIES.len()));
    number.and_then(|n| u8::try_from(n << 3).ok()).ok_or_else(|| "invalid syslog facility".to_owned())
}

fn form(options: &Options) -> Result<SyslogForm, Reason> {
    match options.get("syslog-format").map_or("", String::as_str) {
        "" => Ok(SyslogForm::Local),
        "rfc3164" => Ok(SyslogForm::Rfc3164),
        "rfc5424" => Ok(SyslogForm::Rfc5424),
        "rfc5424micro" => Ok(SyslogForm::Rfc5424Micro),
        _ => Err("Invalid syslog format".into()),
    }
}

/// The server, and what it is told.
pub(super) fn remote(record: &Record) -> Result<RemoteLog, Reason> {
    let options = &record.host_config.log_config.config;
    let tag = tag::render(record, "{{.ID}}")?;
    let targets = match options.get("syslog-address").map_or("", String::as_str) {
        "" => local_daemon()?,
        text => {
            let address = Address::parse(text)?;
            let (host, port) = address.host_and_port();
            let (host, port) = (if host.is_empty() { "localhost" } else { host }, port.unwrap_or(PORT));
            match address.scheme {
                "udp" => reach::udp(host, port)?,
                "tcp" => reach::tcp(host, port, false)?,
                "unixgram" => vec![LogTarget::UnixDatagram(address.path.into())],
                _ => reach::unix(Path::new(address.path), false)?,
            }
        }
    };
    let hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let format = LogFormat::Syslog { form: form(options)?, facility: facility(options)?, hostname, tag };
    let when_full = WhenFull::Block;
    Ok(RemoteLog { targets, format, when_full, buffer_bytes: BLOCKING_BYTES, retries: 1, retry_wait_ms: 100 })
}

fn local_daemon() -> Result<Vec<LogTarget>, Reason> {
    let datagrams = |path: &&str| UnixDatagram::unbound().and_then(|socket| socket.connect(path)).is_ok();
    if let Some(path) = SOCKETS.iter().find(|path| datagrams(path)) {
        return Ok(vec![LogTarget::UnixDatagram(path.into())]);
    }
    let stream = SOCKETS.iter().find(|path| UnixStream::connect(path).is_ok());
    stream
        .map(|path| vec![LogTarget::UnixStream(path.into())])
        .ok_or_else(|| "Unix syslog delivery error".into())
}
