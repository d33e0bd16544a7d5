//! Making and releasing sandboxes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use super::kernel::{self, DefaultRoutes, NamespacePlan};
use super::networks::bridge_rules;
use super::plan::{Reserved, addresses};
use super::ports::{Published, forget_flows};
use super::{Netd, SandboxState, State, failed};
use crate::backstage::Remains;
use crate::dns::names::{Addresses, EndpointNames, Outside};
use crate::dns::service::{DnsPorts, DnsService, DnsSockets};
use crate::firewall::Pending;
use crate::firewall::wanted::{Family, PortRules};
use crate::handover::Left;
use crate::journal;
use crate::protocol::{Driver, Endpoint, Failure, Sandbox, SandboxSpec, VERSION};
use crate::store::{StoredSandbox, is_id};

impl Netd {
    pub(super) fn create_sandbox(&self, spec: SandboxSpec) -> Result<Sandbox, Failure> {
        if !is_id(&spec.id) {
            return Err(Failure::Invalid(format!("invalid sandbox id {:?}", spec.id)));
        }
        let _turn = self.turn(&spec.id);
        self.take_down(&spec.id);
        let mut reserved = self.reserve_all(&spec)?;
        let made = self.build(&spec, &reserved).and_then(|(netns, sockets)| {
            let endpoints = reserved.iter().map(|r| r.endpoint.clone()).collect();
            let asked = SandboxSpec { endpoints: Vec::new(), ..spec.clone() };
            let sandbox = Sandbox { id: spec.id.clone(), netns, endpoints, spec: asked };
            self.confirm(sandbox, &mut reserved, sockets)
        });
        made.inspect_err(|_| {
            let mut state = self.state();
            reserved.iter().for_each(|r| state.give_back(&spec.id, &r.endpoint));
            drop(self.follow_links(&mut state));
        })
    }

    pub(super) fn release_sandbox(&self, id: &str) -> Result<(), Failure> {
        let _turn = self.turn(id);
        self.take_down(id);
        Ok(())
    }

    fn reserve_all(&self, spec: &SandboxSpec) -> Result<Vec<Reserved>, Failure> {
        let mut state = self.state();
        let on_host = spec.endpoints.iter().any(|e| state.driver(&e.network) == Some(Driver::Host));
        if on_host && spec.endpoints.len() > 1 {
            return Err(Failure::Invalid(
                "cannot connect container to host network and other networks".into(),
            ));
        }
        let mut reserved: Vec<Reserved> = Vec::with_capacity(spec.endpoints.len());
        let done = state.reserve_each(spec, &mut reserved);
        if let Err(failure) = done {
            reserved.iter().for_each(|r| state.give_back(&spec.id, &r.endpoint));
            return Err(failure);
        }
        Ok(reserved)
    }

    /// The kernel's part; if it fails nothing of it is left.
    fn build(
        &self,
        spec: &SandboxSpec,
        reserved: &[Reserved],
    ) -> Result<(PathBuf, Option<DnsSockets>), Failure> {
        let rules = self.port_rules(reserved.iter().map(|r| &r.endpoint));
        {
            let state = self.state();
            if spec.endpoints.iter().any(|e| state.driver(&e.network) == Some(Driver::Host)) {
                // The host's own namespace: nothing is made.
                return Ok((PathBuf::new(), None));
            }
        }
        let path = self.paths.new_namespace(&spec.id).map_err(failed("name", "network namespace"))?;
        let plan = NamespacePlan {
            path: path.clone(),
            links: reserved.iter().filter_map(|r| r.link.clone()).collect(),
            default_routes: default_routes(reserved.iter().map(|r| &r.endpoint)),
            sysctls: spec.sysctls.clone(),
            resolver: spec.resolver,
        };
        // The firewall's program runs while the kernel makes the namespace.
        let pending = (!rules.is_empty()).then(|| self.firewall.add(rules.clone()));
        let linked = self.follow_links(&mut self.state());
        let made = kernel::make_namespace(&plan, self.backstage.blank_namespace(), &self.announcer);
        self.wait_for_old_rules(reserved);
        let ruled = pending.map_or(Ok(()), Pending::finish).and_then(|()| {
            // The ports' hold already.
            linked.map_or(Ok(()), Pending::finish).inspect_err(|_| self.remove_rules(&rules))
        });
        match (made, ruled) {
            (Ok(sockets), Ok(())) => Ok((path, sockets)),
            (Ok(_), Err(failure)) => {
                let links =
                    plan.links.into_iter().map(|l| l.host_name).filter(|name| !name.is_empty()).collect();
                self.backstage.take_down(Remains { namespace: Some(path), links });
                Err(failure)
            }
            (Err(failure), Ok(())) => {
                self.remove_rules(&rules);
                Err(failure)
            }
            (Err(failure), Err(_)) => Err(failure),
        }
    }

    /// Makes a built sandbox known, and its ports, names and resolver work.
    fn confirm(
        &self,
        sandbox: Sandbox,
        reserved: &mut [Reserved],
        sockets: Option<DnsSockets>,
    ) -> Result<Sandbox, Failure> {
        let undo = |failure: Failure| {
            self.remove_rules(&self.port_rules(&sandbox.endpoints));
            self.backstage.take_down(remains_of(&sandbox));
            failure
        };
        let dns = self.serve(&sandbox.id, sockets).map_err(undo)?;
        self.save(&sandbox, dns.as_ref().map(|d| d.0)).map_err(undo)?;
        let relayed = self.state().settings().is_ok_and(|s| s.userland_proxy);
        let mut published = BTreeMap::new();
        for Reserved { endpoint, held, .. } in reserved {
            if held.is_empty() {
                continue;
            }
            let one =
                Published::start(&self.relays, endpoint, std::mem::take(held), relayed, &mut Left::default());
            forget_flows(&one.bound);
            published.insert(endpoint.spec.network.clone(), one);
        }
        let mut state = self.state();
        for endpoint in &sandbox.endpoints {
            state.update_endpoint(&sandbox.id, endpoint);
        }
        self.publish_names(&state, &sandbox);
        state.sandboxes.insert(sandbox.id.clone(), SandboxState { sandbox: sandbox.clone(), published, dns });
        Ok(sandbox)
    }

    /// Releases what there is of a sandbox: everything but slow kernel work is done when this returns.
    pub(super) fn take_down(&self, id: &str) {
        let Some(SandboxState { sandbox, published, dns }) = self.state().sandboxes.remove(id) else {
            return;
        };
        self.names.withdraw(id);
        drop(dns);
        let links = sandbox.endpoints.iter().map(|e| e.host_interface.as_str());
        if let Err(failure) = kernel::disable_ports(&links.filter(|l| !l.is_empty()).collect::<Vec<_>>()) {
            journal::note(format_args!("release {id}: {failure}"));
        }
        for one in published.into_values() {
            forget_flows(&one.stop(&self.relays));
        }
        self.forget_rules(&sandbox);
        drop_sub_interfaces(&sandbox);
        if let Err(e) = self.paths.remove_sandbox(id) {
            journal::note(format_args!("release {id}: remove its file: {e}"));
        }
        {
            let mut state = self.state();
            sandbox.endpoints.iter().for_each(|e| state.give_back(id, e));
            drop(self.follow_links(&mut state));
        }
        self.backstage.take_down(remains_of(&sandbox));
    }

    /// The rules of these endpoints' ports; none if we make no rules.
    pub(super) fn port_rules<'a>(&self, endpoints: impl IntoIterator<Item = &'a Endpoint>) -> Vec<PortRules> {
        let state = self.state();
        let Some(settings) = &state.settings else { return Vec::new() };
        let mut rules = Vec::new();
        for endpoint in endpoints.into_iter().filter(|e| !e.ports.is_empty()) {
            let Ok(network) = state.network(&endpoint.spec.network) else { continue };
            for bridge in bridge_rules(network, settings) {
                let same = addresses(endpoint).find(|a| Family::of(a.ip()) == bridge.family());
                rules.extend(same.and_then(|ip| PortRules::new(&bridge, ip.ip(), &endpoint.ports)));
            }
        }
        rules
    }

    /// Removes rules; if that fails the firewall has said so in the log, and tries again with its next change.
    pub(super) fn remove_rules(&self, rules: &[PortRules]) {
        if !rules.is_empty() {
            let _ = self.firewall.remove(rules.to_vec()).finish();
        }
    }

    /// Has the rules of a sandbox's ports removed without waiting for it: the kernel takes some 20 ms for that.
    fn forget_rules(&self, sandbox: &Sandbox) {
        for rules in self.port_rules(&sandbox.endpoints) {
            let ip = rules.ip;
            let pending = self.firewall.remove(vec![rules]);
            let mut state = self.state();
            state.leaving.retain(|_, pending| !pending.is_over());
            state.leaving.insert(ip, pending);
        }
    }

    /// No container starts at an address to which an earlier one's ports still lead.
    pub(super) fn wait_for_old_rules(&self, reserved: &[Reserved]) {
        for address in reserved.iter().flat_map(|r| addresses(&r.endpoint)) {
            let pending = self.state().leaving.remove(&address.ip());
            if let Some(pending) = pending {
                let _ = pending.finish();
            }
        }
    }

    pub(super) fn serve(
        &self,
        sandbox: &str,
        sockets: Option<DnsSockets>,
    ) -> Result<Option<(DnsPorts, DnsService)>, Failure> {
        let Some(sockets) = sockets else { return Ok(None) };
        let ports = sockets.ports().map_err(failed("ask", "resolver's socket"))?;
        let service = self.resolver.serve(sandbox, sockets).map_err(failed("start resolver of", sandbox))?;
        Ok(Some((ports, service)))
    }

    pub(super) fn save(&self, sandbox: &Sandbox, dns: Option<DnsPorts>) -> Result<(), Failure> {
        let stored = StoredSandbox { version: VERSION, sandbox: sandbox.clone(), dns };
        self.paths.save_sandbox(&stored).map_err(failed("save sandbox", &sandbox.id))
    }

    /// Makes a sandbox's names known as they are now.
    pub(super) fn publish_names(&self, state: &State, sandbox: &Sandbox) {
        let endpoints = sandbox.endpoints.iter().filter_map(|e| state.names_of(e)).collect::<Vec<_>>();
        if endpoints.is_empty() && !sandbox.spec.resolver {
            return self.names.withdraw(&sandbox.id);
        }
        let outside = Outside {
            host_allowed: sandbox.endpoints.iter().any(|e| e.gateway.is_some() || e.gateway_v6.is_some()),
            upstreams: sandbox.spec.upstreams.clone(),
            namespace: sandbox.netns.clone(),
            single_labels_stay: sandbox.spec.single_labels_stay,
        };
        self.names.publish(&sandbox.id, endpoints, outside);
    }
}

impl State {
    /// Reserves a sandbox's endpoints and, where the default route goes, their ports.
    fn reserve_each(&mut self, spec: &SandboxSpec, reserved: &mut Vec<Reserved>) -> Result<(), Failure> {
        for endpoint in &spec.endpoints {
            let named = spec.endpoints.iter().filter_map(|e| e.interface.as_deref());
            let known = reserved.iter().map(|r| r.endpoint.interface.as_str());
            let one = self.reserve(&spec.id, endpoint, &named.chain(known).collect::<Vec<_>>())?;
            reserved.push(one);
        }
        let mut endpoints = reserved.iter_mut().map(|r| &mut r.endpoint).collect::<Vec<_>>();
        let Some(best) = self.mark_default_routes(&mut endpoints) else { return Ok(()) };
        let ports = reserved.iter_mut().flat_map(|r| std::mem::take(&mut r.endpoint.spec.ports));
        let ports = ports.collect::<Vec<_>>();
        let Some(best) = reserved.get_mut(best) else { return Ok(()) };
        best.endpoint.spec.ports = ports;
        self.publish(best)
    }

    pub(super) fn driver(&self, network: &str) -> Option<Driver> {
        self.network(network).ok().map(|n| n.network.spec.driver)
    }

    /// Shows an endpoint of a sandbox in its network as it is now.
    pub(super) fn update_endpoint(&mut self, sandbox: &str, endpoint: &Endpoint) {
        if let Ok(network) = self.network_mut(&endpoint.spec.network) {
            network.network.endpoints.insert(sandbox.into(), Box::new(endpoint.clone()));
        }
    }

    /// Only user-defined networks have names.
    fn names_of(&self, endpoint: &Endpoint) -> Option<EndpointNames> {
        let network = self.network(&endpoint.spec.network).ok()?;
        if network.network.default_bridge {
            return None;
        }
        Some(EndpointNames {
            network: endpoint.spec.network.clone(),
            network_name: network.network.spec.name.clone(),
            addresses: Addresses {
                v4: endpoint.ipv4.map(|network| network.ip()),
                v6: endpoint.ipv6.map(|network| network.ip()),
            },
            names: endpoint.spec.names.clone(),
            links: endpoint.spec.links.clone().into_iter().collect(),
        })
    }
}

/// Gateways and interfaces of the endpoints that have the default routes.
pub(super) fn default_routes<'a>(endpoints: impl IntoIterator<Item = &'a Endpoint>) -> DefaultRoutes {
    let mut routes = DefaultRoutes::default();
    for endpoint in endpoints {
        if endpoint.default_route {
            routes.v4 = endpoint.gateway.map(|g| (IpAddr::V4(g), endpoint.interface.clone()));
        }
        if endpoint.default_route_v6 {
            routes.v6 = endpoint.gateway_v6.map(|g| (IpAddr::V6(g), endpoint.interface.clone()));
        }
    }
    routes
}

/// Interfaces on one of the host's go before the namespace does, which takes the kernel its time: the parent may allow only
/// one, or only one of that hardware address.
fn drop_sub_interfaces(sandbox: &Sandbox) {
    let routes = DefaultRoutes::default();
    let subs = sandbox.endpoints.iter().filter(|e| !e.interface.is_empty() && e.host_interface.is_empty());
    for endpoint in subs {
        let interface = Some(endpoint.interface.as_str());
        if let Err(failure) = kernel::remove_from_namespace(&sandbox.netns, interface, (&routes, &routes)) {
            journal::note(format_args!("release {}: {failure}", sandbox.id));
        }
    }
}

fn remains_of(sandbox: &Sandbox) -> Remains {
    let links = sandbox.endpoints.iter().map(|e| e.host_interface.clone());
    Remains {
        namespace: (!sandbox.netns.as_os_str().is_empty()).then(|| sandbox.netns.clone()),
        links: links.filter(|l| !l.is_empty()).collect(),
    }
}
