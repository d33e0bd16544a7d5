//! Relaying what the kernel's translation does not catch: published ports on IPv6 addresses, and all of them
//! where netd makes no rules. Runs on the runtime thread. Connections outlive netd's death ([`stream`]).

mod stream;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::runtime::Handle;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use self::stream::Stream;
use crate::handover::{Handover, Kept, Subject};
use crate::protocol::{BoundPort, Protocol};

const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
/// How long a UDP client is remembered after its last datagram, or the container's to it.
const UDP_PATIENCE: Duration = Duration::from_secs(90);
/// UDP clients of one port at a time; datagrams of more are dropped.
const MOST_UDP_CLIENTS: usize = 1024;
const LARGEST_DATAGRAM: usize = 65535;

/// What all relays share.
#[derive(Debug)]
pub(crate) struct Relays {
    runtime: Handle,
    handover: Arc<Handover>,
}

/// A running relay of one port, with its connections.
#[derive(Debug)]
pub(crate) struct Relay {
    task: JoinHandle<()>,
    /// Its socket, as left to the next netd.
    kept: Kept,
}

impl Relays {
    pub(crate) fn new(runtime: Handle, handover: Arc<Handover>) -> Self {
        Self { runtime, handover }
    }

    /// Relays what comes to `socket` (listening, if TCP) to the container, and goes on with the connections that an earlier
    /// netd `left`. `None` for protocols that are not relayed.
    pub(crate) fn start(
        &self,
        port: &BoundPort,
        socket: OwnedFd,
        to: SocketAddr,
        left: Vec<Arc<[OwnedFd]>>,
    ) -> io::Result<Option<Relay>> {
        let _context = self.runtime.enter();
        let own: [OwnedFd; 1] = [socket.try_clone()?];
        let task = match port.protocol {
            Protocol::Tcp => {
                let listener = TcpListener::from_std(std::net::TcpListener::from(socket))?;
                let left = left.into_iter().map(|one| Stream::again(&self.handover, port, one)).collect();
                let relayed = Relayed { port: port.clone(), to, handover: self.handover.clone() };
                self.runtime.spawn(streams(listener, relayed, left))
            }
            Protocol::Udp => {
                let socket = UdpSocket::from_std(std::net::UdpSocket::from(socket))?;
                self.runtime.spawn(datagrams(Arc::new(socket), to))
            }
            Protocol::Sctp => return Ok(None),
        };
        let kept = self.handover.keep(Subject::Port(port.clone()), Arc::new(own));
        Ok(Some(Relay { task, kept }))
    }

    /// Ends them; the ports are free when this returns.
    pub(crate) fn stop(&self, relays: Vec<Relay>) {
        relays.iter().for_each(|relay| relay.task.abort());
        let kept = relays.into_iter().map(|Relay { task, kept }| {
            // The task was told to end: that it did is all there is to know.
            let _ = self.runtime.block_on(task);
            kept
        });
        Kept::withdraw(kept.collect());
    }
}

/// A TCP port, and where it leads to.
#[derive(Debug, Clone)]
struct Relayed {
    port: BoundPort,
    to: SocketAddr,
    handover: Arc<Handover>,
}

async fn streams(listener: TcpListener, relayed: Relayed, left: Vec<Stream>) {
    let mut connections = left.into_iter().map(Stream::relay).collect::<JoinSet<_>>();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => {
                    connections.spawn(relayed.clone().relay(client));
                }
                // Out of descriptors: others give theirs back in time.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

impl Relayed {
    /// How it ended is known to both ends already.
    async fn relay(self, client: TcpStream) -> io::Result<()> {
        let container = timeout(CONNECT_PATIENCE, TcpStream::connect(self.to)).await??;
        let (client, container) = (client.into_std()?.into(), container.into_std()?.into());
        Stream::new(&self.handover, &self.port, client, container)?.relay().await
    }
}

/// The sockets towards the container, by client.
type Clients = Arc<Mutex<HashMap<SocketAddr, Arc<UdpSocket>>>>;

async fn datagrams(socket: Arc<UdpSocket>, to: SocketAddr) {
    let clients = Clients::default();
    let mut answers = JoinSet::new();
    let mut buffer = vec![0; LARGEST_DATAGRAM];
    loop {
        let (length, client) = tokio::select! {
            received = socket.recv_from(&mut buffer) => match received {
                Ok(received) => received,
                // What an earlier datagram of ours met with; the next one is received.
                Err(_) => continue,
            },
            Some(_) = answers.join_next() => continue,
        };
        let known = clients.lock().unwrap_or_else(PoisonError::into_inner).get(&client).cloned();
        let towards = match known {
            Some(towards) => towards,
            None => match new_client(&clients, client, to).await {
                Some(towards) => {
                    answers.spawn(relay_answers(socket.clone(), towards.clone(), clients.clone(), client));
                    towards
                }
                None => continue,
            },
        };
        // Datagrams may be lost.
        let _ = towards.send(&buffer[..length]).await;
    }
}

async fn new_client(clients: &Clients, client: SocketAddr, to: SocketAddr) -> Option<Arc<UdpSocket>> {
    if clients.lock().unwrap_or_else(PoisonError::into_inner).len() >= MOST_UDP_CLIENTS {
        return None;
    }
    let towards = Arc::new(UdpSocket::bind("0.0.0.0:0").await.ok()?);
    towards.connect(to).await.ok()?;
    clients.lock().unwrap_or_else(PoisonError::into_inner).insert(client, towards.clone());
    Some(towards)
}

async fn relay_answers(
    socket: Arc<UdpSocket>,
    towards: Arc<UdpSocket>,
    clients: Clients,
    client: SocketAddr,
) {
    let mut buffer = vec![0; LARGEST_DATAGRAM];
    while let Ok(Ok(length)) = timeout(UDP_PATIENCE, towards.recv(&mut buffer)).await {
        let _ = socket.send_to(&buffer[..length], client).await;
    }
    clients.lock().unwrap_or_else(PoisonError::into_inner).remove(&client);
}
