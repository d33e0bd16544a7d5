//! As much of rtnetlink(7) as moving network devices takes. Nothing here allocates except [`addresses`].

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;
const CREATE_EXCL: u16 = 0x600;
const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_F_PERMANENT: u8 = 0x80;
const IFF_UP: u32 = 1;
const HEADER: usize = 16;
const ADDRESS_HEADER: usize = 8;

/// A request that is put together in place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message {
    bytes: [u8; 256],
    length: usize,
}

impl Message {
    fn new(kind: u16, flags: u16) -> Self {
        let mut message = Message { bytes: [0; 256], length: 0 };
        message.add(&[0; 4]).add(&kind.to_ne_bytes()).add(&(REQUEST | flags).to_ne_bytes()).add(&[0; 8]);
        message
    }

    /// Appends; what does not fit makes the message one that the kernel refuses.
    fn add(&mut self, part: &[u8]) -> &mut Self {
        let end = self.length + part.len();
        if let Some(place) = self.bytes.get_mut(self.length..end) {
            place.copy_from_slice(part);
            self.length = end;
        }
        self
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.add(&length.to_ne_bytes()).add(&kind.to_ne_bytes()).add(value);
        let padding = self.length.next_multiple_of(4) - self.length;
        self.add([0; 3].get(..padding).unwrap_or_default())
    }

    fn set(&mut self, at: usize, value: u32) {
        if let Some(place) = self.bytes.get_mut(at..at + 4) {
            place.copy_from_slice(&value.to_ne_bytes());
        }
    }

    fn finished(&mut self) -> &[u8] {
        self.set(0, u32::try_from(self.length).unwrap_or(0));
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// A socket to the routing tables (protocol 0) of the calling thread's network namespace.
pub(crate) fn socket() -> Result<OwnedFd, Errno> {
    rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)
}

/// Moves a device to another network namespace, with a name there.
pub(crate) fn move_device(
    socket: impl AsFd,
    index: u32,
    namespace: impl AsFd,
    name: &[u8],
) -> Result<(), Errno> {
    let mut message = link(index, 0);
    let fd = std::os::fd::AsRawFd::as_raw_fd(&namespace.as_fd());
    message.attribute(IFLA_NET_NS_FD, &fd.to_ne_bytes()).attribute(IFLA_IFNAME, name);
    transact(socket, message)
}

/// Sets a device up.
pub(crate) fn set_up(socket: impl AsFd, index: u32) -> Result<(), Errno> {
    transact(socket, link(index, IFF_UP))
}

fn link(index: u32, up: u32) -> Message {
    let mut message = Message::new(RTM_NEWLINK, ACK);
    // family and type; index; flags, and which of them count
    message.add(&[0; 4]).add(&index.to_ne_bytes()).add(&up.to_ne_bytes()).add(&IFF_UP.to_ne_bytes());
    message
}

/// Gives an address to a device, which may have another number than where the address was read.
pub(crate) fn add_address(socket: impl AsFd, index: u32, mut address: Message) -> Result<(), Errno> {
    address.set(HEADER + 4, index);
    transact(socket, address)
}

fn transact(socket: impl AsFd, mut message: Message) -> Result<(), Errno> {
    rustix::net::send(&socket, message.finished(), SendFlags::empty())?;
    let mut answer = [0; 1024];
    let (length, _) = rustix::net::recv(&socket, &mut answer, RecvFlags::empty())?;
    let answer = answer.get(..length).unwrap_or_default();
    match (word16(answer, 4), word32(answer, HEADER)) {
        (Some(NLMSG_ERROR), Some(0)) => Ok(()),
        (Some(NLMSG_ERROR), Some(errno)) => Err(Errno::from_raw_os_error(errno.cast_signed().wrapping_neg())),
        _ => Err(Errno::PROTO),
    }
}

/// The permanent addresses of global scope of a device, as requests to give them to one.
pub(crate) fn addresses(socket: impl AsFd, index: u32) -> Result<Vec<Message>, Errno> {
    let mut request = Message::new(RTM_GETADDR, DUMP);
    request.add(&[0; ADDRESS_HEADER]);
    rustix::net::send(&socket, request.finished(), SendFlags::empty())?;
    let mut found = Vec::new();
    let mut buffer = vec![0; 65536];
    loop {
        let (length, _) = rustix::net::recv(&socket, &mut buffer, RecvFlags::empty())?;
        let mut rest = buffer.get(..length).unwrap_or_default();
        while let (Some(length), Some(kind)) = (word32(rest, 0), word16(rest, 4)) {
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            let message = rest.get(..length).filter(|m| m.len() >= HEADER).ok_or(Errno::PROTO)?;
            match kind {
                NLMSG_DONE => return Ok(found),
                NLMSG_ERROR => return Err(Errno::PROTO),
                RTM_NEWADDR => found.extend(address(message, index)),
                _ => {}
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

fn address(message: &[u8], wanted: u32) -> Option<Message> {
    let head = message.get(HEADER..HEADER + ADDRESS_HEADER)?;
    let [family, prefix, flags, scope, ..] = *head else { return None };
    if word32(head, 4)? != wanted || flags & IFA_F_PERMANENT == 0 || scope != 0 {
        return None;
    }
    let mut request = Message::new(RTM_NEWADDR, ACK | CREATE_EXCL);
    request.add(&[family, prefix, 0, scope]).add(&wanted.to_ne_bytes());
    let mut rest = message.get(HEADER + ADDRESS_HEADER..)?;
    while let (Some(length), Some(kind)) = (word16(rest, 0), word16(rest, 2)) {
        let value = rest.get(4..usize::from(length))?;
        // labels and lifetimes are the old device's
        if [IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST].contains(&kind) {
            request.attribute(kind, value);
        }
        rest = rest.get(usize::from(length).next_multiple_of(4)..).unwrap_or_default();
    }
    Some(request)
}

fn word16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

fn word32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}
