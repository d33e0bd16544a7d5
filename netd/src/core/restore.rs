//! Starting where an earlier netd ended, or was killed: its networks and sandboxes are read back, what it left
//! half made is removed, sockets are opened again. Established connections are the kernel's and
//! notice nothing.

use std::collections::BTreeMap;

use super::kernel::reopen_resolver;
use super::ports::Published;
use super::{Netd, NetworkState, SandboxState};
use crate::backstage::Remains;
use crate::dns::service::DnsSockets;
use crate::handover::{Left, Subject};
use crate::journal;
use crate::namespace;
use crate::netlink::{Socket, route};
use crate::protocol::{Endpoint, Sandbox};
use crate::store::StoredSandbox;

impl Netd {
    /// Reads back and reconciles; `left` is what the netd before us left. What is broken is noted and left out; netd starts
    /// all the same.
    pub(crate) fn restore(&self, left: Left) -> std::io::Result<()> {
        let stored = self.paths.load_settings().unwrap_or_else(|e| {
            journal::note(format_args!("settings are lost, until an engine sends them: {e}"));
            None
        });
        if let Some(stored) = &stored {
            let mut state = self.state();
            state.settings = Some(stored.settings.clone());
            state.forward_drop = stored.dropping();
        }
        self.restore_networks()?;
        self.restore_sandboxes(left)?;
        self.resolver.names_are_complete();
        self.remove_strays()?;
        if let Some(stored) = stored
            && let Err(failure) = self.configure(stored.settings)
        {
            journal::note(format_args!("bring the host to agree with the settings: {failure}"));
        }
        Ok(())
    }

    fn restore_networks(&self) -> std::io::Result<()> {
        let (networks, broken) = self.paths.load_networks()?;
        broken.iter().for_each(|e| journal::note(format_args!("a network is left out: {e}")));
        let mut state = self.state();
        for stored in networks {
            let name = stored.spec.name.clone();
            match NetworkState::new(
                stored.spec,
                stored.default_bridge,
                stored.created_ms,
                stored.chosen_subnet,
            ) {
                Ok(mut network) => {
                    network.own_bridge = stored.own_bridge;
                    state.networks.push(network);
                }
                Err(failure) => journal::note(format_args!("network {name} is left out: {failure}")),
            }
        }
        Ok(())
    }

    fn restore_sandboxes(&self, mut left: Left) -> std::io::Result<()> {
        let (sandboxes, broken) = self.paths.load_sandboxes()?;
        broken.iter().for_each(|e| journal::note(format_args!("a sandbox is left out: {e}")));
        for stored in sandboxes {
            let sandbox = &stored.sandbox;
            // Without its namespace (after a reboot) it is none.
            if sandbox.netns.as_os_str().is_empty() || namespace::is_mounted(&sandbox.netns) {
                self.restore_sandbox(stored, &mut left);
            } else {
                self.paths.remove_sandbox(&sandbox.id)?;
            }
        }
        Ok(())
    }

    fn restore_sandbox(&self, stored: StoredSandbox, left: &mut Left) {
        let StoredSandbox { mut sandbox, dns, .. } = stored;
        let mut published = BTreeMap::new();
        let mut lost = Vec::new();
        {
            let mut state = self.state();
            let relayed = state.settings().is_ok_and(|s| s.userland_proxy);
            for endpoint in &sandbox.endpoints {
                if !state.readmit(&sandbox.id, endpoint) {
                    lost.push(endpoint.spec.network.clone());
                    continue;
                }
                if endpoint.ports.is_empty() {
                    continue;
                }
                let held = endpoint.ports.iter().map(|bound| {
                    let left = if relayed { left.take(&Subject::Port(bound.clone())).pop() } else { None };
                    let left = left.and_then(|socket| socket.first()?.try_clone().ok());
                    state.ports.restore(bound, relayed, left)
                });
                let held = held.collect();
                let one = Published::start(&self.relays, endpoint, held, relayed, left);
                published.insert(endpoint.spec.network.clone(), one);
            }
        }
        for network in &lost {
            journal::note(format_args!("sandbox {}: its network {network} is gone", sandbox.id));
        }
        sandbox.endpoints.retain(|e| !lost.contains(&e.spec.network));
        // Should it have been made twice, the newer one's sockets count.
        let left = left.take(&Subject::Resolver(sandbox.id.clone())).pop();
        let left = left.and_then(|sockets| DnsSockets::inherited(&sockets, dns));
        let resolver = (sandbox.spec.resolver && !sandbox.netns.as_os_str().is_empty())
            .then(|| left.map_or_else(|| reopen_resolver(&sandbox.netns, dns), Ok))
            .transpose()
            .and_then(|sockets| self.serve(&sandbox.id, sockets));
        let dns = resolver.unwrap_or_else(|failure| {
            journal::note(format_args!("sandbox {} has no name resolution: {failure}", sandbox.id));
            None
        });
        self.admit(sandbox, published, dns);
    }

    fn admit(
        &self,
        sandbox: Sandbox,
        published: BTreeMap<String, Published>,
        dns: Option<(crate::dns::service::DnsPorts, crate::dns::service::DnsService)>,
    ) {
        // The ports may be other ones than before.
        if let Err(failure) = self.save(&sandbox, dns.as_ref().map(|d| d.0)) {
            journal::note(format_args!("{failure}"));
        }
        let mut state = self.state();
        self.publish_names(&state, &sandbox);
        state.sandboxes.insert(sandbox.id.clone(), SandboxState { sandbox, published, dns });
    }

    /// Removes namespaces that belong to no sandbox, and links of ours in our bridges that lead to no sandbox.
    fn remove_strays(&self) -> std::io::Result<()> {
        let (known_links, known_namespaces, bridges) = {
            let state = self.state();
            let sandboxes = state.sandboxes.values();
            let links = sandboxes.clone().flat_map(|s| s.sandbox.endpoints.iter());
            (
                links.map(|e| e.host_interface.clone()).collect::<Vec<_>>(),
                sandboxes.map(|s| s.sandbox.netns.clone()).collect::<Vec<_>>(),
                state.networks.iter().map(|n| n.bridge().to_string()).collect::<Vec<_>>(),
            )
        };
        for path in self.paths.namespaces()?.into_iter().filter(|p| !known_namespaces.contains(p)) {
            journal::note(format_args!("removing {}, which belongs to no sandbox", path.display()));
            self.backstage.take_down(Remains { namespace: Some(path), links: Vec::new() });
        }
        let links = Socket::route().and_then(|mut socket| route::links(&mut socket))?;
        let is_ours = |master: u32| links.iter().any(|l| l.index == master && bridges.contains(&l.name));
        let strays = links.iter().filter(|l| {
            l.kind == "veth"
                && is_own_name(&l.name)
                && l.master != 0
                && is_ours(l.master)
                && !known_links.contains(&l.name)
        });
        let strays = strays.map(|l| l.name.clone()).collect::<Vec<_>>();
        if !strays.is_empty() {
            journal::note(format_args!("removing {}, which lead to no sandbox", strays.join(" ")));
            self.backstage.take_down(Remains { namespace: None, links: strays });
            // Their names in the containers are free again for whoever asks once more for what was half made.
            self.backstage.finish();
        }
        Ok(())
    }
}

impl super::State {
    /// Takes an endpoint's address again. `false` if its network is gone.
    fn readmit(&mut self, sandbox: &str, endpoint: &Endpoint) -> bool {
        let Ok(network) = self.network_mut(&endpoint.spec.network) else { return false };
        network.take_again(endpoint);
        network.network.endpoints.insert(sandbox.into(), Box::new(endpoint.clone()));
        true
    }
}

/// Whether a link is named as ours are, and not by somebody who put his own into our bridge.
fn is_own_name(link: &str) -> bool {
    link.strip_prefix("veth").is_some_and(|rest| {
        rest.len() == 7 && rest.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    })
}
