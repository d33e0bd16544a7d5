//! Endpoints that come to a sandbox, or leave it, while it is in use.

use super::Netd;
use super::kernel::{self, LinkPlan};
use super::plan::Reserved;
use super::ports::{Published, forget_flows};
use super::sandboxes::default_route;
use crate::backstage::Remains;
use crate::dns::service::DnsPorts;
use crate::journal;
use crate::netlink::{Batch, Socket, route};
use crate::protocol::{Driver, Endpoint, EndpointSpec, Failure, Sandbox};

impl Netd {
    pub(super) fn connect(&self, id: &str, spec: EndpointSpec) -> Result<Sandbox, Failure> {
        let _turn = self.turn(id);
        let before = self.sandbox(id)?;
        if before.endpoints.iter().any(|e| e.spec.network == spec.network && e.spec.id == spec.id) {
            // The same order again: its answer was lost.
            return Ok(before);
        }
        let (mut reserved, after, starts_resolver) = self.plan_connection(&before, &spec)?;
        let made = self.add_endpoint(&before, &after, &mut reserved, starts_resolver);
        made.inspect_err(|_| {
            let links = reserved.link.iter().map(|l: &LinkPlan| l.host_name.clone()).collect();
            self.backstage.take_down(Remains { namespace: None, links });
            self.state().give_back(id, &reserved.endpoint);
        })
    }

    /// Reserves the endpoint, and says how the sandbox will be with it.
    fn plan_connection(
        &self,
        before: &Sandbox,
        spec: &EndpointSpec,
    ) -> Result<(Reserved, Sandbox, bool), Failure> {
        let mut state = self.state();
        if state.driver(&spec.network) != Some(Driver::Bridge) || before.netns.as_os_str().is_empty() {
            state.network(&spec.network)?;
            return Err(Failure::Invalid(
                "container cannot be connected to host network or none beside other networks".into(),
            ));
        }
        let names_there = !state.network(&spec.network)?.network.default_bridge;
        let reserved = state.reserve(&before.id, spec, free_number(before))?;
        let mut after = before.clone();
        after.spec.endpoints.push(spec.clone());
        after.endpoints.push(reserved.endpoint.clone());
        let best = state.best_gateway(&after.endpoints);
        mark_default_route(&mut after.endpoints, best);
        let starts_resolver = names_there && !before.spec.resolver;
        after.spec.resolver |= names_there;
        Ok((reserved, after, starts_resolver))
    }

    fn add_endpoint(
        &self,
        before: &Sandbox,
        after: &Sandbox,
        reserved: &mut Reserved,
        starts_resolver: bool,
    ) -> Result<Sandbox, Failure> {
        let rules = self.port_rules([&reserved.endpoint]);
        let pending = (!rules.is_empty()).then(|| self.firewall.add(rules.clone()));
        let route = default_route(&after.endpoints);
        let changed = route != default_route(&before.endpoints);
        let added = kernel::add_to_namespace(
            &before.netns,
            reserved.link.as_ref(),
            route.as_ref().filter(|_| changed),
            starts_resolver,
            &self.announcer,
        );
        let ruled = pending.map_or(Ok(()), |pending| pending.finish());
        let undo = |failure| {
            self.remove_rules(&rules);
            failure
        };
        let sockets = added.map_err(undo)?;
        ruled?;
        let service = self.serve(&before.id, sockets).map_err(undo)?;
        let mut state = self.state();
        let relayed = state.settings().is_ok_and(|s| s.userland_proxy);
        let Some(entry) = state.sandboxes.get_mut(&before.id) else {
            return Err(undo(Failure::NoSuchSandbox(before.id.clone())));
        };
        if service.is_some() {
            entry.dns = service;
        }
        let dns = entry.dns.as_ref().map(|d| d.0);
        entry.sandbox = after.clone();
        if let (Some(address), false) = (reserved.endpoint.ipv4, reserved.held.is_empty()) {
            let held = std::mem::take(&mut reserved.held);
            let published = Published::start(&self.runtime, address.ip(), held, relayed);
            entry.published.insert(reserved.endpoint.spec.network.clone(), published);
        }
        after.endpoints.iter().for_each(|e| state.update_endpoint(&before.id, e));
        self.publish_names(&state, after);
        drop(state);
        forget_flows(&reserved.endpoint.ports);
        self.save_or_note(after, dns);
        Ok(after.clone())
    }

    pub(super) fn disconnect(&self, id: &str, network: &str) -> Result<Sandbox, Failure> {
        let _turn = self.turn(id);
        let before = self.sandbox(id)?;
        let Some(endpoint) = before.endpoints.iter().find(|e| e.spec.network == network).cloned() else {
            let name = self.state().network(network)?.network.spec.name.clone();
            return Err(Failure::NotConnected { sandbox: id.into(), network: name });
        };
        let mut after = before.clone();
        after.endpoints.retain(|e| e.spec.network != network);
        after.spec.endpoints.retain(|e| e.network != network);
        let (published, dns) = {
            let mut state = self.state();
            let best = state.best_gateway(&after.endpoints);
            mark_default_route(&mut after.endpoints, best);
            let Some(entry) = state.sandboxes.get_mut(id) else {
                return Err(Failure::NoSuchSandbox(id.into()));
            };
            entry.sandbox = after.clone();
            let published = entry.published.remove(network);
            let dns = entry.dns.as_ref().map(|d| d.0);
            after.endpoints.iter().for_each(|e| state.update_endpoint(id, e));
            self.publish_names(&state, &after);
            (published, dns)
        };
        if let Some(published) = published {
            forget_flows(&published.stop(&self.runtime));
        }
        self.remove_rules(&self.port_rules([&endpoint]));
        self.unlink(&before, &after, &endpoint);
        self.state().give_back(id, &endpoint);
        self.save_or_note(&after, dns);
        Ok(after)
    }

    /// Removes the link and mends the default route. What fails here is in the container's way, not in ours.
    fn unlink(&self, before: &Sandbox, after: &Sandbox, endpoint: &Endpoint) {
        let route = default_route(&after.endpoints);
        if route != default_route(&before.endpoints)
            && let Err(failure) = kernel::change_default_route(&before.netns, route.as_ref())
        {
            journal::note(format_args!("disconnect {}: {failure}", before.id));
        }
        if endpoint.host_interface.is_empty() {
            return;
        }
        let mut batch = Batch::default();
        route::delete_link(&mut batch, &endpoint.host_interface);
        if let Err(e) = Socket::route().and_then(|mut socket| socket.commit(batch)) {
            journal::note(format_args!("disconnect {}: remove {}: {e}", before.id, endpoint.host_interface));
        }
    }

    pub(super) fn set_names(&self, id: &str, network: &str, names: Vec<String>) -> Result<(), Failure> {
        let _turn = self.turn(id);
        let mut after = self.sandbox(id)?;
        let dns = {
            let mut state = self.state();
            let Some(endpoint) = after.endpoints.iter_mut().find(|e| e.spec.network == network) else {
                let name = state.network(network)?.network.spec.name.clone();
                return Err(Failure::NotConnected { sandbox: id.into(), network: name });
            };
            endpoint.spec.names = names;
            state.update_endpoint(id, endpoint);
            for asked in after.spec.endpoints.iter_mut().filter(|e| e.network == network) {
                asked.names = endpoint.spec.names.clone();
            }
            let Some(entry) = state.sandboxes.get_mut(id) else {
                return Err(Failure::NoSuchSandbox(id.into()));
            };
            entry.sandbox = after.clone();
            let dns = entry.dns.as_ref().map(|d| d.0);
            self.publish_names(&state, &after);
            dns
        };
        self.save_or_note(&after, dns);
        Ok(())
    }

    /// For changes that are done already: a netd that starts later will not know of them, but this one does.
    fn save_or_note(&self, sandbox: &Sandbox, dns: Option<DnsPorts>) {
        if let Err(failure) = self.save(sandbox, dns) {
            journal::note(format_args!("{failure}"));
        }
    }

    fn sandbox(&self, id: &str) -> Result<Sandbox, Failure> {
        let state = self.state();
        let found = state.sandboxes.get(id).map(|s| s.sandbox.clone());
        found.ok_or_else(|| Failure::NoSuchSandbox(id.into()))
    }
}

fn mark_default_route(endpoints: &mut [Endpoint], best: Option<usize>) {
    for (index, endpoint) in endpoints.iter_mut().enumerate() {
        endpoint.default_route = Some(index) == best;
    }
}

/// The lowest number that no interface of the sandbox has.
fn free_number(sandbox: &Sandbox) -> usize {
    let taken = |number: &usize| sandbox.endpoints.iter().any(|e| e.interface == format!("eth{number}"));
    (0..).find(|number| !taken(number)).unwrap_or_default()
}
