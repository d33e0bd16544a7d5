//! Options of `syslog`.

use std::net::SocketAddr;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};

use wherry_monitor_api::{LogFormat, LogTarget, RemoteLog, SyslogForm, TlsServer, WhenFull};

use super::address::Address;
use super::{BLOCKING_BYTES, Options, Reason, known, reach, tag};
use crate::containers::record::Record;
use crate::daemon::program;
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
        "tcp" | "udp" | "tcp+tls" => Ok(()),
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
    let form = form(options)?;
    let mut secure = false;
    let targets = match options.get("syslog-address").map_or("", String::as_str) {
        "" => local_daemon()?,
        text => {
            let address = Address::parse(text)?;
            let (host, port) = address.host_and_port();
            let (host, port) = (if host.is_empty() { "localhost" } else { host }, port.unwrap_or(PORT));
            match address.scheme {
                "udp" => reach::udp(host, port)?,
                "tcp" => reach::tcp(host, port, false)?,
                "tcp+tls" => {
                    secure = true;
                    reach::tls((host, port), false, |address| tls_server(record, host, address))?
                }
                "unixgram" => vec![LogTarget::UnixDatagram(address.path.into())],
                _ => reach::unix(Path::new(address.path), false)?,
            }
        }
    };
    let hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let counted = secure && matches!(form, SyslogForm::Rfc5424 | SyslogForm::Rfc5424Micro);
    let format = LogFormat::Syslog { form, facility: facility(options)?, hostname, tag, counted };
    let when_full = WhenFull::Block;
    // A relay costs more than a connection: there are fewer tries, but more patience.
    let (retries, retry_wait_ms) = if secure { (5, 1000) } else { (1, 100) };
    Ok(RemoteLog { targets, format, when_full, buffer_bytes: BLOCKING_BYTES, retries, retry_wait_ms })
}

fn tls_server(record: &Record, host: &str, address: SocketAddr) -> TlsServer {
    let option =
        |name: &str| record.host_config.log_config.config.get(name).filter(|value| !value.is_empty());
    let file = |name: &str| option(name).map(PathBuf::from);
    let identity = match (file("syslog-tls-cert"), file("syslog-tls-key")) {
        (None, None) => None,
        (certificate, key) => Some((certificate.unwrap_or_default(), key.unwrap_or_default())),
    };
    TlsServer {
        program: program::own(),
        container: record.id.clone(),
        address,
        name: host.to_owned(),
        authorities: file("syslog-tls-ca-cert"),
        identity,
        // Whatever its value is, as dockerd has it.
        verify: !record.host_config.log_config.config.contains_key("syslog-tls-skip-verify"),
        answers: false,
    }
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
