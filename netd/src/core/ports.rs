//! An endpoint's published ports while they are published: sockets, relays, rules.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;

use tokio::runtime::Handle;

use crate::firewall::rules::{self, Rule};
use crate::journal;
use crate::netlink::{Socket, conntrack};
use crate::ports::HeldPort;
use crate::protocol::{BoundPort, Protocol};
use crate::relay::Relay;

/// What an endpoint has published.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) bound: Vec<BoundPort>,
    relays: Vec<Relay>,
    /// Sockets that only keep their port.
    kept: Vec<OwnedFd>,
}

/// The rules of an endpoint's ports.
pub(super) fn rules_of(bridge: &str, ip: Ipv4Addr, bound: &[BoundPort]) -> Vec<Rule> {
    rules::ports(bridge, ip, bound)
}

impl Published {
    /// Puts the sockets to use: relayed (they listen), or only kept.
    pub(super) fn start(runtime: &Handle, ip: Ipv4Addr, held: Vec<HeldPort>, relayed: bool) -> Self {
        let mut published = Self { bound: Vec::new(), relays: Vec::new(), kept: Vec::new() };
        for HeldPort { bound, socket } in held {
            let to = SocketAddr::new(ip.into(), bound.container_port);
            match socket {
                Some(socket) if relayed && bound.protocol != Protocol::Sctp => {
                    match Relay::start(runtime, bound.protocol, socket, to) {
                        Ok(relay) => published.relays.extend(relay),
                        Err(e) => journal::note(format_args!("no relay for {bound:?}: {e}")),
                    }
                }
                Some(socket) => published.kept.push(socket),
                None => {}
            }
            published.bound.push(bound);
        }
        published
    }

    /// Ends it all; the sockets are closed when this returns. The ports stay reserved.
    pub(super) fn stop(self, runtime: &Handle) -> Vec<BoundPort> {
        self.relays.into_iter().for_each(|relay| relay.stop(runtime));
        self.bound
    }
}

/// Makes datagrams to these ports find their way anew. Needed whenever the rules for them have changed.
pub(super) fn forget_flows(bound: &[BoundPort]) {
    let mut udp = bound.iter().filter(|b| b.protocol == Protocol::Udp && b.host_ip.is_ipv4()).peekable();
    if udp.peek().is_none() {
        return;
    }
    let forgotten = Socket::netfilter()
        .and_then(|mut socket| udp.try_for_each(|port| conntrack::forget_udp(&mut socket, port.host_port)));
    if let Err(e) = forgotten {
        journal::note(format_args!("tracked UDP flows to {bound:?} stay until they pause: {e}"));
    }
}
