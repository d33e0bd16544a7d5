//! Names to addresses to connections.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;

use crate::DialError;

/// How long one address may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// Connects to the first address of `host` that answers. The error is the first address's.
pub(crate) async fn dial(host: &str, port: u16) -> Result<TcpStream, DialError> {
    let mut first_error = None;
    for address in lookup(host, port).await? {
        match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Requests are small and answered at once; a failure costs only speed.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) => {
                first_error.get_or_insert(DialError::Connect { address, reason: go_text(&error) });
            }
            Err(_) => {
                first_error.get_or_insert(DialError::Connect { address, reason: "i/o timeout".into() });
            }
        }
    }
    Err(first_error.unwrap_or_else(|| no_such_host(host)))
}

/// The addresses of a name.
pub(crate) async fn lookup(host: &str, port: u16) -> Result<Vec<SocketAddr>, DialError> {
    match tokio::net::lookup_host((host, port)).await {
        Ok(addresses) => Ok(addresses.collect()),
        Err(_) => Err(no_such_host(host)),
    }
}

fn no_such_host(host: &str) -> DialError {
    DialError::Lookup { host: host.to_owned(), server: first_resolver() }
}

/// The resolver that Go would name: the first of resolv.conf.
fn first_resolver() -> Option<String> {
    let text = std::fs::read_to_string("/etc/resolv.conf").ok()?;
    let address = text.lines().find_map(|line| line.strip_prefix("nameserver")).map(str::trim)?;
    match address.parse().ok()? {
        std::net::IpAddr::V4(v4) => Some(format!("{v4}:53")),
        std::net::IpAddr::V6(v6) => Some(format!("[{v6}]:53")),
    }
}

/// `connect: connection refused`.
fn go_text(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split_once(" (os error").map_or(text.as_str(), |(words, _)| words);
    format!("connect: {}", text.to_lowercase())
}
