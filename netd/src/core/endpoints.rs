//! Endpoints that come to a sandbox, or leave it, while it is in use.

use super::kernel::{self, LinkPlan};
use super::plan::{Reserved, interface_names};
use super::ports::{Published, forget_flows};
use super::sandboxes::default_routes;
use super::{Netd, State};
use crate::backstage::Remains;
use crate::dns::service::{DnsPorts, DnsSockets};
use crate::firewall::Pending;
use crate::handover::Left;
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
        let (reserved, after, starts_resolver) = self.plan_connection(&before, &spec)?;
        self.wait_for_old_rules(std::slice::from_ref(&reserved));
        let linked = self.follow_links(&mut self.state());
        let made = linked.map_or(Ok(()), Pending::finish);
        let made = made.and_then(|()| self.add_endpoint(&before, after, &reserved, starts_resolver));
        made.inspect_err(|_| {
            let links = reserved.link.iter().map(|l: &LinkPlan| l.host_name.clone());
            let links = links.filter(|name| !name.is_empty()).collect();
            self.backstage.take_down(Remains { namespace: None, links });
            let mut state = self.state();
            state.give_back(id, &reserved.endpoint);
            before.endpoints.iter().for_each(|e| state.update_endpoint(id, e));
            drop(self.follow_links(&mut state));
        })
    }

    /// Reserves the endpoint, and says how the sandbox will be with it.
    fn plan_connection(
        &self,
        before: &Sandbox,
        spec: &EndpointSpec,
    ) -> Result<(Reserved, Sandbox, bool), Failure> {
        let mut state = self.state();
        let has_links = state.driver(&spec.network).is_some_and(Driver::has_links);
        if !has_links || before.netns.as_os_str().is_empty() {
            if state.network(&spec.network)?.network.spec.driver == Driver::Description {
                return Err(Failure::Forbidden(
                    "cannot create endpoint on configuration-only network".into(),
                ));
            }
            return Err(Failure::Invalid(
                "container cannot be connected to host network or none beside other networks".into(),
            ));
        }
        let names_there = !state.network(&spec.network)?.network.default_bridge;
        let reserved = state.reserve(&before.id, spec, &interface_names(before))?;
        let mut after = before.clone();
        let mut endpoint = reserved.endpoint.clone();
        if before.endpoints.iter().any(|e| !e.spec.ports.is_empty()) {
            // They stay where they are: connections go on.
            endpoint.spec.ports = Vec::new();
        }
        after.endpoints.push(endpoint);
        mark_default_routes(&state, &mut after);
        let starts_resolver = names_there && !before.spec.resolver;
        after.spec.resolver |= names_there;
        Ok((reserved, after, starts_resolver))
    }

    fn add_endpoint(
        &self,
        before: &Sandbox,
        after: Sandbox,
        reserved: &Reserved,
        starts_resolver: bool,
    ) -> Result<Sandbox, Failure> {
        let routes = (default_routes(&before.endpoints), default_routes(&after.endpoints));
        let sockets = kernel::add_to_namespace(
            &before.netns,
            reserved.link.as_ref(),
            (&routes.0, &routes.1),
            starts_resolver,
            &self.announcer,
        )?;
        self.admit_endpoint(before, after, sockets).inspect_err(|_| {
            let undone = kernel::remove_from_namespace(
                &before.netns,
                inner_link(&reserved.endpoint),
                (&routes.1, &routes.0),
            );
            if let Err(failure) = undone {
                journal::note(format_args!("undo connect {}: {failure}", before.id));
            }
        })
    }

    /// Makes a sandbox's new endpoint, its last one, known and its ports work.
    fn admit_endpoint(
        &self,
        before: &Sandbox,
        mut after: Sandbox,
        sockets: Option<DnsSockets>,
    ) -> Result<Sandbox, Failure> {
        let service = self.serve(&before.id, sockets)?;
        // The first endpoint with a way out gets the ports that were to be published all along.
        let last = after.endpoints.len().checked_sub(1);
        let way_out = after.endpoints.last().is_some_and(|e| e.default_route || e.default_route_v6);
        if way_out && after.endpoints.iter().all(|e| e.ports.is_empty()) {
            self.move_ports(&mut after, last)?;
        }
        let mut state = self.state();
        let Some(entry) = state.sandboxes.get_mut(&before.id) else {
            return Err(Failure::NoSuchSandbox(before.id.clone()));
        };
        if service.is_some() {
            entry.dns = service;
        }
        let dns = entry.dns.as_ref().map(|d| d.0);
        entry.sandbox = after.clone();
        after.endpoints.iter().for_each(|e| state.update_endpoint(&before.id, e));
        self.publish_names(&state, &after);
        drop(state);
        self.save_or_note(&after, dns);
        Ok(after)
    }

    /// Published ports are where the default route is: answers go the way that questions came. Has them at this endpoint.
    fn move_ports(&self, sandbox: &mut Sandbox, to: Option<usize>) -> Result<(), Failure> {
        let from = sandbox.endpoints.iter().position(|e| !e.spec.ports.is_empty());
        let (Some(from), Some(to)) = (from, to) else { return Ok(()) };
        let Some(old) = sandbox.endpoints.get(from).cloned() else { return Ok(()) };
        if from == to && !old.ports.is_empty() {
            return Ok(());
        }
        let published =
            self.state().sandboxes.get_mut(&sandbox.id).and_then(|s| s.published.remove(&old.spec.network));
        if let Some(published) = published {
            forget_flows(&published.stop(&self.relays));
        }
        self.remove_rules(&self.port_rules([&old]));
        let Some(mut new) = sandbox.endpoints.get(to).cloned() else { return Ok(()) };
        new.spec.ports = old.spec.ports.clone();
        let mut reserved = Reserved { endpoint: new, link: None, held: Vec::new() };
        let relayed = {
            let mut state = self.state();
            old.ports.iter().for_each(|bound| state.ports.release(bound));
            if let Some(old) = sandbox.endpoints.get_mut(from) {
                old.ports = Vec::new();
                old.spec.ports = Vec::new();
                state.update_endpoint(&sandbox.id, old);
            }
            state.publish(&mut reserved)?;
            state.settings().is_ok_and(|s| s.userland_proxy)
        };
        let Reserved { endpoint, held, .. } = reserved;
        self.lead_to(&endpoint).inspect_err(|_| {
            let mut state = self.state();
            endpoint.ports.iter().for_each(|bound| state.ports.release(bound));
        })?;
        let published = Published::start(&self.relays, &endpoint, held, relayed, &mut Left::default());
        forget_flows(&endpoint.ports);
        if let Some(entry) = self.state().sandboxes.get_mut(&sandbox.id) {
            entry.published.insert(endpoint.spec.network.clone(), published);
        }
        if let Some(slot) = sandbox.endpoints.get_mut(to) {
            *slot = endpoint;
        }
        Ok(())
    }

    /// Has the kernel translate an endpoint's ports.
    fn lead_to(&self, endpoint: &Endpoint) -> Result<(), Failure> {
        if endpoint.ports.is_empty() {
            return Ok(());
        }
        kernel::set_hairpin(&endpoint.host_interface)?;
        let rules = self.port_rules([endpoint]);
        if rules.is_empty() { Ok(()) } else { self.firewall.add(rules).finish() }
    }

    pub(super) fn disconnect(&self, id: &str, network: &str) -> Result<Sandbox, Failure> {
        let _turn = self.turn(id);
        let mut before = self.sandbox(id)?;
        let Some(index) = before.endpoints.iter().position(|e| e.spec.network == network) else {
            let name = self.state().network(network)?.network.spec.name.clone();
            return Err(Failure::NotConnected { sandbox: id.into(), network: name });
        };
        let mut after = before.clone();
        let endpoint = after.endpoints.remove(index);
        let best = mark_default_routes(&self.state(), &mut after);
        let new_home = best.map(|best| if best >= index { best + 1 } else { best });
        if let Err(failure) = self.move_ports(&mut before, new_home) {
            journal::note(format_args!("disconnect {id}: publish its ports elsewhere: {failure}"));
        }
        let gone = before.endpoints.get(index).cloned().unwrap_or(endpoint);
        for (kept, moved) in after.endpoints.iter_mut().zip(without(&before.endpoints, index)) {
            kept.ports.clone_from(&moved.ports);
            kept.spec.ports.clone_from(&moved.spec.ports);
        }
        let (published, dns) = {
            let mut state = self.state();
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
            forget_flows(&published.stop(&self.relays));
        }
        self.remove_rules(&self.port_rules([&gone]));
        self.unlink(&before, &after, &gone);
        // Before somebody else can have its address: a netd that starts after us must not know two of it.
        self.save_or_note(&after, dns);
        let mut state = self.state();
        state.give_back(id, &gone);
        drop(self.follow_links(&mut state));
        Ok(after)
    }

    /// Removes the link and mends the default routes. What fails here is in the container's way, not in ours.
    fn unlink(&self, before: &Sandbox, after: &Sandbox, endpoint: &Endpoint) {
        let routes = (&default_routes(&before.endpoints), &default_routes(&after.endpoints));
        let inside = inner_link(endpoint);
        if (routes.0 != routes.1 || inside.is_some())
            && let Err(failure) = kernel::remove_from_namespace(&before.netns, inside, routes)
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

    pub(super) fn set_names(
        &self,
        id: &str,
        network: &str,
        names: Vec<String>,
        container: String,
    ) -> Result<(), Failure> {
        let _turn = self.turn(id);
        self.change_endpoint(id, network, |endpoint| {
            endpoint.spec.names = names;
            if !container.is_empty() {
                endpoint.spec.container_name = container;
            }
        })
    }

    /// Changes what is noted of a sandbox's endpoint in a network.
    pub(super) fn change_endpoint(
        &self,
        id: &str,
        network: &str,
        change: impl FnOnce(&mut Endpoint),
    ) -> Result<(), Failure> {
        let mut after = self.sandbox(id)?;
        let dns = {
            let mut state = self.state();
            let Some(endpoint) = after.endpoints.iter_mut().find(|e| e.spec.network == network) else {
                let name = state.network(network)?.network.spec.name.clone();
                return Err(Failure::NotConnected { sandbox: id.into(), network: name });
            };
            change(endpoint);
            state.update_endpoint(id, endpoint);
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

/// The interface that has to be removed in its namespace: one with an end on the host goes with that.
fn inner_link(endpoint: &Endpoint) -> Option<&str> {
    let name = Some(endpoint.interface.as_str());
    name.filter(|name| !name.is_empty() && endpoint.host_interface.is_empty())
}

/// Notes which of a sandbox's endpoints have the default routes; answers where ports are published.
fn mark_default_routes(state: &State, sandbox: &mut Sandbox) -> Option<usize> {
    state.mark_default_routes(&mut sandbox.endpoints.iter_mut().collect::<Vec<_>>())
}

fn without<T>(all: &[T], index: usize) -> impl Iterator<Item = &T> {
    all.iter().enumerate().filter(move |(i, _)| *i != index).map(|(_, one)| one)
}
