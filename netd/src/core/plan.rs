//! Reserving what endpoints need (addresses, names of links, host ports), and giving it back. All of it
//! happens under the state's lock, and none of it waits.

use std::cmp::Reverse;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::kernel::{LinkPlan, On};
use super::{NetworkState, State, failed, parents};
use crate::ipam::NoAddress;
use crate::netlink::route::Mac;
use crate::ports::{HeldPort, Publishing};
use crate::protocol::{Driver, Endpoint, EndpointSpec, Failure, Sandbox, Settings};

/// An endpoint with all that is reserved for it.
pub(super) struct Reserved {
    pub(super) endpoint: Endpoint,
    /// `None` in networks without links.
    pub(super) link: Option<LinkPlan>,
    pub(super) held: Vec<HeldPort>,
}

impl State {
    /// Reserves one endpoint of `sandbox`, in which interfaces of these names are, or will be; its ports are not published yet.
    pub(super) fn reserve(
        &mut self,
        sandbox: &str,
        spec: &EndpointSpec,
        taken: &[&str],
    ) -> Result<Reserved, Failure> {
        let settings = self.settings()?.clone();
        let network = self.network_mut(&spec.network)?;
        if network.network.endpoints.contains_key(sandbox) {
            return Err(Failure::AlreadyConnected {
                name: spec.container_name.clone(),
                network: network.network.spec.name.clone(),
            });
        }
        if network.network.spec.driver == Driver::Description {
            return Err(Failure::Forbidden("cannot create endpoint on configuration-only network".into()));
        }
        let mac = match &spec.mac {
            Some(text) => parse_mac(text)?,
            None => random_mac()?,
        };
        let mut endpoint = Endpoint { spec: spec.clone(), ..Endpoint::default() };
        let mut link = None;
        if network.network.spec.driver.has_links() {
            let local = link_local(&spec.link_local, network.network.spec.ipv6)?;
            network.take_addresses(&mut endpoint)?;
            let name = match &spec.interface {
                Some(name) => numbered(name, taken),
                None => {
                    let prefix = network.network.spec.interface_prefix.as_deref().unwrap_or("eth");
                    numbered(&numbered(&format!("{prefix}%d"), taken), taken)
                }
            };
            let planned = network.plan_link(&mut endpoint, name, mac, &settings);
            let planned = match planned {
                Ok(planned) => planned,
                Err(failure) => {
                    network.give_back(&endpoint);
                    return Err(failure);
                }
            };
            link =
                Some(LinkPlan { addresses: planned.addresses.into_iter().chain(local).collect(), ..planned });
        }
        network.network.endpoints.insert(sandbox.into(), Box::new(endpoint.clone()));
        Ok(Reserved { endpoint, link, held: Vec::new() })
    }

    /// Takes host ports for an endpoint; all or none.
    pub(super) fn publish(&mut self, reserved: &mut Reserved) -> Result<(), Failure> {
        let settings = self.settings()?.clone();
        let endpoint = &mut reserved.endpoint;
        let network = &self.network(&endpoint.spec.network)?.network.spec;
        let nowhere = endpoint.ipv4.is_none() && endpoint.ipv6.is_none();
        if network.internal || network.driver != Driver::Bridge || nowhere {
            return Ok(());
        }
        let how = Publishing {
            default_ip: network.host_binding.unwrap_or(settings.default_host_ip),
            listen: settings.userland_proxy,
            container_v4: endpoint.ipv4.map(|n| n.ip()),
            container_v6: endpoint.ipv6.map(|n| n.ip()),
            mode_v4: network.gateway_mode_v4,
            mode_v6: network.gateway_mode_v6,
        };
        let mut held: Vec<HeldPort> = Vec::new();
        for spec in &endpoint.spec.ports {
            match self.ports.publish(spec, &how) {
                Ok(more) => held.extend(more),
                Err(failure) => {
                    held.iter().for_each(|h| self.ports.release(&h.bound));
                    return Err(failure);
                }
            }
        }
        endpoint.ports = held.iter().map(|h| h.bound.clone()).collect();
        reserved.held = held;
        if let Some(link) = &mut reserved.link {
            link.hairpin = !endpoint.ports.is_empty() && settings.iptables;
        }
        Ok(())
    }

    /// Gives back what [`State::reserve`] and [`State::publish`] took.
    pub(super) fn give_back(&mut self, sandbox: &str, endpoint: &Endpoint) {
        endpoint.ports.iter().for_each(|bound| self.ports.release(bound));
        let network = self.networks.iter_mut().find(|n| n.network.spec.id == endpoint.spec.network);
        if let Some(network) = network {
            network.give_back(endpoint);
            network.network.endpoints.remove(sandbox);
        }
    }

    /// Notes which endpoints the default routes go through: the greatest priority, then what has both families, then the
    /// alphabetically first network. Answers the one that ports are published at.
    pub(super) fn mark_default_routes(&self, endpoints: &mut [&mut Endpoint]) -> Option<usize> {
        let best = |v6: bool, endpoints: &[&mut Endpoint]| {
            let candidates = endpoints.iter().enumerate();
            let candidates =
                candidates.filter(|(_, e)| if v6 { e.gateway_v6.is_some() } else { e.gateway.is_some() });
            let best = candidates.max_by_key(|(_, endpoint)| {
                let name = self.network(&endpoint.spec.network).map(|n| n.network.spec.name.as_str());
                let both = endpoint.gateway.is_some() && endpoint.gateway_v6.is_some();
                (endpoint.spec.gateway_priority, both, Reverse(name.unwrap_or_default()))
            });
            best.map(|(index, _)| index)
        };
        let (v4, v6) = (best(false, endpoints), best(true, endpoints));
        for (index, endpoint) in endpoints.iter_mut().enumerate() {
            endpoint.default_route = Some(index) == v4;
            endpoint.default_route_v6 = Some(index) == v6;
        }
        v4.or(v6)
    }
}

impl NetworkState {
    fn give_back(&mut self, endpoint: &Endpoint) {
        for ip in addresses(endpoint) {
            self.pools.iter_mut().for_each(|pool| pool.release(ip.ip()));
        }
    }

    /// Takes addresses that an endpoint had before a restart. Nobody else can have them: only stored endpoints have been
    /// admitted so far.
    pub(super) fn take_again(&mut self, endpoint: &Endpoint) {
        for ip in addresses(endpoint) {
            for pool in &mut self.pools {
                let _ = pool.take(ip.ip());
            }
        }
    }

    /// Takes an endpoint's addresses, of each family that the network has.
    fn take_addresses(&mut self, endpoint: &mut Endpoint) -> Result<(), Failure> {
        let spec = &self.network.spec;
        let (v4, v6) = (spec.ipv4, spec.ipv6);
        if v4 && let IpNetwork::V4(ip) = self.take_address(endpoint.spec.ipv4.map(IpAddr::V4), false)? {
            endpoint.ipv4 = Some(ip);
            endpoint.gateway = match self.way_out(ip.ip().into()) {
                Some(IpAddr::V4(gateway)) => Some(gateway),
                _ => None,
            };
        }
        if v6 {
            match self.take_address(endpoint.spec.ipv6.map(IpAddr::V6), true) {
                Ok(IpNetwork::V6(ip)) => {
                    endpoint.ipv6 = Some(ip);
                    endpoint.gateway_v6 = match self.way_out(ip.ip().into()) {
                        Some(IpAddr::V6(gateway)) => Some(gateway),
                        _ => None,
                    };
                }
                Ok(IpNetwork::V4(_)) => {}
                Err(failure) => {
                    self.give_back(endpoint);
                    return Err(failure);
                }
            }
        }
        Ok(())
    }

    /// The gateway of an address; there is none in internal networks.
    fn way_out(&self, ip: IpAddr) -> Option<IpAddr> {
        let on_nothing = self.network.spec.sub.as_ref().is_some_and(|sub| sub.parent.is_empty());
        if self.network.spec.internal || on_nothing {
            return None;
        }
        let mut subnets = self.network.spec.subnets.iter();
        let own = subnets.find(|s| s.subnet.is_some_and(|subnet| subnet.contains(ip)))?;
        let other = own.other_gateway().filter(|_| self.network.spec.driver == Driver::Bridge);
        other.or(own.gateway)
    }

    fn take_address(&mut self, asked: Option<IpAddr>, v6: bool) -> Result<IpNetwork, Failure> {
        let exhausted = Failure::AddressesExhausted {
            family: if v6 { "IPv6" } else { "IPv4" }.into(),
            network: format!("{} ({})", self.network.spec.name, self.network.spec.id),
        };
        if asked.is_some() && !self.chosen_subnet {
            return Err(Failure::BadAddress(
                "user specified IP address is supported only when connecting to networks with user configured subnets"
                    .into(),
            ));
        }
        let mut refusal = NoAddress::Outside;
        for pool in self.pools.iter_mut().filter(|p| p.subnet().is_ipv6() == v6) {
            let taken = match asked {
                Some(ip) => pool.take(ip).map(|()| ip),
                None => pool.next(),
            };
            match taken {
                Ok(ip) => {
                    return IpNetwork::new(ip, pool.subnet().prefix())
                        .map_err(|e| Failure::Invalid(e.to_string()));
                }
                Err(NoAddress::Outside) => {}
                Err(why) => refusal = why,
            }
        }
        Err(match (refusal, asked) {
            (NoAddress::Outside, Some(ip)) => {
                Failure::BadAddress(format!("no configured subnet or ip-range contain the IP address {ip}"))
            }
            (NoAddress::InUse, _) => Failure::AddressInUse,
            _ => exhausted,
        })
    }

    /// The interface of an endpoint that has its addresses.
    fn plan_link(
        &self,
        endpoint: &mut Endpoint,
        interface: String,
        mac: Mac,
        settings: &Settings,
    ) -> Result<LinkPlan, Failure> {
        let spec = &self.network.spec;
        check_name(&interface)?;
        let on = match &spec.sub {
            None => {
                endpoint.host_interface = format!("veth{}", link_suffix()?);
                On::Bridge(self.bridge().into())
            }
            Some(sub) => On::Parent(parents::interface(spec), parents::kind(spec.driver, sub)?),
        };
        let mtu = match on {
            On::Bridge(_) => spec.mtu.or(Some(settings.mtu)),
            On::Parent(..) => spec.mtu,
        };
        endpoint.mac = if spec.driver == Driver::Ipvlan { String::new() } else { format_mac(mac) };
        endpoint.interface = interface;
        Ok(LinkPlan {
            host_name: endpoint.host_interface.clone(),
            interface: endpoint.interface.clone(),
            on,
            mtu,
            mac,
            addresses: addresses(endpoint).collect(),
            sysctls: endpoint.spec.sysctls.clone(),
            hairpin: false,
            announced: !spec.unannounced,
        })
    }
}

/// An endpoint's addresses.
pub(super) fn addresses(endpoint: &Endpoint) -> impl Iterator<Item = IpNetwork> + use<> {
    endpoint.ipv4.map(IpNetwork::V4).into_iter().chain(endpoint.ipv6.map(IpNetwork::V6))
}

/// The name with the lowest number that no other has in the place of `%d`, as the kernel does it.
fn numbered(name: &str, taken: &[&str]) -> String {
    let Some((before, after)) = name.split_once("%d") else { return name.into() };
    let mut all = (0..).map(|number| format!("{before}{number}{after}"));
    all.find(|name| !taken.contains(&name.as_str())).unwrap_or_default()
}

/// The names that interfaces of a sandbox have.
pub(super) fn interface_names(sandbox: &Sandbox) -> Vec<&str> {
    sandbox.endpoints.iter().map(|e| e.interface.as_str()).collect()
}

/// Link-local addresses with the prefixes of their ranges.
fn link_local(asked: &[IpAddr], ipv6: bool) -> Result<Vec<IpNetwork>, Failure> {
    let with_prefix = |ip: &IpAddr| {
        let prefix = match ip {
            IpAddr::V4(v4) if v4.is_link_local() => 16,
            IpAddr::V6(v6) if v6.is_unicast_link_local() && ipv6 => 64,
            IpAddr::V6(v6) if v6.is_unicast_link_local() => {
                return Err(Failure::Invalid(format!(
                    "error setting link local IP {v6}: the network has no IPv6: permission denied"
                )));
            }
            other => return Err(Failure::Invalid(format!("invalid link local IP address: {other}"))),
        };
        IpNetwork::new(*ip, prefix).map_err(|e| Failure::Invalid(e.to_string()))
    };
    asked.iter().map(with_prefix).collect()
}

/// Refuses names that no interface can have.
fn check_name(interface: &str) -> Result<(), Failure> {
    const LONGEST: usize = 15;
    let refuse =
        |why: &str| Err(Failure::Invalid(format!("failed to add interface {interface:?} to sandbox: {why}")));
    match interface {
        name if name.len() > LONGEST => refuse("numerical result out of range"),
        "" | "." | ".." | "all" | "default" => refuse("invalid argument"),
        name if name.contains(|c: char| matches!(c, '/' | ':' | '%') || c.is_whitespace()) => {
            refuse("invalid argument")
        }
        "lo" => refuse("file exists"),
        _ => Ok(()),
    }
}

/// Reads `02:42:ac:11:00:02`.
pub(super) fn parse_mac(text: &str) -> Result<Mac, Failure> {
    let wrong = || Failure::Invalid(format!("invalid MAC address {text}"));
    let mut parts = text.split([':', '-']);
    let mut mac = Mac::default();
    for byte in &mut mac {
        let part = parts.next().filter(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()));
        *byte = u8::from_str_radix(part.ok_or_else(wrong)?, 16).map_err(|_| wrong())?;
    }
    // A group address is nobody's own.
    if parts.next().is_some() || mac[0] & 1 != 0 || mac == Mac::default() {
        return Err(wrong());
    }
    Ok(mac)
}

/// Random, locally administered.
pub(super) fn random_mac() -> Result<Mac, Failure> {
    let mut mac: Mac = crate::random::bytes().map_err(failed("read", "random bytes"))?;
    mac[0] = (mac[0] | 0x02) & 0xfe;
    Ok(mac)
}

fn format_mac(mac: Mac) -> String {
    let [a, b, c, d, e, f] = mac;
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

fn link_suffix() -> Result<String, Failure> {
    let mut digits = crate::random::hex::<4>().map_err(failed("read", "random bytes"))?;
    digits.truncate(7);
    Ok(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_names() {
        for (name, expect) in [("eth%d", "eth2"), ("%d", "1"), ("a%d.0", "a0.0"), ("foo", "foo"), ("%", "%")]
        {
            assert_eq!(numbered(name, &["eth0", "eth1", "eth3", "0"]), expect);
        }
        for name in ["eth%d", "100%", "a/b", "lo", "", "..", "waytoolonginterface"] {
            assert!(check_name(name).is_err(), "{name}");
        }
        check_name("-x").unwrap();
    }

    #[test]
    fn hardware_addresses() {
        assert_eq!(parse_mac("02:42:AC:11:00:02").unwrap(), [2, 0x42, 0xac, 0x11, 0, 2]);
        assert_eq!(format_mac([2, 0x42, 0xac, 0x11, 0, 2]), "02:42:ac:11:00:02");
        for text in [
            "",
            "02:42",
            "02:42:ac:11:00:02:03",
            "01:42:ac:11:00:02",
            "g2:42:ac:11:00:02",
            "+2:42:ac:11:00:02",
        ] {
            assert!(parse_mac(text).is_err(), "{text}");
        }
        let mac = random_mac().unwrap();
        assert_eq!(mac[0] & 3, 2);
    }
}
