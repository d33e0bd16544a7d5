//! Passing questions on to other resolvers, from the host's namespace (so that a resolver on the host's own loopback
//! works, too). The asker's message goes out as it is, under an id of our own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::message::{Query, code_of, set_id};

/// How long one resolver may take; clients give up after five seconds by themselves.
const PATIENCE: Duration = Duration::from_secs(2);
const PORT: u16 = 53;
const LARGEST_UDP: usize = 4096;
const SERVER_FAILURE: u8 = 2;
const REFUSED: u8 = 5;

/// The host's resolvers, as its resolv.conf says at each moment.
#[derive(Debug)]
pub(super) struct HostResolvers {
    path: PathBuf,
    known: Mutex<(Option<SystemTime>, Vec<IpAddr>)>,
}

impl HostResolvers {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, known: Mutex::new((None, Vec::new())) }
    }

    /// Reads the file only if it has changed.
    pub(super) fn current(&self) -> Vec<IpAddr> {
        let changed = std::fs::metadata(&self.path).and_then(|m| m.modified()).ok();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if changed.is_none() || known.0 != changed {
            let text = std::fs::read_to_string(&self.path).unwrap_or_default();
            *known = (changed, nameservers(&text));
        }
        known.1.clone()
    }
}

fn nameservers(text: &str) -> Vec<IpAddr> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            let is_server = words.next() == Some("nameserver");
            // An IPv6 address may carry a zone, which we cannot use.
            if is_server { words.next()?.parse().ok() } else { None }
        })
        .collect()
}

/// Asks one resolver after the other until one answers with something better than a failure. `None`: nobody did.
pub(super) async fn ask(
    query: &Query,
    message: &[u8],
    stream: bool,
    resolvers: &[IpAddr],
) -> Option<Vec<u8>> {
    // A single one gets a second chance: datagrams are lost.
    let again = if resolvers.len() == 1 { 2 } else { 1 };
    let mut failed = None;
    for &resolver in resolvers.iter().cycle().take(resolvers.len() * again) {
        let to = SocketAddr::new(resolver, PORT);
        let asked = async {
            if stream { by_stream(query, message, to).await } else { by_datagram(query, message, to).await }
        };
        let Ok(Ok(mut answer)) = timeout(PATIENCE, asked).await else { continue };
        set_id(&mut answer, query.id);
        match code_of(&answer) {
            Some(SERVER_FAILURE | REFUSED) => failed = Some(answer),
            _ => return Some(answer),
        }
        if failed.is_some() && resolvers.len() == 1 {
            break;
        }
    }
    failed
}

async fn by_datagram(query: &Query, message: &[u8], to: SocketAddr) -> std::io::Result<Vec<u8>> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(to).await?;
    let (message, id) = under_own_id(message)?;
    socket.send(&message).await?;
    loop {
        socket.readable().await?;
        let mut buffer = [0u8; LARGEST_UDP];
        let length = match socket.try_recv(&mut buffer) {
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => continue,
            other => other?,
        };
        let answer = &buffer[..length];
        // Anything else is late, or forged.
        if answer.get(..2) == Some(&id.to_be_bytes()) && query.is_answered_by(answer) {
            return Ok(answer.to_vec());
        }
    }
}

async fn by_stream(query: &Query, message: &[u8], to: SocketAddr) -> std::io::Result<Vec<u8>> {
    let mut connection = TcpStream::connect(to).await?;
    let (message, id) = under_own_id(message)?;
    let length = u16::try_from(message.len()).map_err(std::io::Error::other)?;
    connection.write_all(&[&length.to_be_bytes()[..], &message].concat()).await?;
    let mut answer = vec![0; connection.read_u16().await?.into()];
    connection.read_exact(&mut answer).await?;
    if answer.get(..2) == Some(&id.to_be_bytes()) && query.is_answered_by(&answer) {
        return Ok(answer);
    }
    Err(std::io::ErrorKind::InvalidData.into())
}

fn under_own_id(message: &[u8]) -> std::io::Result<(Vec<u8>, u16)> {
    let id = u16::from_ne_bytes(crate::random::bytes()?);
    let mut message = message.to_vec();
    set_id(&mut message, id);
    Ok((message, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_is_read_again_when_it_changes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        let resolvers = HostResolvers::new(path.clone());
        assert_eq!(resolvers.current(), Vec::<IpAddr>::new());
        std::fs::write(
            &path,
            "# x\nsearch a b\nnameserver 192.0.2.1\n nameserver ::1 # y\nnameserver fe80::1%eth0\n",
        )
        .unwrap();
        assert_eq!(resolvers.current(), ["192.0.2.1".parse::<IpAddr>().unwrap(), "::1".parse().unwrap()]);
        std::fs::write(&path, "nameserver 192.0.2.2\n").unwrap();
        let later = SystemTime::now() + Duration::from_secs(5);
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(later).unwrap();
        assert_eq!(resolvers.current(), ["192.0.2.2".parse::<IpAddr>().unwrap()]);
    }
}
