//! Completing what is asked of a network: its interface, its subnets and gateways.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::{State, parents};
use crate::ipam::{self, NoAddress, Pool};
use crate::netlink::route;
use crate::protocol::{Driver, Failure, GatewayMode, NetworkSpec, Settings, SubnetSpec};

/// A network interface's name has at most this many bytes.
const LONGEST_INTERFACE: usize = 15;

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
        // As in dockerd's lists: whatever order they were asked for in, and before those that are chosen here.
        spec.subnets.sort_by_key(|s| s.subnet.is_some_and(|subnet| subnet.is_ipv6()));
        match spec.driver {
            Driver::Host => return Err(one_instance("host")),
            Driver::Null => return Err(one_instance("null")),
            Driver::Description => return Ok(()),
            Driver::Macvlan => {}
            Driver::Ipvlan => self.check_parent(spec)?,
            Driver::Bridge => {
                self.complete_bridge(spec)?;
                spec.mtu = spec.mtu.or(Some(settings.mtu));
            }
        }
        if !spec.ipv4 && !spec.ipv6 {
            return Err(Failure::Invalid("IPv4 or IPv6 must be enabled".into()));
        }
        for (v6, enabled) in [(false, spec.ipv4), (true, spec.ipv6)] {
            if enabled {
                self.complete_family(spec, v6, settings, routes)?;
            }
        }
        pools_of(spec).map(drop)
    }

    /// Several ipvlan networks are never on one interface.
    fn check_parent(&self, spec: &NetworkSpec) -> Result<(), Failure> {
        let parent = parents::interface(spec);
        let others = self.networks.iter().map(|n| &n.network.spec).filter(|n| n.driver == Driver::Ipvlan);
        match others.into_iter().find(|other| parents::interface(other) == parent) {
            Some(other) => Err(Failure::Invalid(format!(
                "network {} is already using parent interface {parent}",
                parents::dummy(other)
            ))),
            None => Ok(()),
        }
    }

    fn complete_bridge(&self, spec: &mut NetworkSpec) -> Result<(), Failure> {
        let bridge = spec.bridge.clone().filter(|b| !b.is_empty());
        let bridge = bridge.unwrap_or_else(|| format!("br-{}", spec.id.get(..12).unwrap_or(&spec.id)));
        check_interface(&bridge)?;
        if let Some(other) = self.networks.iter().find(|n| n.bridge() == bridge) {
            return Err(Failure::Forbidden(format!(
                "cannot create network {} ({bridge}): conflicts with network {} ({bridge}): networks have same bridge name",
                spec.id, other.network.spec.id
            )));
        }
        spec.bridge = Some(bridge);
        let isolated = [spec.gateway_mode_v4, spec.gateway_mode_v6].contains(&GatewayMode::Isolated);
        if isolated && !spec.internal {
            let text = "gateway mode 'isolated' can only be used for an internal network";
            return Err(Failure::Invalid(text.into()));
        }
        if spec.internal && spec.subnets.iter().any(|subnet| subnet.other_gateway().is_some()) {
            let text = "no gateway can be set on an internal bridge network";
            return Err(Failure::BadAddress(text.into()));
        }
        Ok(())
    }

    /// At least one subnet of the family, that no other network has, and each with its gateway where it is to have one.
    fn complete_family(
        &self,
        spec: &mut NetworkSpec,
        v6: bool,
        settings: &Settings,
        routes: &[route::Route],
    ) -> Result<(), Failure> {
        let ours = self.networks.iter().flat_map(|n| n.pools.iter().map(Pool::subnet));
        let mut taken = ours.collect::<Vec<_>>();
        let chosen = spec.subnets.iter().filter_map(|s| s.subnet).filter(|s| s.is_ipv6() == v6);
        let chosen = chosen.collect::<Vec<_>>();
        for subnet in &chosen {
            if taken.iter().any(|other| ipam::overlap(*other, *subnet)) {
                return Err(Failure::PoolOverlap);
            }
            taken.push(*subnet);
        }
        if chosen.len() > 1 && spec.driver == Driver::Bridge {
            return Err(Failure::Forbidden("bridge driver doesn't support multiple subnets".into()));
        }
        if chosen.is_empty() {
            taken.extend(routes.iter().map(|r| r.destination));
            let subnet =
                ipam::next_subnet(&settings.default_pools, v6, &taken).ok_or(Failure::PoolsExhausted)?;
            spec.subnets.push(SubnetSpec { subnet: Some(subnet), ..SubnetSpec::default() });
        }
        if !has_gateway(spec, v6) {
            return Ok(());
        }
        for subnet in &mut spec.subnets {
            if subnet.gateway.is_none() && subnet.subnet.is_some_and(|s| s.is_ipv6() == v6) {
                subnet.gateway = Some(first_of(subnet)?);
            }
        }
        Ok(())
    }
}

/// Whether the subnets of a family are to have a gateway.
fn has_gateway(spec: &NetworkSpec, v6: bool) -> bool {
    if let Some(sub) = &spec.sub {
        return !spec.internal && !sub.parent.is_empty();
    }
    let mode = if v6 { spec.gateway_mode_v6 } else { spec.gateway_mode_v4 };
    mode != GatewayMode::Isolated
}

/// The first address of the range that is free.
fn first_of(spec: &SubnetSpec) -> Result<IpAddr, Failure> {
    let unreserved = SubnetSpec { reserved: Default::default(), ..spec.clone() };
    pool_of(&unreserved)?.next().map_err(|_| {
        Failure::Invalid("failed to allocate gateway (): no available addresses on this pool".into())
    })
}

fn one_instance(kind: &str) -> Failure {
    Failure::Forbidden(format!("only one instance of \"{kind}\" network is allowed"))
}

/// The pools of a network's enabled families; of one whose description is complete.
pub(super) fn pools_of(spec: &NetworkSpec) -> Result<Vec<Pool>, Failure> {
    if !spec.driver.has_links() {
        return Ok(Vec::new());
    }
    let enabled = |subnet: IpNetwork| if subnet.is_ipv6() { spec.ipv6 } else { spec.ipv4 };
    spec.subnets.iter().filter(|s| s.subnet.is_some_and(enabled)).map(pool_of).collect()
}

/// The addresses of a subnet that can be given out, without its gateway and what is reserved.
fn pool_of(spec: &SubnetSpec) -> Result<Pool, Failure> {
    let Some(subnet) = spec.subnet else {
        return Err(Failure::Invalid("the network has no subnet".into()));
    };
    let range = match spec.ip_range {
        Some(range) if !(subnet.contains(range.network()) && range.prefix() >= subnet.prefix()) => {
            return Err(Failure::Invalid(format!("no matching subnet for range {range}")));
        }
        range => range,
    };
    let mut pool = Pool::new(subnet, range);
    if let Some(gateway) = spec.gateway {
        pool.take(gateway).map_err(|why| refused("gateway", &gateway, format!("({gateway})"), why))?;
    }
    for (name, ip) in &spec.reserved {
        pool.take(*ip).map_err(|why| refused("secondary ip address", ip, format!("({name}:{ip})"), why))?;
    }
    Ok(pool)
}

fn refused(what: &str, ip: &IpAddr, shown: String, why: NoAddress) -> Failure {
    Failure::Invalid(match why {
        NoAddress::Outside => format!("no matching subnet for {what} {ip}"),
        NoAddress::InUse | NoAddress::Exhausted => {
            format!("failed to allocate {what} {shown}: Address already in use")
        }
    })
}

fn check_interface(name: &str) -> Result<(), Failure> {
    if name.len() > LONGEST_INTERFACE {
        return Err(Failure::Invalid("numerical result out of range".into()));
    }
    if name.contains(|c: char| matches!(c, '/' | ':') || c.is_whitespace()) || matches!(name, "." | "..") {
        return Err(Failure::Invalid("invalid argument".into()));
    }
    let plain = |b: u8| b.is_ascii_graphic() && b != b'"' && b != b'\'';
    // With a plus at its end it would stand for other interfaces, too, in iptables' rules; the kernel makes a number of %d.
    if !name.bytes().all(plain) || name.ends_with('+') || name.contains('%') {
        return Err(Failure::Invalid(format!("invalid bridge name {name:?}")));
    }
    Ok(())
}
