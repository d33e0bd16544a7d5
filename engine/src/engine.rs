//! What all handlers share. No logic lives here: each area owns its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use wherry_image_store::Store;

use crate::build::Builds;
use crate::config::Config;
use crate::containers::Containers;
use crate::containers::monitor::Program;
use crate::error::Error;
use crate::events::Bus;
use crate::images::Registries;
use crate::networks::Netd;
use crate::volumes::Volumes;

/// The parts of a running engine.
#[derive(Debug)]
pub(crate) struct Engine {
    /// A UUID that stays as long as the data root.
    pub(crate) id: String,
    /// When this process began to serve, in nanoseconds since the epoch.
    pub(crate) started_ns: i64,
    /// Settings; replaced as a whole by a reload.
    pub(crate) config: std::sync::RwLock<Arc<Config>>,
    /// What happens, for `docker events`.
    pub(crate) events: Bus,
    /// Images and writable layers. Blocking: call through [`blocking`].
    pub(crate) store: Store,
    /// What pulls and pushes share.
    pub(crate) registries: Registries,
    /// Host networking.
    pub(crate) netd: Netd,
    /// All containers.
    pub(crate) containers: Containers,
    /// All volumes.
    pub(crate) volumes: Volumes,
    /// All builds.
    pub(crate) builds: Builds,
    /// What BuildKit's connections share.
    pub(crate) buildkit: crate::build::buildkit::BuildKit,
    /// What monitors run.
    pub(crate) monitor_program: Program,
    /// Whether all of the host's cgroup controllers are in version 2's hierarchy.
    pub(crate) cgroup_v2: bool,
    /// Whether the engine's orderly end has begun: what stops now is to come back.
    pub(crate) stopping: AtomicBool,
}

impl Engine {
    /// The settings of this moment.
    pub(crate) fn config(&self) -> Arc<Config> {
        self.config.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Whether the engine's orderly end has begun.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }
}

/// Runs blocking work on tokio's thread pool.
///
/// # Errors
/// The work's own; 500 when it was torn down with the runtime.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(gone) => Err(Error::server(format!("the engine is shutting down: {gone}"))),
    }
}
