//! Relaying what the kernel's translation does not catch: published ports on IPv6 addresses, and all of them
//! where netd makes no rules. Runs on the runtime thread. Connections outlive netd's death ([`stream`]).

mod datagram;
mod stream;

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use self::stream::Stream;
use crate::handover::{Handover, Kept, Subject};
use crate::limits::descriptors;
use crate::protocol::{BoundPort, Protocol};

const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
/// Descriptors of a connection: two sockets, each of them also as tokio has it, and two pipes.
const OF_A_STREAM: u32 = 8;
/// Of so many parts of all descriptors …
const PARTS: usize = 8;
/// … connections may take these, however many come …
const FOR_STREAMS: usize = 3;
/// … and clients that send datagrams these. Those are remembered for long and anybody can be many of them: they must not take what
/// connections need.
const FOR_DATAGRAMS: usize = 1;

/// What all relays share.
#[derive(Debug)]
pub(crate) struct Relays {
    runtime: Handle,
    handover: Arc<Handover>,
    /// Descriptors for connections; those for which there are none wait in their sockets.
    streams: Arc<Semaphore>,
    /// Descriptors for clients that send datagrams, which are dropped without.
    datagrams: Arc<Semaphore>,
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
        let room = |parts| Arc::new(Semaphore::new(descriptors() / PARTS * parts));
        Self { runtime, handover, streams: room(FOR_STREAMS), datagrams: room(FOR_DATAGRAMS) }
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
                let (handover, room) = (self.handover.clone(), self.streams.clone());
                let relayed = Relayed { port: port.clone(), to, handover, room };
                self.runtime.spawn(streams(listener, relayed, left))
            }
            Protocol::Udp => {
                let socket = UdpSocket::from_std(std::net::UdpSocket::from(socket))?;
                self.runtime.spawn(datagram::relay(Arc::new(socket), to, self.datagrams.clone()))
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
    room: Arc<Semaphore>,
}

async fn streams(listener: TcpListener, relayed: Relayed, left: Vec<Stream>) {
    let mut connections = JoinSet::new();
    for stream in left {
        // It goes on whether or not there is room for it; those who come now wait for theirs.
        let room = relayed.room.clone().try_acquire_many_owned(OF_A_STREAM).ok();
        connections.spawn(async move {
            let _room = room;
            stream.relay().await
        });
    }
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => {
                    let Ok(room) = relayed.room.clone().acquire_many_owned(OF_A_STREAM).await else { return };
                    connections.spawn(relayed.clone().relay(client, room));
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
    async fn relay(self, client: TcpStream, _room: OwnedSemaphorePermit) -> io::Result<()> {
        let container = timeout(CONNECT_PATIENCE, TcpStream::connect(self.to)).await??;
        let (client, container) = (client.into_std()?.into(), container.into_std()?.into());
        Stream::new(&self.handover, &self.port, client, container)?.relay().await
    }
}
