//! Telling a bridge's other ports that an address has moved (gratuitous ARP, RFC 5944 §4.6): containers get
//! the addresses of those before them at once, with another hardware address, and
//! their peers would keep sending to the old one for half a minute.
//!
//! One packet socket is kept for good: closing one costs the kernel milliseconds.
//!
//! Unsafe, because packet sockets' addresses are none that rustix knows.
#![allow(unsafe_code)]

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};

use crate::netlink::route::Mac;

const BROADCAST: Mac = [0xff; 6];
const ETH_P_ARP: u16 = 0x0806;

/// A socket to announce with, in the host's namespace.
pub(crate) struct Announcer {
    socket: OwnedFd,
}

impl Announcer {
    pub(crate) fn new() -> Result<Self, Errno> {
        // Protocol 0: it receives nothing.
        let socket =
            rustix::net::socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        Ok(Self { socket })
    }

    /// Says on the bridge with index `bridge` that `ip` is at `mac`.
    pub(crate) fn announce(&self, bridge: u32, ip: Ipv4Addr, mac: Mac) -> Result<(), Errno> {
        let to = LinkAddress {
            family: AddressFamily::PACKET.as_raw(),
            protocol: ETH_P_ARP.to_be(),
            index: bridge as i32,
            hardware: 0,
            packet: 0,
            length: 6,
            address: [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0],
        };
        rustix::net::sendto(&self.socket, &frame(ip, mac), SendFlags::empty(), &to).map(drop)
    }
}

/// An ARP request for one's own address, which every listener notes.
fn frame(ip: Ipv4Addr, mac: Mac) -> [u8; 42] {
    const ETHERNET_IPV4_REQUEST: [u8; 8] = [0, 1, 8, 0, 6, 4, 0, 1];
    let mut frame = [0; 42];
    frame[..6].copy_from_slice(&BROADCAST);
    frame[6..12].copy_from_slice(&mac);
    frame[12..14].copy_from_slice(&ETH_P_ARP.to_be_bytes());
    frame[14..22].copy_from_slice(&ETHERNET_IPV4_REQUEST);
    frame[22..28].copy_from_slice(&mac);
    frame[28..32].copy_from_slice(&ip.octets());
    frame[38..42].copy_from_slice(&ip.octets());
    frame
}

/// `struct sockaddr_ll` (packet(7)).
#[repr(C)]
struct LinkAddress {
    family: u16,
    protocol: u16,
    index: i32,
    hardware: u16,
    packet: u8,
    length: u8,
    address: [u8; 8],
}

// SAFETY: the pointer is valid, for the call, for the length that is given with it.
unsafe impl SocketAddrArg for LinkAddress {
    unsafe fn with_sockaddr<R>(&self, f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R) -> R {
        f(std::ptr::from_ref(self).cast(), size_of::<Self>() as SocketAddrLen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frame_is_an_arp_request_for_the_sender() {
        let frame = frame(Ipv4Addr::new(172, 17, 0, 2), [2, 0, 0, 0, 0, 9]);
        assert_eq!(frame[12..22], [8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        assert_eq!(frame[28..32], frame[38..42]);
        assert_eq!(frame[6..12], frame[22..28]);
    }
}
