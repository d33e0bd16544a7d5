//! Changing a container that exists: stop, kill, restart, pause, rename, update.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use wherry_monitor_api as api;

use super::config::RestartPolicy;
use super::lifecycle::{self, broken, stopped_within};
use super::monitor::CallError;
use super::signals::parse_signal;
use super::start;
use super::state::State;
use super::table::Container;
use crate::engine::{Engine, blocking};
use crate::error::Error;
use crate::server::{Reply, Request, response};

const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;
/// Seconds between the stop signal and SIGKILL when nobody says otherwise.
const STOP_TIMEOUT_S: i64 = 10;

/// The signal and the patience of a stop.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stop {
    pub(super) signal: i32,
    /// `None`: for ever.
    pub(super) timeout: Option<Duration>,
    /// Whether the user wishes it.
    pub(super) manual: bool,
}

impl Stop {
    /// What the container's own settings say, unless the request does.
    fn new(container: &Container, signal: Option<&str>, timeout_s: Option<i64>) -> Result<Self, Error> {
        let config = &container.record().config;
        let signal = match signal.or(Some(config.stop_signal.as_str()).filter(|s| !s.is_empty())) {
            Some(name) => parse_signal(name)?,
            None => SIGTERM,
        };
        let seconds = timeout_s.or(config.stop_timeout).unwrap_or(STOP_TIMEOUT_S);
        Ok(Self { signal, timeout: u64::try_from(seconds).ok().map(Duration::from_secs), manual: true })
    }

    /// What the request says; dockerd calls bad settings its own failure here.
    fn of(container: &Container, request: &Request, reference: &str, verb: &str) -> Result<Self, Error> {
        let timeout_s = request.query.integer("t").map_err(|e| Error::server(e.to_string()))?;
        Self::new(container, request.query.get("signal"), timeout_s)
            .map_err(|e| Error::server(format!("cannot {verb} container: {reference}: {e}")))
    }
}

/// Stops a running container and waits until it has.
pub(super) async fn stop(engine: &Arc<Engine>, container: &Arc<Container>, stop: Stop) -> Result<(), Error> {
    if !container.status().state.is_running() {
        return Err(Error::NotModified);
    }
    // A monitor that has gone takes its container's state with it; the follower notices.
    if let Some(monitor) = lifecycle::monitor(container).await {
        publish_kill(engine, container, stop.signal);
        let timeout_ms = stop.timeout.map(|t| u64::try_from(t.as_millis()).unwrap_or(u64::MAX));
        let request = api::Request::Stop { signal: stop.signal, timeout_ms, manual: stop.manual };
        match monitor.call(request, &[]).await {
            Ok(_) | Err(CallError::Gone) => {}
            Err(CallError::Refused(f)) if f.kind == api::FailureKind::State => {}
            Err(error) => return Err(broken(container, &error)),
        }
    }
    stopped_within(container, None).await;
    super::publish(engine, container, "stop");
    Ok(())
}

/// Stops a container because the engine ends: not the user's wish, so it may be started again at boot.
pub(super) async fn stop_for_shutdown(engine: &Arc<Engine>, container: &Arc<Container>, limit: Duration) {
    let stopping = match Stop::new(container, None, None) {
        Ok(own) => Stop { timeout: Some(own.timeout.unwrap_or(limit).min(limit)), manual: false, ..own },
        Err(_) => Stop { signal: SIGTERM, timeout: Some(limit), manual: false },
    };
    if let Err(error) = stop(engine, container, stopping).await {
        tracing::warn!(container = %container.id, %error, "could not be stopped");
    }
}

fn publish_kill(engine: &Engine, container: &Container, signal: i32) {
    let more = BTreeMap::from([("signal".to_owned(), signal.to_string())]);
    super::publish_with(engine, container, "kill", more);
}

/// `POST /containers/{id}/stop`.
pub(super) async fn handle_stop(
    engine: Arc<Engine>,
    container: Arc<Container>,
    reference: &str,
    request: Request,
) -> Result<Reply, Error> {
    let how = Stop::of(&container, &request, reference, "stop")?;
    stop(&engine, &container, how).await?;
    Ok(response::empty(StatusCode::NO_CONTENT).into())
}

/// `POST /containers/{id}/restart`.
pub(super) async fn handle_restart(
    engine: Arc<Engine>,
    container: Arc<Container>,
    reference: &str,
    request: Request,
) -> Result<Reply, Error> {
    let how = Stop::of(&container, &request, reference, "restart")?;
    match stop(&engine, &container, how).await {
        Ok(()) | Err(Error::NotModified) => {}
        Err(error) => return Err(error),
    }
    match start::start(&engine, &container).await {
        // A `docker start` was quicker: it runs, as asked.
        Ok(()) | Err(Error::NotModified) => {}
        Err(error) => return Err(error),
    }
    super::publish(&engine, &container, "restart");
    Ok(response::empty(StatusCode::NO_CONTENT).into())
}

/// Sends a signal to a running container.
pub(super) async fn kill(engine: &Arc<Engine>, container: &Arc<Container>, signal: i32) -> Result<(), Error> {
    let not_running = || Error::NotRunning(container.id.clone());
    if !container.status().state.is_running() {
        return Err(not_running());
    }
    let monitor = lifecycle::monitor(container).await.ok_or_else(not_running)?;
    let stop_signal = Stop::new(container, None, None)?.signal;
    let manual = signal == SIGKILL || signal == stop_signal;
    publish_kill(engine, container, signal);
    match monitor.call(api::Request::Kill { signal, manual }, &[]).await {
        Ok(_) => {}
        Err(CallError::Refused(f)) if f.kind == api::FailureKind::State => return Err(not_running()),
        Err(CallError::Gone) => return Err(not_running()),
        Err(error) => return Err(broken(container, &error)),
    }
    if signal == SIGKILL {
        stopped_within(container, Some(Duration::from_secs(10))).await;
    }
    Ok(())
}

/// `POST /containers/{id}/kill`.
pub(super) async fn handle_kill(
    engine: Arc<Engine>,
    reference: &str,
    request: Request,
) -> Result<Reply, Error> {
    let killed = async {
        let signal = match request.query.get("signal").map(|text| (text, parse_signal(text))) {
            None => SIGKILL,
            Some((_, Ok(signal))) => signal,
            Some((number, Err(_))) if number.parse::<i32>().is_ok_and(|number| number != 0) => {
                let text = format!("the linux daemon does not support signal {number}");
                return Err(Error::InvalidParameter(text));
            }
            Some((_, Err(error))) => return Err(error),
        };
        let container = engine.containers.find(reference)?;
        kill(&engine, &container, signal).await
    };
    killed.await.map_err(|error| Error::Docker {
        status: error.status(),
        message: format!("cannot kill container: {reference}: {error}"),
    })?;
    Ok(response::empty(StatusCode::NO_CONTENT).into())
}

/// `POST /containers/{id}/pause` and `/unpause`.
pub(super) async fn handle_pause(container: Arc<Container>, pause: bool) -> Result<Reply, Error> {
    let id = &container.id;
    match (&container.status().state, pause) {
        (State::Running { paused: false, .. }, true) | (State::Running { paused: true, .. }, false) => {}
        (State::Running { .. }, true) => {
            return Err(Error::Conflict(format!("Container {id} is already paused")));
        }
        (State::Restarting { .. }, true) => {
            return Err(Error::Conflict(format!(
                "Container {id} is restarting, wait until the container is running"
            )));
        }
        (_, true) => return Err(Error::NotRunning(id.clone())),
        (_, false) => return Err(Error::server(format!("Container {id} is not paused"))),
    }
    let monitor = lifecycle::monitor(&container).await.ok_or_else(|| Error::NotRunning(id.clone()))?;
    let request = if pause { api::Request::Pause } else { api::Request::Resume };
    match monitor.call(request, &[]).await {
        Ok(_) => {}
        Err(CallError::Refused(failure)) => return Err(Error::server(failure.message)),
        Err(error) => return Err(broken(&container, &error)),
    }
    let mut status = container.watch();
    let settled = status.wait_for(|s| !matches!(s.state, State::Running { paused, .. } if paused != pause));
    // The event follows the answer at once; the container may also end in between.
    let _ = tokio::time::timeout(Duration::from_secs(10), settled).await;
    Ok(response::empty(StatusCode::NO_CONTENT).into())
}

/// `POST /containers/{id}/rename?name=`.
pub(super) async fn handle_rename(
    engine: Arc<Engine>,
    container: Arc<Container>,
    request: Request,
) -> Result<Reply, Error> {
    let new = request.query.get("name").unwrap_or("").trim_start_matches('/').to_owned();
    if new.is_empty() {
        return Err(Error::InvalidParameter("Neither old nor new names may be empty".into()));
    }
    let turn = engine.containers.renaming.clone().lock_owned().await;
    let guard = container.transition.lock().await;
    let old = container.record().name.clone();
    if new == old {
        return Err(Error::InvalidParameter(
            "Renaming a container with the same name as its current name".into(),
        ));
    }
    let explain = |error: Error| Error::Docker {
        status: error.status(),
        message: format!("Error when allocating new name: {error}"),
    };
    super::validate::check_name(&new).map_err(|_| {
        Error::InvalidParameter(format!(
            "Error when allocating new name: Invalid container name (/{new}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        ))
    })?;
    engine.containers.reserve_name(&new, &container.id).map_err(explain)?;
    let (task_engine, task_container, name) = (engine.clone(), container.clone(), new.clone());
    let saved = blocking(move || {
        task_container.update(&task_engine.config().data_root, |record| record.name = name).map(drop)
    })
    .await;
    if let Err(error) = saved {
        engine.containers.release_name(&new, &container.id);
        return Err(error);
    }
    engine.containers.release_name(&old, &container.id);
    // To its end, though the client may leave: others' locks can be held for long.
    let (task_engine, old_name) = (engine.clone(), old.clone());
    let (guarded, unguarded) = tokio::sync::oneshot::channel::<()>();
    let links = tokio::spawn(async move {
        // It is dropped after the guard, however this ends.
        let _ = unguarded.await;
        super::links::source_renamed(&task_engine, &old_name, &new).await;
        drop(turn);
    });
    rename_endpoints(&engine, &container).await;
    drop(guard);
    drop(guarded);
    let more = BTreeMap::from([("oldName".to_owned(), format!("/{old}"))]);
    super::publish_with(&engine, &container, "rename", more);
    let _ = links.await;
    Ok(response::empty(StatusCode::NO_CONTENT).into())
}

/// Peers find it under its new name.
async fn rename_endpoints(engine: &Arc<Engine>, container: &Arc<Container>) {
    let Some(sandbox) = container.sandbox() else { return };
    let record = container.record();
    for endpoint in &sandbox.endpoints {
        let network = &endpoint.spec.network;
        let attachment =
            record.networks.values().find(|a| a.network_id == *network).cloned().unwrap_or_default();
        // In a network without a DNS it has none, and goes on with none.
        let has_names = !endpoint.spec.names.is_empty();
        let names = if has_names { super::network::names(&record, &attachment) } else { Vec::new() };
        if let Err(error) = engine.netd.set_names(&container.id, network, names, &record.name).await {
            tracing::warn!(container = %container.id, %error, "the new name is not known in a network");
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(expecting = "struct container.UpdateConfig", rename_all = "PascalCase", default)]
struct Update {
    restart_policy: RestartPolicy,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

/// `POST /containers/{id}/update`.
pub(super) async fn handle_update(
    engine: Arc<Engine>,
    container: Arc<Container>,
    mut request: Request,
) -> Result<Reply, Error> {
    let asked: Update = super::create::read_body(&mut request).await?;
    let _guard = container.transition.lock().await;
    let mut host = container.record().host_config.clone();
    let mut merged = serde_json::to_value(&host).map_err(|e| Error::server(e.to_string()))?;
    let set = asked.rest.into_iter().filter(|(_, value)| !is_empty(value));
    for (name, value) in set {
        merged[name] = value;
    }
    host = crate::server::json::typed_as("container.UpdateConfig", merged)?;
    if !asked.restart_policy.name.is_empty() {
        host.restart_policy = asked.restart_policy;
    }
    super::validate::check_host_config(&host)?;
    let (task_engine, task_container, saved) = (engine.clone(), container.clone(), host.clone());
    blocking(move || {
        task_container.update(&task_engine.config().data_root, |record| record.host_config = saved).map(drop)
    })
    .await?;
    if let Some(monitor) =
        lifecycle::monitor(&container).await.filter(|_| container.status().state.is_running())
    {
        let update = api::Request::Update {
            resources: Some(super::spec::resources::limits(&container.record().host_config)?.into()),
            restart: Some(start::restart_policy(&host.restart_policy)),
        };
        match monitor.call(update, &[]).await {
            Ok(_) => {}
            Err(CallError::Refused(failure)) => {
                return Err(Error::server(format!(
                    "Cannot update container {}: {}",
                    container.id, failure.message
                )));
            }
            Err(error) => return Err(broken(&container, &error)),
        }
    }
    super::publish(&engine, &container, "update");
    Ok(response::json(StatusCode::OK, &json!({ "Warnings": null })).into())
}

/// Whether a value is Go's zero value, which an update takes for "leave it".
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(on) => !on,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        // No field is one: what it should be is told.
        Value::Object(_) => false,
    }
}
