//! netd's state, and the requests that change it.
//!
//! Addresses, names and ports are reserved under one lock, which is never held across anything that waits.
//! The kernel's part (namespaces, links, rules) is done between a reservation and its
//! confirmation; if it fails, the reservation is taken back. Requests about one sandbox
//! take turns; those about networks do, too.

mod configure;
mod endpoints;
mod kernel;
mod links;
mod networks;
mod parents;
mod plan;
mod ports;
mod restore;
mod sandboxes;
mod subnets;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Display;
use std::net::IpAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use crate::announce::Announcer;
use crate::backstage::Backstage;
use crate::dns::names::Names;
use crate::dns::service::{DnsPorts, DnsService, Resolver};
use crate::firewall::wanted::{Family, LinkRules};
use crate::firewall::{Firewall, Pending};
use crate::handover::Handover;
use crate::ipam::Pool;
use crate::ports::PortTable;
use crate::protocol::{Failure, Network, Reply, Request, Sandbox, Settings, VERSION};
use crate::relay::Relays;
use crate::store::Paths;
pub(crate) use kernel::blank_namespace;
use ports::Published;

/// All of netd.
pub(crate) struct Netd {
    paths: Paths,
    state: Mutex<State>,
    turns: Condvar,
    /// Held by those who change networks or settings.
    topology: Mutex<()>,
    firewall: Firewall,
    announcer: Announcer,
    names: Arc<Names>,
    resolver: Arc<Resolver>,
    relays: Relays,
    backstage: Backstage,
}

#[derive(Default)]
struct State {
    settings: Option<Settings>,
    forward_drop: Vec<Family>,
    networks: Vec<NetworkState>,
    sandboxes: HashMap<String, SandboxState>,
    ports: PortTable,
    /// What links have opened.
    links: Vec<LinkRules>,
    /// Addresses of released endpoints whose rules are being removed.
    leaving: HashMap<IpAddr, Pending>,
    /// Sandboxes that a request works on.
    busy: HashSet<String>,
}

struct NetworkState {
    network: Network,
    /// One per subnet of the families that it has.
    pools: Vec<Pool>,
    chosen_subnet: bool,
    own_bridge: bool,
    /// On its way out: takes no more endpoints.
    removing: bool,
}

struct SandboxState {
    sandbox: Sandbox,
    /// Network id → its published ports.
    published: BTreeMap<String, Published>,
    dns: Option<(DnsPorts, DnsService)>,
}

impl Netd {
    pub(crate) fn new(paths: Paths, runtime: tokio::runtime::Handle) -> Result<Self, Failure> {
        let names = Arc::new(Names::default());
        let resolver = Resolver::new(names.clone(), runtime.clone());
        let relays = Relays::new(runtime, resolver.handover());
        Ok(Self {
            paths,
            state: Mutex::default(),
            turns: Condvar::new(),
            topology: Mutex::default(),
            firewall: Firewall::start().map_err(failed("start", "firewall thread"))?,
            announcer: Announcer::new().map_err(failed("open", "packet socket"))?,
            names,
            resolver,
            relays,
            backstage: Backstage::start().map_err(failed("start", "backstage thread"))?,
        })
    }

    /// What is left to the next netd.
    pub(crate) fn handover(&self) -> Arc<Handover> {
        self.resolver.handover()
    }

    /// Carries out any request; after `Shutdown` the caller ends the process.
    pub(crate) fn answer(&self, request: Request) -> Result<Reply, Failure> {
        Ok(match request {
            Request::Hello => Reply::Hello { version: VERSION, pid: std::process::id() },
            Request::Configure(settings) => {
                self.configure(settings)?;
                Reply::Ok
            }
            Request::CreateNetwork(spec) => Reply::Network(Box::new(self.create_network(spec)?)),
            Request::RemoveNetwork { network } => {
                self.remove_network(&network)?;
                Reply::Ok
            }
            Request::Networks => {
                let mut all: Vec<_> = self.state().networks.iter().map(|n| n.network.clone()).collect();
                // Those of one millisecond by name, so that the order is the same after a restart.
                all.sort_by(|a, b| (a.created_ms, &a.spec.name).cmp(&(b.created_ms, &b.spec.name)));
                Reply::Networks(all)
            }
            Request::CreateSandbox(spec) => Reply::Sandbox(Box::new(self.create_sandbox(spec)?)),
            Request::Connect { sandbox, endpoint } => {
                Reply::Sandbox(Box::new(self.connect(&sandbox, endpoint)?))
            }
            Request::Disconnect { sandbox, network } => {
                Reply::Sandbox(Box::new(self.disconnect(&sandbox, &network)?))
            }
            Request::SetNames { sandbox, network, names, container } => {
                self.set_names(&sandbox, &network, names, container)?;
                Reply::Ok
            }
            Request::SetLinked { sandbox, network, linked } => {
                self.set_linked(&sandbox, &network, linked)?;
                Reply::Ok
            }
            Request::ReleaseSandbox { sandbox } => {
                self.release_sandbox(&sandbox)?;
                Reply::Ok
            }
            Request::Sandboxes => {
                Reply::Sandboxes(self.state().sandboxes.values().map(|s| s.sandbox.clone()).collect())
            }
            Request::Firewalld => Reply::Firewalld(self.firewall.firewalld()),
            Request::Shutdown => {
                self.let_go();
                Reply::Ok
            }
        })
    }

    /// Leaves nothing behind that no sandbox needs.
    fn let_go(&self) {
        self.backstage.finish();
        if self.state().sandboxes.is_empty()
            && let Err(error) = self.paths.release()
        {
            crate::journal::note(format_args!("the folder of namespaces stays mounted: {error}"));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until no other request works on the sandbox.
    fn turn(&self, sandbox: &str) -> Turn<'_> {
        let mut state = self
            .turns
            .wait_while(self.state(), |state| state.busy.contains(sandbox))
            .unwrap_or_else(PoisonError::into_inner);
        state.busy.insert(sandbox.into());
        Turn { netd: self, sandbox: sandbox.into() }
    }

    fn topology(&self) -> MutexGuard<'_, ()> {
        self.topology.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to work on one sandbox.
struct Turn<'a> {
    netd: &'a Netd,
    sandbox: String,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.netd.state().busy.remove(&self.sandbox);
        self.netd.turns.notify_all();
    }
}

impl State {
    fn network(&self, id: &str) -> Result<&NetworkState, Failure> {
        let found = self.networks.iter().find(|n| n.network.spec.id == id && !n.removing);
        found.ok_or_else(|| Failure::NoSuchNetwork(id.into()))
    }

    fn network_mut(&mut self, id: &str) -> Result<&mut NetworkState, Failure> {
        let found = self.networks.iter_mut().find(|n| n.network.spec.id == id && !n.removing);
        found.ok_or_else(|| Failure::NoSuchNetwork(id.into()))
    }

    fn settings(&self) -> Result<&Settings, Failure> {
        self.settings.as_ref().ok_or_else(|| Failure::Invalid("netd has no settings yet".into()))
    }
}

impl NetworkState {
    /// The interface's name; netd fills it in for every bridge network.
    fn bridge(&self) -> &str {
        self.network.spec.bridge.as_deref().unwrap_or_default()
    }
}

/// A step that the system refused.
trait Refusal: Display {
    fn number(&self) -> Option<i32>;
}

impl Refusal for Errno {
    fn number(&self) -> Option<i32> {
        Some(self.raw_os_error())
    }
}

impl Refusal for std::io::Error {
    fn number(&self) -> Option<i32> {
        self.raw_os_error()
    }
}

/// For `map_err`: says which step failed on what.
fn failed<E: Refusal>(step: &'static str, subject: impl Into<String>) -> impl FnOnce(E) -> Failure {
    move |error| Failure::System {
        step: step.into(),
        subject: subject.into(),
        reason: error.to_string(),
        errno: error.number(),
    }
}
