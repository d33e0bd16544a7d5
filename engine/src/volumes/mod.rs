//! Volumes: the `local` driver, in `DATA_ROOT/volumes`.

mod local;
mod mount;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use hyper::StatusCode;
pub(crate) use local::{ANONYMOUS, Volume, Volumes};
pub(crate) use mount::unmount;
use serde::{Deserialize, Serialize};

use crate::engine::{Engine, blocking};
use crate::error::Error;
use crate::router::Route;
use crate::server::{ApiVersion, Filters, Reply, Request, response};

/// Answers requests below `/volumes`.
///
/// # Errors
/// Those of the handlers; `PageNotFound` for other paths.
pub(crate) async fn route(engine: Arc<Engine>, route: &Route, request: Request) -> Result<Reply, Error> {
    let (method, segments) = route.parts();
    match (method, segments.as_slice()) {
        ("GET", ["volumes"]) => list(&engine, &request),
        ("POST", ["volumes", "create"]) => create(engine, request).await,
        ("POST", ["volumes", "prune"]) => prune(engine, &request).await,
        ("GET", ["volumes", name]) => {
            let volume = engine.volumes.get(name)?;
            Ok(response::json(StatusCode::OK, &Shown::from(&*volume)).into())
        }
        ("DELETE", ["volumes", name]) => remove(engine.clone(), name, request.query.flag("force")).await,
        ("PUT", ["volumes", _]) => Err(Error::Unavailable(
            "volume update only valid for cluster volumes, but swarm is unavailable".into(),
        )),
        _ => Err(Error::PageNotFound),
    }
}

/// A volume as the API shows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Shown {
    created_at: String,
    driver: &'static str,
    labels: Option<BTreeMap<String, String>>,
    mountpoint: String,
    name: String,
    options: Option<BTreeMap<String, String>>,
    scope: &'static str,
    /// Only in `/system/df`.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage_data: Option<Usage>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Usage {
    ref_count: usize,
    size: u64,
}

impl From<&Volume> for Shown {
    fn from(volume: &Volume) -> Self {
        let second = volume.created_ns - volume.created_ns.rem_euclid(1_000_000_000);
        Self {
            created_at: crate::clock::rfc3339(second),
            driver: "local",
            labels: volume.labels.clone(),
            mountpoint: volume.mountpoint.display().to_string(),
            name: volume.name.clone(),
            options: volume.options.clone(),
            scope: "local",
            usage_data: None,
        }
    }
}

/// All volumes with their use, for `/system/df`. Walks their files; blocks.
pub(crate) fn usage(engine: &Engine) -> Vec<Shown> {
    let shown = |volume: Arc<Volume>| Shown {
        usage_data: Some(Usage {
            ref_count: engine.containers.using_volume(&volume.name).len(),
            size: volume.size_bytes(),
        }),
        ..Shown::from(&*volume)
    };
    engine.volumes.list().into_iter().map(shown).collect()
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct List {
    volumes: Vec<Shown>,
    warnings: Option<Vec<String>>,
}

fn list(engine: &Engine, request: &Request) -> Result<Reply, Error> {
    let filters = Filters::parse(request.query.get("filters"), &["dangling", "driver", "label", "name"])?;
    let dangling = filters.boolean("dangling")?;
    let wanted = |volume: &Arc<Volume>| {
        filters.any("driver", |driver| driver == "local")
            && filters.found_in("name", &volume.name)
            && has_labels(&filters, volume)
            && dangling.is_none_or(|unused| engine.containers.using_volume(&volume.name).is_empty() == unused)
    };
    let volumes = engine.volumes.list().iter().filter(|v| wanted(v)).map(|v| Shown::from(&**v)).collect();
    Ok(response::json(StatusCode::OK, &List { volumes, warnings: None }).into())
}

fn has_labels(filters: &Filters, volume: &Volume) -> bool {
    match &volume.labels {
        Some(labels) => filters.labels(labels),
        None => filters.labels(&BTreeMap::new()),
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(expecting = "struct volume.CreateOptions", rename_all = "PascalCase", default)]
struct Create {
    name: Option<String>,
    driver: Option<String>,
    driver_opts: Option<BTreeMap<String, String>>,
    labels: Option<BTreeMap<String, String>>,
    cluster_volume_spec: Option<serde_json::Value>,
}

async fn create(engine: Arc<Engine>, mut request: Request) -> Result<Reply, Error> {
    let body: Create = request.typed_optional_json().await?.unwrap_or_default();
    if body.cluster_volume_spec.is_some() {
        return Err(Error::Unavailable(crate::system::swarm::NOT_A_MANAGER.into()));
    }
    let volume = blocking(move || {
        let driver = body.driver.as_deref().unwrap_or("");
        ensure(&engine, body.name.as_deref(), body.labels, driver, body.driver_opts)
    })
    .await?;
    Ok(response::json(StatusCode::CREATED, &Shown::from(&*volume)).into())
}

/// [`Volumes::ensure`], with the event `create` for a new volume. Blocks.
///
/// # Errors
/// As [`Volumes::ensure`].
pub(crate) fn ensure(
    engine: &Engine,
    name: Option<&str>,
    labels: Option<BTreeMap<String, String>>,
    driver: &str,
    options: Option<BTreeMap<String, String>>,
) -> Result<Arc<Volume>, Error> {
    let (volume, new) = engine.volumes.ensure(name, labels, driver, options)?;
    if new {
        publish(engine, "create", &volume.name, &[]);
    }
    Ok(volume)
}

/// [`Volumes::remove`], with the event `destroy`. The caller has checked that nobody uses it. Blocks.
///
/// # Errors
/// As [`Volumes::remove`].
pub(crate) fn destroy(engine: &Engine, name: &str) -> Result<(), Error> {
    engine.volumes.remove(name)?;
    publish(engine, "destroy", name, &[]);
    Ok(())
}

/// Makes a volume ready for a container that is started, with the event `mount`. Answers where its files are. Blocks
/// where the volume has mount options.
///
/// # Errors
/// As [`Volumes::mount`].
pub(crate) fn attach(
    engine: &Engine,
    volume: &str,
    container: &str,
    destination: &str,
    writable: bool,
) -> Result<PathBuf, Error> {
    let mountpoint = engine.volumes.mount(volume)?;
    publish_mount(engine, crate::clock::now_ns(), volume, container, (destination, writable));
    Ok(mountpoint)
}

/// Publishes that a container uses a volume since `time_ns`, where, and whether it may write.
pub(crate) fn publish_mount(
    engine: &Engine,
    time_ns: i64,
    volume: &str,
    container: &str,
    (destination, writable): (&str, bool),
) {
    let writable = if writable { "true" } else { "false" };
    let attributes = attributes(&[
        ("container", container),
        ("destination", destination),
        ("propagation", ""),
        ("read/write", writable),
    ]);
    engine.events.publish_at(time_ns, "volume", "mount", volume, attributes);
}

/// Publishes that a container uses a volume no more, since `time_ns`.
pub(crate) fn publish_unmount(engine: &Engine, time_ns: i64, volume: &str, container: &str) {
    let attributes = attributes(&[("container", container)]);
    engine.events.publish_at(time_ns, "volume", "unmount", volume, attributes);
}

/// Unmounts those of `names` that have mount options and that no running container uses. Blocks where there are any.
pub(crate) fn release<'a>(engine: &Engine, names: impl Iterator<Item = &'a str>) {
    for name in names {
        let has_options = engine.volumes.get(name).is_ok_and(|volume| volume.has_mount());
        let is_running = |id: &String| {
            engine.containers.find(id).is_ok_and(|container| container.status().state.is_running())
        };
        if !has_options || engine.containers.using_volume(name).iter().any(is_running) {
            continue;
        }
        if let Err(error) = engine.volumes.unmount(name) {
            tracing::warn!(volume = name, %error, "could not be unmounted");
        }
    }
}

fn publish(engine: &Engine, action: &str, volume: &str, more: &[(&str, &str)]) {
    engine.events.publish("volume", action, volume, attributes(more));
}

fn attributes(more: &[(&str, &str)]) -> BTreeMap<String, String> {
    let all = [("driver", "local")];
    all.iter().chain(more).map(|(name, value)| ((*name).to_string(), (*value).to_string())).collect()
}

async fn remove(engine: Arc<Engine>, name: &str, force: bool) -> Result<Reply, Error> {
    let name = name.to_string();
    let removed = blocking(move || {
        engine.volumes.get(&name)?;
        let users = engine.containers.using_volume(&name);
        if !users.is_empty() {
            return Err(Error::Conflict(format!("remove {name}: volume is in use - [{}]", users.join(", "))));
        }
        destroy(&engine, &name)
    })
    .await;
    match removed {
        Err(Error::NotFound(_)) if force => {}
        other => other?,
    }
    Ok(response::empty(StatusCode::NO_CONTENT).into())
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Pruned {
    volumes_deleted: Vec<String>,
    space_reclaimed: u64,
}

async fn prune(engine: Arc<Engine>, request: &Request) -> Result<Reply, Error> {
    let filters = Filters::parse(request.query.get("filters"), &["all", "label", "label!"])?;
    let mut all = request.version < ApiVersion(1, 42);
    for value in filters.values("all") {
        all = crate::config::go_bool(value)
            .map_err(|why| Error::InvalidParameter(format!("invalid filter 'all': {why}")))?;
    }
    let pruned = blocking(move || {
        let mut pruned = Pruned { volumes_deleted: Vec::new(), space_reclaimed: 0 };
        for volume in engine.volumes.list() {
            // As with dockerd, what is described by options is never taken.
            let plain = volume.options.as_ref().is_none_or(BTreeMap::is_empty);
            let wanted = plain && (all || volume.is_anonymous()) && has_labels(&filters, &volume);
            if !wanted || !engine.containers.using_volume(&volume.name).is_empty() {
                continue;
            }
            let size = volume.size_bytes();
            match destroy(&engine, &volume.name) {
                Ok(()) => {
                    pruned.volumes_deleted.push(volume.name.clone());
                    pruned.space_reclaimed += size;
                }
                Err(error) => tracing::warn!(volume = volume.name, %error, "could not be pruned"),
            }
        }
        let reclaimed = BTreeMap::from([("reclaimed".to_string(), pruned.space_reclaimed.to_string())]);
        engine.events.publish("volume", "prune", "", reclaimed);
        Ok(pruned)
    })
    .await?;
    Ok(response::json(StatusCode::OK, &pruned).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_shown_as_dockerd_does() {
        let volume = Volume {
            name: "ws1".into(),
            mountpoint: "/var/lib/wherry/volumes/ws1/_data".into(),
            created_ns: 1_795_311_760_123_000_000,
            labels: None,
            options: Some(BTreeMap::from([("type".to_string(), "tmpfs".to_string())])),
        };
        assert_eq!(
            serde_json::to_string(&Shown::from(&volume)).unwrap(),
            r#"{"CreatedAt":"2026-11-22T01:42:40Z","Driver":"local","Labels":null,"Mountpoint":"/var/lib/wherry/volumes/ws1/_data","Name":"ws1","Options":{"type":"tmpfs"},"Scope":"local"}"#
        );
    }
}
