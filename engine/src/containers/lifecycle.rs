//! Following a container: its monitor is started on the first need, and what it reports
//! becomes state, Docker events, and the work that an exit leaves to the engine.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use wherry_monitor_api::{Event, EventKind, HealthState, HealthStatus, Phase, Request, run_dir};

use super::monitor::{CallError, Monitor, Signal};
use super::state::{State, Transition};
use super::table::Container;
use super::{boot, leftovers, remove, shared_memory};
use crate::engine::Engine;
use crate::error::Error;

/// The container's monitor, started if there is none.
///
/// # Errors
/// 404 when the container has been removed: nobody would end its monitor. 500 when it cannot be started.
pub(super) async fn ensure_monitor(
    engine: &Arc<Engine>,
    container: &Arc<Container>,
) -> Result<Arc<Monitor>, Error> {
    let mut slot = container.monitor.lock().await;
    if let Some(monitor) = slot.as_ref() {
        return Ok(monitor.clone());
    }
    // Whoever removes it takes it out of the table first, and then looks here for a monitor.
    engine.containers.find(&container.id)?;
    let dir = run_dir(&engine.config().exec_root, &container.id);
    let (monitor, signals) = Monitor::spawn(&engine.monitor_program, &dir, &container.id)
        .map_err(Error::io("start the monitor of", &container.id))?;
    adopt(engine, container, &monitor, signals)?;
    *slot = Some(monitor.clone());
    Ok(monitor)
}

/// The container's monitor, if it has one.
pub(super) async fn monitor(container: &Container) -> Option<Arc<Monitor>> {
    container.monitor.lock().await.clone()
}

/// Subscribes to a monitor and follows it from now on.
pub(super) fn adopt(
    engine: &Arc<Engine>,
    container: &Arc<Container>,
    monitor: &Arc<Monitor>,
    signals: UnboundedReceiver<Signal>,
) -> Result<(), Error> {
    let after = container.seen.load(std::sync::atomic::Ordering::Relaxed);
    monitor.submit(Request::Subscribe { after }, &[]).map_err(|e| broken(container, &e))?;
    tokio::spawn(follow(engine.clone(), container.clone(), monitor.clone(), signals));
    Ok(())
}

/// The error for a monitor that failed in a way that is not the user's doing.
pub(super) fn broken(container: &Container, error: &CallError) -> Error {
    Error::Monitor { container: container.id.clone(), reason: error.to_string() }
}

async fn follow(
    engine: Arc<Engine>,
    container: Arc<Container>,
    monitor: Arc<Monitor>,
    mut signals: UnboundedReceiver<Signal>,
) {
    while let Some(signal) = signals.recv().await {
        match signal {
            Signal::Event(event) => {
                let seq = event.seq;
                publish(&engine, &container, &event);
                // Nobody may start it again between its end and the clean-up after it.
                let guard = if is_last(&event) { Some(container.transition.lock().await) } else { None };
                apply_event(&engine, &container, &event).await;
                // Waiting clients are answered then: what they ask next finds the engine informed. A monitor that has gone
                // needs no acknowledgement.
                let _ = monitor.submit(Request::Acknowledge { up_to: seq }, &[]);
                if let Some(guard) = guard {
                    after_exit(&engine, &container, &monitor, guard).await;
                }
            }
            Signal::Gone => break,
        }
    }
    // One that was let go may stay on for a while, until its clients have all output: then it is another's container that runs.
    let mut slot = container.monitor.lock().await;
    if !is_of(&slot, &monitor) {
        return;
    }
    if !container.status().state.is_running() {
        *slot = None;
        return;
    }
    drop(slot);
    broken_off(&engine, &container, &monitor).await;
}

fn is_of(slot: &Option<Arc<Monitor>>, monitor: &Arc<Monitor>) -> bool {
    slot.as_ref().is_some_and(|current| Arc::ptr_eq(current, monitor))
}

/// The connection to the monitor of a container that runs has ended.
async fn broken_off(engine: &Arc<Engine>, container: &Arc<Container>, monitor: &Arc<Monitor>) {
    // Nobody may start it again before what is left of it is gone. A dead monitor keeps its place until then: who found none
    // would begin another, or take the container for ended.
    let guard = container.transition.lock().await;
    if !is_of(&*container.monitor.lock().await, monitor) || !container.status().state.is_running() {
        return;
    }
    // A monitor cuts off an engine that does not read, or that it does not understand, and lives on.
    let dir = run_dir(&engine.config().exec_root, &container.id);
    let again = loop {
        match Monitor::connect(&dir) {
            Ok(found) => break found,
            Err(error) => {
                tracing::error!(container = %container.id, %error, "cannot tell whether its monitor lives");
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    if let Some((found, signals)) = again
        && adopt(engine, container, &found, signals).is_ok()
    {
        tracing::warn!(container = %container.id, "connected to its monitor again");
        *container.monitor.lock().await = Some(found);
        return;
    }
    tracing::error!(container = %container.id, "the monitor ended without a last word");
    lost(engine, container).await;
    *container.monitor.lock().await = None;
    drop(guard);
    boot::resume_one(engine, container).await;
}

/// The monitor is gone while the container ran: nobody reaps or logs it any more, so it is over.
pub(super) async fn lost(engine: &Arc<Engine>, container: &Arc<Container>) {
    let before = container.status();
    if before.state.is_running() {
        leftovers::clear(engine, container).await;
    }
    let at_ns = crate::clock::now_ns();
    if container.apply(&Transition::Lost { at_ns }).is_err() {
        return;
    }
    if let State::Running { started_at_ns, .. } = before.state {
        // Nobody was there to see how it ended.
        super::network_events(engine, container, at_ns, "disconnect");
        mounts_event(engine, container, at_ns, false);
        let code = container.status().state.exit().map_or(0, |exit| exit.code);
        let more = [
            ("exitCode".to_owned(), code.to_string()),
            ("execDuration".to_owned(), ((at_ns - started_at_ns) / 1_000_000_000).to_string()),
        ];
        super::publish_at(engine, container, at_ns, "die", more.into());
    }
    release_network(engine, container).await;
    release_files(engine, container).await;
}

/// Whether nothing will follow this event unless somebody starts the container.
fn is_last(event: &Event) -> bool {
    matches!(
        event.kind,
        EventKind::Exited { restarting: false, .. } | EventKind::StartFailed { restarting: false, .. }
    )
}

/// Brings the container's state up to date with an event.
async fn apply_event(engine: &Arc<Engine>, container: &Arc<Container>, event: &Event) {
    container.seen.store(event.seq, std::sync::atomic::Ordering::Relaxed);
    let current = container.status();
    let started_at_ns = match &current.state {
        State::Running { started_at_ns, .. } => *started_at_ns,
        other => other.exit().map_or(0, |e| e.started_at_ns),
    };
    let phase = match &event.kind {
        EventKind::Started { pid, by_policy } => {
            let probed = has_probe(&container.record());
            container.amend(|s| {
                s.restart_count += u32::from(*by_policy);
                s.health = probed.then(|| HealthState {
                    status: HealthStatus::Starting,
                    failing_streak: 0,
                    log: Vec::new(),
                });
            });
            Phase::Running { pid: *pid, pid_start: 0, started_at_ns: event.at_ns, paused: false }
        }
        EventKind::Exited { code, restarting, oom_killed, stopped } => {
            container.amend(|s| s.manually_stopped |= *stopped && !engine.is_stopping());
            ended(*code, *restarting, *oom_killed, started_at_ns, event.at_ns)
        }
        EventKind::StartFailed { code, restarting, .. } => {
            ended(*code, *restarting, false, started_at_ns, event.at_ns)
        }
        EventKind::Paused | EventKind::Resumed => {
            let paused = event.kind == EventKind::Paused;
            Phase::Running { pid: current.state.pid(), pid_start: 0, started_at_ns, paused }
        }
        EventKind::Health { .. } => {
            refresh_health(container).await;
            return;
        }
        EventKind::ExecExited { exec, code } => {
            container.execs.ended(exec, *code);
            return;
        }
        EventKind::OutOfMemory
        | EventKind::StopTimedOut
        | EventKind::ExecStarted { .. }
        | EventKind::Detached { .. } => return,
    };
    if let Err(invalid) = container.apply(&Transition::Monitor(phase)) {
        tracing::warn!(container = %container.id, error = %invalid, "an event does not fit");
    }
}

fn ended(code: i32, restarting: bool, oom_killed: bool, started_at_ns: i64, finished_at_ns: i64) -> Phase {
    if restarting {
        Phase::Restarting { code, started_at_ns, finished_at_ns, oom_killed, next_start_ns: 0 }
    } else {
        Phase::Exited { code, started_at_ns, finished_at_ns, oom_killed, error: String::new() }
    }
}

/// Whether a probe runs beside it.
fn has_probe(record: &super::record::Record) -> bool {
    let test = record.config.healthcheck.as_ref().and_then(|check| check.test.as_deref());
    matches!(test, Some([kind, _, ..]) if kind != "NONE")
}

async fn refresh_health(container: &Container) {
    let Some(monitor) = monitor(container).await else { return };
    if let Ok(wherry_monitor_api::Reply::State(state)) = monitor.call(Request::State, &[]).await {
        container.amend(|s| s.health = state.health);
    }
}

/// What the engine does when a container has ended for good: network, `--rm`, and letting the monitor go.
async fn after_exit(
    engine: &Arc<Engine>,
    container: &Arc<Container>,
    monitor: &Arc<Monitor>,
    guard: tokio::sync::MutexGuard<'_, ()>,
) {
    release_network(engine, container).await;
    release_files(engine, container).await;
    let mut slot = container.monitor.lock().await;
    if slot.as_ref().is_some_and(|current| Arc::ptr_eq(current, monitor)) {
        *slot = None;
    }
    drop(slot);
    drop(guard);
    if container.record().host_config.auto_remove && !engine.is_stopping() {
        // A `docker rm` at the same moment may have been quicker.
        if let Err(error) = remove::remove(engine, container, remove::Options::auto()).await {
            tracing::debug!(container = %container.id, %error, "automatic removal");
        }
    }
    // It may have ended already.
    let _ = monitor.submit(Request::Release, &[]);
}

/// Gives addresses, names and ports back.
pub(super) async fn release_network(engine: &Arc<Engine>, container: &Arc<Container>) {
    if container.sandbox().is_none() {
        return;
    }
    container.set_sandbox(None);
    if let Err(error) = engine.netd.release_sandbox(&container.id).await {
        tracing::error!(container = %container.id, %error, "the network could not be released");
    }
}

/// Unmounts what is mounted on the host for a container that runs.
pub(super) async fn release_files(engine: &Arc<Engine>, container: &Container) {
    release_volumes(engine, container).await;
    shared_memory::release(&engine.config().exec_root, &container.id);
    super::image_mounts::release(&engine.config().exec_root, &container.id);
}

/// Unmounts volumes that are mounts, where no other container uses them.
async fn release_volumes(engine: &Arc<Engine>, container: &Container) {
    let record = container.record();
    let is_mount = |name: &str| engine.volumes.get(name).is_ok_and(|volume| volume.has_mount());
    if record.volumes().any(is_mount) {
        let engine = engine.clone();
        let released = crate::engine::blocking(move || {
            crate::volumes::release(&engine, record.volumes());
            Ok(())
        });
        if let Err(error) = released.await {
            tracing::warn!(container = %container.id, %error, "its volumes were not released");
        }
    }
}

/// Publishes a monitor's event as Docker's.
pub(super) fn publish(engine: &Engine, container: &Container, event: &Event) {
    let mut more = BTreeMap::new();
    let action = match &event.kind {
        EventKind::Started { by_policy, .. } => {
            if *by_policy {
                mounts_event(engine, container, event.at_ns, true);
            }
            super::network_events(engine, container, event.at_ns, "connect");
            "start".to_owned()
        }
        // A restart was called off: the run itself ended, and was told, before.
        EventKind::Exited { stopped: true, .. }
            if matches!(container.status().state, State::Restarting { .. }) =>
        {
            return;
        }
        EventKind::Exited { code, .. } | EventKind::StartFailed { code, .. } => {
            let ran_s = match container.status().state {
                State::Running { started_at_ns, .. } => (event.at_ns - started_at_ns) / 1_000_000_000,
                _ => 0,
            };
            more.insert("exitCode".to_owned(), code.to_string());
            more.insert("execDuration".to_owned(), ran_s.to_string());
            // Clients see each run come and go, though address and mounts last from one restart to the next.
            super::network_events(engine, container, event.at_ns, "disconnect");
            mounts_event(engine, container, event.at_ns, false);
            "die".to_owned()
        }
        EventKind::OutOfMemory => "oom".to_owned(),
        EventKind::StopTimedOut => {
            more.insert("signal".to_owned(), "9".to_owned());
            "kill".to_owned()
        }
        EventKind::Paused => "pause".to_owned(),
        EventKind::Resumed => "unpause".to_owned(),
        // Published by the request, which knows the command.
        EventKind::ExecStarted { .. } => return,
        EventKind::ExecExited { exec, code } => {
            more.insert("execID".to_owned(), exec.clone());
            more.insert("exitCode".to_owned(), code.to_string());
            "exec_die".to_owned()
        }
        EventKind::Detached { exec: None } => "detach".to_owned(),
        EventKind::Detached { exec: Some(exec) } => {
            more.insert("execID".to_owned(), exec.clone());
            "exec_detach".to_owned()
        }
        EventKind::Health { status } => format!("health_status: {}", super::inspect::health_word(*status)),
    };
    super::publish_from(engine, container, (event.seq, event.at_ns), &action, more);
}

/// Publishes that a container's volumes are mounted, or no more.
pub(super) fn mounts_event(engine: &Engine, container: &Container, time_ns: i64, mounted: bool) {
    for mount in container.record().mounts.iter().filter(|mount| mount.kind == "volume") {
        if mounted {
            crate::volumes::publish_mount(
                engine,
                time_ns,
                &mount.name,
                &container.id,
                (&mount.destination, mount.rw),
            );
        } else {
            crate::volumes::publish_unmount(engine, time_ns, &mount.name, &container.id);
        }
    }
}

/// Waits until the container no longer runs and nothing will restart it, at most `limit`; whether that came true.
pub(super) async fn stopped_within(container: &Container, limit: Option<Duration>) -> bool {
    let mut status = container.watch();
    let stopped = status.wait_for(|s| !s.state.is_running());
    match limit {
        Some(limit) => matches!(tokio::time::timeout(limit, stopped).await, Ok(Ok(_))),
        None => stopped.await.is_ok(),
    }
}
