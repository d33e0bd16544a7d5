//! Making and removing networks.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use ipnetwork::IpNetwork;
use rustix::io::Errno;

use super::configure::needs_ipv6_forwarding;
use super::kernel::index_of;
use super::plan::random_mac;
use super::subnets::pools_of;
use super::{Netd, NetworkState, failed, parents};
use crate::firewall::wanted::BridgeRules;
use crate::journal;
use crate::netlink::{Batch, Socket, route};
use crate::protocol::{Driver, Failure, GatewayMode, Network, NetworkSpec, Settings, VERSION};
use crate::store::{StoredNetwork, is_id};

impl Netd {
    pub(super) fn create_network(&self, mut spec: NetworkSpec) -> Result<Network, Failure> {
        let _one_at_a_time = self.topology();
        if !is_id(&spec.id) || spec.id.len() < 12 {
            return Err(Failure::Invalid(format!("invalid network id {:?}", spec.id)));
        }
        let (settings, routes) = (self.state().settings()?.clone(), host_routes()?);
        let chosen_subnet = spec.subnets.iter().any(|s| s.subnet.is_some());
        {
            let state = self.state();
            if let Some(same) = state.networks.iter().find(|n| n.network.spec.id == spec.id) {
                // The same order again: its answer was lost.
                return Ok(same.network.clone());
            }
            state.complete(&mut spec, &settings, &routes)?;
        }
        let mut made = NetworkState::new(spec, false, now_ms(), chosen_subnet)?;
        if needs_ipv6_forwarding(&made.network.spec) {
            self.forward_ipv6(&settings)?;
        }
        made.own_bridge = self.ensure_bridge(&made, &settings)?;
        let rules = bridge_rules(&made, &settings);
        let ruled = if rules.is_empty() { Ok(()) } else { self.firewall.add_network(rules) };
        let kept = ruled.and_then(|()| self.keep_network(&made));
        if let Err(failure) = kept {
            self.take_down_network(&made, &settings);
            return Err(failure);
        }
        let network = made.network.clone();
        self.state().networks.push(made);
        Ok(network)
    }

    pub(super) fn remove_network(&self, id: &str) -> Result<(), Failure> {
        let _one_at_a_time = self.topology();
        let (mut removed, settings) = {
            let mut state = self.state();
            let settings = state.settings()?.clone();
            let network = state.network_mut(id)?;
            let spec = &network.network.spec;
            if network.network.default_bridge || matches!(spec.driver, Driver::Host | Driver::Null) {
                return Err(Failure::Invalid(format!(
                    "{} is a pre-defined network and cannot be removed",
                    spec.name
                )));
            }
            if !network.network.endpoints.is_empty() {
                let endpoints = network.network.endpoints.values();
                let endpoints = endpoints.map(|e| (e.spec.container_name.clone(), e.spec.id.clone()));
                return Err(Failure::HasEndpoints {
                    name: spec.name.clone(),
                    endpoints: endpoints.collect(),
                });
            }
            network.removing = true;
            (network.without_pools(), settings)
        };
        self.hand_on_parent(&mut removed);
        self.take_down_network(&removed, &settings);
        // Its file goes last: a netd that is killed before finds it, and the network is whole again.
        self.paths.remove_network(id).map_err(failed("remove network", id))?;
        self.state().networks.retain(|n| n.network.spec.id != id);
        Ok(())
    }

    /// What the interfaces of a network were on stays if another network's are on it, too: the last one removes it.
    fn hand_on_parent(&self, leaving: &mut NetworkState) {
        if !leaving.own_bridge {
            return;
        }
        let heir = parents::hand_on(&mut self.state().networks, &leaving.network.spec);
        let Some(heir) = heir else { return };
        leaving.own_bridge = false;
        if let Err(failure) = self.keep_network(&heir) {
            journal::note(format_args!(
                "{} will stay behind its last network: {failure}",
                parents::interface(&heir.network.spec)
            ));
        }
    }

    /// Writes a network to disk.
    pub(super) fn keep_network(&self, network: &NetworkState) -> Result<(), Failure> {
        let stored = StoredNetwork {
            version: VERSION,
            spec: network.network.spec.clone(),
            default_bridge: network.network.default_bridge,
            created_ms: network.network.created_ms,
            chosen_subnet: network.chosen_subnet,
            own_bridge: network.own_bridge,
        };
        self.paths.save_network(&stored).map_err(failed("save network", &stored.spec.name))
    }

    /// Removes a network's rules and, if it is ours, its bridge. What is gone already is fine; what cannot be removed is noted.
    pub(super) fn take_down_network(&self, network: &NetworkState, settings: &Settings) {
        let rules = bridge_rules(network, settings);
        if !rules.is_empty() {
            // If it fails the firewall has said so in the log, and tries again with its next change.
            let _ = self.firewall.remove_network(rules);
        }
        if !network.own_bridge {
            return;
        }
        if network.network.spec.sub.is_some() {
            if let Err(failure) = parents::remove(&network.network.spec) {
                journal::note(failure);
            }
            return;
        }
        let mut batch = Batch::default();
        route::delete_link(&mut batch, network.bridge());
        match Socket::route().and_then(|mut socket| socket.commit(batch)) {
            Ok(()) | Err(Errno::NODEV) => {}
            Err(e) => journal::note(format_args!("remove bridge {}: {e}", network.bridge())),
        }
    }

    /// Makes the bridge of a network (or what else its interfaces are on), or brings one that is there to agree with it.
    /// Answers whether it is ours.
    pub(super) fn ensure_bridge(&self, network: &NetworkState, settings: &Settings) -> Result<bool, Failure> {
        match network.network.spec.driver {
            Driver::Bridge => {}
            Driver::Macvlan | Driver::Ipvlan => return parents::ensure(&network.network.spec),
            Driver::Host | Driver::Null | Driver::Description => return Ok(false),
        }
        let name = network.bridge();
        let mtu = network.network.spec.mtu.unwrap_or(settings.mtu);
        let mut socket = Socket::route().map_err(failed("open", "netlink socket"))?;
        let was_there = index_of(name).is_ok();
        if !was_there {
            let mut batch = Batch::default();
            route::add_bridge(&mut batch, name, random_mac()?, mtu);
            socket.commit(batch).map_err(|e| match e {
                // An MTU that bridges cannot have.
                Errno::INVAL => Failure::Invalid("invalid argument".into()),
                e => failed("create bridge", name)(e),
            })?;
        }
        let brought = index_of(name)
            .map_err(failed("find bridge", name))
            .and_then(|index| agree(&mut socket, network, index, was_there))
            .and_then(|()| switches(network, settings));
        if brought.is_err() && !was_there {
            let mut batch = Batch::default();
            route::delete_link(&mut batch, name);
            // The first error is the one to tell.
            let _ = socket.commit(batch);
        }
        brought.map(|()| !was_there)
    }
}

/// The bridge up, with the gateways' addresses.
fn agree(socket: &mut Socket, network: &NetworkState, index: u32, was_there: bool) -> Result<(), Failure> {
    let name = network.bridge();
    if was_there {
        let found = route::link(socket, name).map_err(failed("find bridge", name))?;
        if found.is_some_and(|link| link.kind != "bridge") {
            return Err(Failure::Invalid(format!("existing interface {name} is not a bridge")));
        }
        let mut batch = Batch::default();
        route::set_up(&mut batch, index);
        socket.commit(batch).map_err(failed("bring up", name))?;
    }
    if network.network.spec.ipv6 {
        switch_ipv6_on(name)?;
    }
    let wanted = bridge_addresses(&network.network.spec)?;
    let has = route::addresses(socket, index).map_err(failed("list addresses of", name))?;
    let mut batch = Batch::default();
    if network.network.default_bridge || network.own_bridge {
        // An earlier configuration's. (IPv6 addresses of a network without IPv6 are somebody else's business.)
        let replaced = |old: &IpNetwork| old.is_ipv4() || network.network.spec.ipv6;
        for old in has.iter().filter(|old| replaced(old) && !wanted.contains(old)) {
            route::delete_address(&mut batch, index, *old);
        }
    }
    for address in wanted.iter().filter(|address| !has.contains(address)) {
        route::add_address(&mut batch, index, *address);
    }
    if batch.is_empty() {
        return Ok(());
    }
    socket.commit(batch).map_err(failed("set address of", name))
}

/// The addresses of a network's bridge.
fn bridge_addresses(spec: &NetworkSpec) -> Result<Vec<IpNetwork>, Failure> {
    let enabled = |subnet: IpNetwork| match subnet {
        IpNetwork::V4(_) => spec.ipv4 && !spec.inhibit_ipv4 && spec.gateway_mode_v4 != GatewayMode::Isolated,
        IpNetwork::V6(_) => spec.ipv6 && spec.gateway_mode_v6 != GatewayMode::Isolated,
    };
    let subnets = spec.subnets.iter().filter_map(|s| Some((s.subnet.filter(|n| enabled(*n))?, s.gateway?)));
    subnets.map(|(subnet, gateway)| IpNetwork::new(gateway, subnet.prefix()).map_err(invalid)).collect()
}

/// The kernel's IPv6 on a bridge, which a host may have switched off for new interfaces.
fn switch_ipv6_on(name: &str) -> Result<(), Failure> {
    let switch = format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6");
    std::fs::write(&switch, "0").map_err(failed("write", switch))
}

/// The kernel's switches for a bridge.
fn switches(network: &NetworkState, settings: &Settings) -> Result<(), Failure> {
    let name = network.bridge();
    let spec = &network.network.spec;
    let write = |path: String, value: &str| std::fs::write(&path, value).map_err(failed("write", path));
    if settings.iptables && spec.ipv4 && !spec.internal {
        // For ports published on the host's loopback; rules keep containers from using it.
        write(format!("/proc/sys/net/ipv4/conf/{name}/route_localnet"), "1")?;
    }
    // The host does not believe routers among its containers.
    let accept_ra = format!("/proc/sys/net/ipv6/conf/{name}/accept_ra");
    match std::fs::write(&accept_ra, "0") {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(failed("write", accept_ra)(e)),
        _ => {}
    }
    if !spec.icc {
        // What stays within a bridge passes the rules only with this.
        for (wanted, family) in [(settings.iptables && spec.ipv4, ""), (settings.ip6tables && spec.ipv6, "6")]
        {
            if wanted {
                write(format!("/proc/sys/net/bridge/bridge-nf-call-ip{family}tables"), "1")?;
            }
        }
    }
    Ok(())
}

/// Whether the kernel has IPv6: it may have been switched off at a boot, under networks that have it.
pub(super) fn has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6").exists()
}

/// What the rules of a network depend on, of each family that it has rules in.
pub(super) fn bridge_rules(network: &NetworkState, settings: &Settings) -> Vec<BridgeRules> {
    let spec = &network.network.spec;
    if spec.driver != Driver::Bridge {
        return Vec::new();
    }
    let wanted = |subnet: &IpNetwork| match subnet {
        IpNetwork::V4(_) => spec.ipv4 && settings.iptables,
        IpNetwork::V6(_) => spec.ipv6 && settings.ip6tables && has_ipv6(),
    };
    let subnets = spec.subnets.iter().filter_map(|s| s.subnet).filter(wanted);
    let rules = subnets.map(|subnet| BridgeRules {
        bridge: network.bridge().into(),
        subnet,
        internal: spec.internal,
        icc: spec.icc,
        masquerade: spec.masquerade && settings.ip_masq,
        mode: if subnet.is_ipv6() { spec.gateway_mode_v6 } else { spec.gateway_mode_v4 },
        direct: settings.allow_direct_routing,
        trusted: spec.trusted_interfaces.clone(),
    });
    rules.collect()
}

/// Where the host's routes lead, so that no network gets a subnet in their way.
pub(super) fn host_routes() -> Result<Vec<route::Route>, Failure> {
    Socket::route().and_then(|mut socket| route::routes(&mut socket)).map_err(failed("list", "routes"))
}

fn invalid(error: impl std::fmt::Display) -> Failure {
    Failure::Invalid(error.to_string())
}

pub(super) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

impl NetworkState {
    /// A network whose description is complete.
    pub(super) fn new(
        spec: NetworkSpec,
        default_bridge: bool,
        created_ms: u64,
        chosen_subnet: bool,
    ) -> Result<Self, Failure> {
        let pools = pools_of(&spec)?;
        let network = Network { spec, default_bridge, created_ms, endpoints: Default::default() };
        Ok(Self { network, pools, chosen_subnet, own_bridge: false, removing: false })
    }

    /// A copy to work with while the state is not locked; addresses are the original's business.
    pub(super) fn without_pools(&self) -> Self {
        Self { network: self.network.clone(), pools: Vec::new(), ..*self }
    }
}
