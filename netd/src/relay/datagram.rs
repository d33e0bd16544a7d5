//! Relayed datagrams: towards the container each client has a socket of its own, so that answers find their way back. They leave
//! from the address that the client has asked, of which a host may have many.

use std::collections::HashMap;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt, sockopt,
};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::task::coop::consume_budget;
use tokio::time::timeout;

/// How long a client is remembered after its last datagram, or the container's to it.
const PATIENCE: Duration = Duration::from_secs(90);
/// Clients of one port at a time; datagrams of more are dropped.
const MOST_CLIENTS: usize = 1024;
const LARGEST: usize = 65_535;

/// Whom an answer goes to, and from which of our addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Path {
    client: SocketAddr,
    /// `None` if the kernel has not told.
    ours: Option<IpAddr>,
    /// The interface, where the address alone does not say it.
    interface: u32,
}

#[derive(Debug)]
struct Client {
    towards: UdpSocket,
    /// Whether it has said something since this was last looked at.
    spoke: AtomicBool,
    _room: OwnedSemaphorePermit,
}

type Clients = Arc<Mutex<HashMap<Path, Arc<Client>>>>;

/// Relays what comes to `socket` until the task is ended. Each client takes one permit of `room`.
pub(super) async fn relay(socket: Arc<UdpSocket>, to: SocketAddr, room: Arc<Semaphore>) {
    // Without it answers leave from the address that the kernel chooses.
    let _ = setsockopt(&socket, sockopt::Ipv4PacketInfo, &true);
    let _ = setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true);
    let clients = Clients::default();
    let mut answers = JoinSet::new();
    loop {
        // What comes without end leaves others their turn.
        consume_budget().await;
        tokio::select! {
            readable = socket.readable() => if readable.is_err() { return },
            Some(_) = answers.join_next() => continue,
        }
        // An error is what an earlier datagram of ours met with; the next one is received.
        let Ok((datagram, path)) = socket.try_io(Interest::READABLE, || receive(&socket)) else { continue };
        let known = lock(&clients).get(&path).cloned();
        let client = match known {
            Some(client) => client,
            None => match new_client(&clients, path, to, &room).await {
                Some(client) => {
                    answers.spawn(relay_answers(socket.clone(), client.clone(), clients.clone(), path));
                    client
                }
                None => continue,
            },
        };
        client.spoke.store(true, Ordering::Relaxed);
        // Datagrams may be lost.
        let _ = client.towards.send(&datagram).await;
    }
}

async fn new_client(
    clients: &Clients,
    path: Path,
    to: SocketAddr,
    room: &Arc<Semaphore>,
) -> Option<Arc<Client>> {
    if lock(clients).len() >= MOST_CLIENTS {
        return None;
    }
    let room = room.clone().try_acquire_owned().ok()?;
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let towards = UdpSocket::bind((any, 0)).await.ok()?;
    towards.connect(to).await.ok()?;
    let client = Arc::new(Client { towards, spoke: AtomicBool::new(true), _room: room });
    lock(clients).insert(path, client.clone());
    Some(client)
}

async fn relay_answers(socket: Arc<UdpSocket>, client: Arc<Client>, clients: Clients, path: Path) {
    loop {
        consume_budget().await;
        match timeout(PATIENCE, client.towards.readable()).await {
            Err(_) if client.spoke.swap(false, Ordering::Relaxed) => continue,
            Err(_) | Ok(Err(_)) => break,
            Ok(Ok(())) => {}
        }
        // Nobody listens in the container: somebody may by the time of the next question.
        let Ok(answer) = next_answer(&client.towards) else { continue };
        // Full or gone: the client asks again.
        let _ = socket.try_io(Interest::WRITABLE, || send(&socket, &answer, path));
    }
    lock(&clients).remove(&path);
}

/// The buffer lives only here, so that clients who wait hold none.
fn next_answer(socket: &UdpSocket) -> io::Result<Vec<u8>> {
    let mut buffer = [0u8; LARGEST];
    let length = socket.try_recv(&mut buffer)?;
    Ok(buffer[..length].to_vec())
}

fn receive(socket: &UdpSocket) -> io::Result<(Vec<u8>, Path)> {
    let mut buffer = [0u8; LARGEST];
    let mut parts = [IoSliceMut::new(&mut buffer)];
    let mut space = nix::cmsg_space!(libc::in_pktinfo, libc::in6_pktinfo);
    let descriptor = socket.as_fd().as_raw_fd();
    let received =
        recvmsg::<SockaddrStorage>(descriptor, &mut parts, Some(&mut space), MsgFlags::MSG_DONTWAIT)?;
    let client = received.address.as_ref().and_then(address).ok_or(io::ErrorKind::InvalidData)?;
    let mut path = Path { client, ours: None, interface: 0 };
    for message in received.cmsgs()? {
        match message {
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                path.ours = Some(Ipv4Addr::from(u32::from_be(info.ipi_spec_dst.s_addr)).into());
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => {
                let ours = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                // A group is no address to answer from.
                path.ours = Some(ours).filter(|ours| !ours.is_multicast()).map(IpAddr::V6);
                if ours.is_unicast_link_local() {
                    path.interface = info.ipi6_ifindex;
                }
            }
            _ => {}
        }
    }
    let length = received.bytes;
    Ok((buffer[..length].to_vec(), path))
}

fn send(socket: &UdpSocket, datagram: &[u8], path: Path) -> io::Result<usize> {
    let (v4, v6);
    let source = match path.ours {
        Some(IpAddr::V4(ours)) => {
            let ours = libc::in_addr { s_addr: u32::from(ours).to_be() };
            let any = libc::in_addr { s_addr: 0 };
            v4 = libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: ours, ipi_addr: any };
            vec![ControlMessage::Ipv4PacketInfo(&v4)]
        }
        Some(IpAddr::V6(ours)) => {
            let ours = libc::in6_addr { s6_addr: ours.octets() };
            v6 = libc::in6_pktinfo { ipi6_addr: ours, ipi6_ifindex: path.interface };
            vec![ControlMessage::Ipv6PacketInfo(&v6)]
        }
        None => Vec::new(),
    };
    let to = SockaddrStorage::from(path.client);
    let descriptor = socket.as_fd().as_raw_fd();
    Ok(sendmsg(descriptor, &[IoSlice::new(datagram)], &source, MsgFlags::MSG_DONTWAIT, Some(&to))?)
}

fn address(from: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = from.as_sockaddr_in().map(|v4| SocketAddr::V4((*v4).into()));
    v4.or_else(|| from.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into())))
}

fn lock(clients: &Clients) -> MutexGuard<'_, HashMap<Path, Arc<Client>>> {
    clients.lock().unwrap_or_else(PoisonError::into_inner)
}
