//! The resolver at 127.0.0.11 of each sandbox: sockets opened in the sandbox's namespace, served by tasks of the
//! one runtime thread.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::message::{self, Code, NotAQuery, Query, TYPE_A, TYPE_PTR};
use super::names::{Found, Names, Outside};
use super::upstream::{HostResolvers, ask};
use crate::netlink::redirect::RESOLVER;

/// Queries of one sandbox that wait for other resolvers at a time; more are answered with a failure.
const MOST_WAITING: usize = 128;
/// TCP connections of one sandbox at a time; more are closed.
const MOST_STREAMS: usize = 16;
/// How long a TCP connection may take for its next message, and to take an answer.
const STREAM_PATIENCE: Duration = Duration::from_secs(10);
const LARGEST_DATAGRAM: usize = 4096;

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

    pub(crate) fn ports(&self) -> io::Result<DnsPorts> {
        Ok(DnsPorts { udp: self.udp.local_addr()?.port(), tcp: self.tcp.local_addr()?.port() })
    }
}

/// What all sandboxes' resolvers share.
#[derive(Debug)]
pub(crate) struct Resolver {
    names: Arc<Names>,
    host: HostResolvers,
    runtime: Handle,
}

/// A running resolver of one sandbox; ends when dropped.
#[derive(Debug)]
pub(crate) struct DnsService {
    tasks: [AbortHandle; 2],
}

impl Drop for DnsService {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl Resolver {
    pub(crate) fn new(names: Arc<Names>, runtime: Handle) -> Arc<Self> {
        Arc::new(Self { names, host: HostResolvers::new(PathBuf::from("/etc/resolv.conf")), runtime })
    }

    /// Begins to answer a sandbox's queries.
    pub(crate) fn serve(self: &Arc<Self>, sandbox: &str, sockets: DnsSockets) -> io::Result<DnsService> {
        let _context = self.runtime.enter();
        let asker = Arc::new(Asker {
            resolver: self.clone(),
            sandbox: sandbox.into(),
            waiting: Semaphore::new(MOST_WAITING),
            streams: Semaphore::new(MOST_STREAMS),
        });
        let udp = self.runtime.spawn(datagrams(asker.clone(), Arc::new(UdpSocket::from_std(sockets.udp)?)));
        let tcp = self.runtime.spawn(streams(asker, TcpListener::from_std(sockets.tcp)?));
        Ok(DnsService { tasks: [udp.abort_handle(), tcp.abort_handle()] })
    }
}

/// One sandbox that asks.
struct Asker {
    resolver: Arc<Resolver>,
    sandbox: String,
    waiting: Semaphore,
    streams: Semaphore,
}

/// An answer, or a question for others.
enum Outcome {
    Answer(Vec<u8>),
    Pass(Query, Outside),
}

impl Asker {
    /// What we know ourselves.
    fn local(&self, bytes: &[u8], stream: bool) -> Option<Outcome> {
        let query = match message::parse(bytes) {
            Ok(query) => query,
            Err(NotAQuery::Ignore) => return None,
            Err(NotAQuery::Refuse(id, code)) => return Some(Outcome::Answer(message::refusal(id, code))),
        };
        let names = &self.resolver.names;
        if query.kind == TYPE_PTR {
            let unknown = match message::reverse_address(&query.name) {
                Some(ip) => match names.pointer(&self.sandbox, ip) {
                    Ok(name) => return Some(Outcome::Answer(query.pointer(&name))),
                    Err(outside) => outside,
                },
                None => names.outside(&self.sandbox),
            };
            return Some(Outcome::Pass(query, unknown));
        }
        Some(match names.addresses(&self.sandbox, &query.name) {
            Found::Addresses(mut addresses) if query.kind == TYPE_A => {
                shuffle(&mut addresses);
                Outcome::Answer(query.addresses(&addresses, stream))
            }
            // The name is ours, and has no records of this type.
            Found::Addresses(_) => Outcome::Answer(query.answer(Code::NoError)),
            Found::Unknown(outside) => Outcome::Pass(query, outside),
        })
    }

    /// What others know.
    async fn passed_on(&self, query: Query, outside: Outside, bytes: &[u8], stream: bool) -> Vec<u8> {
        let answer = match self.waiting.try_acquire() {
            Ok(_permit) if outside.allowed => {
                let resolvers: Vec<IpAddr> = if outside.upstreams.is_empty() {
                    self.resolver.host.current()
                } else {
                    outside.upstreams
                };
                ask(&query, bytes, stream, &resolvers).await
            }
            _ => None,
        };
        answer.unwrap_or_else(|| query.answer(Code::ServerFailure))
    }
}

async fn datagrams(asker: Arc<Asker>, socket: Arc<UdpSocket>) {
    loop {
        if socket.readable().await.is_err() {
            return;
        }
        // An error on one datagram (a client that is gone already) says nothing about the next.
        if let Ok((bytes, from)) = next_datagram(&socket) {
            answer_datagram(&asker, &socket, bytes, from);
        }
    }
}

/// The buffer lives only here, so that a waiting sandbox holds none.
fn next_datagram(socket: &UdpSocket) -> io::Result<(Vec<u8>, SocketAddr)> {
    let mut buffer = [0u8; LARGEST_DATAGRAM];
    let (length, from) = socket.try_recv_from(&mut buffer)?;
    Ok((buffer[..length].to_vec(), from))
}

fn answer_datagram(asker: &Arc<Asker>, socket: &Arc<UdpSocket>, bytes: Vec<u8>, from: SocketAddr) {
    match asker.local(&bytes, false) {
        None => {}
        Some(Outcome::Answer(answer)) => {
            // Full or gone: the client asks again.
            let _ = socket.try_send_to(&answer, from);
        }
        Some(Outcome::Pass(query, outside)) => {
            if !outside.allowed || asker.waiting.available_permits() == 0 {
                let _ = socket.try_send_to(&query.answer(Code::ServerFailure), from);
                return;
            }
            let (asker, socket) = (asker.clone(), socket.clone());
            tokio::spawn(async move {
                let answer = asker.passed_on(query, outside, &bytes, false).await;
                let _ = socket.send_to(&answer, from).await;
            });
        }
    }
}

async fn streams(asker: Arc<Asker>, listener: TcpListener) {
    loop {
        let Ok((connection, _)) = listener.accept().await else {
            // Out of descriptors: others give theirs back in time.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let asker = asker.clone();
        tokio::spawn(async move {
            if let Ok(_permit) = asker.streams.try_acquire() {
                // The end of a connection, for whatever reason, concerns nobody else.
                let _ = answer_stream(&asker, connection).await;
            }
        });
    }
}

async fn answer_stream(asker: &Asker, mut connection: TcpStream) -> io::Result<()> {
    loop {
        let bytes = timeout(STREAM_PATIENCE, async {
            let mut bytes = vec![0; connection.read_u16().await?.into()];
            connection.read_exact(&mut bytes).await?;
            io::Result::Ok(bytes)
        })
        .await??;
        let answer = match asker.local(&bytes, true) {
            None => return Ok(()),
            Some(Outcome::Answer(answer)) => answer,
            Some(Outcome::Pass(query, outside)) => asker.passed_on(query, outside, &bytes, true).await,
        };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        let framed = [&length.to_be_bytes()[..], &answer].concat();
        timeout(STREAM_PATIENCE, connection.write_all(&framed)).await??;
    }
}

/// Spreads clients that take the first address over all of them.
fn shuffle(addresses: &mut [std::net::Ipv4Addr]) {
    if addresses.len() > 1
        && let Ok(random) = crate::random::bytes::<2>()
    {
        let by = usize::from(u16::from_ne_bytes(random)) % addresses.len();
        addresses.rotate_left(by);
    }
}
