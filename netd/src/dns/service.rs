//! The resolver at 127.0.0.11 of each sandbox: sockets opened in the sandbox's namespace, served by tasks of the
//! one runtime thread.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

use super::message::{self, Code, NotAQuery, Query, TYPE_A, TYPE_AAAA, TYPE_MX, TYPE_PTR};
use super::names::{Family, Found, Names, Outside};
use super::patience::Patience;
use super::upstream::{Errand, HostResolvers, ask};
use crate::handover::{Handover, Kept, Subject};
use crate::netlink::redirect::RESOLVER;

/// Queries of one sandbox that wait for other resolvers at a time; more are answered with a failure.
const MOST_WAITING: usize = 1024;
/// Queries of all sandboxes that wait for other resolvers at a time; more wait for their turn. Fewer where there are few
/// descriptors: each may take several.
const MOST_WAITING_ALTOGETHER: usize = 4096;
const DESCRIPTORS_FOR_EACH: usize = 8;
/// The part of all descriptors that they may take; clients of relays may have half of all.
const PART: usize = 4;
/// TCP connections of one sandbox at a time; for more, the oldest ones are closed.
const MOST_STREAMS: usize = 64;
/// How long a TCP connection may take for its next message, and to take an answer.
const STREAM_PATIENCE: Duration = Duration::from_secs(10);
/// The longest message that is read: a query is much shorter.
const LONGEST_QUERY: usize = 4096;

/// What is sent over a loopback arrives at once, unless the machine is very busy.
const PROBE_PATIENCE: Duration = Duration::from_millis(20);

/// The ports of a sandbox's resolver behind port 53.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DnsPorts {
    pub(crate) udp: u16,
    pub(crate) tcp: u16,
}

/// A sandbox's sockets.
#[derive(Debug)]
pub(crate) struct DnsSockets {
    udp: std::net::UdpSocket,
    tcp: std::net::TcpListener,
}

impl DnsSockets {
    /// Opens them in the calling thread's namespace, whose loopback is up; on `wanted` ports if they are free.
    pub(crate) fn open(wanted: Option<DnsPorts>) -> io::Result<Self> {
        if let Some(ports) = wanted
            && let Ok(sockets) = Self::bind(ports)
        {
            return Ok(sockets);
        }
        Self::bind(DnsPorts { udp: 0, tcp: 0 })
    }

    fn bind(ports: DnsPorts) -> io::Result<Self> {
        let udp = std::net::UdpSocket::bind((RESOLVER, ports.udp))?;
        let tcp = std::net::TcpListener::bind((RESOLVER, ports.tcp))?;
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        Ok(Self { udp, tcp })
    }

    /// Those that an earlier netd left, if they are on the ports that its rules lead to.
    pub(crate) fn inherited(left: &[OwnedFd], wanted: Option<DnsPorts>) -> Option<Self> {
        let [udp, tcp] = left else { return None };
        let (udp, tcp) = (udp.try_clone().ok()?, tcp.try_clone().ok()?);
        let sockets = Self { udp: udp.into(), tcp: tcp.into() };
        (sockets.ports().ok() == Some(wanted?)).then_some(sockets)
    }

    pub(crate) fn ports(&self) -> io::Result<DnsPorts> {
        Ok(DnsPorts { udp: self.udp.local_addr()?.port(), tcp: self.tcp.local_addr()?.port() })
    }
}

impl DnsSockets {
    /// Whether what is sent to 127.0.0.11 port 53 in the calling thread's namespace arrives here: then its rules are
    /// right. What is sent to find out stays in the queues (a client's own question may be before it), and is no
    /// question to the resolver.
    pub(crate) fn are_reached(&self) -> bool {
        let sent = || -> io::Result<bool> {
            let probe = std::net::UdpSocket::bind((RESOLVER, 0))?;
            probe.send_to(&[], (RESOLVER, 53))?;
            let to = SocketAddr::from((RESOLVER, 53));
            std::net::TcpStream::connect_timeout(&to, PROBE_PATIENCE)?;
            let mut waiting = [PollFd::new(&self.udp, PollFlags::IN), PollFd::new(&self.tcp, PollFlags::IN)];
            let patience = Timespec { tv_sec: 0, tv_nsec: PROBE_PATIENCE.subsec_nanos().into() };
            rustix::event::poll(&mut waiting[..1], Some(&patience))?;
            rustix::event::poll(&mut waiting[1..], Some(&patience))?;
            Ok(waiting.iter().all(|fd| fd.revents().contains(PollFlags::IN)))
        };
        sent().unwrap_or(false)
    }
}

/// What all sandboxes' resolvers share.
#[derive(Debug)]
pub(crate) struct Resolver {
    names: Arc<Names>,
    host: HostResolvers,
    waiting: Semaphore,
    /// Whether all names are known; questions wait for that.
    complete: watch::Sender<bool>,
    handover: Arc<Handover>,
    runtime: Handle,
    /// How many sandboxes there have been, and the number of the one that asked last.
    askers: AtomicU64,
    asked_last: AtomicU64,
}

/// A running resolver of one sandbox; ends when dropped, with all that it was about to answer.
#[derive(Debug)]
pub(crate) struct DnsService {
    tasks: [AbortHandle; 2],
    /// The sockets are left to the next netd.
    _kept: Kept,
}

impl Drop for DnsService {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl Resolver {
    pub(crate) fn new(names: Arc<Names>, runtime: Handle) -> Arc<Self> {
        let host = HostResolvers::new(PathBuf::from("/etc/resolv.conf"));
        let most = MOST_WAITING_ALTOGETHER.min(crate::limits::descriptors() / PART / DESCRIPTORS_FOR_EACH);
        let waiting = Semaphore::new(most.max(1));
        Arc::new(Self {
            names,
            host,
            waiting,
            complete: watch::Sender::new(false),
            handover: Arc::default(),
            runtime,
            askers: AtomicU64::default(),
            asked_last: AtomicU64::default(),
        })
    }

    /// To be called once, when the names of all sandboxes that were there before are known: no question is answered
    /// earlier, since a name that is not known yet would be denied.
    pub(crate) fn names_are_complete(&self) {
        self.complete.send_replace(true);
    }

    /// What is left to the next netd.
    pub(crate) fn handover(&self) -> Arc<Handover> {
        self.handover.clone()
    }

    async fn completeness(&self) {
        // Fails only without its sender, which is ours.
        let _ = self.complete.subscribe().wait_for(|complete| *complete).await;
    }

    /// Begins to answer a sandbox's queries.
    pub(crate) fn serve(self: &Arc<Self>, sandbox: &str, sockets: DnsSockets) -> io::Result<DnsService> {
        let _context = self.runtime.enter();
        let left: [OwnedFd; 2] = [sockets.udp.try_clone()?.into(), sockets.tcp.try_clone()?.into()];
        let kept = self.handover.keep(Subject::Resolver(sandbox.into()), Arc::new(left));
        let number = self.askers.fetch_add(1, Ordering::Relaxed);
        let asker = Arc::new(Asker { resolver: self.clone(), sandbox: sandbox.into(), number });
        let udp = self.runtime.spawn(datagrams(asker.clone(), Arc::new(UdpSocket::from_std(sockets.udp)?)));
        let tcp = self.runtime.spawn(streams(asker, TcpListener::from_std(sockets.tcp)?));
        Ok(DnsService { tasks: [udp.abort_handle(), tcp.abort_handle()], _kept: kept })
    }
}

/// One sandbox that asks.
struct Asker {
    resolver: Arc<Resolver>,
    sandbox: String,
    number: u64,
}

/// An answer, or a question for others.
enum Outcome {
    Answer(Vec<u8>),
    Pass(Query, Arc<Outside>),
}

impl Asker {
    /// Whether the question before this one was this sandbox's, too: nobody else seems to wait.
    fn asked_last(&self) -> bool {
        self.resolver.asked_last.swap(self.number, Ordering::Relaxed) == self.number
    }

    /// What we know ourselves. As with dockerd, only addresses, mail exchangers (none) and pointers are ours to
    /// answer; other questions about our names go to the outside as well.
    fn local(&self, bytes: &[u8], stream: bool) -> Option<Outcome> {
        let query = match message::parse(bytes) {
            Ok(query) => query,
            Err(NotAQuery::Ignore) => return None,
            Err(NotAQuery::Refuse { id, repeated, code }) => {
                return Some(Outcome::Answer(message::refusal(id, repeated, code)));
            }
        };
        let names = &self.resolver.names;
        let found = match query.kind {
            TYPE_A => names.addresses(&self.sandbox, &query.name, Family::V4),
            TYPE_AAAA => names.addresses(&self.sandbox, &query.name, Family::V6),
            TYPE_MX => self.exchangers(&query.name),
            TYPE_PTR => return Some(self.pointer(query)),
            _ => Found::Unknown(names.outside(&self.sandbox)),
        };
        let outside = match found {
            Found::Addresses(addresses) => {
                let first = anywhere_in(addresses.len());
                return Some(Outcome::Answer(query.addresses(&addresses, first, stream)));
            }
            Found::Unknown(outside) => outside,
        };
        let is_address = matches!(query.kind, TYPE_A | TYPE_AAAA);
        if outside.single_labels_stay && is_address && !query.name.contains('.') {
            // The asker goes on with its search domains.
            return Some(Outcome::Answer(query.answer(Code::NoError)));
        }
        Some(Outcome::Pass(query, outside))
    }

    /// A name of ours has no mail exchangers, so that mail goes to the name itself.
    fn exchangers(&self, name: &str) -> Found {
        let known = |family| match self.resolver.names.addresses(&self.sandbox, name, family) {
            Found::Addresses(addresses) if addresses.is_empty() => None,
            Found::Addresses(_) => Some(Found::Addresses(Vec::new())),
            Found::Unknown(outside) => Some(Found::Unknown(outside)),
        };
        known(Family::V4).or_else(|| known(Family::V6)).unwrap_or_else(|| Found::Addresses(Vec::new()))
    }

    fn pointer(&self, query: Query) -> Outcome {
        let names = &self.resolver.names;
        let unknown = match message::reverse_address(&query.name) {
            Some(ip) => match names.pointer(&self.sandbox, ip) {
                Ok(name) => return Outcome::Answer(query.pointer(&name)),
                Err(outside) => outside,
            },
            None => names.outside(&self.sandbox),
        };
        Outcome::Pass(query, unknown)
    }

    /// What others know.
    async fn passed_on(&self, query: Query, outside: &Outside, message: Vec<u8>, stream: bool) -> Vec<u8> {
        let failure = query.answer(Code::ServerFailure);
        let Ok(_permit) = self.resolver.waiting.acquire().await else { return failure };
        let (resolvers, namespace) = if !outside.upstreams.is_empty() {
            // Its own address would lead the question back to us.
            let others = outside.upstreams.iter().filter(|ip| **ip != IpAddr::V4(RESOLVER));
            (others.copied().collect(), Some(outside.namespace.clone()))
        } else if outside.host_allowed {
            (self.resolver.host.current(), None)
        } else {
            return failure;
        };
        ask(Errand { query, message, stream, namespace }, resolvers).await.unwrap_or(failure)
    }
}

async fn datagrams(asker: Arc<Asker>, socket: Arc<UdpSocket>) {
    // Dropped with this task: questions that wait for others would else keep the socket, and its namespace.
    let mut waiting = JoinSet::new();
    asker.resolver.completeness().await;
    let mut patience = Patience::default();
    loop {
        if socket.readable().await.is_err() {
            return;
        }
        // An error on one datagram (a client that is gone already) says nothing about the next.
        if let Ok((bytes, from)) = next_datagram(&socket) {
            answer_datagram(&asker, &socket, bytes, from, &mut waiting);
            if asker.asked_last() {
                patience.wait_for_more(&socket);
                // What has come keeps this task ready: between two questions all others have their turn.
                tokio::task::yield_now().await;
            }
        }
    }
}

/// The buffer lives only here, so that a waiting sandbox holds none.
fn next_datagram(socket: &UdpSocket) -> io::Result<(Vec<u8>, SocketAddr)> {
    let mut buffer = [0u8; LONGEST_QUERY];
    let (length, from) = socket.try_recv_from(&mut buffer)?;
    Ok((buffer[..length].to_vec(), from))
}

fn answer_datagram(
    asker: &Arc<Asker>,
    socket: &Arc<UdpSocket>,
    bytes: Vec<u8>,
    from: SocketAddr,
    waiting: &mut JoinSet<()>,
) {
    match asker.local(&bytes, false) {
        None => {}
        Some(Outcome::Answer(answer)) => {
            // Full or gone: the client asks again.
            let _ = socket.try_send_to(&answer, from);
        }
        Some(Outcome::Pass(query, outside)) => {
            while waiting.try_join_next().is_some() {}
            if waiting.len() >= MOST_WAITING {
                let _ = socket.try_send_to(&query.answer(Code::ServerFailure), from);
                return;
            }
            let (asker, socket) = (asker.clone(), socket.clone());
            waiting.spawn(async move {
                let answer = asker.passed_on(query, &outside, bytes, false).await;
                let _ = socket.send_to(&answer, from).await;
            });
        }
    }
}

async fn streams(asker: Arc<Asker>, listener: TcpListener) {
    let mut open = JoinSet::new();
    let mut oldest_first = VecDeque::new();
    asker.resolver.completeness().await;
    loop {
        let Ok((connection, _)) = listener.accept().await else {
            // Out of descriptors: others give theirs back in time.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        while open.try_join_next().is_some() {}
        oldest_first.retain(|stream: &AbortHandle| !stream.is_finished());
        if oldest_first.len() >= MOST_STREAMS
            && let Some(oldest) = oldest_first.pop_front()
        {
            oldest.abort();
        }
        let asker = asker.clone();
        oldest_first.push_back(open.spawn(async move {
            // The end of a connection, for whatever reason, concerns nobody else.
            let _ = answer_stream(&asker, connection).await;
        }));
    }
}

async fn answer_stream(asker: &Asker, mut connection: TcpStream) -> io::Result<()> {
    loop {
        let bytes = timeout(STREAM_PATIENCE, async {
            let length = usize::from(connection.read_u16().await?);
            if length > LONGEST_QUERY {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let mut bytes = vec![0; length];
            connection.read_exact(&mut bytes).await?;
            io::Result::Ok(bytes)
        })
        .await??;
        let answer = match asker.local(&bytes, true) {
            None => return Ok(()),
            Some(Outcome::Answer(answer)) => answer,
            Some(Outcome::Pass(query, outside)) => asker.passed_on(query, &outside, bytes, true).await,
        };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        let framed = [&length.to_be_bytes()[..], &answer].concat();
        timeout(STREAM_PATIENCE, connection.write_all(&framed)).await??;
    }
}

/// Spreads clients that take the first address over all of them.
fn anywhere_in(length: usize) -> usize {
    if length < 2 {
        return 0;
    }
    crate::random::bytes::<2>().map_or(0, |random| usize::from(u16::from_ne_bytes(random)) % length)
}
