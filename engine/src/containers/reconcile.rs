//! The start and the end of an engine: containers are read from disk, monitors that live are found again, and
//! what an interrupted engine left half-done is finished.

use std::collections::HashMap;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use wherry_monitor_api::{self as api, Phase, run_dir};
use wherry_netd::protocol::Sandbox;

use super::monitor::Monitor;
use super::record::{self, Record};
use super::remove::{self, MARK};
use super::state::{State, Status, Transition};
use super::table::{Container, Containers};
use super::{boot, control, lifecycle};
use crate::engine::{Engine, blocking};
use crate::error::Error;

impl Containers {
    /// Reads all containers of a data root. Blocking.
    ///
    /// # Errors
    /// The folder cannot be read; a single container that cannot be read is logged and left out.
    pub(crate) fn open(data_root: &Path) -> Result<Self, Error> {
        let dir = data_root.join("containers");
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o710).create(&dir);
        made.map_err(Error::io("create", dir.display()))?;
        let containers = Self::default();
        for entry in std::fs::read_dir(&dir).map_err(Error::io("read", dir.display()))? {
            let entry = entry.map_err(Error::io("read", dir.display()))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(MARK) {
                continue;
            }
            match read(data_root, &entry.path()) {
                Ok(Some((record, status))) => drop(containers.insert(Container::new(record, status))),
                // The engine ended between making the folder and writing into it.
                Ok(None) => remove_stray(&entry.path()),
                Err(error) => tracing::error!(container = name, %error, "cannot be read and is left alone"),
            }
        }
        Ok(containers)
    }
}

fn remove_stray(dir: &Path) {
    tracing::info!(folder = %dir.display(), "removing what an interrupted creation left");
    if let Err(error) = std::fs::remove_dir_all(dir) {
        tracing::error!(folder = %dir.display(), %error, "could not be removed");
    }
}

fn read(data_root: &Path, dir: &Path) -> Result<Option<(Record, Status)>, Error> {
    let path = dir.join("config.json");
    let mut record = match wherry_durable::read_json::<Record>(&path) {
        Ok(Some(record)) => record,
        Ok(None) => return Ok(None),
        // The engine ended while it wrote the file for the first time; see `create`.
        Err(e) if e.kind() == std::io::ErrorKind::InvalidData && was_never_started(dir) => return Ok(None),
        Err(e) => return Err(Error::io("read", path.display())(e)),
    };
    if record.version != record::VERSION {
        return Err(Error::server(format!("{}: unknown version {}", path.display(), record.version)));
    }
    record.started_before = dir.join("hosts").exists();
    let path = record.state_path(data_root);
    let saved: Option<api::State> =
        wherry_durable::read_json(&path).map_err(Error::io("read", path.display()))?;
    let mut status = Status::created();
    if let Some(saved) = saved {
        adopt_state(&mut status, &saved);
    }
    Ok(Some((record, status)))
}

fn was_never_started(dir: &Path) -> bool {
    !dir.join("hosts").exists() && !dir.join("state.json").exists()
}

fn adopt_state(status: &mut Status, saved: &api::State) {
    if let Ok(state) = status.state.apply(&Transition::Monitor(saved.phase.clone())) {
        status.state = state;
    }
    status.restart_count = saved.restart_count;
    status.manually_stopped = saved.manually_stopped;
    status.health.clone_from(&saved.health);
}

/// Brings the engine into agreement with what runs: called once, before clients are served.
///
/// # Errors
/// netd does not answer.
pub(crate) async fn reconcile(engine: Arc<Engine>) -> Result<(), Error> {
    finish_removals(&engine).await?;
    let mut sandboxes: HashMap<String, Sandbox> =
        engine.netd.sandboxes().await?.into_iter().map(|s| (s.id.clone(), s)).collect();
    let told = engine.events.told("create");
    for container in engine.containers.all() {
        let created_ns = container.record().created_ns;
        if !told.has(&container.id, created_ns) {
            // The engine ended between making it and saying so.
            super::publish_at(&engine, &container, created_ns, "create", Default::default());
        }
        let sandbox = sandboxes.remove(&container.id);
        if let Err(error) = reconnect(&engine, &container, sandbox).await {
            tracing::error!(container = %container.id, %error, "cannot be reconciled");
        }
    }
    for orphan in sandboxes.into_keys() {
        tracing::info!(container = orphan, "releasing the network of a container that is gone");
        engine.netd.release_sandbox(&orphan).await?;
    }
    remove_orphan_layers(&engine).await?;
    tokio::spawn(boot::resume(engine));
    Ok(())
}

/// Finishes what [`remove`] began.
async fn finish_removals(engine: &Arc<Engine>) -> Result<(), Error> {
    let engine = engine.clone();
    blocking(move || {
        let dir = engine.config().data_root.join("containers");
        for entry in std::fs::read_dir(&dir).map_err(Error::io("read", dir.display()))?.flatten() {
            if !entry.file_name().to_string_lossy().starts_with(MARK) {
                continue;
            }
            let path = entry.path().join("config.json");
            match wherry_durable::read_json::<Record>(&path) {
                Ok(Some(record)) => {
                    tracing::info!(container = %record.id, "finishing an interrupted removal");
                    remove::finish(&engine, &entry.path(), &record, false);
                    if !engine.events.told("destroy").has(&record.id, record.created_ns) {
                        let gone = Container::new(record, Status::created());
                        super::publish(&engine, &gone, "destroy");
                    }
                }
                _ => remove_stray(&entry.path()),
            }
        }
        Ok(())
    })
    .await
}

/// Writable layers of containers whose creation was interrupted.
async fn remove_orphan_layers(engine: &Arc<Engine>) -> Result<(), Error> {
    let engine = engine.clone();
    blocking(move || {
        for name in engine.store.writable_names() {
            if engine.containers.find(&name).is_err() {
                tracing::info!(layer = name, "removing a writable layer without a container");
                engine.store.remove_writable(&name)?;
            }
        }
        Ok(())
    })
    .await
}

/// Finds a container's monitor again, or notes that it is gone.
async fn reconnect(
    engine: &Arc<Engine>,
    container: &Arc<Container>,
    sandbox: Option<Sandbox>,
) -> Result<(), Error> {
    let config = engine.config();
    container.set_sandbox(sandbox);
    if container.status().state != State::Created {
        container.remember_networks(&engine.netd.known_networks().await?);
    }
    let run_dir = run_dir(&config.exec_root, &container.id);
    let found = Monitor::connect(&run_dir).map_err(Error::io("connect to the monitor of", &container.id))?;
    if let Some((monitor, signals)) = found {
        match monitor.hello().await {
            Ok(state) => {
                tracing::info!(container = %container.id, phase = ?state.phase, "its monitor is there");
                publish_journal(engine, container, &state);
                let over = matches!(state.phase, Phase::Exited { .. } | Phase::Waiting);
                container.amend(|status| adopt_state(status, &state));
                if let Ok(api::Reply::Execs(execs)) = monitor.call(api::Request::Execs, &[]).await {
                    container.execs.adopt(execs);
                }
                *container.monitor.lock().await = Some(monitor.clone());
                lifecycle::adopt(engine, container, &monitor, signals)?;
                let _ = monitor.submit(api::Request::Acknowledge { up_to: state.last_seq }, &[]);
                if !over {
                    return Ok(());
                }
                // It only waited for an engine to say that it has understood.
                container.monitor.lock().await.take();
                let _ = monitor.submit(api::Request::Release, &[]);
                lifecycle::release_files(engine, container).await;
            }
            Err(error) => tracing::error!(container = %container.id, %error, "its monitor does not answer"),
        }
    } else {
        publish_stored_journal(engine, container);
        lifecycle::lost(engine, container).await;
    }
    lifecycle::release_network(engine, container).await;
    Ok(())
}

/// Events that no engine has published. What they changed is in the state already.
fn publish_journal(engine: &Engine, container: &Container, state: &api::State) {
    let seen = engine.events.seen(&container.id);
    for event in state.journal.iter().filter(|event| event.seq > seen) {
        lifecycle::publish(engine, container, event);
    }
    container.seen.store(state.last_seq.max(seen), std::sync::atomic::Ordering::Relaxed);
}

/// The same of a monitor that has ended since.
fn publish_stored_journal(engine: &Engine, container: &Container) {
    let path = container.record().state_path(&engine.config().data_root);
    match wherry_durable::read_json::<api::State>(&path) {
        Ok(Some(state)) => publish_journal(engine, container, &state),
        Ok(None) => {}
        Err(error) => tracing::warn!(container = %container.id, %error, "its journal cannot be read"),
    }
}

/// Stops all containers, at the engine's own orderly end.
pub(crate) async fn shutdown(engine: Arc<Engine>) {
    engine.stopping.store(true, std::sync::atomic::Ordering::Relaxed);
    let limit = Duration::from_secs(engine.config().shutdown_timeout_s);
    let mut stopping = tokio::task::JoinSet::new();
    for container in engine.containers.all() {
        if container.status().state.is_running() {
            let engine = engine.clone();
            stopping.spawn(async move {
                control::stop_for_shutdown(&engine, &container, limit).await;
                if tokio::time::timeout(SETTLING, settled(&container)).await.is_err() {
                    tracing::warn!(container = %container.id, "what it used was not given back in time");
                }
            });
        }
    }
    stopping.join_all().await;
}

/// How long a container may take to give back its network and its mounts once it has ended.
const SETTLING: Duration = Duration::from_secs(5);

/// Waits for what follows the end of a container: its monitor is let go last.
async fn settled(container: &Container) {
    while !container.status().state.is_running() && container.monitor.lock().await.is_some() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
