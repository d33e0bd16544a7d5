//! The daemon-wide settings: forwarding, the default networks, and all rules. What is right already stays.

use std::net::IpAddr;

use ipnetwork::{IpNetwork, Ipv4Network};

use super::kernel::index_of;
use super::networks::{bridge_rules, host_routes, now_ms};
use super::{Netd, NetworkState, failed};
use crate::firewall::rules;
use crate::ipam;
use crate::journal;
use crate::netlink::{Socket, route};
use crate::protocol::{DefaultBridge, Driver, Failure, NetworkSpec, Settings, SubnetSpec, VERSION};
use crate::store::StoredSettings;

const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";
/// The interface that is ours without asking.
const USUAL_INTERFACE: &str = "docker0";
const DEFAULT_NETWORK: &str = "bridge";

impl Netd {
    pub(super) fn configure(&self, settings: Settings) -> Result<(), Failure> {
        let _one_at_a_time = self.topology();
        let forward_drop = self.state().forward_drop | switch_forwarding(&settings)?;
        self.ensure_fixed_network("host", Driver::Host)?;
        self.ensure_fixed_network("none", Driver::Null)?;
        self.ensure_default_bridge(&settings)?;
        {
            let mut state = self.state();
            state.settings = Some(settings.clone());
            state.forward_drop = forward_drop;
        }
        self.ensure_bridges(&settings);
        self.ensure_rules(&settings, forward_drop)?;
        // Not before: a namespace inherits the host's settings when it is made.
        self.backstage.prepare();
        let stored = StoredSettings { version: VERSION, settings, forward_drop };
        self.paths.save_settings(&stored).map_err(failed("save", "settings"))
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
        let spec = NetworkSpec {
            subnets: vec![SubnetSpec {
                subnet: Some(IpNetwork::V4(network_of(address)?)),
                ip_range: None,
                gateway: Some(IpAddr::V4(address.ip())),
                reserved: Default::default(),
            }],
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
            if let Some(pool) = &mut network.pool {
                for endpoint in network.network.endpoints.values() {
                    // The same addresses were taken in the same subnet.
                    let _ = endpoint.ipv4.map(|ip| pool.take(ip.ip()));
                }
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
        let routes = host_routes()?;
        let taken = {
            let state = self.state();
            let others = state.networks.iter().filter(|n| !n.network.default_bridge);
            let others = others.filter_map(|n| Some(n.pool.as_ref()?.subnet()));
            others.chain(routes.iter().map(|r| r.destination)).collect::<Vec<_>>()
        };
        if let Some(known) = known.filter(|k| !taken.iter().any(|t| ipam::overlap(*t, *k))) {
            return Ok(known);
        }
        let subnet = ipam::next_subnet(&settings.default_pools, &taken).ok_or(Failure::PoolsExhausted)?;
        let first = subnet.nth(1).unwrap_or(subnet.network());
        Ipv4Network::new(first, subnet.prefix()).map_err(|e| Failure::Invalid(e.to_string()))
    }

    /// Makes the bridges that are missing. One that cannot be made is noted: the other networks work.
    fn ensure_bridges(&self, settings: &Settings) {
        let ids = self.state().networks.iter().map(|n| n.network.spec.id.clone()).collect::<Vec<_>>();
        for id in ids {
            let view = {
                let state = self.state();
                let Ok(n) = state.network(&id) else { continue };
                NetworkState { network: n.network.clone(), pool: n.pool.clone(), ..*n }
            };
            if let Err(failure) = self.ensure_bridge(&view, settings) {
                journal::note(format_args!("network {}: {failure}", view.network.spec.name));
            }
        }
    }

    /// Brings the host's rules to agree with all networks and ports.
    fn ensure_rules(&self, settings: &Settings, forward_drop: bool) -> Result<(), Failure> {
        if !settings.iptables {
            return Ok(());
        }
        let (mut wanted, networks) = {
            let state = self.state();
            let networks =
                state.networks.iter().filter_map(|n| bridge_rules(n, settings)).collect::<Vec<_>>();
            (rules::base(), networks)
        };
        wanted.extend(networks.iter().flat_map(rules::bridge));
        let endpoints = {
            let state = self.state();
            let all = state.networks.iter().flat_map(|n| n.network.endpoints.values());
            all.filter(|e| !e.ports.is_empty()).cloned().collect::<Vec<_>>()
        };
        wanted.extend(self.port_rules(&endpoints));
        self.firewall.reconcile(wanted, networks, forward_drop)
    }
}

/// Switches forwarding on if that is asked and it is off; answers whether it was off.
fn switch_forwarding(settings: &Settings) -> Result<bool, Failure> {
    if !settings.ip_forward {
        return Ok(false);
    }
    let is = std::fs::read_to_string(FORWARDING).map_err(failed("read", FORWARDING))?;
    if is.trim() != "0" {
        return Ok(false);
    }
    std::fs::write(FORWARDING, "1").map_err(failed("write", FORWARDING))?;
    Ok(true)
}

fn plain_spec(name: &str, driver: Driver) -> Result<NetworkSpec, Failure> {
    Ok(NetworkSpec {
        id: crate::random::hex::<32>().map_err(failed("read", "random bytes"))?,
        name: name.into(),
        driver,
        subnets: Vec::new(),
        internal: false,
        bridge: None,
        mtu: None,
        icc: true,
        masquerade: driver == Driver::Bridge,
        host_binding: None,
        metadata: serde_json::Value::Null,
    })
}

fn existing_address(interface: &str) -> Result<Option<Ipv4Network>, Failure> {
    let Ok(index) = index_of(interface) else { return Ok(None) };
    let addresses = Socket::route().and_then(|mut socket| route::addresses(&mut socket, index));
    Ok(addresses.map_err(failed("list addresses of", interface))?.first().copied())
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
