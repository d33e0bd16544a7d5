//! What links open in networks whose containers may not talk: as long as both containers are there, the ports that the one
//! exposes are open to the other.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::networks::bridge_rules;
use super::{Netd, NetworkState, State};
use crate::firewall::Pending;
use crate::firewall::wanted::{Family, LinkRules};
use crate::protocol::{Endpoint, Failure, Settings};

impl Netd {
    /// Begins to make the firewall agree with the links between the endpoints that there are now; to be called whenever one has
    /// come or gone. Answers what is to be waited for before a newcomer starts.
    pub(super) fn follow_links(&self, state: &mut State) -> Option<Pending> {
        let wanted = state.wanted_links();
        let before = std::mem::replace(&mut state.links, wanted);
        let new = state.links.iter().filter(|link| !before.contains(link)).cloned().collect::<Vec<_>>();
        for link in before.into_iter().filter(|link| !state.links.contains(link)) {
            // Nobody else gets either address before. (Orders are carried out in turn: an empty one waits for those before it.)
            let (from, to) = (link.from, link.to);
            state.leaving.insert(from, self.firewall.remove_links(vec![link]));
            state.leaving.insert(to, self.firewall.remove_links(Vec::new()));
        }
        (!new.is_empty()).then(|| self.firewall.add_links(new))
    }

    pub(super) fn set_linked(
        &self,
        id: &str,
        network: &str,
        linked: BTreeSet<String>,
    ) -> Result<(), Failure> {
        let _turn = self.turn(id);
        self.change_endpoint(id, network, |endpoint| endpoint.spec.linked = linked)?;
        let opened = self.follow_links(&mut self.state());
        // An empty order is carried out behind those that close something.
        opened.unwrap_or_else(|| self.firewall.remove_links(Vec::new())).finish()
    }
}

impl State {
    /// What all links open.
    pub(super) fn wanted_links(&self) -> Vec<LinkRules> {
        let Some(settings) = &self.settings else { return Vec::new() };
        self.networks.iter().flat_map(|network| links_in(network, settings)).collect()
    }
}

/// What the links in a network open. They are IPv4's alone: /etc/hosts has nothing else of those who are linked.
fn links_in(network: &NetworkState, settings: &Settings) -> Vec<LinkRules> {
    let spec = &network.network.spec;
    let endpoints = &network.network.endpoints;
    if spec.icc || spec.internal || endpoints.values().all(|e| e.spec.linked.is_empty()) {
        return Vec::new();
    }
    let rules = bridge_rules(network, settings);
    let Some(bridge) = rules.into_iter().find(|rules| rules.family() == Family::V4) else {
        return Vec::new();
    };
    let address = |endpoint: &Endpoint| endpoint.ipv4.map(|network| IpAddr::V4(network.ip()));
    let mut links = Vec::new();
    for receiver in endpoints.values() {
        let sources = receiver.spec.linked.iter().filter_map(|id| endpoints.get(id));
        for source in sources.filter(|source| !source.spec.exposed.is_empty()) {
            if let (Some(from), Some(to)) = (address(receiver), address(source)) {
                let ports = source.spec.exposed.clone();
                links.push(LinkRules { bridge: bridge.bridge.clone(), from, to, ports });
            }
        }
    }
    links
}
