//! Checkpoints, dockerd's experimental feature: a container's processes as files, which its monitor has criu write, and from
//! which a later start brings them back.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use hyper::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use wherry_monitor_api as api;

use super::monitor::CallError;
use super::record::Record;
use super::state::State;
use super::table::Container;
use super::validate::is_name;
use super::{lifecycle, publish};
use crate::config::Config;
use crate::engine::{Engine, blocking};
use crate::error::Error;
use crate::server::{Reply, Request, response};

/// dockerd's words when it was not told to be experimental.
const DISABLED: &str = "This experimental feature is disabled by default. Start the Docker daemon in experimental mode in \
    order to enable it.";

/// A checkpoint that a request names.
#[derive(Debug)]
pub(super) struct Checkpoint {
    name: String,
    /// The folder that it is in; the container's own if `None`.
    folder: Option<PathBuf>,
}

impl Checkpoint {
    fn new(name: &str, folder: Option<&str>) -> Self {
        let folder = folder.filter(|folder| !folder.is_empty()).map(PathBuf::from);
        Self { name: name.to_owned(), folder }
    }

    /// The one that a start begins from, if any.
    ///
    /// # Errors
    /// 400 where checkpoints are off.
    pub(super) fn of_start(config: &Config, request: &Request) -> Result<Option<Self>, Error> {
        let Some(name) = request.query.get("checkpoint").filter(|name| !name.is_empty()) else {
            return Ok(None);
        };
        if !config.experimental {
            return Err(Error::InvalidParameter("checkpoint is only supported in experimental mode".into()));
        }
        Ok(Some(Self::new(name, request.query.get("checkpoint-dir"))))
    }

    /// Where a container's checkpoints are, unless a request says otherwise.
    fn parent(&self, config: &Config, record: &Record) -> PathBuf {
        self.folder.clone().unwrap_or_else(|| record.dir(&config.data_root).join("checkpoints"))
    }

    /// The folder of its images. `container` is what messages call the container.
    ///
    /// # Errors
    /// 500 with dockerd's texts when there is none.
    pub(super) fn find(&self, config: &Config, record: &Record, container: &str) -> Result<PathBuf, Error> {
        let path = self.parent(config, record).join(&self.name);
        // It must not lead elsewhere.
        let mut parts = Path::new(&self.name).components();
        let plain = matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None));
        match std::fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() && plain => Ok(path),
            Ok(metadata) if !metadata.is_dir() => Err(not_a_folder(&path)),
            Ok(_) | Err(_) => Err(self.none(container)),
        }
    }

    fn none(&self, container: &str) -> Error {
        Error::server(format!("checkpoint {} does not exist for container {container}", self.name))
    }

    /// Makes the folder.
    fn make(&self, config: &Config, record: &Record, reference: &str) -> Result<PathBuf, Error> {
        let failed =
            |reason: String| Error::server(format!("cannot checkpoint container {reference}: {reason}"));
        let parent = self.parent(config, record);
        let path = parent.join(&self.name);
        let mut builder = std::fs::DirBuilder::new();
        builder.mode(0o700);
        let made =
            builder.recursive(true).create(&parent).and_then(|()| builder.recursive(false).create(&path));
        match made {
            Ok(()) => Ok(path),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                Err(failed(if path.is_dir() {
                    format!("checkpoint with name {} already exists for container {reference}", self.name)
                } else {
                    not_a_folder(&path).to_string()
                }))
            }
            Err(error) => Err(failed(format!("mkdir {}: {error}", path.display()))),
        }
    }
}

fn not_a_folder(path: &Path) -> Error {
    Error::server(format!("{} exists and is not a directory", path.display()))
}

/// Only an engine that was told to be experimental knows checkpoints.
fn check_enabled(engine: &Engine) -> Result<(), Error> {
    if engine.config().experimental { Ok(()) } else { Err(Error::NotImplemented(DISABLED.into())) }
}

/// The body of a creation.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Create {
    #[serde(rename = "CheckpointID")]
    name: String,
    #[serde(rename = "CheckpointDir")]
    folder: String,
    #[serde(rename = "Exit")]
    exit: bool,
}

/// `POST /containers/{id}/checkpoints`.
pub(super) async fn create(
    engine: Arc<Engine>,
    reference: &str,
    mut request: Request,
) -> Result<Reply, Error> {
    check_enabled(&engine)?;
    let body: Create = request.json().await?;
    let container = engine.containers.find(reference)?;
    if !container.status().state.is_running() {
        return Err(Error::NotRunning(container.id.clone()));
    }
    if !is_name(&body.name) {
        return Err(Error::server(format!(
            "Invalid checkpoint ID ({}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed",
            body.name
        )));
    }
    let checkpoint = Checkpoint::new(&body.name, Some(&body.folder));
    let reference = reference.to_owned();
    // Whoever asked may hang up: what has been begun is brought to its end.
    let work = tokio::spawn(async move { write(engine, container, checkpoint, reference, body.exit).await });
    work.await.map_err(|error| Error::server(format!("the checkpoint was broken off: {error}")))??;
    Ok(response::empty(StatusCode::CREATED).into())
}

async fn write(
    engine: Arc<Engine>,
    container: Arc<Container>,
    checkpoint: Checkpoint,
    reference: String,
    exit: bool,
) -> Result<(), Error> {
    let not_running = || Error::NotRunning(container.id.clone());
    let monitor = lifecycle::monitor(&container).await.ok_or_else(not_running)?;
    let (config, record, name) = (engine.config(), container.record(), reference.clone());
    let images = blocking(move || checkpoint.make(&config, &record, &name)).await?;
    let was_paused = matches!(container.status().state, State::Running { paused: true, .. });
    let request = api::Request::Checkpoint { images: images.clone(), exit };
    let reason = match monitor.call(request, &[]).await {
        Ok(_) => {
            publish_done(&engine, &container, was_paused, exit);
            return Ok(());
        }
        Err(CallError::Refused(failure)) => failure.message,
        Err(error) => error.to_string(),
    };
    remove(images).await?;
    Err(Error::server(format!("Cannot checkpoint container {reference}: {reason}")))
}

/// As dockerd's events tell it, whose containerd freezes the container meanwhile (as criu does itself).
fn publish_done(engine: &Engine, container: &Container, was_paused: bool, exit: bool) {
    let frozen: &[&str] = match (was_paused, exit) {
        (true, _) => &[],
        (false, true) => &["pause"],
        (false, false) => &["pause", "unpause"],
    };
    for action in frozen.iter().chain(&["checkpoint"]) {
        publish(engine, container, action);
    }
}

/// `GET /containers/{id}/checkpoints`.
pub(super) async fn list(engine: Arc<Engine>, reference: &str, request: &Request) -> Result<Reply, Error> {
    check_enabled(&engine)?;
    let record = engine.containers.find(reference)?.record();
    let asked = Checkpoint::new("", request.query.get("dir"));
    let (folder, missing) = (asked.parent(&engine.config(), &record), asked.none(reference));
    let is_own = asked.folder.is_none();
    let names = blocking(move || match names(&folder) {
        // Its own is made with the first checkpoint.
        Ok(None) if is_own => Ok(Vec::new()),
        Ok(None) => Err(missing),
        Ok(Some(names)) => Ok(names),
        Err(error) => Err(error),
    })
    .await?;
    let list: Vec<Value> = names.into_iter().map(|name| json!({ "Name": name })).collect();
    Ok(response::json(StatusCode::OK, &list).into())
}

/// The folders in a folder, in order; `None` if there is no such folder.
fn names(folder: &Path) -> Result<Option<Vec<String>>, Error> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("read", folder.display())(error)),
    };
    let mut names: Vec<String> = entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort_unstable();
    Ok(Some(names))
}

/// `DELETE /containers/{id}/checkpoints/{name}`.
pub(super) async fn delete(
    engine: Arc<Engine>,
    reference: &str,
    name: &str,
    request: &Request,
) -> Result<Reply, Error> {
    check_enabled(&engine)?;
    let record = engine.containers.find(reference)?.record();
    let checkpoint = Checkpoint::new(name, request.query.get("dir"));
    let (config, reference) = (engine.config(), reference.to_owned());
    let images = blocking(move || checkpoint.find(&config, &record, &reference)).await?;
    remove(images).await?;
    Ok(response::empty(StatusCode::NO_CONTENT).into())
}

async fn remove(images: PathBuf) -> Result<(), Error> {
    blocking(move || match std::fs::remove_dir_all(&images) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("remove", images.display())(error))
        }
        _ => Ok(()),
    })
    .await
}

/// A start from a checkpoint that failed.
pub(super) fn restore_failure(failure: &api::Failure) -> Error {
    Error::server(format!(
        "failed to create task for container: failed to create shim task: OCI runtime restore failed: {}",
        failure.message
    ))
}
