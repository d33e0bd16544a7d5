//! Links, addresses, routes and neighbours (rtnetlink(7)): exactly the orders that bridges and
//! endpoints need. Each function adds one order to a [`Batch`] or asks one question.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use ipnetwork::IpNetwork;
use rustix::io::Errno;

use super::message::{Batch, CREATE, EXCLUSIVE, Message, REPLACE, attributes};
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
const AF_INET6: u8 = 10;
const IFF_UP: u32 = 1;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
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
    pub(crate) mtu: Option<u32>,
    pub(crate) peer_name: &'a str,
    /// 0: the kernel chooses.
    pub(crate) peer_index: u32,
    pub(crate) peer_mac: Mac,
    pub(crate) peer_namespace: BorrowedFd<'a>,
}

/// Makes the pair in one order.
pub(crate) fn add_veth(batch: &mut Batch, veth: &Veth<'_>) {
    let set_mtu = |message: &mut Message<'_>| {
        if let Some(mtu) = veth.mtu {
            message.u32(IFLA_MTU, mtu);
        }
    };
    let mut order = batch.order(NEWLINK, CREATE | EXCLUSIVE, &link_header(0, 0, IFF_UP, IFF_UP));
    set_mtu(&mut order);
    order.text(IFLA_IFNAME, veth.host_name).u32(IFLA_MASTER, veth.bridge).nest(IFLA_LINKINFO, |info| {
        info.text(INFO_KIND, "veth").nest(INFO_DATA, |data| {
            data.nest(VETH_INFO_PEER, |peer| {
                peer.raw(&link_header(0, veth.peer_index, 0, 0)).text(IFLA_IFNAME, veth.peer_name);
                set_mtu(peer);
                peer.bytes(IFLA_ADDRESS, &veth.peer_mac)
                    .u32(IFLA_NET_NS_FD, veth.peer_namespace.as_raw_fd() as u32);
            });
        });
    });
}

/// A kind of interface on another one of the host's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SubKind {
    /// With a hardware address of its own; MACVLAN_MODE_….
    Macvlan { mode: u32 },
    /// With the other one's; IPVLAN_MODE_… and IPVLAN_F_….
    Ipvlan { mode: u16, flags: u16 },
}

/// An interface in a container, on an interface of the host, to be made; down.
pub(crate) struct Sub<'a> {
    pub(crate) kind: SubKind,
    pub(crate) parent: u32,
    pub(crate) name: &'a str,
    /// 0: the kernel chooses.
    pub(crate) index: u32,
    pub(crate) mtu: Option<u32>,
    pub(crate) mac: Mac,
    pub(crate) namespace: BorrowedFd<'a>,
}

/// Makes it in one order.
pub(crate) fn add_sub(batch: &mut Batch, sub: &Sub<'_>) {
    const MODE: u16 = 1;
    const FLAGS: u16 = 2;
    let mut order = batch.order(NEWLINK, CREATE | EXCLUSIVE, &link_header(0, sub.index, 0, 0));
    order
        .text(IFLA_IFNAME, sub.name)
        .u32(IFLA_LINK, sub.parent)
        .u32(IFLA_NET_NS_FD, sub.namespace.as_raw_fd() as u32);
    if let Some(mtu) = sub.mtu {
        order.u32(IFLA_MTU, mtu);
    }
    match sub.kind {
        SubKind::Macvlan { mode } => order.bytes(IFLA_ADDRESS, &sub.mac).nest(IFLA_LINKINFO, |info| {
            info.text(INFO_KIND, "macvlan").nest(INFO_DATA, |data| {
                data.u32(MODE, mode);
            });
        }),
        SubKind::Ipvlan { mode, flags } => order.nest(IFLA_LINKINFO, |info| {
            info.text(INFO_KIND, "ipvlan").nest(INFO_DATA, |data| {
                data.bytes(MODE, &mode.to_ne_bytes()).bytes(FLAGS, &flags.to_ne_bytes());
            });
        }),
    };
}

/// Makes an interface for one VLAN of another, up.
pub(crate) fn add_vlan(batch: &mut Batch, parent: u32, name: &str, vlan: u16) {
    const ID: u16 = 1;
    batch
        .order(NEWLINK, CREATE | EXCLUSIVE, &link_header(0, 0, IFF_UP, IFF_UP))
        .text(IFLA_IFNAME, name)
        .u32(IFLA_LINK, parent)
        .nest(IFLA_LINKINFO, |info| {
            info.text(INFO_KIND, "vlan").nest(INFO_DATA, |data| {
                data.bytes(ID, &vlan.to_ne_bytes());
            });
        });
}

/// Makes an interface that leads nowhere, up.
pub(crate) fn add_dummy(batch: &mut Batch, name: &str) {
    batch
        .order(NEWLINK, CREATE | EXCLUSIVE, &link_header(0, 0, IFF_UP, IFF_UP))
        .text(IFLA_IFNAME, name)
        .nest(IFLA_LINKINFO, |info| {
            info.text(INFO_KIND, "dummy");
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

fn family_of(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { AF_INET } else { AF_INET6 }
}

/// The bytes of an address.
fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn address_header(address: IpNetwork, index: u32) -> [u8; 8] {
    // Nobody else has the addresses that we give out: the kernel need not look, for a second, whether somebody has.
    const NO_DUPLICATE_DETECTION: u8 = 2;
    let flags = if address.is_ipv6() { NO_DUPLICATE_DETECTION } else { 0 };
    let [a, b, c, d] = index.to_ne_bytes();
    [family_of(address.ip()), address.prefix(), flags, 0, a, b, c, d]
}

/// Gives an interface an address.
pub(crate) fn add_address(batch: &mut Batch, index: u32, address: IpNetwork) {
    let ip = octets(address.ip());
    let mut order = batch.order(NEWADDR, CREATE | EXCLUSIVE, &address_header(address, index));
    order.bytes(IFA_LOCAL, &ip).bytes(IFA_ADDRESS, &ip);
    if let (IpNetwork::V4(v4), true) = (address, address.prefix() < 31) {
        order.bytes(IFA_BROADCAST, &v4.broadcast().octets());
    }
}

/// Takes an address from an interface.
pub(crate) fn delete_address(batch: &mut Batch, index: u32, address: IpNetwork) {
    batch.order(DELADDR, 0, &address_header(address, index)).bytes(IFA_LOCAL, &octets(address.ip()));
}

/// Sets, or replaces, the default route of the gateway's family.
pub(crate) fn set_default_route(batch: &mut Batch, gateway: IpAddr, index: u32) {
    const PROTOCOL_BOOT: u8 = 3;
    const UNICAST: u8 = 1;
    let header = [family_of(gateway), 0, 0, 0, TABLE_MAIN, PROTOCOL_BOOT, 0, UNICAST, 0, 0, 0, 0];
    batch.order(NEWROUTE, CREATE | REPLACE, &header).bytes(RTA_GATEWAY, &octets(gateway)).u32(RTA_OIF, index);
}

/// Removes the default route of a family.
pub(crate) fn delete_default_route(batch: &mut Batch, v6: bool) {
    let family = if v6 { AF_INET6 } else { AF_INET };
    batch.order(DELROUTE, 0, &[family, 0, 0, 0, TABLE_MAIN, 0, SCOPE_NOWHERE, 0, 0, 0, 0, 0]);
}

/// Matches every scope when routes are deleted.
const SCOPE_NOWHERE: u8 = 255;

/// Forgets which hardware address the host knows for `ip` behind `index`.
pub(crate) fn forget_neighbour(batch: &mut Batch, index: u32, ip: IpAddr) {
    let mut header = [0; 12];
    header[0] = family_of(ip);
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    batch.order(DELNEIGH, 0, &header).bytes(NDA_DST, &octets(ip));
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

/// The addresses of an interface, without those that the kernel gives by itself (IPv6's link-local ones).
pub(crate) fn addresses(socket: &mut Socket, index: u32) -> Result<Vec<IpNetwork>, Errno> {
    let mut batch = Batch::default();
    batch.dump(GETADDR, &[0; 8]);
    let mut found = Vec::new();
    socket.query(batch, |message| {
        if message.kind == NEWADDR && u32_at(message.body, 4) == Some(index) {
            found.extend(address_of(message.body));
        }
    })?;
    Ok(found)
}

fn address_of(body: &[u8]) -> Option<IpNetwork> {
    const SCOPE_LINK: u8 = 253;
    let (family, prefix, scope) = (*body.first()?, *body.get(1)?, *body.get(3)?);
    if family == AF_INET6 && scope == SCOPE_LINK {
        return None;
    }
    let find = |kind| attributes(body.get(8..).unwrap_or_default()).find(|a| a.0 == kind);
    let (_, address) = find(IFA_LOCAL).or_else(|| find(IFA_ADDRESS))?;
    IpNetwork::new(ip(address)?, prefix).ok()
}

/// A route of the host: where to, through which interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) destination: IpNetwork,
    pub(crate) interface: u32,
}

/// The routes of the main tables, without default routes and those to link-local addresses.
pub(crate) fn routes(socket: &mut Socket) -> Result<Vec<Route>, Errno> {
    let mut found = Vec::new();
    for family in [AF_INET, AF_INET6] {
        let mut batch = Batch::default();
        batch.dump(GETROUTE, &[family, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let asked = socket.query(batch, |message| {
            if message.kind == NEWROUTE {
                found.extend(route_of(message.body));
            }
        });
        match asked {
            // A kernel without IPv6.
            Err(Errno::OPNOTSUPP | Errno::AFNOSUPPORT) if family == AF_INET6 => {}
            other => other?,
        }
    }
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
            RTA_DST => destination = ip(payload),
            RTA_OIF => interface = u32_at(payload, 0)?,
            _ => {}
        }
    }
    let destination = IpNetwork::new(destination?, prefix).ok()?;
    let is_link_local = matches!(destination, IpNetwork::V6(v6) if v6.ip().is_unicast_link_local());
    (!is_link_local).then_some(Route { destination, interface })
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(offset..)?.first_chunk()?))
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => bytes.first_chunk::<4>().map(|b| Ipv4Addr::from(*b).into()),
        16 => bytes.first_chunk::<16>().map(|b| Ipv6Addr::from(*b).into()),
        _ => None,
    }
}

fn text(payload: &[u8]) -> String {
    String::from_utf8_lossy(payload.split(|b| *b == 0).next().unwrap_or_default()).into_owned()
}
