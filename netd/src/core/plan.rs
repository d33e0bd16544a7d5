//! Reserving what endpoints need (addresses, names of links, host ports), and giving it back. All of it
//! happens under the state's lock, and none of it waits.

use std::cmp::Reverse;
use std::net::Ipv4Addr;

use ipnetwork::Ipv4Network;

use super::kernel::LinkPlan;
use super::{NetworkState, State, failed};
use crate::ipam::NoAddress;
use crate::netlink::route::Mac;
use crate::ports::{HeldPort, Publishing};
use crate::protocol::{Driver, Endpoint, EndpointSpec, Failure, Settings};

/// An endpoint with all that is reserved for it.
pub(super) struct Reserved {
    pub(super) endpoint: Endpoint,
    /// `None` in networks without a bridge.
    pub(super) link: Option<LinkPlan>,
    pub(super) held: Vec<HeldPort>,
}

impl State {
    /// Reserves one endpoint of `sandbox`, as interface number `number`.
    pub(super) fn reserve(
        &mut self,
        sandbox: &str,
        spec: &EndpointSpec,
        number: usize,
    ) -> Result<Reserved, Failure> {
        let settings = self.settings()?.clone();
        let network = self.network_mut(&spec.network)?;
        if network.network.endpoints.contains_key(sandbox) {
            return Err(Failure::AlreadyConnected {
                name: spec.container_name.clone(),
                network: network.network.spec.name.clone(),
            });
        }
        let mac = match &spec.mac {
            Some(text) => parse_mac(text)?,
            None => random_mac()?,
        };
        let mut endpoint = Endpoint {
            spec: spec.clone(),
            interface: String::new(),
            host_interface: String::new(),
            ipv4: None,
            gateway: None,
            mac: String::new(),
            default_route: false,
            ports: Vec::new(),
        };
        let mut link = None;
        if network.network.spec.driver == Driver::Bridge {
            let address = network.take_address(spec)?;
            endpoint.ipv4 = Some(address);
            endpoint.gateway = network.way_out();
            endpoint.mac = format_mac(mac);
            endpoint.interface = format!("eth{number}");
            endpoint.host_interface = format!("veth{}", link_suffix()?);
            link = Some(LinkPlan {
                host_name: endpoint.host_interface.clone(),
                interface: endpoint.interface.clone(),
                bridge: network.bridge().into(),
                mtu: network.network.spec.mtu.unwrap_or(settings.mtu),
                mac,
                address,
                hairpin: !spec.ports.is_empty() && settings.iptables,
            });
        }
        let held = match self.publish(&endpoint, &settings) {
            Ok(held) => held,
            Err(failure) => {
                self.give_back(sandbox, &endpoint);
                return Err(failure);
            }
        };
        endpoint.ports = held.iter().map(|h| h.bound.clone()).collect();
        self.network_mut(&spec.network)?.network.endpoints.insert(sandbox.into(), endpoint.clone());
        Ok(Reserved { endpoint, link, held })
    }

    /// Takes the host ports of an endpoint that is to have these; all or none.
    fn publish(&mut self, endpoint: &Endpoint, settings: &Settings) -> Result<Vec<HeldPort>, Failure> {
        let Some(address) = endpoint.ipv4 else { return Ok(Vec::new()) };
        let network = &self.network(&endpoint.spec.network)?.network.spec;
        if network.internal {
            return Ok(Vec::new());
        }
        let how = Publishing {
            default_ip: network.host_binding.unwrap_or(settings.default_host_ip),
            listen: settings.userland_proxy,
            container_ip: address.ip(),
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
        Ok(held)
    }

    /// Gives back what [`State::reserve`] took.
    pub(super) fn give_back(&mut self, sandbox: &str, endpoint: &Endpoint) {
        endpoint.ports.iter().for_each(|bound| self.ports.release(bound));
        let network = self.networks.iter_mut().find(|n| n.network.spec.id == endpoint.spec.network);
        if let Some(network) = network {
            if let (Some(pool), Some(address)) = (&mut network.pool, endpoint.ipv4) {
                pool.release(address.ip());
            }
            network.network.endpoints.remove(sandbox);
        }
    }

    /// Which endpoint the default route goes through: the greatest priority, then the alphabetically
    /// first network.
    pub(super) fn best_gateway(&self, endpoints: &[Endpoint]) -> Option<usize> {
        let candidates = endpoints.iter().enumerate().filter(|(_, e)| e.gateway.is_some());
        let best = candidates.max_by_key(|(_, endpoint)| {
            let name = self.network(&endpoint.spec.network).map(|n| n.network.spec.name.as_str());
            (endpoint.spec.gateway_priority, Reverse(name.unwrap_or_default()))
        });
        best.map(|(index, _)| index)
    }
}

impl NetworkState {
    /// The gateway of its endpoints; internal networks have none.
    fn way_out(&self) -> Option<Ipv4Addr> {
        if self.network.spec.internal {
            return None;
        }
        match self.network.spec.subnets.first()?.gateway? {
            std::net::IpAddr::V4(gateway) => Some(gateway),
            std::net::IpAddr::V6(_) => None,
        }
    }

    fn take_address(&mut self, spec: &EndpointSpec) -> Result<Ipv4Network, Failure> {
        let name = format!("{} ({})", self.network.spec.name, self.network.spec.id);
        if spec.ipv4.is_some() && !self.chosen_subnet {
            return Err(Failure::BadAddress(
                "user specified IP address is supported only when connecting to networks with user configured subnets"
                    .into(),
            ));
        }
        let pool = self.pool.as_mut().ok_or_else(|| Failure::AddressesExhausted(name.clone()))?;
        let taken = match spec.ipv4 {
            Some(ip) => pool.take(ip).map(|()| ip),
            None => pool.next(),
        };
        let ip = taken.map_err(|why| match (why, spec.ipv4) {
            (NoAddress::Outside, Some(ip)) => {
                Failure::BadAddress(format!("no configured subnet or ip-range contain the IP address {ip}"))
            }
            (NoAddress::InUse, _) => Failure::AddressInUse,
            _ => Failure::AddressesExhausted(name),
        })?;
        Ipv4Network::new(ip, pool.subnet().prefix()).map_err(|e| Failure::Invalid(e.to_string()))
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
