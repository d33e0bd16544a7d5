//! What the host's firewall is to do, as plain data: which bridges there are and which ports are published, and nothing of how a
//! backend writes it. What needs no rule is not in it.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::protocol::{BoundPort, FirewallBackend, GatewayMode, Protocol};

/// The two firewalls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) const ALL: [Self; 2] = [Self::V4, Self::V6];

    pub(crate) fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// What the rules of a bridge in one family depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BridgeRules {
    pub(crate) bridge: String,
    pub(crate) subnet: IpNetwork,
    pub(crate) internal: bool,
    pub(crate) icc: bool,
    pub(crate) masquerade: bool,
    pub(crate) mode: GatewayMode,
    /// Whether published ports may be reached by the containers' own addresses from everywhere.
    pub(crate) direct: bool,
    /// Interfaces through which the containers' own addresses may be reached.
    pub(crate) trusted: Vec<String>,
}

impl BridgeRules {
    pub(crate) fn family(&self) -> Family {
        Family::of(self.subnet.ip())
    }

    /// Without what is in its host part.
    pub(crate) fn subnet(&self) -> String {
        format!("{}/{}", self.subnet.network(), self.subnet.prefix())
    }

    /// Those of a network without options.
    #[cfg(test)]
    pub(crate) fn plain(bridge: &str, subnet: &str) -> Self {
        Self {
            bridge: bridge.into(),
            subnet: subnet.parse().unwrap(),
            internal: false,
            icc: true,
            masquerade: true,
            mode: GatewayMode::Nat,
            direct: false,
            trusted: Vec::new(),
        }
    }
}

/// What the rules of an endpoint's published ports in one family depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PortRules {
    pub(crate) bridge: String,
    pub(crate) mode: GatewayMode,
    /// The container's address.
    pub(crate) ip: IpAddr,
    /// At least one; all on host addresses of this family. (Those of the other one are the relay's.)
    pub(crate) ports: Vec<BoundPort>,
}

impl PortRules {
    /// Of the ports in the network's family; `None` if there are none.
    pub(crate) fn new(network: &BridgeRules, ip: IpAddr, bound: &[BoundPort]) -> Option<Self> {
        let same = bound.iter().filter(|port| Family::of(port.host_ip) == Family::of(ip));
        let ports = same.cloned().collect::<Vec<_>>();
        let bridge = network.bridge.clone();
        (!ports.is_empty()).then_some(Self { bridge, mode: network.mode, ip, ports })
    }

    pub(crate) fn family(&self) -> Family {
        Family::of(self.ip)
    }
}

/// What a link opens between two containers of a bridge on which they may not talk otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LinkRules {
    pub(crate) bridge: String,
    /// The container that knows the other one.
    pub(crate) from: IpAddr,
    /// The other one, of the same family.
    pub(crate) to: IpAddr,
    /// What it exposes.
    pub(crate) ports: Vec<(Protocol, u16)>,
}

/// Networks, ports and links that come or go together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) networks: Vec<BridgeRules>,
    pub(crate) ports: Vec<PortRules>,
    pub(crate) links: Vec<LinkRules>,
}

impl Part {
    pub(crate) fn extend(&mut self, other: Part) {
        self.networks.extend(other.networks);
        self.ports.extend(other.ports);
        self.links.extend(other.links);
    }

    pub(crate) fn networks_of(&self, family: Family) -> impl Iterator<Item = &BridgeRules> {
        self.networks.iter().filter(move |n| n.family() == family)
    }

    pub(crate) fn ports_of(&self, family: Family) -> impl Iterator<Item = &PortRules> {
        self.ports.iter().filter(move |p| p.family() == family)
    }

    pub(crate) fn links_of(&self, family: Family) -> impl Iterator<Item = &LinkRules> {
        self.links.iter().filter(move |link| Family::of(link.to) == family)
    }
}

/// All that ought to be there, and what may still be there and ought not.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    pub(crate) backend: FirewallBackend,
    /// The families in which we make rules at all.
    pub(crate) families: Vec<Family>,
    pub(crate) rules: Part,
    /// The families whose forwarded packets are dropped unless a rule accepts them.
    pub(crate) forward_drop: Vec<Family>,
    /// Networks that are not wanted any more, as long as nobody knows that their rules are gone.
    pub(crate) leaving: Vec<BridgeRules>,
}

impl Wanted {
    /// The networks whose rules are ours to change and to remove.
    pub(crate) fn owned(&self, family: Family) -> impl Iterator<Item = &BridgeRules> {
        let leaving = self.leaving.iter().filter(move |n| n.family() == family);
        self.rules.networks_of(family).chain(leaving)
    }
}
