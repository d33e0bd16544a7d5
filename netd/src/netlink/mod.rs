//! Talking to the kernel over netlink, synchronously: messages are collected in a [`Batch`],
//! sent with one system call, and each is acknowledged. A socket belongs to the network namespace of the
//! thread that opened it, whichever thread uses it later.

pub(crate) mod commits;
pub(crate) mod conntrack;
mod message;
pub(crate) mod redirect;
pub(crate) mod route;

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};

pub(crate) use message::Batch;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// Kernel answers to dumps fit in this; netlink packs them to at most 32 KiB.
const RECEIVE_BYTES: usize = 32 << 10;

/// A netlink conversation.
pub(crate) struct Socket {
    fd: OwnedFd,
    next_sequence: u32,
}

/// A message as it came from the kernel.
pub(crate) struct Received<'a> {
    pub(crate) kind: u16,
    sequence: u32,
    pub(crate) body: &'a [u8],
}

impl Socket {
    /// For links, addresses, routes and neighbours of the calling thread's namespace.
    pub(crate) fn route() -> Result<Self, Errno> {
        // NETLINK_ROUTE is protocol 0.
        Self::open(None)
    }

    /// For nftables and conntrack of the calling thread's namespace.
    pub(crate) fn netfilter() -> Result<Self, Errno> {
        Self::open(Some(netlink::NETFILTER))
    }

    fn open(protocol: Option<Protocol>) -> Result<Self, Errno> {
        let fd = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            protocol,
        )?;
        Ok(Self { fd, next_sequence: 1 })
    }

    /// Sends the batch and waits for every acknowledgement. The first refusal is returned, with the others
    /// still carried out (except in nftables' transactions, which are all or nothing).
    pub(crate) fn commit(&mut self, batch: Batch) -> Result<(), Errno> {
        if batch.is_empty() {
            return Ok(());
        }
        let (bytes, mut pending) = batch.finish(self.next_sequence);
        self.next_sequence = self.next_sequence.wrapping_add(pending.count);
        rustix::net::send(&self.fd, &bytes, SendFlags::empty())?;
        let mut refused = None;
        let mut buffer = [0u8; RECEIVE_BYTES];
        while pending.acknowledgements > 0 {
            let (length, _) = rustix::net::recv(&self.fd, &mut buffer[..], RecvFlags::empty())?;
            for message in messages(&buffer[..length]) {
                let Some(errno) = message.verdict() else { continue };
                if pending.expects_ack(message.sequence) {
                    pending.acknowledgements -= 1;
                }
                if let Some(errno) = errno {
                    refused = refused.or(Some(errno));
                    // A transaction that failed as a whole is not acknowledged message by message.
                    if pending.transaction {
                        return Err(errno);
                    }
                }
            }
        }
        refused.map_or(Ok(()), Err)
    }

    /// Sends one request and gives each answer of the dump (or the one answer) to `each`.
    pub(crate) fn query(&mut self, batch: Batch, mut each: impl FnMut(&Received<'_>)) -> Result<(), Errno> {
        let (bytes, _) = batch.finish(self.next_sequence);
        self.next_sequence = self.next_sequence.wrapping_add(1);
        rustix::net::send(&self.fd, &bytes, SendFlags::empty())?;
        let mut buffer = [0u8; RECEIVE_BYTES];
        loop {
            let (length, _) = rustix::net::recv(&self.fd, &mut buffer[..], RecvFlags::empty())?;
            for message in messages(&buffer[..length]) {
                match message.verdict() {
                    Some(Some(errno)) => return Err(errno),
                    Some(None) => return Ok(()),
                    None if message.kind == NLMSG_DONE => return Ok(()),
                    None => each(&message),
                }
            }
        }
    }
}

impl Received<'_> {
    /// `Some(None)`: acknowledged; `Some(Some(errno))`: refused; `None`: not about that.
    fn verdict(&self) -> Option<Option<Errno>> {
        if self.kind != NLMSG_ERROR {
            return None;
        }
        let code = i32::from_ne_bytes(*self.body.first_chunk()?);
        Some((code != 0).then(|| Errno::from_raw_os_error(-code)))
    }
}

fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Received<'_>> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
        let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
        let sequence = u32::from_ne_bytes(*bytes.get(8..)?.first_chunk()?);
        let body = bytes.get(message::HEADER..length)?;
        bytes = bytes.get(message::align(length)..).unwrap_or_default();
        Some(Received { kind, sequence, body })
    })
}
