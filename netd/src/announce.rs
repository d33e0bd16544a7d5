//! Telling a bridge's other ports that an address has moved (gratuitous ARP, RFC 5944 §4.6; unsolicited neighbour
//! advertisements, RFC 4861 §7.2.6): containers get the addresses of those before them at once, with another hardware address, and
//! their peers would keep sending to the old one for half a minute.
//!
//! One packet socket is kept for good: closing one costs the kernel milliseconds.
//!
//! Unsafe, because packet sockets' addresses are none that rustix knows.
#![allow(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};

use crate::netlink::route::Mac;

const BROADCAST: Mac = [0xff; 6];
const ETH_P_ARP: u16 = 0x0806;
const ETH_P_IPV6: u16 = 0x86dd;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: Mac = [0x33, 0x33, 0, 0, 0, 1];

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
    pub(crate) fn announce(&self, bridge: u32, ip: IpAddr, mac: Mac) -> Result<(), Errno> {
        let (protocol, to, frame) = match ip {
            IpAddr::V4(ip) => (ETH_P_ARP, BROADCAST, arp_frame(ip, mac).to_vec()),
            IpAddr::V6(ip) => (ETH_P_IPV6, ALL_NODES_MAC, advertisement(ip, mac)),
        };
        let [a, b, c, d, e, f] = to;
        let to = LinkAddress {
            family: AddressFamily::PACKET.as_raw(),
            protocol: protocol.to_be(),
            index: bridge as i32,
            hardware: 0,
            packet: 0,
            length: 6,
            address: [a, b, c, d, e, f, 0, 0],
        };
        rustix::net::sendto(&self.socket, &frame, SendFlags::empty(), &to).map(drop)
    }
}

/// An ARP request for one's own address, which every listener notes.
fn arp_frame(ip: Ipv4Addr, mac: Mac) -> [u8; 42] {
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

/// A neighbour advertisement that overrides what listeners know.
fn advertisement(ip: Ipv6Addr, mac: Mac) -> Vec<u8> {
    const ICMPV6: u8 = 58;
    const ADVERTISEMENT: u8 = 136;
    const OVERRIDE: u8 = 0x20;
    const TARGET_LINK_ADDRESS: [u8; 2] = [2, 1];
    let mut message = vec![ADVERTISEMENT, 0, 0, 0, OVERRIDE, 0, 0, 0];
    message.extend(ip.octets());
    message.extend(TARGET_LINK_ADDRESS);
    message.extend(mac);
    let length = message.len() as u8;
    let mut summed = [ip.octets(), ALL_NODES.octets()].concat();
    summed.extend([0, 0, 0, length, 0, 0, 0, ICMPV6]);
    summed.extend(&message);
    message[2..4].copy_from_slice(&checksum(&summed).to_be_bytes());
    let mut frame = [ALL_NODES_MAC, mac].concat();
    frame.extend(ETH_P_IPV6.to_be_bytes());
    frame.extend([0x60, 0, 0, 0, 0, length, ICMPV6, 255]);
    frame.extend(ip.octets());
    frame.extend(ALL_NODES.octets());
    frame.extend(message);
    frame
}

/// The Internet's checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| {
        let low = pair.get(1).copied().unwrap_or_default();
        u32::from(u16::from_be_bytes([pair[0], low]))
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
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
        let frame = arp_frame(Ipv4Addr::new(172, 17, 0, 2), [2, 0, 0, 0, 0, 9]);
        assert_eq!(frame[12..22], [8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        assert_eq!(frame[28..32], frame[38..42]);
        assert_eq!(frame[6..12], frame[22..28]);
    }

    #[test]
    fn an_advertisement_sums_up() {
        let frame = advertisement("fd00::2".parse().unwrap(), [2, 0, 0, 0, 0, 9]);
        assert_eq!(frame.len(), 14 + 40 + 32);
        assert_eq!(frame[14..22], [0x60, 0, 0, 0, 0, 32, 58, 255]);
        let mut summed = frame[22..54].to_vec();
        summed.extend([0, 0, 0, 32, 0, 0, 0, 58]);
        summed.extend(&frame[54..]);
        assert_eq!(checksum(&summed), 0, "with the right checksum all of it sums up to nothing");
        assert_eq!(
            checksum(&[
                0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0, 0, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0, 0xc7
            ]),
            0xb861
        );
    }
}
