//! Finding log servers before a container starts: a driver whose server must be there says so now.

use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use wherry_log_relay::{Connection, Error};
use wherry_monitor_api::{LogTarget, TlsServer};

use super::Reason;
use crate::text::{go_error, go_quote};

/// So long a server may take to accept a connection.
const PATIENCE: Duration = Duration::from_secs(10);

/// The addresses of a host.
///
/// # Errors
/// In Go's words, as far as the resolver tells.
pub(super) fn addresses(network: &str, host: &str, port: u16) -> Result<Vec<SocketAddr>, Reason> {
    let found = (host, port).to_socket_addrs();
    let found: Vec<SocketAddr> = found.map_err(|e| format!("dial {network}: lookup {host}: {e}"))?.collect();
    if found.is_empty() { Err(format!("dial {network}: lookup {host}: no such host")) } else { Ok(found) }
}

/// Datagram sockets: nobody needs to be there.
///
/// # Errors
/// Those of [`addresses`].
pub(super) fn udp(host: &str, port: u16) -> Result<Vec<LogTarget>, Reason> {
    Ok(addresses("udp", host, port)?.into_iter().map(LogTarget::Udp).collect())
}

/// A server that must accept a connection now, unless `later` is fine.
///
/// # Errors
/// `dial tcp 127.0.0.1:9: connect: connection refused`.
pub(super) fn tcp(host: &str, port: u16, later: bool) -> Result<Vec<LogTarget>, Reason> {
    let found = addresses("tcp", host, port)?;
    if !later {
        one_of(&found, |address| match TcpStream::connect_timeout(address, PATIENCE) {
            Ok(_) => Ok(()),
            Err(error) => Err(dial_failure(address, &error)),
        })?;
    }
    Ok(found.into_iter().map(LogTarget::Tcp).collect())
}

/// As [`tcp`], through TLS.
///
/// # Errors
/// Those of [`tcp`]; unless `later` is fine, those of certificates and of the handshake, too.
pub(super) fn tls(
    (host, port): (&str, u16),
    later: bool,
    server: impl Fn(SocketAddr) -> TlsServer,
) -> Result<Vec<LogTarget>, Reason> {
    let servers: Vec<TlsServer> = addresses("tcp", host, port)?.into_iter().map(server).collect();
    if !later {
        one_of(&servers, |server| Connection::open(server).map(|_| ()).map_err(|error| tls_failure(&error)))?;
    }
    Ok(servers.into_iter().map(|server| LogTarget::Tls(Box::new(server))).collect())
}

/// Tries one after the other until one is fine; fails as the first does.
fn one_of<T>(all: &[T], attempt: impl Fn(&T) -> Result<(), Reason>) -> Result<(), Reason> {
    let mut failed = None;
    let fine = all.iter().any(|one| match attempt(one) {
        Ok(()) => true,
        Err(reason) => {
            failed.get_or_insert(reason);
            false
        }
    });
    failed.filter(|_| !fine).map_or(Ok(()), Err)
}

fn dial_failure(address: &SocketAddr, error: &std::io::Error) -> Reason {
    format!("dial tcp {address}: connect: {}", go_error(error))
}

fn tls_failure(error: &Error) -> Reason {
    let quoted = |path: &Path| go_quote(&path.to_string_lossy());
    let pair = |reason: &str| format!("Could not load X509 key pair: {reason}");
    match error {
        Error::ReadAuthorities { path, source } => format!(
            "could not read CA certificate {}: open {}: {}",
            quoted(path),
            path.display(),
            go_error(source)
        ),
        Error::NoAuthorities { path } => {
            format!("failed to append certificates from PEM file: {}", quoted(path))
        }
        Error::ReadIdentity { path, source } => {
            pair(&format!("open {}: {}", path.display(), go_error(source)))
        }
        Error::Certificate(_) => pair("tls: failed to find any PEM data in certificate input"),
        Error::Key(_) => pair("no valid private key found"),
        Error::Identity(_) => pair("tls: private key does not match public key"),
        Error::Dial { address, source } => dial_failure(address, source),
        Error::Handshake(failure) => failure.to_string(),
        Error::Name(_) | Error::Lost(_) | Error::Closed | Error::Monitor(_) => error.to_string(),
    }
}

/// As [`tcp`], over a Unix socket.
///
/// # Errors
/// `dial unix /x: connect: no such file or directory`.
pub(super) fn unix(path: &Path, later: bool) -> Result<Vec<LogTarget>, Reason> {
    if !later {
        UnixStream::connect(path)
            .map_err(|e| format!("dial unix {}: connect: {}", path.display(), go_error(&e)))?;
    }
    Ok(vec![LogTarget::UnixStream(path.to_owned())])
}
