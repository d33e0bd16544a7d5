//! Making and removing networks.

use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use ipnetwork::{IpNetwork, Ipv4Network};
use rustix::io::Errno;

use super::kernel::index_of;
use super::plan::random_mac;
use super::{Netd, NetworkState, State, failed};
use crate::firewall::rules::BridgeRules;
use crate::ipam::{self, Pool};
use crate::netlink::{Batch, Socket, route};
use crate::protocol::{Driver, Failure, Network, NetworkSpec, Settings, SubnetSpec, VERSION};
use crate::store::{StoredNetwork, is_id};

/// A network interface's name has at most this many bytes.
const LONGEST_INTERFACE: usize = 15;

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
        made.own_bridge = self.ensure_bridge(&made, &settings)?;
        let ruled = match bridge_rules(&made, &settings) {
            Some(rules) if settings.iptables => self.firewall.add_network(rules),
            _ => Ok(()),
        };
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
        let (removed, settings) = {
            let mut state = self.state();
            let settings = state.settings()?.clone();
            let network = state.network_mut(id)?;
            let spec = &network.network.spec;
            if network.network.default_bridge || spec.driver != Driver::Bridge {
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
            let removed = NetworkState { pool: None, network: network.network.clone(), ..*network };
            (removed, settings)
        };
        self.take_down_network(&removed, &settings);
        // Its file goes last: a netd that is killed before finds it, and the network is whole again.
        self.paths.remove_network(id).map_err(failed("remove network", id))?;
        self.state().networks.retain(|n| n.network.spec.id != id);
        Ok(())
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
        if let (Some(rules), true) = (bridge_rules(network, settings), settings.iptables) {
            // If it fails the firewall has said so in the log, and tries again with its next change.
            let _ = self.firewall.remove_network(rules);
        }
        if !network.own_bridge {
            return;
        }
        let mut batch = Batch::default();
        route::delete_link(&mut batch, network.bridge());
        match Socket::route().and_then(|mut socket| socket.commit(batch)) {
            Ok(()) | Err(Errno::NODEV) => {}
            Err(e) => crate::journal::note(format_args!("remove bridge {}: {e}", network.bridge())),
        }
    }

    /// Makes the bridge of a network, or brings one that is there to agree with it. Answers whether it is ours.
    pub(super) fn ensure_bridge(&self, network: &NetworkState, settings: &Settings) -> Result<bool, Failure> {
        let (Some(pool), Driver::Bridge) = (&network.pool, network.network.spec.driver) else {
            return Ok(false);
        };
        let name = network.bridge();
        let mtu = network.network.spec.mtu.unwrap_or(settings.mtu);
        let mut socket = Socket::route().map_err(failed("open", "netlink socket"))?;
        let was_there = index_of(name).is_ok();
        if !was_there {
            let mut batch = Batch::default();
            route::add_bridge(&mut batch, name, random_mac()?, mtu);
            socket.commit(batch).map_err(failed("create bridge", name))?;
        }
        let brought = index_of(name)
            .map_err(failed("find bridge", name))
            .and_then(|index| agree(&mut socket, network, pool, index, was_there))
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

/// The bridge up, with the gateway's address.
fn agree(
    socket: &mut Socket,
    network: &NetworkState,
    pool: &Pool,
    index: u32,
    was_there: bool,
) -> Result<(), Failure> {
    let name = network.bridge();
    if was_there {
        let mut batch = Batch::default();
        route::set_up(&mut batch, index);
        socket.commit(batch).map_err(failed("bring up", name))?;
    }
    let gateway = network.network.spec.subnets.first().and_then(|s| s.gateway);
    let Some(IpAddr::V4(gateway)) = gateway else { return Ok(()) };
    let address = Ipv4Network::new(gateway, pool.subnet().prefix()).map_err(invalid)?;
    let has = route::addresses(socket, index).map_err(failed("list addresses of", name))?;
    let mut batch = Batch::default();
    if network.network.default_bridge || network.own_bridge {
        // An earlier configuration's.
        for old in has.iter().filter(|old| **old != address) {
            route::delete_address(&mut batch, index, *old);
        }
    }
    if !has.contains(&address) {
        route::add_address(&mut batch, index, address);
    }
    if batch.is_empty() {
        return Ok(());
    }
    socket.commit(batch).map_err(failed("set address of", name))
}

/// The kernel's switches for a bridge.
fn switches(network: &NetworkState, settings: &Settings) -> Result<(), Failure> {
    let name = network.bridge();
    let write = |path: String, value: &str| std::fs::write(&path, value).map_err(failed("write", path));
    if settings.iptables && !network.network.spec.internal {
        // For ports published on the host's loopback; rules keep containers from using it.
        write(format!("/proc/sys/net/ipv4/conf/{name}/route_localnet"), "1")?;
    }
    // The host does not believe routers among its containers.
    let accept_ra = format!("/proc/sys/net/ipv6/conf/{name}/accept_ra");
    match std::fs::write(&accept_ra, "0") {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(failed("write", accept_ra)(e)),
        _ => {}
    }
    if settings.iptables && !network.network.spec.icc {
        // What stays within a bridge passes the rules only with this.
        write("/proc/sys/net/bridge/bridge-nf-call-iptables".into(), "1")?;
    }
    Ok(())
}

/// What the rules of a network depend on; `None` if it has no bridge.
pub(super) fn bridge_rules(network: &NetworkState, settings: &Settings) -> Option<BridgeRules> {
    let spec = &network.network.spec;
    let subnet = match spec.subnets.first()?.subnet? {
        IpNetwork::V4(subnet) => subnet,
        IpNetwork::V6(_) => return None,
    };
    Some(BridgeRules {
        bridge: network.bridge().into(),
        subnet,
        internal: spec.internal,
        icc: spec.icc,
        masquerade: spec.masquerade && settings.ip_masq,
    })
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

impl State {
    /// Checks a network that is to be made, and fills in what was left to us.
    pub(super) fn complete(
        &self,
        spec: &mut NetworkSpec,
        settings: &Settings,
        routes: &[route::Route],
    ) -> Result<(), Failure> {
        if self.networks.iter().any(|n| n.network.spec.name == spec.name) {
            return Err(Failure::NameTaken(spec.name.clone()));
        }
        if spec.driver != Driver::Bridge {
            let kind = if spec.driver == Driver::Host { "host" } else { "null" };
            return Err(Failure::Invalid(format!("only one instance of \"{kind}\" network is allowed")));
        }
        let bridge = spec.bridge.clone().filter(|b| !b.is_empty());
        let bridge = bridge.unwrap_or_else(|| format!("br-{}", spec.id.get(..12).unwrap_or(&spec.id)));
        check_interface(&bridge)?;
        if let Some(other) = self.networks.iter().find(|n| n.bridge() == bridge) {
            return Err(Failure::Invalid(format!(
                "cannot create network {} ({bridge}): conflicts with network {} ({bridge}): networks have same bridge name",
                spec.id, other.network.spec.id
            )));
        }
        spec.bridge = Some(bridge);
        spec.mtu = spec.mtu.or(Some(settings.mtu));
        if spec.subnets.is_empty() {
            spec.subnets.push(SubnetSpec {
                subnet: None,
                ip_range: None,
                gateway: None,
                reserved: Default::default(),
            });
        }
        let [subnet] = spec.subnets.as_mut_slice() else {
            return Err(Failure::Invalid("bridge driver doesn't support multiple subnets".into()));
        };
        self.complete_subnet(subnet, &settings.default_pools, routes)
    }

    fn complete_subnet(
        &self,
        spec: &mut SubnetSpec,
        pools: &[(Ipv4Network, u8)],
        routes: &[route::Route],
    ) -> Result<(), Failure> {
        let ours = || self.networks.iter().filter_map(|n| Some(n.pool.as_ref()?.subnet()));
        let subnet = match spec.subnet {
            Some(IpNetwork::V4(subnet)) => {
                if ours().any(|other| ipam::overlap(other, subnet)) {
                    return Err(Failure::PoolOverlap);
                }
                subnet
            }
            Some(IpNetwork::V6(subnet)) => {
                return Err(Failure::Invalid(format!(
                    "IPv6 subnet {subnet}: only IPv4 networks are supported"
                )));
            }
            None => {
                let taken = ours().chain(routes.iter().map(|r| r.destination)).collect::<Vec<_>>();
                ipam::next_subnet(pools, &taken).ok_or(Failure::PoolsExhausted)?
            }
        };
        spec.subnet = Some(IpNetwork::V4(subnet));
        if spec.gateway.is_none() {
            let mut pool = pool_of(spec)?;
            // The first address of the range.
            let first = pool
                .next()
                .map_err(|_| Failure::Invalid(format!("{subnet} has no address for a gateway")))?;
            spec.gateway = Some(first.into());
        }
        pool_of(spec).map(drop)
    }
}

/// The addresses of a subnet that can be given out, without its gateway and what is reserved.
fn pool_of(spec: &SubnetSpec) -> Result<Pool, Failure> {
    let Some(IpNetwork::V4(subnet)) = spec.subnet else {
        return Err(Failure::Invalid("the network has no IPv4 subnet".into()));
    };
    let range = match spec.ip_range {
        None => None,
        Some(IpNetwork::V4(range))
            if subnet.contains(range.network()) && range.prefix() >= subnet.prefix() =>
        {
            Some(range)
        }
        Some(range) => return Err(Failure::Invalid(format!("no matching subnet for range {range}"))),
    };
    let mut pool = Pool::new(subnet, range);
    for ip in spec.gateway.iter().chain(spec.reserved.values()) {
        let IpAddr::V4(v4) = ip else { return Err(no_subnet_for(ip)) };
        match pool.take(*v4) {
            Ok(()) | Err(ipam::NoAddress::InUse | ipam::NoAddress::Exhausted) => {}
            Err(ipam::NoAddress::Outside) => return Err(no_subnet_for(ip)),
        }
    }
    Ok(pool)
}

fn no_subnet_for(ip: &IpAddr) -> Failure {
    Failure::Invalid(format!("no matching subnet for gateway {ip}"))
}

fn check_interface(name: &str) -> Result<(), Failure> {
    if name.len() > LONGEST_INTERFACE {
        return Err(Failure::Invalid("numerical result out of range".into()));
    }
    let plain = |b: u8| b.is_ascii_graphic() && b != b'/' && b != b'"' && b != b'\'';
    if !name.bytes().all(plain) || name == "." || name == ".." {
        return Err(Failure::Invalid(format!("invalid bridge name {name:?}")));
    }
    Ok(())
}

impl NetworkState {
    /// A network whose description is complete.
    pub(super) fn new(
        spec: NetworkSpec,
        default_bridge: bool,
        created_ms: u64,
        chosen_subnet: bool,
    ) -> Result<Self, Failure> {
        let pool = match (spec.driver, spec.subnets.first()) {
            (Driver::Bridge, Some(subnet)) => Some(pool_of(subnet)?),
            (Driver::Bridge, None) => return Err(Failure::Invalid("the network has no subnet".into())),
            _ => None,
        };
        let network = Network { spec, default_bridge, created_ms, endpoints: Default::default() };
        Ok(Self { network, pool, chosen_subnet, own_bridge: false, removing: false })
    }
}
