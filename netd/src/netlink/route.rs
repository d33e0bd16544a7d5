//! Links, addresses, routes and neighbours (rtnetlink(7)): exactly the orders that bridges and
//! endpoints need. Each function adds one order to a [`Batch`] or asks one question.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

use ipnetwork::Ipv4Network;
use rustix::io::Errno;

use super::message::{Batch, CREATE, EXCLUSIVE, REPLACE, attributes};
use super::{Received, Socket};

const NEWLINK: u16 = 16;
const DELLINK: u16 = 17;
const GETLINK: u16 = 18;
const SETLINK: u16 = 19;
const NEWADDR: u16 = 20;
const DELADDR: u16 = 21;
const GETADDR: u16 = 22;
const NEWROUTE: u16 = 24;
const DELROUTE: u16 = 25;
const GETROUTE: u16 = 26;
const DELNEIGH: u16 = 29;

const AF_BRIDGE: u8 = 7;
const AF_INET: u8 = 2;
const IFF_UP: u32 = 1;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_PROTINFO: u16 = 12;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const BRPORT_STATE: u16 = 1;
const BRPORT_MODE: u16 = 4;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const NDA_DST: u16 = 1;
const TABLE_MAIN: u8 = 254;

/// A hardware address.
pub(crate) type Mac = [u8; 6];

/// The index of the loopback interface in every namespace.
pub(crate) const LOOPBACK: u32 = 1;

fn link_header(family: u8, index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[0] = family;
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..].copy_from_slice(&change.to_ne_bytes());
    header
}

/// Makes a bridge, up.
pub(crate) fn add_bridge(batch: &mut Batch, name: &str, mac: Mac, mtu: u32) {
    batch
        .order(NEWLINK, CREATE | EXCLUSIVE, &link_header(0, 0, IFF_UP, IFF_UP))
        .text(IFLA_IFNAME, name)
        .bytes(IFLA_ADDRESS, &mac)
        .u32(IFLA_MTU, mtu)
        .nest(IFLA_LINKINFO, |info| {
            info.text(INFO_KIND, "bridge");
        });
}

/// A pair of interfaces to be made: one end on the host in a bridge, up; the other in a container, still down.
pub(crate) struct Veth<'a> {
    pub(crate) host_name: &'a str,
    pub(crate) bridge: u32,
    pub(crate) mtu: u32,
    pub(crate) peer_name: &'a str,
    /// 0: the kernel chooses.
    pub(crate) peer_index: u32,
    pub(crate) peer_mac: Mac,
    pub(crate) peer_namespace: BorrowedFd<'a>,
}

/// Makes the pair in one order.
pub(crate) fn add_veth(batch: &mut Batch, veth: &Veth<'_>) {
    batch
        .order(NEWLINK, CREATE | EXCLUSIVE, &link_header(0, 0, IFF_UP, IFF_UP))
        .text(IFLA_IFNAME, veth.host_name)
        .u32(IFLA_MTU, veth.mtu)
        .u32(IFLA_MASTER, veth.bridge)
        .nest(IFLA_LINKINFO, |info| {
            info.text(INFO_KIND, "veth").nest(INFO_DATA, |data| {
                data.nest(VETH_INFO_PEER, |peer| {
                    peer.raw(&link_header(0, veth.peer_index, 0, 0))
                        .text(IFLA_IFNAME, veth.peer_name)
                        .u32(IFLA_MTU, veth.mtu)
                        .bytes(IFLA_ADDRESS, &veth.peer_mac)
                        .u32(IFLA_NET_NS_FD, veth.peer_namespace.as_raw_fd() as u32);
                });
            });
        });
}

/// Brings an interface up.
pub(crate) fn set_up(batch: &mut Batch, index: u32) {
    batch.order(NEWLINK, 0, &link_header(0, index, IFF_UP, IFF_UP));
}

/// Removes an interface by name. Takes the kernel some 20 ms.
pub(crate) fn delete_link(batch: &mut Batch, name: &str) {
    batch.order(DELLINK, 0, &link_header(0, 0, 0, 0)).text(IFLA_IFNAME, name);
}

/// Lets a bridge send packets back through the port where they came from: a container that talks to its own
/// published port.
pub(crate) fn set_hairpin(batch: &mut Batch, port: u32) {
    batch.order(SETLINK, 0, &link_header(AF_BRIDGE, port, 0, 0)).nest(IFLA_PROTINFO, |info| {
        info.bytes(BRPORT_MODE, &[1]);
    });
}

/// Cuts a port off its bridge at once, without the cost of removing it.
pub(crate) fn disable_port(batch: &mut Batch, port: u32) {
    const DISABLED: u8 = 0;
    batch.order(SETLINK, 0, &link_header(AF_BRIDGE, port, 0, 0)).nest(IFLA_PROTINFO, |info| {
        info.bytes(BRPORT_STATE, &[DISABLED]);
    });
}

fn address_header(address: Ipv4Network, index: u32) -> [u8; 8] {
    let [a, b, c, d] = index.to_ne_bytes();
    [AF_INET, address.prefix(), 0, 0, a, b, c, d]
}

/// Gives an interface an address.
pub(crate) fn add_address(batch: &mut Batch, index: u32, address: Ipv4Network) {
    let ip = address.ip().octets();
    let mut order = batch.order(NEWADDR, CREATE | EXCLUSIVE, &address_header(address, index));
    order.bytes(IFA_LOCAL, &ip).bytes(IFA_ADDRESS, &ip);
    if address.prefix() < 31 {
        order.bytes(IFA_BROADCAST, &address.broadcast().octets());
    }
}

/// Takes an address from an interface.
pub(crate) fn delete_address(batch: &mut Batch, index: u32, address: Ipv4Network) {
    batch.order(DELADDR, 0, &address_header(address, index)).bytes(IFA_LOCAL, &address.ip().octets());
}

/// Sets, or replaces, the default route.
pub(crate) fn set_default_route(batch: &mut Batch, gateway: Ipv4Addr, index: u32) {
    const PROTOCOL_BOOT: u8 = 3;
    const UNICAST: u8 = 1;
    let header = [AF_INET, 0, 0, 0, TABLE_MAIN, PROTOCOL_BOOT, 0, UNICAST, 0, 0, 0, 0];
    batch
        .order(NEWROUTE, CREATE | REPLACE, &header)
        .bytes(RTA_GATEWAY, &gateway.octets())
        .u32(RTA_OIF, index);
}

/// Removes the default route.
pub(crate) fn delete_default_route(batch: &mut Batch) {
    batch.order(DELROUTE, 0, &[AF_INET, 0, 0, 0, TABLE_MAIN, 0, SCOPE_NOWHERE, 0, 0, 0, 0, 0]);
}

/// Matches every scope when routes are deleted.
const SCOPE_NOWHERE: u8 = 255;

/// Forgets which hardware address the host knows for `ip` behind `index`.
pub(crate) fn forget_neighbour(batch: &mut Batch, index: u32, ip: Ipv4Addr) {
    let mut header = [0; 12];
    header[0] = AF_INET;
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    batch.order(DELNEIGH, 0, &header).bytes(NDA_DST, &ip.octets());
}

/// What is of interest of a link.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LinkInfo {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) up: bool,
    pub(crate) mtu: u32,
    /// Like "bridge" or "veth".
    pub(crate) kind: String,
    /// Index of the bridge that it is a port of, or 0.
    pub(crate) master: u32,
}

/// The link of that name. Asking also makes the kernel act on a carrier change it has only noted so
/// far, so that a bridge port that just got its carrier forwards from the first packet.
pub(crate) fn link(socket: &mut Socket, name: &str) -> Result<Option<LinkInfo>, Errno> {
    let mut batch = Batch::default();
    batch.get(GETLINK, &link_header(0, 0, 0, 0)).text(IFLA_IFNAME, name);
    let mut found = None;
    match socket.query(batch, |message| found = found.take().or_else(|| link_info(message))) {
        Err(Errno::NODEV) => Ok(None),
        Err(errno) => Err(errno),
        Ok(()) => Ok(found),
    }
}

/// All links.
pub(crate) fn links(socket: &mut Socket) -> Result<Vec<LinkInfo>, Errno> {
    let mut batch = Batch::default();
    batch.dump(GETLINK, &link_header(0, 0, 0, 0));
    let mut found = Vec::new();
    socket.query(batch, |message| found.extend(link_info(message)))?;
    Ok(found)
}

fn link_info(message: &Received<'_>) -> Option<LinkInfo> {
    if message.kind != NEWLINK {
        return None;
    }
    let mut info = LinkInfo {
        index: u32_at(message.body, 4)?,
        up: u32_at(message.body, 8)? & IFF_UP != 0,
        ..LinkInfo::default()
    };
    for (kind, payload) in attributes(message.body.get(16..)?) {
        match kind {
            IFLA_IFNAME => info.name = text(payload),
            IFLA_MTU => info.mtu = u32_at(payload, 0)?,
            IFLA_MASTER => info.master = u32_at(payload, 0)?,
            IFLA_LINKINFO => {
                info.kind =
                    attributes(payload).find(|a| a.0 == INFO_KIND).map(|a| text(a.1)).unwrap_or_default();
            }
            _ => {}
        }
    }
    Some(info)
}

/// The IPv4 addresses of an interface.
pub(crate) fn addresses(socket: &mut Socket, index: u32) -> Result<Vec<Ipv4Network>, Errno> {
    let mut batch = Batch::default();
    batch.dump(GETADDR, &[AF_INET, 0, 0, 0, 0, 0, 0, 0]);
    let mut found = Vec::new();
    socket.query(batch, |message| {
        if message.kind == NEWADDR && u32_at(message.body, 4) == Some(index) {
            found.extend(address_of(message.body));
        }
    })?;
    Ok(found)
}

fn address_of(body: &[u8]) -> Option<Ipv4Network> {
    let prefix = *body.get(1)?;
    let (_, ip) = attributes(body.get(8..)?).find(|a| a.0 == IFA_LOCAL)?;
    Ipv4Network::new(ipv4(ip)?, prefix).ok()
}

/// A route of the host: where to, through which interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) destination: Ipv4Network,
    pub(crate) interface: u32,
}

/// The IPv4 routes of the main table, without default routes.
pub(crate) fn routes(socket: &mut Socket) -> Result<Vec<Route>, Errno> {
    let mut batch = Batch::default();
    batch.dump(GETROUTE, &[AF_INET, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let mut found = Vec::new();
    socket.query(batch, |message| {
        if message.kind == NEWROUTE {
            found.extend(route_of(message.body));
        }
    })?;
    Ok(found)
}

fn route_of(body: &[u8]) -> Option<Route> {
    let (prefix, table) = (*body.get(1)?, *body.get(4)?);
    if table != TABLE_MAIN || prefix == 0 {
        return None;
    }
    let (mut destination, mut interface) = (None, 0);
    for (kind, payload) in attributes(body.get(12..)?) {
        match kind {
            RTA_DST => destination = ipv4(payload),
            RTA_OIF => interface = u32_at(payload, 0)?,
            _ => {}
        }
    }
    Some(Route { destination: Ipv4Network::new(destination?, prefix).ok()?, interface })
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(offset..)?.first_chunk()?))
}

fn ipv4(bytes: &[u8]) -> Option<Ipv4Addr> {
    bytes.first_chunk::<4>().map(|b| Ipv4Addr::from(*b))
}

fn text(payload: &[u8]) -> String {
    String::from_utf8_lossy(payload.split(|b| *b == 0).next().unwrap_or_default()).into_owned()
}
