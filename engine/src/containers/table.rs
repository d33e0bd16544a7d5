//! All containers, found by id, name or the beginning of an id; and one of them, as a
//! snapshot for readers and with the locks for those who change it.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::watch;
use wherry_netd::protocol::{Network, Sandbox};

use super::exec::Execs;
use super::monitor::Monitor;
use super::record::Record;
use super::state::{InvalidTransition, State, Status, Transition};
use crate::error::Error;

/// All containers of the engine.
#[derive(Debug, Default)]
pub(crate) struct Containers {
    index: RwLock<Index>,
    /// Renames with all that follows from them, one after another. Taken before any container's `transition`.
    pub(super) renaming: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug, Default)]
struct Index {
    by_id: BTreeMap<String, Arc<Container>>,
    by_name: HashMap<String, String>,
}

/// One container.
#[derive(Debug)]
pub(crate) struct Container {
    /// 64 hex digits.
    pub(crate) id: String,
    record: RwLock<Arc<Record>>,
    status: watch::Sender<Arc<Status>>,
    sandbox: RwLock<Option<Arc<Sandbox>>>,
    /// Held while it is started, removed, renamed or connected: one at a time. Readers never take it.
    pub(super) transition: tokio::sync::Mutex<()>,
    /// The connection to its monitor, when there is one.
    pub(super) monitor: tokio::sync::Mutex<Option<Arc<Monitor>>>,
    /// Its execs.
    pub(super) execs: Execs,
    /// The last of its monitors' events that has been published. It is stored with the event.
    pub(super) seen: AtomicU64,
}

impl Container {
    /// A container with its record and state.
    pub(crate) fn new(record: Record, status: Status) -> Self {
        Self {
            id: record.id.clone(),
            record: RwLock::new(Arc::new(record)),
            status: watch::channel(Arc::new(status)).0,
            sandbox: RwLock::new(None),
            transition: tokio::sync::Mutex::new(()),
            monitor: tokio::sync::Mutex::new(None),
            execs: Execs::default(),
            seen: AtomicU64::new(0),
        }
    }

    /// What is on disk.
    pub(crate) fn record(&self) -> Arc<Record> {
        self.record.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where it stands.
    pub(crate) fn status(&self) -> Arc<Status> {
        self.status.borrow().clone()
    }

    /// Follows where it stands.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<Status>> {
        self.status.subscribe()
    }

    /// Its network namespace and endpoints while it runs.
    pub(crate) fn sandbox(&self) -> Option<Arc<Sandbox>> {
        self.sandbox.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes the record and writes it durably; nothing has changed when that fails. Blocking; the caller
    /// holds `transition`, so that there is one writer.
    ///
    /// # Errors
    /// Those of writing the file.
    pub(super) fn update(
        &self,
        data_root: &std::path::Path,
        change: impl FnOnce(&mut Record),
    ) -> Result<Arc<Record>, Error> {
        let mut record = (*self.record()).clone();
        change(&mut record);
        record.save(data_root)?;
        let record = Arc::new(record);
        *self.record.write().unwrap_or_else(PoisonError::into_inner) = record.clone();
        Ok(record)
    }

    /// Notes in memory that its /etc files exist now.
    pub(super) fn mark_started(&self) {
        let mut record = self.record.write().unwrap_or_else(PoisonError::into_inner);
        Arc::make_mut(&mut record).started_before = true;
    }

    /// Notes in memory which networks its record's names mean (netd knows it for good).
    pub(super) fn remember_networks(&self, known: &[Arc<Network>]) {
        let mut record = self.record.write().unwrap_or_else(PoisonError::into_inner);
        for (name, attachment) in &mut Arc::make_mut(&mut record).networks {
            if let Some(network) = known.iter().find(|n| n.spec.name == *name || n.spec.id == *name) {
                attachment.network_id.clone_from(&network.spec.id);
            }
        }
    }

    pub(super) fn set_sandbox(&self, sandbox: Option<Sandbox>) {
        *self.sandbox.write().unwrap_or_else(PoisonError::into_inner) = sandbox.map(Arc::new);
    }

    /// Moves to the next state.
    ///
    /// # Errors
    /// [`InvalidTransition`]; nothing has changed then.
    pub(super) fn apply(&self, transition: &Transition) -> Result<(), InvalidTransition> {
        let mut result = Ok(());
        self.status.send_if_modified(|status| match status.state.apply(transition) {
            Ok(state) => {
                let changed = state != status.state;
                *status = Arc::new(Status { state, ..(**status).clone() });
                changed
            }
            Err(invalid) => {
                result = Err(invalid);
                false
            }
        });
        result
    }

    /// Changes what accompanies the state.
    pub(super) fn amend(&self, change: impl FnOnce(&mut Status)) {
        self.status.send_modify(|status| change(Arc::make_mut(status)));
    }
}

/// What `RECEIVER/ALIAS` means.
fn linked(index: &Index, name: &str) -> Option<Arc<Container>> {
    let (receiver, alias) = name.split_once('/')?;
    let receiver = index.by_id.get(index.by_name.get(receiver)?)?.record();
    let links = receiver.host_config.links.iter().flatten().map(|link| super::network::parse_link(link));
    let (source, _) = links.into_iter().find(|(_, known)| *known == alias)?;
    let id = index.by_name.get(source).map_or(source, String::as_str);
    index.by_id.get(id).cloned()
}

impl Containers {
    /// All, by id.
    pub(crate) fn all(&self) -> Vec<Arc<Container>> {
        self.read().by_id.values().cloned().collect()
    }

    /// Finds one by full id, name (with or without its slash), or the beginning of an id, in this order.
    ///
    /// # Errors
    /// 404 `No such container: X`; 400 when several ids begin so.
    pub(crate) fn find(&self, reference: &str) -> Result<Arc<Container>, Error> {
        let index = self.read();
        if let Some(container) = index.by_id.get(reference) {
            return Ok(container.clone());
        }
        let name = reference.strip_prefix('/').unwrap_or(reference);
        if let Some(container) = index.by_name.get(name).and_then(|id| index.by_id.get(id)) {
            return Ok(container.clone());
        }
        if let Some(source) = linked(&index, name) {
            return Ok(source);
        }
        let missing = || Error::NoSuchContainer(reference.to_owned());
        if reference.is_empty() || !reference.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(missing());
        }
        let mut candidates = index
            .by_id
            .range(reference.to_owned()..)
            .take_while(|(id, _)| id.starts_with(reference))
            .map(|(_, container)| container);
        let first = candidates.next().ok_or_else(missing)?;
        if candidates.next().is_some() {
            return Err(Error::InvalidParameter(format!(
                "Multiple IDs found with provided prefix: {reference}"
            )));
        }
        Ok(first.clone())
    }

    /// Reserves `name` for `id`.
    ///
    /// # Errors
    /// 409 with dockerd's text when another container has it.
    pub(super) fn reserve_name(&self, name: &str, id: &str) -> Result<(), Error> {
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        match index.by_name.get(name) {
            Some(owner) if owner != id => Err(Error::Conflict(format!(
                "Conflict. The container name \"/{name}\" is already in use by container \"{owner}\". You have to \
                 remove (or rename) that container to be able to reuse that name."
            ))),
            _ => {
                index.by_name.insert(name.to_owned(), id.to_owned());
                Ok(())
            }
        }
    }

    /// Gives a name back, if `id` has it.
    pub(super) fn release_name(&self, name: &str, id: &str) {
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        if index.by_name.get(name).is_some_and(|owner| owner == id) {
            index.by_name.remove(name);
        }
    }

    /// Adds a container whose name has been reserved.
    pub(super) fn insert(&self, container: Container) -> Arc<Container> {
        let container = Arc::new(container);
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        index.by_name.insert(container.record().name.clone(), container.id.clone());
        index.by_id.insert(container.id.clone(), container.clone());
        container
    }

    /// Takes a container out, and its name.
    pub(super) fn remove(&self, container: &Container) {
        let name = container.record().name.clone();
        self.release_name(&name, &container.id);
        self.index.write().unwrap_or_else(PoisonError::into_inner).by_id.remove(&container.id);
    }

    /// Counts by state for `/info`: all, running, paused, stopped.
    pub(crate) fn counts(&self) -> [usize; 4] {
        let mut counts = [0; 4];
        for container in self.all() {
            let place = match container.status().state {
                State::Running { paused: true, .. } => 2,
                State::Running { .. } | State::Restarting { .. } => 1,
                _ => 3,
            };
            counts[0] += 1;
            counts[place] += 1;
        }
        counts
    }

    /// The ids of containers that use the volume `name`.
    pub(crate) fn using_volume(&self, name: &str) -> Vec<String> {
        let uses =
            |c: &Arc<Container>| c.record().mounts.iter().any(|m| m.kind == "volume" && m.name == name);
        self.all().iter().filter(|c| uses(c)).map(|c| c.id.clone()).collect()
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }
}
