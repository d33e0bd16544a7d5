//! Published ports: who holds which port of which host address, and the host's sockets that keep other
//! programs away from them.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};

use crate::protocol::{BoundPort, Failure, GatewayMode, PortSpec, Protocol};

/// Pending connections of a listening socket; the kernel lowers it to its own limit.
const BACKLOG: i32 = 4096;
const EPHEMERAL: (u16, u16) = (32768, 60999);
/// So many ephemeral ports are tried that other programs hold.
const MOST_TRIES: usize = 200;

/// A port that is held: what was bound, and the socket that holds it on the host.
#[derive(Debug)]
pub(crate) struct HeldPort {
    pub(crate) bound: BoundPort,
    /// `None` if the socket could not be had again after a restart, or the host knows no such protocol.
    pub(crate) socket: Option<OwnedFd>,
}

/// Which ports are taken by us.
#[derive(Debug, Default)]
pub(crate) struct PortTable {
    taken: HashMap<(Protocol, u16), Vec<IpAddr>>,
    last_ephemeral: HashMap<Protocol, u16>,
}

/// How ports are to be published.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Publishing {
    /// Host address where none is asked for.
    pub(crate) default_ip: IpAddr,
    /// Whether sockets listen, for the relay, or only keep the port.
    pub(crate) listen: bool,
    /// The endpoint's addresses.
    pub(crate) container_v4: Option<Ipv4Addr>,
    /// The same of IPv6.
    pub(crate) container_v6: Option<Ipv6Addr>,
    /// How packets come to the endpoint's IPv4 address.
    pub(crate) mode_v4: GatewayMode,
    /// The same of IPv6.
    pub(crate) mode_v6: GatewayMode,
}

impl Publishing {
    /// The address that a host address leads to, for messages.
    fn container_ip(&self, host: IpAddr) -> IpAddr {
        let v4 = self.container_v4.map(IpAddr::V4);
        let v6 = self.container_v6.map(IpAddr::V6);
        let found = if host.is_ipv6() { v6.or(v4) } else { v4.or(v6) };
        found.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
    }
}

enum Attempt {
    /// One of ours has it.
    Taken(IpAddr),
    /// The host refused it.
    Refused(IpAddr, io::Error),
}

impl PortTable {
    /// Takes one port as asked, on each of its host addresses.
    ///
    /// # Errors
    /// `PortAllocated` and `PortBind`; nothing is then held.
    pub(crate) fn publish(&mut self, spec: &PortSpec, how: &Publishing) -> Result<Vec<HeldPort>, Failure> {
        let (routed, addresses) = host_addresses(spec.host_ip, how);
        let mut open = routed.into_iter().map(|host_ip| opened(spec, host_ip)).collect::<Vec<_>>();
        if addresses.is_empty() {
            return Ok(open);
        }
        let ephemeral = spec.host_ports == (0, 0);
        let candidates = if ephemeral { self.ephemeral(spec.protocol) } else { range(spec.host_ports) };
        let mut last = None;
        let mut refusals = 0;
        for port in candidates {
            match self.take(spec, &addresses, port, how.listen) {
                Ok(held) => {
                    if ephemeral {
                        self.last_ephemeral.insert(spec.protocol, port);
                    }
                    open.extend(held);
                    open.sort_by_key(|held| held.bound.host_ip.is_ipv6());
                    return Ok(open);
                }
                Err(attempt) => {
                    refusals += usize::from(matches!(attempt, Attempt::Refused(..)));
                    last = Some((port, attempt));
                }
            }
            if refusals > MOST_TRIES {
                break;
            }
        }
        Err(match last {
            Some((port, Attempt::Refused(ip, error))) => Failure::PortBind {
                ip,
                port,
                container_ip: how.container_ip(ip),
                container_port: spec.container_port,
                protocol: spec.protocol,
                reason: reason(&error),
            },
            Some((port, Attempt::Taken(ip))) => Failure::PortAllocated { ip, port },
            None => {
                Failure::Invalid(format!("invalid port range {}-{}", spec.host_ports.0, spec.host_ports.1))
            }
        })
    }

    /// Notes a port that was bound before a restart, and tries to have its socket again, unless it was `left` to us: somebody
    /// else may have taken it in between, which the kernel's translation does not mind.
    pub(crate) fn restore(&mut self, bound: &BoundPort, listen: bool, left: Option<OwnedFd>) -> HeldPort {
        if bound.host_port == 0 {
            return HeldPort { bound: bound.clone(), socket: None };
        }
        self.note(bound.protocol, bound.host_port, bound.host_ip);
        let again = || {
            let bound_again = bind(bound.protocol, bound.host_ip, bound.host_port, listen);
            bound_again.unwrap_or_else(|error| {
                crate::journal::note(format_args!("{bound:?} is not held, and not relayed: {error}"));
                None
            })
        };
        let socket = left.or_else(again);
        HeldPort { bound: bound.clone(), socket }
    }

    /// Gives a port back.
    pub(crate) fn release(&mut self, bound: &BoundPort) {
        let key = (bound.protocol, bound.host_port);
        if let Some(addresses) = self.taken.get_mut(&key) {
            if let Some(index) = addresses.iter().position(|a| *a == bound.host_ip) {
                addresses.swap_remove(index);
            }
            if addresses.is_empty() {
                self.taken.remove(&key);
            }
        }
    }

    fn take(
        &mut self,
        spec: &PortSpec,
        addresses: &[(IpAddr, bool)],
        port: u16,
        listen: bool,
    ) -> Result<Vec<HeldPort>, Attempt> {
        if let Some(ip) = addresses.iter().find_map(|(ip, _)| self.conflicts(spec.protocol, port, *ip)) {
            return Err(Attempt::Taken(ip));
        }
        let mut held = Vec::with_capacity(addresses.len());
        for &(ip, required) in addresses {
            match bind(spec.protocol, ip, port, listen) {
                Ok(socket) => {
                    let bound = BoundPort {
                        protocol: spec.protocol,
                        container_port: spec.container_port,
                        host_ip: ip,
                        host_port: port,
                    };
                    held.push(HeldPort { bound, socket });
                }
                Err(e) if !required && !matches!(e.kind(), io::ErrorKind::AddrInUse) => {}
                Err(e) => return Err(Attempt::Refused(ip, e)),
            }
        }
        for port in &held {
            self.note(spec.protocol, port.bound.host_port, port.bound.host_ip);
        }
        Ok(held)
    }

    fn note(&mut self, protocol: Protocol, port: u16, ip: IpAddr) {
        self.taken.entry((protocol, port)).or_default().push(ip);
    }

    /// The address at which the port is taken already: all addresses of a family conflict with each one of it.
    fn conflicts(&self, protocol: Protocol, port: u16, ip: IpAddr) -> Option<IpAddr> {
        let mut same = self.taken.get(&(protocol, port))?.iter().filter(|t| t.is_ipv4() == ip.is_ipv4());
        same.find(|t| **t == ip || t.is_unspecified() || ip.is_unspecified()).copied()
    }

    /// All ephemeral ports, from the one after the last that was given out.
    fn ephemeral(&self, protocol: Protocol) -> Box<dyn Iterator<Item = u16>> {
        let (first, last) = ephemeral_range();
        let next = match self.last_ephemeral.get(&protocol) {
            Some(given) if (first..last).contains(given) => given + 1,
            _ => first,
        };
        Box::new((next..=last).chain(first..next))
    }
}

fn range((first, last): (u16, u16)) -> Box<dyn Iterator<Item = u16>> {
    Box::new(first.max(1)..=last)
}

fn ephemeral_range() -> (u16, u16) {
    std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|text| {
            let mut numbers = text.split_ascii_whitespace().map(str::parse);
            Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
        })
        .unwrap_or(EPHEMERAL)
}

/// A port of a container that is reached by its own address: nothing of the host's is taken.
fn opened(spec: &PortSpec, host_ip: IpAddr) -> HeldPort {
    let bound =
        BoundPort { protocol: spec.protocol, container_port: spec.container_port, host_ip, host_port: 0 };
    HeldPort { bound, socket: None }
}

/// The families in which the port is only opened; and the addresses to bind, and whether each must succeed.
fn host_addresses(asked: Option<IpAddr>, how: &Publishing) -> (Vec<IpAddr>, Vec<(IpAddr, bool)>) {
    let (any_v4, any_v6) = (IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    let (mut open, mut bind) = (Vec::new(), Vec::new());
    let ip = asked.unwrap_or(how.default_ip);
    if ip.is_ipv4() && how.container_v4.is_some() {
        match how.mode_v4 {
            GatewayMode::Routed => open.push(any_v4),
            _ => bind.push((ip, true)),
        }
    }
    // Where no address is asked for, all of both families are.
    let v6 = match (asked, ip) {
        (None, ip) if ip.is_unspecified() => Some(any_v6),
        (_, ip) => Some(ip).filter(IpAddr::is_ipv6),
    };
    if let Some(v6) = v6 {
        match (how.container_v6, how.mode_v6) {
            (Some(_), GatewayMode::Routed) => open.push(any_v6),
            (Some(_), _) => bind.push((v6, true)),
            // The relay brings IPv6 to a container without it.
            (None, _) if how.container_v4.is_some() && how.listen => {
                if asked.is_some() || host_has_ipv6() {
                    bind.push((v6, asked.is_some()));
                }
            }
            (None, _) => {}
        }
    }
    (open, bind)
}

fn host_has_ipv6() -> bool {
    std::net::UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

/// The socket that holds a port; `None` for a protocol that this kernel does not have.
fn bind(protocol: Protocol, ip: IpAddr, port: u16, listen: bool) -> io::Result<Option<OwnedFd>> {
    let family = if ip.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let (kind, number) = match protocol {
        Protocol::Tcp => (SocketType::STREAM, ipproto::TCP),
        Protocol::Udp => (SocketType::DGRAM, ipproto::UDP),
        Protocol::Sctp => (SocketType::STREAM, ipproto::SCTP),
    };
    let socket = match rustix::net::socket_with(
        family,
        kind,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        Some(number),
    ) {
        Err(Errno::PROTONOSUPPORT | Errno::SOCKTNOSUPPORT) if protocol == Protocol::Sctp => return Ok(None),
        other => other?,
    };
    if ip.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    if protocol == Protocol::Tcp && listen {
        // Connections of an earlier listener that are still winding down are no reason to refuse. (A socket that
        // does not listen must not say this: others could then have the port, too.)
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    rustix::net::bind(&socket, &SocketAddr::new(ip, port))?;
    if protocol == Protocol::Tcp && listen {
        rustix::net::listen(&socket, BACKLOG)?;
    }
    Ok(Some(socket))
}

/// The system's words, without the number that Rust adds.
pub(crate) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let words = text.split(" (os error").next().unwrap_or(&text);
    words.to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(ip: Option<&str>, ports: (u16, u16)) -> PortSpec {
        PortSpec {
            protocol: Protocol::Tcp,
            container_port: 80,
            host_ip: ip.map(|i| i.parse().unwrap()),
            host_ports: ports,
        }
    }

    const HOW: Publishing = Publishing {
        default_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        listen: true,
        container_v4: Some(Ipv4Addr::new(172, 17, 0, 2)),
        container_v6: None,
        mode_v4: GatewayMode::Nat,
        mode_v6: GatewayMode::Nat,
    };

    #[test]
    fn one_address_conflicts_with_itself_and_with_all_addresses() {
        let mut table = PortTable::default();
        table.note(Protocol::Tcp, 80, "192.0.2.1".parse().unwrap());
        #[track_caller]
        fn check(table: &PortTable, protocol: Protocol, port: u16, ip: &str, expect: Option<&str>) {
            let told = table.conflicts(protocol, port, ip.parse().unwrap());
            assert_eq!(told.map(|ip| ip.to_string()).as_deref(), expect);
        }
        check(&table, Protocol::Tcp, 80, "192.0.2.1", Some("192.0.2.1"));
        check(&table, Protocol::Tcp, 80, "0.0.0.0", Some("192.0.2.1"));
        check(&table, Protocol::Tcp, 80, "192.0.2.2", None);
        check(&table, Protocol::Tcp, 80, "::", None);
        check(&table, Protocol::Udp, 80, "192.0.2.1", None);
        check(&table, Protocol::Tcp, 81, "192.0.2.1", None);
        table.note(Protocol::Tcp, 81, "0.0.0.0".parse().unwrap());
        check(&table, Protocol::Tcp, 81, "192.0.2.1", Some("0.0.0.0"));
    }

    #[test]
    fn ephemeral_ports_go_up_and_ranges_take_the_first_free_one() {
        let mut table = PortTable::default();
        let first = table.publish(&spec(None, (0, 0)), &HOW).unwrap();
        let second = table.publish(&spec(None, (0, 0)), &HOW).unwrap();
        assert!(second[0].bound.host_port > first[0].bound.host_port);
        let port = first[0].bound.host_port;
        table.release(&first[0].bound);
        drop(first);
        let third = table.publish(&spec(None, (0, 0)), &HOW).unwrap();
        assert!(third[0].bound.host_port > port, "a port that was just freed is not given out again at once");
        let range = (second[0].bound.host_port, third[0].bound.host_port + 50);
        let fourth = table.publish(&spec(None, range), &HOW).unwrap();
        assert!((range.0 + 1..=range.1).contains(&fourth[0].bound.host_port));
    }

    #[test]
    fn refusals_name_the_asked_address_and_the_reason() {
        let mut table = PortTable::default();
        let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = other.local_addr().unwrap().port();
        let failure = table.publish(&spec(None, (port, port)), &HOW).unwrap_err();
        assert_eq!(
            failure.to_string(),
            format!(
                "failed to bind host port for 127.0.0.1:{port}:172.17.0.2:80/tcp: address already in use"
            )
        );
        let failure = table.publish(&spec(Some("198.51.100.99"), (port, port)), &HOW).unwrap_err();
        assert!(failure.to_string().ends_with(": cannot assign requested address"), "{failure}");
        drop(other);
        let held = table.publish(&spec(None, (port, port)), &HOW).unwrap();
        let failure = table.publish(&spec(None, (port, port)), &HOW).unwrap_err();
        assert_eq!(
            failure.to_string(),
            format!("Bind for 127.0.0.1:{port} failed: port is already allocated")
        );
        table.release(&held[0].bound);
        drop(held);
        table.publish(&spec(None, (port, port)), &HOW).unwrap();
    }

    #[test]
    fn each_family_is_bound_where_the_container_has_it() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let any = Publishing { default_ip: ip("0.0.0.0"), ..HOW };
        let v6 = Some("fd00::2".parse().unwrap());
        #[track_caller]
        fn check(asked: Option<IpAddr>, how: Publishing, open: &[&str], bound: &[&str]) {
            let (opened, bind) = host_addresses(asked, &how);
            assert_eq!(opened.iter().map(ToString::to_string).collect::<Vec<_>>(), open);
            assert_eq!(bind.iter().map(|b| b.0.to_string()).collect::<Vec<_>>(), bound);
        }
        let both = Publishing { container_v6: v6, ..any };
        check(None, both, &[], &["0.0.0.0", "::"]);
        check(Some(ip("::1")), both, &[], &["::1"]);
        check(Some(ip("127.0.0.1")), both, &[], &["127.0.0.1"]);
        check(None, Publishing { default_ip: ip("192.0.2.1"), ..both }, &[], &["192.0.2.1"]);
        let only_v6 = Publishing { container_v4: None, ..both };
        check(None, only_v6, &[], &["::"]);
        check(Some(ip("0.0.0.0")), only_v6, &[], &[]);
        check(Some(ip("::")), any, &[], &["::"]);
        check(Some(ip("::")), Publishing { listen: false, ..any }, &[], &[]);
        let routed = Publishing { mode_v4: GatewayMode::Routed, ..both };
        check(None, routed, &["0.0.0.0"], &["::"]);
        check(Some(ip("127.0.0.1")), routed, &["0.0.0.0"], &[]);
    }
}
