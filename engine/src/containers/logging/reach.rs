//! Finding log servers before a container starts: a driver whose server must be there says so now.

use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use wherry_monitor_api::LogTarget;

use super::Reason;
use crate::text::go_error;

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
        let mut failed = None;
        let accepted = found.iter().any(|address| match TcpStream::connect_timeout(address, PATIENCE) {
            Ok(_) => true,
            Err(error) => {
                failed.get_or_insert(format!("dial tcp {address}: connect: {}", go_error(&error)));
                false
            }
        });
        if let Some(reason) = failed.filter(|_| !accepted) {
            return Err(reason);
        }
    }
    Ok(found.into_iter().map(LogTarget::Tcp).collect())
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
