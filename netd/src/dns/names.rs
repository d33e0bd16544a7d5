//! Who is called what, in which network, and what each sandbox may ask. Look-ups take a read lock for
//! microseconds; a sandbox's entries are replaced as a whole.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{PoisonError, RwLock};

/// One endpoint's names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EndpointNames {
    /// The network's id.
    pub(crate) network: String,
    /// The network's name.
    pub(crate) network_name: String,
    pub(crate) ip: Ipv4Addr,
    /// What peers call it; the first is its name in reverse look-ups.
    pub(crate) names: Vec<String>,
    /// What this sandbox alone calls others: alias → sandbox.
    pub(crate) links: Vec<(String, String)>,
}

/// Where a sandbox's other questions go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Outside {
    /// Whether they may leave the host at all.
    pub(crate) allowed: bool,
    /// To whom; empty: to the host's resolvers.
    pub(crate) upstreams: Vec<IpAddr>,
}

/// What is known about a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    Addresses(Vec<Ipv4Addr>),
    Unknown(Outside),
}

/// All names of all networks.
#[derive(Debug, Default)]
pub(crate) struct Names {
    tables: RwLock<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    networks: HashMap<String, NetworkNames>,
    sandboxes: HashMap<String, View>,
}

#[derive(Debug, Default)]
struct NetworkNames {
    name: String,
    /// Lower-case name → (address, sandbox).
    forward: HashMap<String, Vec<(Ipv4Addr, String)>>,
    /// Address → NAME.NETWORK.
    reverse: HashMap<Ipv4Addr, String>,
}

#[derive(Debug)]
struct View {
    endpoints: Vec<EndpointNames>,
    outside: Outside,
}

impl Names {
    /// Makes a sandbox's names known, instead of those that it had.
    pub(crate) fn publish(&self, sandbox: &str, endpoints: Vec<EndpointNames>, outside: Outside) {
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        tables.withdraw(sandbox);
        for endpoint in &endpoints {
            let network = tables.networks.entry(endpoint.network.clone()).or_default();
            network.name = endpoint.network_name.to_lowercase();
            for name in &endpoint.names {
                let entry = network.forward.entry(name.to_lowercase()).or_default();
                if !entry.iter().any(|(ip, _)| *ip == endpoint.ip) {
                    entry.push((endpoint.ip, sandbox.into()));
                }
            }
            if let Some(name) = endpoint.names.first() {
                network.reverse.insert(endpoint.ip, format!("{name}.{}", endpoint.network_name));
            }
        }
        tables.sandboxes.insert(sandbox.into(), View { endpoints, outside });
    }

    /// Forgets a sandbox's names.
    pub(crate) fn withdraw(&self, sandbox: &str) {
        self.tables.write().unwrap_or_else(PoisonError::into_inner).withdraw(sandbox);
    }

    /// The addresses of `name` (in lower case) as `sandbox` sees it: its own links first, then its networks in
    /// order; the first that knows the name answers. `name.network` asks one network.
    pub(crate) fn addresses(&self, sandbox: &str, name: &str) -> Found {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        let Some(view) = tables.sandboxes.get(sandbox) else { return Found::Unknown(Outside::default()) };
        view.endpoints
            .iter()
            .find_map(|endpoint| tables.in_network(endpoint, name))
            .map_or_else(|| Found::Unknown(view.outside.clone()), Found::Addresses)
    }

    /// Where the sandbox's questions go that have nothing to do with names of ours.
    pub(crate) fn outside(&self, sandbox: &str) -> Outside {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        tables.sandboxes.get(sandbox).map(|v| v.outside.clone()).unwrap_or_default()
    }

    /// The name of the container that has `ip` in one of the sandbox's networks.
    pub(crate) fn pointer(&self, sandbox: &str, ip: Ipv4Addr) -> Result<String, Outside> {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        let Some(view) = tables.sandboxes.get(sandbox) else { return Err(Outside::default()) };
        view.endpoints
            .iter()
            .find_map(|e| tables.networks.get(&e.network)?.reverse.get(&ip).cloned())
            .ok_or_else(|| view.outside.clone())
    }
}

impl Tables {
    fn in_network(&self, own: &EndpointNames, name: &str) -> Option<Vec<Ipv4Addr>> {
        let network = self.networks.get(&own.network)?;
        let bare = name.strip_suffix(network.name.as_str()).and_then(|n| n.strip_suffix('.'));
        [Some(name), bare].into_iter().flatten().find_map(|name| {
            let link = own.links.iter().find(|(alias, _)| alias.eq_ignore_ascii_case(name));
            link.and_then(|(_, target)| self.address_of(target, &own.network))
                .or_else(|| Some(network.forward.get(name)?.iter().map(|(ip, _)| *ip).collect()))
        })
    }

    fn address_of(&self, sandbox: &str, network: &str) -> Option<Vec<Ipv4Addr>> {
        let view = self.sandboxes.get(sandbox)?;
        view.endpoints.iter().find(|e| e.network == network).map(|e| vec![e.ip])
    }

    fn withdraw(&mut self, sandbox: &str) {
        let Some(view) = self.sandboxes.remove(sandbox) else { return };
        for endpoint in &view.endpoints {
            let Some(network) = self.networks.get_mut(&endpoint.network) else { continue };
            for name in &endpoint.names {
                let name = name.to_lowercase();
                if let Some(entry) = network.forward.get_mut(&name) {
                    entry.retain(|(_, owner)| owner != sandbox);
                    if entry.is_empty() {
                        network.forward.remove(&name);
                    }
                }
            }
            network.reverse.remove(&endpoint.ip);
            if network.forward.is_empty() && network.reverse.is_empty() {
                self.networks.remove(&endpoint.network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(network: &str, last: u8, names: &[&str], links: &[(&str, &str)]) -> EndpointNames {
        EndpointNames {
            network: format!("{network}-id"),
            network_name: network.into(),
            ip: ip(network, last),
            names: names.iter().map(|n| (*n).into()).collect(),
            links: links.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect(),
        }
    }

    fn ip(network: &str, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, network.len() as u8, 0, last)
    }

    fn outside() -> Outside {
        Outside { allowed: true, upstreams: vec!["192.0.2.53".parse().unwrap()] }
    }

    #[test]
    fn names_are_those_of_the_askers_networks() {
        let names = Names::default();
        names.publish("a", vec![endpoint("net", 2, &["Es", "search"], &[])], outside());
        names.publish("b", vec![endpoint("net", 3, &["es2", "search"], &[("db", "a")])], outside());
        names.publish("c", vec![endpoint("other", 2, &["c"], &[])], Outside::default());
        #[track_caller]
        fn check(names: &Names, sandbox: &str, name: &str, expect: &[u8]) {
            let found = names.addresses(sandbox, name);
            let expect = expect.iter().map(|last| ip("net", *last)).collect::<Vec<_>>();
            match found {
                Found::Addresses(got) => assert_eq!(got, expect),
                Found::Unknown(_) => assert!(expect.is_empty(), "{name} is unknown to {sandbox}"),
            }
        }
        check(&names, "b", "es", &[2]);
        check(&names, "b", "es.net", &[2]);
        check(&names, "b", "search", &[2, 3]);
        check(&names, "b", "db", &[2]);
        check(&names, "a", "db", &[]);
        check(&names, "c", "es", &[]);
        check(&names, "c", "es.net", &[]);
        check(&names, "b", "esnet", &[]);
        assert_eq!(names.addresses("a", "example.com"), Found::Unknown(outside()));
        assert_eq!(names.addresses("gone", "es"), Found::Unknown(Outside::default()));
        assert_eq!(names.pointer("a", ip("net", 3)), Ok("es2.net".into()));
        assert_eq!(names.pointer("c", ip("net", 3)), Err(Outside::default()));
        names.publish("a", vec![endpoint("net", 2, &["renamed"], &[])], outside());
        check(&names, "b", "es", &[]);
        check(&names, "b", "renamed", &[2]);
        check(&names, "b", "search", &[3]);
        for sandbox in ["a", "b", "c"] {
            names.withdraw(sandbox);
        }
        let tables = names.tables.read().unwrap();
        assert!(tables.networks.is_empty() && tables.sandboxes.is_empty(), "nothing is kept");
    }
}
