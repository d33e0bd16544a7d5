//! An endpoint's published ports while they are published: sockets, relays, rules.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use crate::handover::{Left, Subject};
use crate::journal;
use crate::netlink::{Socket, conntrack};
use crate::ports::HeldPort;
use crate::protocol::{BoundPort, Endpoint, Protocol};
use crate::relay::{Relay, Relays};

/// What an endpoint has published.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) bound: Vec<BoundPort>,
    relays: Vec<Relay>,
    /// Sockets that only keep their port.
    kept: Vec<OwnedFd>,
}

impl Published {
    /// Puts the sockets to use: relayed (they listen), or only kept. What an earlier netd left of their connections goes on.
    pub(super) fn start(
        relays: &Relays,
        endpoint: &Endpoint,
        held: Vec<HeldPort>,
        relayed: bool,
        left: &mut Left,
    ) -> Self {
        let mut published = Self { bound: Vec::new(), relays: Vec::new(), kept: Vec::new() };
        for HeldPort { bound, socket } in held {
            let to = relay_target(endpoint, bound.host_ip);
            let to = to.map(|ip| SocketAddr::new(ip, bound.container_port));
            match (socket, to) {
                (Some(socket), Some(to)) if relayed && bound.protocol != Protocol::Sctp => {
                    let left = left.take(&Subject::Stream(bound.clone()));
                    match relays.start(&bound, socket, to, left) {
                        Ok(relay) => published.relays.extend(relay),
                        Err(e) => journal::note(format_args!("no relay for {bound:?}: {e}")),
                    }
                }
                (Some(socket), _) => published.kept.push(socket),
                (None, _) => {}
            }
            published.bound.push(bound);
        }
        published
    }

    /// Ends it all; the sockets are closed when this returns. The ports stay reserved.
    pub(super) fn stop(self, relays: &Relays) -> Vec<BoundPort> {
        relays.stop(self.relays);
        self.bound
    }
}

/// Where connections to a host address are relayed to: the container's address of the same family, or else its IPv4 one.
fn relay_target(endpoint: &Endpoint, host_ip: IpAddr) -> Option<IpAddr> {
    let v4 = endpoint.ipv4.map(|n| IpAddr::V4(n.ip()));
    match (host_ip, endpoint.ipv6) {
        (IpAddr::V6(_), Some(v6)) => Some(v6.ip().into()),
        _ => v4,
    }
}

/// Makes datagrams to these ports find their way anew. Needed whenever the rules for them have changed.
pub(super) fn forget_flows(bound: &[BoundPort]) {
    let mut udp = bound.iter().filter(|b| b.protocol == Protocol::Udp).peekable();
    if udp.peek().is_none() {
        return;
    }
    let forgotten = Socket::netfilter().and_then(|mut socket| {
        udp.try_for_each(|port| conntrack::forget_udp(&mut socket, port.host_ip.is_ipv6(), port.host_port))
    });
    if let Err(e) = forgotten {
        journal::note(format_args!("tracked UDP flows to {bound:?} stay until they pause: {e}"));
    }
}
