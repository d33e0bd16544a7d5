//! The daemon-wide settings: forwarding, the default networks, and all rules. What is right already stays.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};

use super::kernel::index_of;
use super::networks::{bridge_rules, has_ipv6, host_routes, now_ms};
use super::{Netd, NetworkState, failed};
use crate::firewall::wanted::{Family, Part, Wanted};
use crate::ipam;
use crate::journal;
use crate::netlink::{Socket, route};
use crate::protocol::{
    DefaultBridge, Driver, Failure, FirewallBackend, GATEWAYS, NetworkSpec, Settings, SubnetSpec,
};
use crate::store::StoredSettings;

const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";
const FORWARDING_V6: &str = "/proc/sys/net/ipv6/conf/all/forwarding";
const FORWARDING_V6_DEFAULT: &str = "/proc/sys/net/ipv6/conf/default/forwarding";
/// The interface that is ours without asking.
const USUAL_INTERFACE: &str = "docker0";
const DEFAULT_NETWORK: &str = "bridge";

impl Netd {
    pub(super) fn configure(&self, settings: Settings) -> Result<(), Failure> {
        let _one_at_a_time = self.topology();
        let mut forward_drop = self.state().forward_drop.clone();
        if switch_forwarding(&settings)? {
            owe_drop(&mut forward_drop, Family::V4, &settings);
        }
        self.ensure_fixed_network("host", Driver::Host)?;
        self.ensure_fixed_network("none", Driver::Null)?;
        self.ensure_default_bridge(&settings)?;
        let before = {
            let mut state = self.state();
            state.forward_drop = forward_drop.clone();
            state.settings.replace(settings.clone()).map(|before| before.firewall)
        };
        let any_v6 = self.state().networks.iter().any(|n| needs_ipv6_forwarding(&n.network.spec));
        if any_v6 && let Err(failure) = self.note_ipv6_forwarding(&settings) {
            // A host that has no IPv6 any more still has all its other networks.
            journal::note(format_args!("networks with IPv6 do not forward it: {failure}"));
        }
        self.ensure_bridges(&settings);
        self.ensure_rules(&settings, before)?;
        // Not before: a namespace inherits the host's settings when it is made.
        self.backstage.prepare();
        self.save_settings(settings)
    }

    fn save_settings(&self, settings: Settings) -> Result<(), Failure> {
        let stored = StoredSettings::new(settings, &self.state().forward_drop);
        self.paths.save_settings(&stored).map_err(failed("save", "settings"))
    }

    /// Before the first network with IPv6: forwarding, and rules that forward nothing else.
    pub(super) fn forward_ipv6(&self, settings: &Settings) -> Result<(), Failure> {
        if self.note_ipv6_forwarding(settings)? {
            self.ensure_rules(settings, None)?;
            self.save_settings(settings.clone())?;
        }
        Ok(())
    }

    /// Switches IPv6 forwarding on if that is asked and it is off; answers whether it was.
    fn note_ipv6_forwarding(&self, settings: &Settings) -> Result<bool, Failure> {
        if !settings.ip_forward || !switch(FORWARDING_V6)? {
            return Ok(false);
        }
        // For interfaces to come; what fails here shows when they do not forward.
        switch(FORWARDING_V6_DEFAULT)?;
        owe_drop(&mut self.state().forward_drop, Family::V6, settings);
        Ok(true)
    }

    /// The networks `host` and `none`.
    fn ensure_fixed_network(&self, name: &str, driver: Driver) -> Result<(), Failure> {
        if self.state().networks.iter().any(|n| n.network.spec.name == name) {
            return Ok(());
        }
        let network = NetworkState::new(plain_spec(name, driver)?, false, now_ms(), false)?;
        self.keep_network(&network)?;
        self.state().networks.push(network);
        Ok(())
    }

    /// The network `bridge`, as the settings want it; it keeps its id.
    fn ensure_default_bridge(&self, settings: &Settings) -> Result<(), Failure> {
        let before = {
            let state = self.state();
            let found = state.networks.iter().find(|n| n.network.default_bridge);
            found.map(|n| (n.network.clone(), n.own_bridge))
        };
        let Some(wanted) = &settings.default_bridge else {
            return self.drop_default_bridge(settings);
        };
        let spec = match &before {
            Some((network, _)) => network.spec.clone(),
            None => plain_spec(DEFAULT_NETWORK, Driver::Bridge)?,
        };
        let address = self.default_address(wanted, settings, before.as_ref().map(|b| &b.0.spec))?;
        let mut subnets = vec![SubnetSpec {
            subnet: Some(IpNetwork::V4(network_of(address)?)),
            ip_range: wanted.range.map(IpNetwork::V4),
            gateway: Some(IpAddr::V4(address.ip())),
            reserved: reserved_gateway(GATEWAYS[0], wanted.gateway),
        }];
        if wanted.ipv6 {
            subnets.push(self.default_subnet_v6(wanted, settings, before.as_ref().map(|b| &b.0.spec))?);
        }
        let spec = NetworkSpec {
            subnets,
            ipv6: wanted.ipv6,
            bridge: Some(wanted.interface.clone()),
            mtu: Some(settings.mtu),
            icc: wanted.icc,
            masquerade: settings.ip_masq,
            host_binding: Some(settings.default_host_ip),
            ..spec
        };
        if before.as_ref().is_some_and(|(network, _)| network.spec == spec) {
            return Ok(());
        }
        let created = before.as_ref().map_or_else(now_ms, |(network, _)| network.created_ms);
        let mut network = NetworkState::new(spec, true, created, false)?;
        network.own_bridge = index_of(&wanted.interface).is_err()
            || before.as_ref().is_some_and(|(b, own)| *own && b.spec.bridge == network.network.spec.bridge);
        if let Some((old, _)) = &before
            && !old.endpoints.is_empty()
        {
            if old.spec.subnets != network.network.spec.subnets
                || old.spec.bridge != network.network.spec.bridge
            {
                journal::note("the default bridge keeps its address as long as it has containers");
                return Ok(());
            }
            network.network.endpoints = old.endpoints.clone();
        }
        self.keep_network(&network)?;
        self.replace_default(network, before.is_some_and(|b| b.1), settings);
        Ok(())
    }

    fn replace_default(&self, mut network: NetworkState, owned_before: bool, settings: &Settings) {
        let old = {
            let mut state = self.state();
            let index = state.networks.iter().position(|n| n.network.default_bridge);
            for endpoint in network.network.endpoints.clone().values() {
                // The same addresses were taken in the same subnets.
                network.take_again(endpoint);
            }
            match index {
                Some(index) => Some(std::mem::replace(&mut state.networks[index], network)),
                None => {
                    state.networks.push(network);
                    None
                }
            }
        };
        let Some(old) = old else { return };
        let now =
            self.state().networks.iter().find(|n| n.network.default_bridge).map(|n| n.bridge().to_string());
        if owned_before && now.as_deref() != Some(old.bridge()) {
            self.take_down_network(&old, settings);
        }
    }

    fn drop_default_bridge(&self, settings: &Settings) -> Result<(), Failure> {
        let removed = {
            let mut state = self.state();
            let index = state
                .networks
                .iter()
                .position(|n| n.network.default_bridge && n.network.endpoints.is_empty());
            index.map(|index| state.networks.remove(index))
        };
        let Some(removed) = removed else { return Ok(()) };
        self.take_down_network(&removed, settings);
        let id = &removed.network.spec.id;
        self.paths.remove_network(id).map_err(failed("remove network", id))
    }

    /// The default bridge's own address: as asked; as it is; or from the pools.
    fn default_address(
        &self,
        wanted: &DefaultBridge,
        settings: &Settings,
        before: Option<&NetworkSpec>,
    ) -> Result<Ipv4Network, Failure> {
        let there = existing_address(&wanted.interface)?;
        if let (Some(address), true) = (there, wanted.interface != USUAL_INTERFACE) {
            return Ok(address);
        }
        if let Some(asked) = wanted.address {
            return Ok(asked);
        }
        if let Some(address) = there {
            return Ok(address);
        }
        let known = before.filter(|b| b.bridge.as_deref() == Some(&wanted.interface)).and_then(address_of);
        let taken = self.taken_by_others()?;
        if let Some(known) = known.filter(|k| !taken.iter().any(|t| ipam::overlap(*t, IpNetwork::V4(*k)))) {
            return Ok(known);
        }
        match ipam::next_subnet(&settings.default_pools, false, &taken) {
            Some(IpNetwork::V4(subnet)) => {
                let first = subnet.nth(1).unwrap_or(subnet.network());
                Ipv4Network::new(first, subnet.prefix()).map_err(|e| Failure::Invalid(e.to_string()))
            }
            _ => Err(Failure::PoolsExhausted),
        }
    }

    /// The subnets of all networks but the default bridge, and the host's routes.
    fn taken_by_others(&self) -> Result<Vec<IpNetwork>, Failure> {
        let routes = host_routes()?;
        let state = self.state();
        let others = state.networks.iter().filter(|n| !n.network.default_bridge);
        let others = others.flat_map(|n| n.pools.iter().map(ipam::Pool::subnet));
        Ok(others.chain(routes.iter().map(|r| r.destination)).collect())
    }

    /// The default bridge's IPv6 subnet: as asked; as it was; or from the pools.
    fn default_subnet_v6(
        &self,
        wanted: &DefaultBridge,
        settings: &Settings,
        before: Option<&NetworkSpec>,
    ) -> Result<SubnetSpec, Failure> {
        let before = before.and_then(|b| b.subnets.iter().find(|s| s.subnet.is_some_and(|n| n.is_ipv6())));
        let reserved = reserved_gateway(GATEWAYS[1], wanted.gateway_v6);
        let asked = wanted.subnet_v6.or(wanted.address_v6);
        if let (None, Some(before)) = (asked, before) {
            return Ok(SubnetSpec { reserved, ..before.clone() });
        }
        let subnet = match asked {
            Some(asked) => asked,
            None => match ipam::next_subnet(&settings.default_pools, true, &self.taken_by_others()?) {
                Some(IpNetwork::V6(subnet)) => subnet,
                _ => return Err(Failure::PoolsExhausted),
            },
        };
        let subnet = Ipv6Network::new(subnet.network(), subnet.prefix())
            .map_err(|e| Failure::Invalid(e.to_string()))?;
        let first = (u128::from(subnet.network()) + 1).into();
        let gateway = wanted.address_v6.map_or(first, |address| address.ip());
        Ok(SubnetSpec {
            subnet: Some(IpNetwork::V6(subnet)),
            gateway: Some(IpAddr::V6(gateway)),
            ip_range: None,
            reserved,
        })
    }

    /// Makes the bridges that are missing. One that cannot be made is noted: the other networks work.
    fn ensure_bridges(&self, settings: &Settings) {
        let ids = self.state().networks.iter().map(|n| n.network.spec.id.clone()).collect::<Vec<_>>();
        for id in ids {
            let view = {
                let state = self.state();
                let Ok(n) = state.network(&id) else { continue };
                n.without_pools()
            };
            if let Err(failure) = self.ensure_bridge(&view, settings) {
                journal::note(format_args!("network {}: {failure}", view.network.spec.name));
            }
        }
    }

    /// Brings the host's rules to agree with all networks and ports; `before`: the backend that made them until now.
    fn ensure_rules(&self, settings: &Settings, before: Option<FirewallBackend>) -> Result<(), Failure> {
        let has_ipv6 = has_ipv6();
        let families = Family::ALL.into_iter().filter(|family| match family {
            Family::V4 => settings.iptables,
            Family::V6 => settings.ip6tables && has_ipv6,
        });
        let families = families.collect::<Vec<_>>();
        if families.is_empty() {
            return Ok(());
        }
        let (networks, endpoints, links, forward_drop) = {
            let mut state = self.state();
            state.links = state.wanted_links();
            let networks = state.networks.iter().flat_map(|n| bridge_rules(n, settings)).collect::<Vec<_>>();
            let all = state.networks.iter().flat_map(|n| n.network.endpoints.values());
            let endpoints = all.filter(|e| !e.ports.is_empty()).cloned().collect::<Vec<_>>();
            (networks, endpoints, state.links.clone(), state.forward_drop.clone())
        };
        let rules = Part { networks, ports: self.port_rules(endpoints.iter().map(AsRef::as_ref)), links };
        let mut wanted =
            Wanted { backend: settings.firewall, families, rules, forward_drop, ..Wanted::default() };
        let Err(failure) = self.firewall.reconcile(wanted.clone(), before) else { return Ok(()) };
        if wanted.rules.networks_of(Family::V6).next().is_some() {
            return Err(failure);
        }
        // As long as no network has IPv6 its firewall may be missing.
        journal::note(format_args!("{failure}; going on without rules for IPv6"));
        wanted.families.retain(|family| *family == Family::V4);
        if wanted.families.is_empty() {
            return Ok(());
        }
        self.firewall.reconcile(wanted, before)
    }
}

/// Whether the host has to forward IPv6 for a network: what is directly on one of its links passes it by.
pub(super) fn needs_ipv6_forwarding(spec: &NetworkSpec) -> bool {
    spec.ipv6 && spec.driver == Driver::Bridge
}

/// Who switches forwarding on has the host forward nothing but what rules accept, unless that is not wanted.
fn owe_drop(dropping: &mut Vec<Family>, family: Family, settings: &Settings) {
    if !settings.ip_forward_no_drop && !dropping.contains(&family) {
        dropping.push(family);
    }
}

fn reserved_gateway(name: &str, ip: Option<impl Into<IpAddr>>) -> BTreeMap<String, IpAddr> {
    ip.map(|ip| (name.to_string(), ip.into())).into_iter().collect()
}

/// Switches forwarding on if that is asked and it is off; answers whether it was off.
fn switch_forwarding(settings: &Settings) -> Result<bool, Failure> {
    if settings.ip_forward { switch(FORWARDING) } else { Ok(false) }
}

/// Writes 1 to a switch that is at 0; answers whether it was.
fn switch(path: &str) -> Result<bool, Failure> {
    let is = std::fs::read_to_string(path).map_err(failed("read", path))?;
    if is.trim() != "0" {
        return Ok(false);
    }
    std::fs::write(path, "1").map_err(failed("write", path))?;
    Ok(true)
}

fn plain_spec(name: &str, driver: Driver) -> Result<NetworkSpec, Failure> {
    Ok(NetworkSpec {
        id: crate::random::hex::<32>().map_err(failed("read", "random bytes"))?,
        name: name.into(),
        driver,
        ipv4: driver.has_links(),
        masquerade: driver == Driver::Bridge,
        ..NetworkSpec::default()
    })
}

fn existing_address(interface: &str) -> Result<Option<Ipv4Network>, Failure> {
    let Ok(index) = index_of(interface) else { return Ok(None) };
    let addresses = Socket::route().and_then(|mut socket| route::addresses(&mut socket, index));
    let addresses = addresses.map_err(failed("list addresses of", interface))?;
    Ok(addresses.into_iter().find_map(|address| match address {
        IpNetwork::V4(v4) => Some(v4),
        IpNetwork::V6(_) => None,
    }))
}

fn address_of(spec: &NetworkSpec) -> Option<Ipv4Network> {
    let subnet = spec.subnets.first()?;
    match (subnet.subnet?, subnet.gateway?) {
        (IpNetwork::V4(network), IpAddr::V4(gateway)) => Ipv4Network::new(gateway, network.prefix()).ok(),
        _ => None,
    }
}

fn network_of(address: Ipv4Network) -> Result<Ipv4Network, Failure> {
    Ipv4Network::new(address.network(), address.prefix()).map_err(|e| Failure::Invalid(e.to_string()))
}
