//! Passing questions on to other resolvers: the host's, from its namespace (so that a resolver on the host's own
//! loopback works, too), or a container's own, from the container's. The asker's message goes out as it is, under an
//! id of our own and from a port of its own.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::message::{Query, code_of, set_id};

/// How long all resolvers together may take; clients give up after five seconds by themselves.
const PATIENCE: Duration = Duration::from_secs(4);
/// A resolver that has not answered in this time gets company: the next one is asked, too, or the same one again. The
/// first good answer counts.
const NEXT_AFTER: Duration = Duration::from_millis(700);
const PORT: u16 = 53;
const LARGEST_UDP: usize = 65_535;
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

/// A question on its way.
#[derive(Debug)]
pub(super) struct Errand {
    pub(super) query: Query,
    /// The asker's message.
    pub(super) message: Vec<u8>,
    /// Whether it came over TCP, and so goes out over TCP.
    pub(super) stream: bool,
    /// The namespace from which it is asked; `None`: the host's.
    pub(super) namespace: Option<PathBuf>,
}

/// What one resolver has to say.
enum Verdict {
    Good(Vec<u8>),
    /// A failure, which counts if nobody knows better.
    Failed(Vec<u8>),
    /// No answer will come.
    Silent,
}

/// Asks the resolvers in their order, the next one as soon as one fails or is slow, until one answers with something
/// better than a failure. `None`: nobody did.
pub(super) async fn ask(errand: Errand, resolvers: Vec<IpAddr>) -> Option<Vec<u8>> {
    let errand = Arc::new(errand);
    let deadline = Instant::now() + PATIENCE;
    let mut turns = Turns::new(resolvers);
    let mut attempts: JoinSet<(IpAddr, Verdict)> = JoinSet::new();
    let mut failed = None;
    loop {
        if let Some(resolver) = turns.next(errand.stream) {
            let errand = errand.clone();
            attempts.spawn(async move { (resolver, attempt(&errand, resolver, deadline).await) });
        }
        let next = if turns.are_over() { deadline } else { deadline.min(Instant::now() + NEXT_AFTER) };
        tokio::select! {
            ended = attempts.join_next(), if !attempts.is_empty() => match ended {
                Some(Ok((_, Verdict::Good(answer)))) => return Some(answer),
                Some(Ok((resolver, verdict))) => {
                    turns.done_with(resolver);
                    if let Verdict::Failed(answer) = verdict {
                        failed = Some(answer);
                    }
                }
                _ => {}
            },
            () = sleep_until(next) => {}
        }
        if Instant::now() >= deadline || (attempts.is_empty() && turns.are_over()) {
            return failed;
        }
    }
}

/// Whose turn it is: each once, then those that have not answered once more, since datagrams are lost.
struct Turns {
    first: VecDeque<IpAddr>,
    again: VecDeque<IpAddr>,
}

impl Turns {
    fn new(resolvers: Vec<IpAddr>) -> Self {
        Self { first: resolvers.into(), again: VecDeque::new() }
    }

    fn next(&mut self, stream: bool) -> Option<IpAddr> {
        let Some(resolver) = self.first.pop_front() else { return self.again.pop_front() };
        if !stream {
            self.again.push_back(resolver);
        }
        Some(resolver)
    }

    fn done_with(&mut self, resolver: IpAddr) {
        self.again.retain(|other| *other != resolver);
    }

    fn are_over(&self) -> bool {
        self.first.is_empty() && self.again.is_empty()
    }
}

async fn attempt(errand: &Errand, resolver: IpAddr, deadline: Instant) -> Verdict {
    let to = SocketAddr::new(resolver, PORT);
    let asked =
        async { if errand.stream { by_stream(errand, to).await } else { by_datagram(errand, to).await } };
    let Ok(Ok(mut answer)) = timeout_at(deadline, asked).await else { return Verdict::Silent };
    set_id(&mut answer, errand.query.id);
    match code_of(&answer) {
        Some(SERVER_FAILURE | REFUSED) => Verdict::Failed(answer),
        _ => Verdict::Good(answer),
    }
}

/// A socket of the namespace. Another one than the host's is entered by a throwaway thread, for which a thread waits that
/// may: this one serves everybody.
async fn socket(namespace: Option<&Path>, to: SocketAddr, kind: SocketType) -> io::Result<OwnedFd> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let open = move || Ok(rustix::net::socket_with(family, kind, flags, None)?);
    let Some(path) = namespace.map(Path::to_path_buf) else { return open() };
    let opened =
        tokio::task::spawn_blocking(move || crate::namespace::within(&path, || Ok(()), |(), _| open())?);
    opened.await?
}

async fn by_datagram(errand: &Errand, to: SocketAddr) -> io::Result<Vec<u8>> {
    let socket = std::net::UdpSocket::from(socket(errand.namespace.as_deref(), to, SocketType::DGRAM).await?);
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    rustix::net::bind(&socket, &SocketAddr::new(any, 0))?;
    let socket = UdpSocket::from_std(socket)?;
    socket.connect(to).await?;
    let (message, id) = under_own_id(&errand.message)?;
    socket.send(&message).await?;
    loop {
        socket.readable().await?;
        let answer = match next_datagram(&socket) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => continue,
            other => other?,
        };
        // Anything else is late, or forged.
        if answer.get(..2) == Some(&id.to_be_bytes()) && errand.query.is_answered_by(&answer) {
            return Ok(answer);
        }
    }
}

/// The buffer lives only here, so that waiting questions hold none.
fn next_datagram(socket: &UdpSocket) -> io::Result<Vec<u8>> {
    let mut buffer = [0u8; LARGEST_UDP];
    let length = socket.try_recv(&mut buffer)?;
    Ok(buffer[..length].to_vec())
}

async fn by_stream(errand: &Errand, to: SocketAddr) -> io::Result<Vec<u8>> {
    let socket = socket(errand.namespace.as_deref(), to, SocketType::STREAM).await?;
    let mut connection = TcpSocket::from_std_stream(socket.into()).connect(to).await?;
    let (message, id) = under_own_id(&errand.message)?;
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    connection.write_all(&[&length.to_be_bytes()[..], &message].concat()).await?;
    let mut answer = vec![0; connection.read_u16().await?.into()];
    connection.read_exact(&mut answer).await?;
    if answer.get(..2) == Some(&id.to_be_bytes()) && errand.query.is_answered_by(&answer) {
        return Ok(answer);
    }
    Err(io::ErrorKind::InvalidData.into())
}

fn under_own_id(message: &[u8]) -> io::Result<(Vec<u8>, u16)> {
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

    #[test]
    fn each_has_a_turn_and_the_silent_ones_a_second() {
        let ip = |last| IpAddr::from([192, 0, 2, last]);
        let mut turns = Turns::new(vec![ip(1), ip(2)]);
        assert_eq!((turns.next(false), turns.next(false)), (Some(ip(1)), Some(ip(2))));
        turns.done_with(ip(1));
        assert!(!turns.are_over());
        assert_eq!((turns.next(false), turns.next(false)), (Some(ip(2)), None));
        let mut turns = Turns::new(vec![ip(1)]);
        assert_eq!((turns.next(true), turns.next(true)), (Some(ip(1)), None), "a stream loses nothing");
    }
}
