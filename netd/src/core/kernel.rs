//! The kernel's part of a sandbox: its namespace, its links, its resolver's sockets. Nothing here knows netd's
//! state; plans come in, sockets come out.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ipnetwork::IpNetwork;
use rustix::io::Errno;
use rustix::net::netdevice::name_to_index;

use super::failed;
use crate::announce::Announcer;
use crate::dns::service::{DnsPorts, DnsSockets};
use crate::journal;
use crate::namespace;
use crate::netlink::route::{self, LOOPBACK, Mac, Sub, SubKind, Veth};
use crate::netlink::{Batch, Socket, conntrack, redirect};
use crate::protocol::Failure;

const DNS: u16 = 53;

/// A namespace's interface.
#[derive(Debug, Clone)]
pub(super) struct LinkPlan {
    /// The end on the host; empty if there is none.
    pub(super) host_name: String,
    pub(super) interface: String,
    pub(super) on: On,
    /// `None`: the kernel's choice.
    pub(super) mtu: Option<u32>,
    pub(super) mac: Mac,
    pub(super) addresses: Vec<IpNetwork>,
    /// Names below /proc/sys with dots, in which `IFNAME` stands for the interface → value.
    pub(super) sysctls: Vec<(String, String)>,
    /// Whether it has published ports, which the container itself may use.
    pub(super) hairpin: bool,
    /// Whether the bridge's other ports are told where its addresses are.
    pub(super) announced: bool,
}

/// What an interface is connected to.
#[derive(Debug, Clone)]
pub(super) enum On {
    /// A port of this bridge.
    Bridge(String),
    /// This interface of the host, directly.
    Parent(String, SubKind),
}

/// Gateways, and the interfaces through which they are reached; at most one per family.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct DefaultRoutes {
    pub(super) v4: Option<(IpAddr, String)>,
    pub(super) v6: Option<(IpAddr, String)>,
}

/// A namespace to be made.
#[derive(Debug, Clone)]
pub(super) struct NamespacePlan {
    pub(super) path: PathBuf,
    pub(super) links: Vec<LinkPlan>,
    pub(super) default_routes: DefaultRoutes,
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

    fn index(&self, name: &str) -> Result<u32, Failure> {
        name_to_index(&self.lookup, name).map_err(failed("find interface", name))
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
            add_link(link, index, own, &mut host)?;
            configure_link(link, index, &mut inside)?;
        }
        change_routes(&DefaultRoutes::default(), &plan.default_routes, &mut inside)?;
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

/// Adds a link to a namespace that is there, and changes its default routes. If it fails, the namespace is as before.
pub(super) fn add_to_namespace(
    path: &Path,
    link: Option<&LinkPlan>,
    (before, after): (&DefaultRoutes, &DefaultRoutes),
    resolver: bool,
    announcer: &Announcer,
) -> Result<Option<DnsSockets>, Failure> {
    in_namespace(path, |mut host, own| {
        let mut inside = open_inside()?;
        if let Some(link) = link {
            add_link(link, 0, own, &mut host)?;
            let index = index_of(&link.interface).map_err(failed("find link", &link.interface));
            let ready = index
                .and_then(|index| configure_link(link, index, &mut inside))
                .and_then(|()| connect_port(link, &mut host, announcer));
            ready.inspect_err(|_| undo_link(Some(link), &mut inside))?;
        }
        let routed = change_routes(before, after, &mut inside);
        let resolver =
            routed.and_then(|()| if resolver { open_resolver(None, true).map(Some) } else { Ok(None) });
        resolver.inspect_err(|_| {
            if let Err(failure) = change_routes(after, before, &mut inside) {
                journal::note(format_args!("undo in {}: {failure}", path.display()));
            }
            undo_link(link, &mut inside);
        })
    })
}

/// Removes a link that was added just now. One with an end on the host goes with that.
fn undo_link(link: Option<&LinkPlan>, inside: &mut Socket) {
    let Some(link) = link.filter(|link| link.host_name.is_empty()) else { return };
    if let Err(failure) = delete_link(&link.interface, inside) {
        journal::note(format_args!("undo: {failure}"));
    }
}

fn delete_link(interface: &str, inside: &mut Socket) -> Result<(), Failure> {
    let mut batch = Batch::default();
    route::delete_link(&mut batch, interface);
    match inside.commit(batch) {
        Ok(()) | Err(Errno::NODEV) => Ok(()),
        Err(e) => Err(failed("remove", interface)(e)),
    }
}

/// Removes an interface from a namespace, if one is named, and changes the default routes.
pub(super) fn remove_from_namespace(
    path: &Path,
    interface: Option<&str>,
    (before, after): (&DefaultRoutes, &DefaultRoutes),
) -> Result<(), Failure> {
    in_namespace(path, |_, _| {
        let mut inside = open_inside()?;
        change_routes(before, after, &mut inside)?;
        interface.map_or(Ok(()), |interface| delete_link(interface, &mut inside))
    })
}

fn change_routes(before: &DefaultRoutes, after: &DefaultRoutes, inside: &mut Socket) -> Result<(), Failure> {
    for (before, after, v6) in [(&before.v4, &after.v4, false), (&before.v6, &after.v6, true)] {
        if before == after {
            continue;
        }
        let mut batch = Batch::default();
        let Some((gateway, interface)) = after else {
            route::delete_default_route(&mut batch, v6);
            match inside.commit(batch) {
                Ok(()) | Err(Errno::SRCH) => continue,
                Err(e) => return Err(failed("remove", "default route")(e)),
            }
        };
        let index = index_of(interface).map_err(failed("find link", interface))?;
        route::set_default_route(&mut batch, *gateway, index);
        inside.commit(batch).map_err(failed("set default route through", gateway.to_string()))?;
    }
    Ok(())
}

/// Opens a resolver's sockets in a namespace that is there, where possible on the ports it had.
pub(super) fn reopen_resolver(path: &Path, ports: Option<DnsPorts>) -> Result<DnsSockets, Failure> {
    in_namespace(path, |_, _| open_resolver(ports, true))
}

/// Lets a container use its own published ports through this link.
pub(super) fn set_hairpin(host_name: &str) -> Result<(), Failure> {
    let index = index_of(host_name).map_err(failed("find link", host_name))?;
    let mut batch = Batch::default();
    route::set_hairpin(&mut batch, index);
    let done = Socket::route().and_then(|mut socket| socket.commit(batch));
    done.map_err(failed("set hairpin mode of", host_name))
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

/// The link, or nothing of it. `index` 0: the kernel chooses.
fn add_link(link: &LinkPlan, index: u32, own: BorrowedFd<'_>, host: &mut HostSide) -> Result<(), Failure> {
    let mut batch = Batch::default();
    let on = match &link.on {
        On::Bridge(bridge) => {
            let veth = Veth {
                host_name: &link.host_name,
                bridge: host.index(bridge)?,
                mtu: link.mtu,
                peer_name: &link.interface,
                peer_index: index,
                peer_mac: link.mac,
                peer_namespace: own,
            };
            route::add_veth(&mut batch, &veth);
            bridge
        }
        On::Parent(parent, kind) => {
            let sub = Sub {
                kind: *kind,
                parent: host.index(parent)?,
                name: &link.interface,
                index,
                mtu: link.mtu,
                mac: link.mac,
                namespace: own,
            };
            route::add_sub(&mut batch, &sub);
            parent
        }
    };
    host.netlink.commit(batch).map_err(|e| refused(link, on, e))
}

/// The link up at its end in this namespace, with addresses and all.
fn configure_link(link: &LinkPlan, index: u32, inside: &mut Socket) -> Result<(), Failure> {
    switch_ipv6(link)?;
    for (name, value) in &link.sysctls {
        set_interface_sysctl(name, &link.interface, value)?;
    }
    let mut batch = Batch::default();
    for address in &link.addresses {
        route::add_address(&mut batch, index, *address);
    }
    route::set_up(&mut batch, index);
    inside.commit(batch).map_err(failed("configure link", &link.interface))
}

/// In dockerd's words where the kernel has no such interfaces.
fn refused(link: &LinkPlan, on: &str, errno: Errno) -> Failure {
    let kind = match &link.on {
        On::Parent(_, SubKind::Macvlan { .. }) => "macvlan",
        On::Parent(_, SubKind::Ipvlan { .. }) => "ipvlan",
        On::Bridge(_) => return failed("add interface", format!("{} in {on}", link.interface))(errno),
    };
    let reason = crate::ports::reason(&errno.into());
    Failure::Invalid(format!("failed to create the {kind} port: {reason}"))
}

/// Networks without IPv6 give no IPv6 address, not even a local one.
fn switch_ipv6(link: &LinkPlan) -> Result<(), Failure> {
    let off = if link.addresses.iter().any(IpNetwork::is_ipv6) { "0" } else { "1" };
    let switch = format!("/proc/sys/net/ipv6/conf/{}/disable_ipv6", link.interface);
    match std::fs::write(&switch, off) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed("write", switch)(e)),
        _ => Ok(()),
    }
}

fn set_interface_sysctl(name: &str, interface: &str, value: &str) -> Result<(), Failure> {
    // The interface's own name may have dots.
    let parts =
        name.split('.').map(|part| if part.eq_ignore_ascii_case("ifname") { interface } else { part });
    let path = format!("/proc/sys/{}", parts.collect::<Vec<_>>().join("/"));
    if path.split('/').any(|part| part == "..") || !Path::new(&path).is_file() {
        return Err(Failure::Invalid(format!("{path} is not a sysctl file")));
    }
    std::fs::write(&path, value).map_err(failed("write sysctl", path))
}

/// What remains to be done on the host's side once the link is up.
fn connect_port(link: &LinkPlan, host: &mut HostSide, announcer: &Announcer) -> Result<(), Failure> {
    let On::Bridge(bridge) = &link.on else { return Ok(()) };
    let bridge = host.index(bridge)?;
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
    for ip in link.addresses.iter().map(IpNetwork::ip) {
        let mut batch = Batch::default();
        route::forget_neighbour(&mut batch, bridge, ip);
        match host.commit(batch) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(e) => return Err(failed("forget neighbour", ip.to_string())(e)),
        }
        if !link.announced {
            continue;
        }
        // Peers find out by themselves in time.
        let _ = announcer.announce(bridge, ip, link.mac);
    }
    Ok(())
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
        if again { conntrack::forget_udp(&mut socket, false, DNS) } else { Ok(()) }
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
