//! Containers: from the API's requests to monitors, netd and the store, and back.

mod archive;
mod attach;
mod boot;
mod changes;
mod checkpoints;
mod commit;
pub(crate) mod config;
pub(crate) mod connect;
mod control;
mod create;
mod exec;
pub(crate) mod files;
mod health;
mod image_mounts;
mod inspect;
mod leftovers;
mod lifecycle;
mod links;
mod list;
pub(crate) mod logging;
pub(crate) mod monitor;
mod mount_sources;
mod mounts;
mod names;
mod network;
mod reconcile;
pub(crate) mod record;
mod remove;
mod runtimes;
mod shared_memory;
mod shown;
pub(crate) mod signals;
pub(crate) mod spec;
mod start;
pub(crate) mod state;
mod stats;
pub(crate) mod step;
mod stored_logs;
mod streams;
pub(crate) mod table;
mod top;
pub(crate) mod users;
mod validate;

use std::collections::BTreeMap;
use std::sync::Arc;

use hyper::StatusCode;

pub(crate) use commit::commit;
pub(crate) use list::usage;
pub(crate) use mounts::clean_path;
pub(crate) use reconcile::{reconcile, shutdown};
pub(crate) use start::host_gateways;
pub(crate) use streams::time;
pub(crate) use table::{Container, Containers};

use crate::engine::Engine;
use crate::error::Error;
use crate::router::Route;
use crate::server::{Reply, Request, response};

/// Finds the handler of a path below `/containers` or `/exec`.
pub(crate) async fn route(engine: Arc<Engine>, route: &Route, request: Request) -> Result<Reply, Error> {
    let (method, segments) = route.parts();
    match (method, segments.as_slice()) {
        ("GET", ["containers", "json"]) => list::list(&engine, &request).await,
        ("POST", ["containers", "create"]) => create::create(engine, request).await,
        ("GET", ["containers", reference, "checkpoints"]) => {
            checkpoints::list(engine, reference, &request).await
        }
        ("POST", ["containers", reference, "checkpoints"]) => {
            checkpoints::create(engine, reference, request).await
        }
        ("DELETE", ["containers", reference, "checkpoints", name]) => {
            checkpoints::delete(engine, reference, name, &request).await
        }
        ("POST", ["containers", "prune"]) => remove::prune(engine, request).await,
        // A link's name has a slash in it: `receiver/alias`.
        ("DELETE", ["containers", reference @ ..]) => {
            remove::handle(engine, &reference.join("/"), request).await
        }
        ("GET", ["containers", reference @ .., "json"]) => {
            inspect::inspect(&engine, &reference.join("/"), &request).await
        }
        ("POST", ["containers", reference @ .., "attach"]) => {
            Ok(attach::attach(engine, &reference.join("/"), request).await)
        }
        ("GET", ["containers", reference @ .., "attach", "ws"]) => {
            attach::attach_ws(engine, &reference.join("/"), request).await
        }
        ("POST", ["containers", reference @ .., "kill"]) => {
            control::handle_kill(engine, &reference.join("/"), request).await
        }
        ("POST", ["containers", reference @ .., "resize"]) => {
            streams::resize(engine, &reference.join("/"), request).await
        }
        (method, ["containers", reference @ .., action]) => {
            on_one(engine, method, &reference.join("/"), action, request).await
        }
        ("POST", ["exec", id, "start"]) => exec::start(engine, id, request).await,
        ("POST", ["exec", id, "resize"]) => exec::resize(engine, id, request).await,
        ("GET", ["exec", id, "json"]) => exec::inspect(&engine, id).await,
        _ => Err(Error::PageNotFound),
    }
}

/// Actions on one container.
async fn on_one(
    engine: Arc<Engine>,
    method: &str,
    reference: &str,
    action: &str,
    request: Request,
) -> Result<Reply, Error> {
    let known = matches!(
        (method, action),
        ("GET", "logs" | "top" | "stats" | "changes" | "export")
            | ("POST", "start" | "stop" | "restart" | "pause" | "unpause" | "rename" | "update")
            | ("POST", "wait" | "exec")
            | ("GET" | "HEAD" | "PUT", "archive")
    );
    if !known {
        return Err(Error::PageNotFound);
    }
    let container = engine.containers.find(reference)?;
    match action {
        "logs" => streams::logs(engine, container, request).await,
        "top" => top::top(engine, container, request).await,
        "changes" => changes::changes(engine, container).await,
        "export" => changes::export(engine, container),
        "stats" => stats::stats(container, request).await,
        "start" => {
            let checkpoint = checkpoints::Checkpoint::of_start(&engine.config(), &request)?;
            start::start_from(&engine, &container, checkpoint.as_ref()).await?;
            Ok(response::empty(StatusCode::NO_CONTENT).into())
        }
        "stop" => control::handle_stop(engine, container, reference, request).await,
        "restart" => control::handle_restart(engine, container, reference, request).await,
        "pause" => control::handle_pause(container, true).await,
        "unpause" => control::handle_pause(container, false).await,
        "rename" => control::handle_rename(engine, container, request).await,
        "update" => control::handle_update(engine, container, request).await,
        "wait" => streams::wait(engine, container, request).await,
        "exec" => exec::create(engine, container, reference, request).await,
        "archive" => archive::handle(engine, container, reference, method, request).await,
        _ => Err(Error::PageNotFound),
    }
}

/// Publishes an event of a container.
fn publish(engine: &Engine, container: &Container, action: &str) {
    publish_with(engine, container, action, BTreeMap::new());
}

/// As [`publish`], with further attributes.
fn publish_with(engine: &Engine, container: &Container, action: &str, more: BTreeMap<String, String>) {
    publish_at(engine, container, crate::clock::now_ns(), action, more);
}

/// As [`publish_with`], of something that happened at `time_ns`.
fn publish_at(
    engine: &Engine,
    container: &Container,
    time_ns: i64,
    action: &str,
    more: BTreeMap<String, String>,
) {
    publish_from(engine, container, (0, time_ns), action, more);
}

/// As [`publish_at`], with the number that the container's monitor gave the event.
fn publish_from(
    engine: &Engine,
    container: &Container,
    (seq, time_ns): (u64, i64),
    action: &str,
    more: BTreeMap<String, String>,
) {
    let record = container.record();
    let mut attributes = record.labels().clone();
    attributes.insert("image".into(), record.config.image.clone());
    attributes.insert("name".into(), record.name.clone());
    attributes.extend(more);
    engine.events.publish_from(seq, time_ns, "container", action, &container.id, attributes);
}

/// Publishes that a container came into a network or left it. `network` is its full id.
async fn network_event(engine: &Engine, container: &Container, action: &str, network: &str) {
    let Ok(known) = engine.netd.known_networks().await else { return };
    let Some(network) = known.iter().find(|n| n.spec.id == network) else { return };
    let (name, id) = (&network.spec.name, &network.spec.id);
    publish_network(engine, container, crate::clock::now_ns(), action, (name, id));
}

/// As [`network_event`], of all its networks at once: it starts or has ended.
fn network_events(engine: &Engine, container: &Container, time_ns: i64, action: &str) {
    let record = container.record();
    if record.host_config.network_mode.starts_with("container:") {
        return;
    }
    let known = engine.netd.remembered();
    let is_gone = |id: &str| known.as_ref().is_some_and(|all| all.iter().all(|n| n.spec.id != *id));
    for (name, attachment) in network::in_order(&record) {
        if !attachment.network_id.is_empty() && !is_gone(&attachment.network_id) {
            publish_network(engine, container, time_ns, action, (name, &attachment.network_id));
        }
    }
}

fn publish_network(
    engine: &Engine,
    container: &Container,
    time_ns: i64,
    action: &str,
    (name, id): (&str, &str),
) {
    let known = engine.netd.remembered();
    let found = known.iter().flat_map(|all| all.iter()).find(|n| n.spec.id == id);
    let driver = match (name, found) {
        (_, Some(network)) => crate::networks::driver_name(network.spec.driver),
        ("host", None) => "host",
        ("none", None) => "null",
        (_, None) => "bridge",
    };
    let attributes = BTreeMap::from([
        ("container".to_owned(), container.id.clone()),
        ("name".to_owned(), name.to_owned()),
        ("type".to_owned(), driver.to_owned()),
    ]);
    engine.events.publish_at(time_ns, "network", action, id, attributes);
}
