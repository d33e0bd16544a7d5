//! Removing containers, so that a crash at any instant leaves either the container or nothing: its
//! folder is renamed first (that is the removal), the rest follows and is finished by the next start if need be.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper::StatusCode;
use serde_json::json;

use super::record::{self, Record};
use super::state::Transition;
use super::table::Container;
use super::{control, lifecycle, links};
use crate::engine::{Engine, blocking};
use crate::error::Error;
use crate::images::when;
use crate::server::{Filters, Reply, Request, response};

/// How the folders of containers begin whose removal has begun.
pub(super) const MARK: &str = ".removing-";

/// How to remove.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Options {
    /// Kill it if it runs.
    pub(super) force: bool,
    /// With its anonymous volumes.
    pub(super) volumes: bool,
}

impl Options {
    /// As `--rm` does.
    pub(super) fn auto() -> Self {
        Self { force: false, volumes: true }
    }
}

/// Removes a container.
///
/// # Errors
/// 409 when it runs and `force` is not set; 409 when somebody else is removing it.
pub(super) async fn remove(
    engine: &Arc<Engine>,
    container: &Arc<Container>,
    options: Options,
) -> Result<(), Error> {
    let _guard = loop {
        if container.status().state.is_running() {
            if !options.force {
                return Err(refusal(container));
            }
            match control::kill(engine, container, 9).await {
                Ok(()) | Err(Error::NotRunning(_)) => {}
                Err(error) => return Err(error),
            }
            lifecycle::stopped_within(container, None).await;
        }
        let guard = container.transition.lock().await;
        // Somebody may have started it in the meantime.
        if !container.status().state.is_running() {
            break guard;
        }
    };
    if engine.containers.find(&container.id).is_err() {
        return Err(Error::NoSuchContainer(container.id.clone()));
    }
    container.amend(|status| status.last_code = status.state.exit().map_or(0, |e| e.code));
    container.apply(&Transition::Remove).map_err(|_| {
        Error::Conflict(format!("removal of container {} is already in progress", container.id))
    })?;
    lifecycle::release_network(engine, container).await;
    let (task_engine, id) = (engine.clone(), container.id.clone());
    let marked = match blocking(move || mark(&task_engine.config().data_root, &id)).await {
        Ok(marked) => marked,
        Err(error) => {
            container.apply(&Transition::RemoveFailed).ok();
            return Err(error);
        }
    };
    // Of several containers with one volume, removed at once, the last must find no other.
    engine.containers.remove(container);
    let (task_engine, record) = (engine.clone(), container.record());
    blocking(move || {
        finish(&task_engine, &marked, &record, options.volumes);
        Ok(())
    })
    .await?;
    super::publish(engine, container, "destroy");
    // Wakes those who wait for the removal.
    container.amend(|_| {});
    if let Some(monitor) = container.monitor.lock().await.take() {
        // One that only holds clients of a container that never ran; it may have gone.
        let _ = monitor.submit(wherry_monitor_api::Request::Release, &[]);
    }
    Ok(())
}

fn refusal(container: &Container) -> Error {
    let state = container.status().state.status();
    let name = &container.record().name;
    Error::Conflict(match state {
        "paused" => format!(
            "cannot remove container \"{name}\": container is paused and must be unpaused first: unpause and then stop \
             the container before removing or force remove"
        ),
        state => format!(
            "cannot remove container \"{name}\": container is {state}: stop the container before removing or force remove"
        ),
    })
}

/// The step that decides: after it the container is gone, before it is not.
fn mark(data_root: &Path, id: &str) -> Result<PathBuf, Error> {
    let dir = record::dir(data_root, id);
    let marked = dir.with_file_name(format!("{MARK}{id}"));
    std::fs::rename(&dir, &marked).map_err(Error::io("rename", dir.display()))?;
    wherry_durable::sync_parent(&marked).map_err(Error::io("sync the folder of", marked.display()))?;
    Ok(marked)
}

/// What follows the decision; each step may have been done before. Failures are logged: the next start tries again,
/// since the marked folder goes last.
pub(super) fn finish(engine: &Engine, marked: &Path, record: &Record, volumes: bool) {
    let config = engine.config();
    let run_dir = wherry_monitor_api::run_dir(&config.exec_root, &record.id);
    // A named runtime's root file system is mounted there. Its monitor, which takes it away, may be slower or have been killed.
    match crate::volumes::unmount(&run_dir.join("rootfs")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::error!(container = %record.id, %error, "its root file system could not be unmounted");
            return;
        }
        _ => {}
    }
    if let Err(error) = engine.store.remove_writable(&record.id) {
        tracing::error!(container = %record.id, %error, "the writable layer could not be removed");
        return;
    }
    if volumes {
        for (mount, extra) in
            record.mounts.iter().filter_map(|m| Some((m, record.mount_extras.get(&m.destination)?)))
        {
            if mount.kind == "volume" && extra.anonymous {
                remove_volume(engine, &mount.name, &record.id);
            }
        }
    }
    super::shared_memory::release(&config.exec_root, &record.id);
    super::image_mounts::release(&config.exec_root, &record.id);
    for dir in [run_dir, marked.to_owned()] {
        match std::fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::error!(container = %record.id, %error, folder = %dir.display(), "could not be removed");
            }
            _ => {}
        }
    }
}

fn remove_volume(engine: &Engine, name: &str, container: &str) {
    // `--volumes-from` may have given it to others.
    if engine.containers.using_volume(name).iter().any(|user| user != container) {
        return;
    }
    match crate::volumes::destroy(engine, name) {
        // Another one that was removed at the same time has taken it along.
        Ok(()) | Err(Error::NotFound(_)) => {}
        Err(error) => tracing::warn!(volume = name, %error, "an anonymous volume could not be removed"),
    }
}

/// `DELETE /containers/{id}`.
pub(super) async fn handle(engine: Arc<Engine>, reference: &str, request: Request) -> Result<Reply, Error> {
    if reference.is_empty() {
        return Err(Error::InvalidParameter("invalid name or ID supplied: \"\"".into()));
    }
    if request.query.flag("link") {
        return links::remove(&engine, reference).await;
    }
    let container = engine.containers.find(reference)?;
    let options = Options { force: request.query.flag("force"), volumes: request.query.flag("v") };
    match remove(&engine, &container, options).await {
        // `--rm` was quicker: it is gone, as asked.
        Err(Error::NoSuchContainer(_)) if options.force => {}
        other => other?,
    }
    Ok(response::empty(StatusCode::NO_CONTENT).into())
}

/// `POST /containers/prune`.
pub(super) async fn prune(engine: Arc<Engine>, request: Request) -> Result<Reply, Error> {
    let filters = Filters::parse(request.query.get("filters"), &["label", "label!", "until"])?;
    let until = match filters.values("until") {
        [] => None,
        [text] => Some(when::until(text).map_err(|e| Error::InvalidParameter(e.to_string()))?),
        _ => return Err(Error::InvalidParameter("more than one until filter specified".into())),
    };
    let (mut deleted, mut reclaimed) = (Vec::new(), 0u64);
    for container in engine.containers.all() {
        let record = container.record();
        let wanted = filters.labels(record.labels()) && until.is_none_or(|ns| record.created_ns < ns);
        if container.status().state.is_running() || !wanted {
            continue;
        }
        let (store, id) = (engine.clone(), container.id.clone());
        let size = blocking(move || Ok(store.store.writable_size(&id).unwrap_or(0))).await?;
        match remove(&engine, &container, Options::default()).await {
            Ok(()) => {
                deleted.push(container.id.clone());
                reclaimed += size;
            }
            Err(error) => tracing::debug!(container = %container.id, %error, "not pruned"),
        }
    }
    let attributes = std::collections::BTreeMap::from([("reclaimed".to_owned(), reclaimed.to_string())]);
    engine.events.publish("container", "prune", "", attributes);
    let deleted = if deleted.is_empty() { json!(null) } else { json!(deleted) };
    Ok(response::json(StatusCode::OK, &json!({ "ContainersDeleted": deleted, "SpaceReclaimed": reclaimed }))
        .into())
}
