//! Who is called what, in which network, and what each sandbox may ask. Look-ups take a read lock for
//! microseconds; a sandbox's entries are replaced as a whole.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

/// One endpoint's names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EndpointNames {
    /// The network's id.
    pub(crate) network: String,
    /// The network's name.
    pub(crate) network_name: String,
    pub(crate) addresses: Addresses,
    /// What peers call it; the first is its name in reverse look-ups.
    pub(crate) names: Vec<String>,
    /// What this sandbox alone calls others: alias → sandbox, or a name in the network.
    pub(crate) links: Vec<(String, String)>,
}

/// An endpoint's addresses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Addresses {
    pub(crate) v4: Option<Ipv4Addr>,
    pub(crate) v6: Option<Ipv6Addr>,
}

/// Kinds of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

/// Where a sandbox's other questions go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Outside {
    /// Whether the host's resolvers may be asked for it (not from internal networks).
    pub(crate) host_allowed: bool,
    /// Resolvers of its own; empty: the host's.
    pub(crate) upstreams: Vec<IpAddr>,
    /// The sandbox's namespace, from which its own resolvers are asked.
    pub(crate) namespace: PathBuf,
    /// Whether names of one label are asked of nobody outside (there is an option `ndots`).
    pub(crate) single_labels_stay: bool,
}

/// What is known about a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// Its addresses; none if it has none of the family.
    Addresses(Vec<IpAddr>),
    Unknown(Arc<Outside>),
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
    /// Lower-case name → whose it is.
    forward: HashMap<String, Vec<Owner>>,
    /// Address → NAME.NETWORK.
    reverse: HashMap<IpAddr, String>,
}

#[derive(Debug)]
struct Owner {
    addresses: Addresses,
    sandbox: Arc<str>,
}

#[derive(Debug)]
struct View {
    endpoints: Vec<EndpointNames>,
    outside: Arc<Outside>,
}

impl Addresses {
    fn of(self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.v4.map(IpAddr::V4),
            Family::V6 => self.v6.map(IpAddr::V6),
        }
    }

    fn all(self) -> impl Iterator<Item = IpAddr> {
        [self.of(Family::V4), self.of(Family::V6)].into_iter().flatten()
    }
}

impl Names {
    /// Makes a sandbox's names known, instead of those that it had.
    pub(crate) fn publish(&self, sandbox: &str, endpoints: Vec<EndpointNames>, outside: Outside) {
        let owner: Arc<str> = sandbox.into();
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        tables.withdraw(sandbox);
        for endpoint in &endpoints {
            let network = tables.networks.entry(endpoint.network.clone()).or_default();
            network.name = endpoint.network_name.to_lowercase();
            for name in &endpoint.names {
                let entry = network.forward.entry(name.to_lowercase()).or_default();
                if !entry.iter().any(|o| o.sandbox == owner) {
                    entry.push(Owner { addresses: endpoint.addresses, sandbox: owner.clone() });
                }
            }
            if let Some(name) = endpoint.names.first() {
                for ip in endpoint.addresses.all() {
                    network.reverse.insert(ip, format!("{name}.{}", endpoint.network_name));
                }
            }
        }
        tables.sandboxes.insert(sandbox.into(), View { endpoints, outside: Arc::new(outside) });
    }

    /// Forgets a sandbox's names.
    pub(crate) fn withdraw(&self, sandbox: &str) {
        self.tables.write().unwrap_or_else(PoisonError::into_inner).withdraw(sandbox);
    }

    /// The addresses of `name` (in lower case) as `sandbox` sees it, in the first of its networks that has some: its
    /// own links first. `name.network` asks one network.
    pub(crate) fn addresses(&self, sandbox: &str, name: &str, family: Family) -> Found {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        let Some(view) = tables.sandboxes.get(sandbox) else { return Found::Unknown(Arc::default()) };
        let mut known = false;
        for dotted in [false, true] {
            for endpoint in &view.endpoints {
                let Some(network) = tables.networks.get(&endpoint.network) else { continue };
                let Some(name) = (if dotted { network.inside(name) } else { Some(name) }) else { continue };
                let Some(found) = tables.in_network(endpoint, network, name, family) else { continue };
                known = true;
                if !found.is_empty() {
                    return Found::Addresses(found);
                }
            }
        }
        if known { Found::Addresses(Vec::new()) } else { Found::Unknown(view.outside.clone()) }
    }

    /// Where the sandbox's questions go that have nothing to do with names of ours.
    pub(crate) fn outside(&self, sandbox: &str) -> Arc<Outside> {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        tables.sandboxes.get(sandbox).map(|v| v.outside.clone()).unwrap_or_default()
    }

    /// The name of the container that has `ip` in one of the sandbox's networks.
    pub(crate) fn pointer(&self, sandbox: &str, ip: IpAddr) -> Result<String, Arc<Outside>> {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        let Some(view) = tables.sandboxes.get(sandbox) else { return Err(Arc::default()) };
        view.endpoints
            .iter()
            .find_map(|e| tables.networks.get(&e.network)?.reverse.get(&ip).cloned())
            .ok_or_else(|| view.outside.clone())
    }
}

impl NetworkNames {
    /// The part before the network's own name.
    fn inside<'a>(&self, name: &'a str) -> Option<&'a str> {
        name.strip_suffix(self.name.as_str())?.strip_suffix('.')
    }
}

impl Tables {
    /// `None`: the network does not know the name.
    fn in_network(
        &self,
        own: &EndpointNames,
        network: &NetworkNames,
        name: &str,
        family: Family,
    ) -> Option<Vec<IpAddr>> {
        let link = own.links.iter().find(|(alias, _)| alias.eq_ignore_ascii_case(name));
        if let Some(target) = link.and_then(|(_, target)| self.addresses_in(target, &own.network)) {
            return Some(target.of(family).into_iter().collect());
        }
        let linked = link.and_then(|(_, target)| network.forward.get(&target.to_lowercase()));
        let owners = linked.or_else(|| network.forward.get(name))?;
        Some(owners.iter().filter_map(|o| o.addresses.of(family)).collect())
    }

    fn addresses_in(&self, sandbox: &str, network: &str) -> Option<Addresses> {
        let view = self.sandboxes.get(sandbox)?;
        view.endpoints.iter().find(|e| e.network == network).map(|e| e.addresses)
    }

    fn withdraw(&mut self, sandbox: &str) {
        let Some(view) = self.sandboxes.remove(sandbox) else { return };
        for endpoint in &view.endpoints {
            let Some(network) = self.networks.get_mut(&endpoint.network) else { continue };
            for name in &endpoint.names {
                let name = name.to_lowercase();
                if let Some(entry) = network.forward.get_mut(&name) {
                    entry.retain(|owner| &*owner.sandbox != sandbox);
                    if entry.is_empty() {
                        network.forward.remove(&name);
                    }
                }
            }
            for ip in endpoint.addresses.all() {
                network.reverse.remove(&ip);
            }
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
            addresses: Addresses { v4: Some(ip(network, last)), v6: None },
            names: names.iter().map(|n| (*n).into()).collect(),
            links: links.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect(),
        }
    }

    fn ip(network: &str, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, network.len() as u8, 0, last)
    }

    fn outside() -> Outside {
        Outside { host_allowed: true, upstreams: vec!["192.0.2.53".parse().unwrap()], ..Outside::default() }
    }

    #[test]
    fn names_are_those_of_the_askers_networks() {
        let names = Names::default();
        names.publish("a", vec![endpoint("net", 2, &["Es", "search"], &[])], outside());
        names.publish("b", vec![endpoint("net", 3, &["es2", "search"], &[("db", "a")])], outside());
        names.publish("c", vec![endpoint("other", 2, &["c"], &[])], Outside::default());
        #[track_caller]
        fn check(names: &Names, sandbox: &str, name: &str, expect: &[u8]) {
            let found = names.addresses(sandbox, name, Family::V4);
            let expect = expect.iter().map(|last| IpAddr::V4(ip("net", *last))).collect::<Vec<_>>();
            match found {
                Found::Addresses(got) => assert_eq!(got, expect),
                Found::Unknown(_) => assert!(expect.is_empty(), "{name} is unknown to {sandbox}"),
            }
        }
        check(&names, "b", "es", &[2]);
        check(&names, "b", "es.net", &[2]);
        check(&names, "b", "search", &[2, 3]);
        check(&names, "b", "db", &[2]);
        check(&names, "b", "db.net", &[2]);
        // A link by name is to whoever has it.
        let links = [("db", "a"), ("later", "Es"), ("es", "nobody")];
        names.publish("b", vec![endpoint("net", 3, &["es2", "search"], &links)], outside());
        check(&names, "b", "later", &[2]);
        check(&names, "b", "es", &[2]);
        check(&names, "a", "db", &[]);
        check(&names, "c", "es", &[]);
        check(&names, "c", "es.net", &[]);
        check(&names, "b", "esnet", &[]);
        assert_eq!(
            names.addresses("b", "es", Family::V6),
            Found::Addresses(Vec::new()),
            "known, without one"
        );
        assert_eq!(names.addresses("b", "db", Family::V6), Found::Addresses(Vec::new()));
        assert_eq!(names.addresses("a", "example.com", Family::V4), Found::Unknown(outside().into()));
        assert_eq!(names.addresses("gone", "es", Family::V4), Found::Unknown(Arc::default()));
        assert_eq!(names.pointer("a", ip("net", 3).into()), Ok("es2.net".into()));
        assert_eq!(names.pointer("c", ip("net", 3).into()), Err(Arc::default()));
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

    #[test]
    fn the_network_that_has_an_address_of_the_family_answers() {
        let names = Names::default();
        let both = || {
            let mut six = endpoint("six", 2, &["both"], &[]);
            six.addresses.v6 = "fd77::2".parse().ok();
            vec![endpoint("net", 2, &["both"], &[]), six]
        };
        names.publish("a", both(), outside());
        names.publish("b", vec![endpoint("net", 3, &[], &[]), endpoint("six", 3, &[], &[])], outside());
        let v6: IpAddr = "fd77::2".parse().unwrap();
        assert_eq!(names.addresses("b", "both", Family::V6), Found::Addresses(vec![v6]));
        assert_eq!(names.addresses("b", "both.net", Family::V6), Found::Addresses(Vec::new()));
        assert_eq!(names.addresses("b", "both", Family::V4), Found::Addresses(vec![ip("net", 2).into()]));
        assert_eq!(names.pointer("b", v6), Ok("both.six".into()));
        names.withdraw("a");
        assert!(names.pointer("b", v6).is_err());
    }
}
