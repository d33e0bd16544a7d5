//! Relaying what the kernel's translation does not catch: published ports on IPv6 addresses, and all of them
//! where netd makes no rules. Runs on the runtime thread.

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

use crate::protocol::Protocol;

const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
/// How long a UDP client is remembered after its last datagram, or the container's to it.
const UDP_PATIENCE: Duration = Duration::from_secs(90);
/// UDP clients of one port at a time; datagrams of more are dropped.
const MOST_UDP_CLIENTS: usize = 1024;
const LARGEST_DATAGRAM: usize = 65535;

/// A running relay of one port, with its connections.
#[derive(Debug)]
pub(crate) struct Relay {
    task: JoinHandle<()>,
}

impl Relay {
    /// Relays what comes to `socket` (listening, if TCP) to the container. `None` for protocols that are not relayed.
    pub(crate) fn start(
        runtime: &Handle,
        protocol: Protocol,
        socket: OwnedFd,
        to: SocketAddr,
    ) -> io::Result<Option<Self>> {
        let _context = runtime.enter();
        let task = match protocol {
            Protocol::Tcp => {
                let listener = TcpListener::from_std(std::net::TcpListener::from(socket))?;
                runtime.spawn(streams(listener, to))
            }
            Protocol::Udp => {
                let socket = UdpSocket::from_std(std::net::UdpSocket::from(socket))?;
                runtime.spawn(datagrams(Arc::new(socket), to))
            }
            Protocol::Sctp => return Ok(None),
        };
        Ok(Some(Self { task }))
    }

    /// Ends it; the port is free when this returns.
    pub(crate) fn stop(self, runtime: &Handle) {
        self.task.abort();
        // The task was told to end: that it did is all there is to know.
        let _ = runtime.block_on(self.task);
    }
}

async fn streams(listener: TcpListener, to: SocketAddr) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => {
                    connections.spawn(relay_stream(client, to));
                }
                // Out of descriptors: others give theirs back in time.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn relay_stream(mut client: TcpStream, to: SocketAddr) {
    if let Ok(Ok(mut container)) = timeout(CONNECT_PATIENCE, TcpStream::connect(to)).await {
        // How it ended is known to both ends already.
        let _ = tokio::io::copy_bidirectional(&mut client, &mut container).await;
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
