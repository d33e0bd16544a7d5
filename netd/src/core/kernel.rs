//! The kernel's part of a sandbox: its namespace, its links, its resolver's sockets. Nothing here knows netd's
//! state; plans come in, sockets come out.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ipnetwork::Ipv4Network;
use rustix::io::Errno;
use rustix::net::netdevice::name_to_index;

use super::failed;
use crate::announce::Announcer;
use crate::dns::service::{DnsPorts, DnsSockets};
use crate::namespace;
use crate::netlink::route::{self, LOOPBACK, Mac, Veth};
use crate::netlink::{Batch, Socket, conntrack, redirect};
use crate::protocol::Failure;

const DNS: u16 = 53;

/// A link between a bridge and a namespace.
#[derive(Debug, Clone)]
pub(super) struct LinkPlan {
    pub(super) host_name: String,
    pub(super) interface: String,
    pub(super) bridge: String,
    pub(super) mtu: u32,
    pub(super) mac: Mac,
    pub(super) address: Ipv4Network,
    /// Whether it has published ports, which the container itself may use.
    pub(super) hairpin: bool,
}

/// A namespace to be made.
#[derive(Debug, Clone)]
pub(super) struct NamespacePlan {
    pub(super) path: PathBuf,
    pub(super) links: Vec<LinkPlan>,
    /// Gateway, and interface through which it is reached.
    pub(super) default_route: Option<(Ipv4Addr, String)>,
    pub(super) sysctls: BTreeMap<String, String>,
    pub(super) resolver: bool,
}

/// What a thread takes along from the host's namespace into another: sockets stay where they were opened.
struct HostSide {
    netlink: Socket,
    lookup: OwnedFd,
}

impl HostSide {
    fn open() -> io::Result<Self> {
        Ok(Self { netlink: Socket::route()?, lookup: lookup_socket()? })
    }

    fn bridge(&self, name: &str) -> Result<u32, Failure> {
        name_to_index(&self.lookup, name).map_err(failed("find bridge", name))
    }
}

/// A namespace with nothing but its loopback up, for the next sandbox.
pub(crate) fn blank_namespace() -> Result<OwnedFd, Failure> {
    namespace::blank(|| bring_up_loopback(&mut open_inside()?))
        .map_err(failed("make", "network namespace"))?
}

/// Makes the namespace with all that is in it, if possible of a blank one; if it fails nothing is left.
pub(super) fn make_namespace(
    plan: &NamespacePlan,
    blank: Option<OwnedFd>,
    announcer: &Announcer,
) -> Result<Option<DnsSockets>, Failure> {
    let is_up = blank.is_some();
    let made = namespace::create(&plan.path, blank, HostSide::open, |mut host, own| {
        let mut inside = open_inside()?;
        if !is_up {
            bring_up_loopback(&mut inside)?;
        }
        for (index, link) in (LOOPBACK + 1..).zip(&plan.links) {
            add_link(link, index, own, &mut host, &mut inside)?;
        }
        set_default_route(plan.default_route.as_ref(), &mut inside)?;
        for (name, value) in &plan.sysctls {
            set_sysctl(name, value)?;
        }
        for link in &plan.links {
            connect_port(link, &mut host, announcer)?;
        }
        if plan.resolver { open_resolver(None, false).map(Some) } else { Ok(None) }
    });
    made.map_err(failed("make network namespace", plan.path.display().to_string()))?
}

fn open_inside() -> Result<Socket, Failure> {
    Socket::route().map_err(failed("open", "netlink socket"))
}

fn bring_up_loopback(inside: &mut Socket) -> Result<(), Failure> {
    let mut batch = Batch::default();
    route::set_up(&mut batch, LOOPBACK);
    inside.commit(batch).map_err(failed("bring up", "lo"))
}

/// Adds a link to a namespace that is there, and sets its default route.
pub(super) fn add_to_namespace(
    path: &Path,
    link: Option<&LinkPlan>,
    default_route: Option<&(Ipv4Addr, String)>,
    resolver: bool,
    announcer: &Announcer,
) -> Result<Option<DnsSockets>, Failure> {
    in_namespace(path, |mut host, own| {
        let mut inside = open_inside()?;
        if let Some(link) = link {
            add_link(link, 0, own, &mut host, &mut inside)?;
            connect_port(link, &mut host, announcer)?;
        }
        set_default_route(default_route, &mut inside)?;
        if resolver { open_resolver(None, true).map(Some) } else { Ok(None) }
    })
}

/// Sets a namespace's default route, or removes it.
pub(super) fn change_default_route(path: &Path, gateway: Option<&(Ipv4Addr, String)>) -> Result<(), Failure> {
    in_namespace(path, |_, _| {
        let mut inside = open_inside()?;
        if gateway.is_some() {
            return set_default_route(gateway, &mut inside);
        }
        let mut batch = Batch::default();
        route::delete_default_route(&mut batch);
        match inside.commit(batch) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(e) => Err(failed("remove", "default route")(e)),
        }
    })
}

/// Opens a resolver's sockets in a namespace that is there, where possible on the ports it had.
pub(super) fn reopen_resolver(path: &Path, ports: Option<DnsPorts>) -> Result<DnsSockets, Failure> {
    in_namespace(path, |_, _| open_resolver(ports, true))
}

/// Cuts links off their bridges at once.
pub(super) fn disable_ports(names: &[&str]) -> Result<(), Failure> {
    if names.is_empty() {
        return Ok(());
    }
    let mut host = Socket::route().map_err(failed("open", "netlink socket"))?;
    let mut batch = Batch::default();
    for name in names {
        // One that is gone needs no cutting.
        if let Ok(index) = index_of(name) {
            route::disable_port(&mut batch, index);
        }
    }
    match host.commit(batch) {
        Ok(()) | Err(Errno::NODEV) => Ok(()),
        Err(e) => Err(failed("disconnect", names.join(" "))(e)),
    }
}

fn in_namespace<T: Send>(
    path: &Path,
    work: impl FnOnce(HostSide, BorrowedFd<'_>) -> Result<T, Failure> + Send,
) -> Result<T, Failure> {
    namespace::within(path, HostSide::open, work)
        .map_err(failed("enter network namespace", path.display().to_string()))?
}

/// The link with both its ends up, address and all. `index` 0: the kernel chooses.
fn add_link(
    link: &LinkPlan,
    index: u32,
    own: BorrowedFd<'_>,
    host: &mut HostSide,
    inside: &mut Socket,
) -> Result<(), Failure> {
    let bridge = host.bridge(&link.bridge)?;
    let mut batch = Batch::default();
    route::add_veth(
        &mut batch,
        &Veth {
            host_name: &link.host_name,
            bridge,
            mtu: link.mtu,
            peer_name: &link.interface,
            peer_index: index,
            peer_mac: link.mac,
            peer_namespace: own,
        },
    );
    host.netlink
        .commit(batch)
        .map_err(failed("make link", format!("{} in {}", link.host_name, link.bridge)))?;
    let index = match index {
        0 => route::link(inside, &link.interface)
            .and_then(|found| found.map(|l| l.index).ok_or(Errno::NODEV))
            .map_err(failed("find link", &link.interface))?,
        index => index,
    };
    // IPv4-only networks give no IPv6 address, not even a local one.
    let switch = format!("/proc/sys/net/ipv6/conf/{}/disable_ipv6", link.interface);
    match std::fs::write(&switch, "1") {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed("write", switch)(e)),
        _ => {}
    }
    let mut batch = Batch::default();
    route::add_address(&mut batch, index, link.address);
    route::set_up(&mut batch, index);
    inside.commit(batch).map_err(failed("configure link", &link.interface))
}

/// What remains to be done on the host's side once the link is up.
fn connect_port(link: &LinkPlan, host: &mut HostSide, announcer: &Announcer) -> Result<(), Failure> {
    let bridge = host.bridge(&link.bridge)?;
    let host = &mut host.netlink;
    // Asking for the link makes its port forward now.
    let port = route::link(host, &link.host_name)
        .and_then(|found| found.ok_or(Errno::NODEV))
        .map_err(failed("find link", &link.host_name))?;
    if link.hairpin {
        let mut batch = Batch::default();
        route::set_hairpin(&mut batch, port.index);
        host.commit(batch).map_err(failed("set hairpin mode of", &link.host_name))?;
    }
    let mut batch = Batch::default();
    route::forget_neighbour(&mut batch, bridge, link.address.ip());
    match host.commit(batch) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(e) => return Err(failed("forget neighbour", link.address.ip().to_string())(e)),
    }
    // Peers find out by themselves in time.
    let _ = announcer.announce(bridge, link.address.ip(), link.mac);
    Ok(())
}

fn set_default_route(to: Option<&(Ipv4Addr, String)>, inside: &mut Socket) -> Result<(), Failure> {
    let Some((gateway, interface)) = to else { return Ok(()) };
    let index = index_of(interface).map_err(failed("find link", interface))?;
    let mut batch = Batch::default();
    route::set_default_route(&mut batch, *gateway, index);
    inside.commit(batch).map_err(failed("set default route through", gateway.to_string()))
}

/// The index of an interface in the calling thread's namespace.
pub(super) fn index_of(name: &str) -> Result<u32, Errno> {
    name_to_index(lookup_socket()?, name)
}

/// Any socket will do to ask for an interface in its namespace, without netlink's lock.
fn lookup_socket() -> Result<OwnedFd, Errno> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType};
    rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
}

/// Sets `net.ipv4.x` or `ipv4.x`; interface names with dots are written as in sysctl(8), with slashes between the parts.
fn set_sysctl(name: &str, value: &str) -> Result<(), Failure> {
    let slashes = match name.find(['.', '/']) {
        Some(first) if name[first..].starts_with('/') => name.to_string(),
        _ => name.replace('.', "/"),
    };
    let below = slashes.strip_prefix("net/").unwrap_or(&slashes);
    if below.split('/').any(|part| part.is_empty() || part == "..") {
        return Err(Failure::Invalid(format!("invalid sysctl {name}")));
    }
    let path = format!("/proc/sys/net/{below}");
    std::fs::write(&path, value).map_err(failed("write sysctl", path))
}

/// In the calling thread's namespace: sockets, and the rules that lead to them.
fn open_resolver(ports: Option<DnsPorts>, again: bool) -> Result<DnsSockets, Failure> {
    let sockets = DnsSockets::open(ports).map_err(failed("open resolver at", "127.0.0.11"))?;
    let bound = sockets.ports().map_err(failed("open resolver at", "127.0.0.11"))?;
    if again && ports == Some(bound) && sockets.are_reached() {
        return Ok(sockets);
    }
    let native = Socket::netfilter().and_then(|mut socket| {
        redirect::install(&mut socket, bound.udp, bound.tcp, again)?;
        // A client that keeps its port would be led to the old ones for as long as it keeps asking.
        if again { conntrack::forget_udp(&mut socket, DNS) } else { Ok(()) }
    });
    match native {
        Ok(()) => Ok(sockets),
        // A kernel without nftables: the same with iptables' legacy variant.
        Err(_) => redirect_by_iptables(bound).map(|()| sockets),
    }
}

fn redirect_by_iptables(ports: DnsPorts) -> Result<(), Failure> {
    const PROGRAM: &str = "iptables-restore";
    let text = format!(
        "*nat\n:DOCKER_OUTPUT - [0:0]\n-A OUTPUT -d 127.0.0.11/32 -j DOCKER_OUTPUT\n\
         -A DOCKER_OUTPUT -d 127.0.0.11/32 -p tcp -m tcp --dport 53 -j DNAT --to-destination 127.0.0.11:{}\n\
         -A DOCKER_OUTPUT -d 127.0.0.11/32 -p udp -m udp --dport 53 -j DNAT --to-destination 127.0.0.11:{}\n\
         COMMIT\n",
        ports.tcp, ports.udp
    );
    let run = || {
        // The child is in this thread's namespace.
        let mut child = Command::new(PROGRAM)
            .arg("--noflush")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(text.as_bytes())?;
        }
        let output = child.wait_with_output()?;
        if output.status.success() {
            return Ok(());
        }
        Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_string()))
    };
    run().map_err(failed("redirect 127.0.0.11 with", PROGRAM))
}
