//! Builds: from a Dockerfile and a context to an image.
//!
//! One executor ([`execute`]) serves all doors. A door makes a [`Job`] of its request, gives the executor access to what the
//! client has ([`Sources`]: contexts, secrets, SSH agents, credentials), shows the [`Event`]s that come through the
//! job's channel, and gets a [`Built`] image (a document and its layers, not in the store yet unless the door says so) or a
//! [`Failure`] that knows its place in the Dockerfile. Dropping the future of [`execute`] stops the build: programs of running
//! steps are killed, and nothing half-made stays.
//!
//! Steps run in the containers' own monitor and runtime; their layers are written where they stay ([`wherry_image_store::Draft`]).

mod base;
pub(crate) mod buildkit;
mod builds;
mod cache;
mod cache_mounts;
mod classic;
mod convert;
mod document;
mod executor;
mod fetch;
mod file_system;
mod files;
mod git;
mod inline;
mod job;
mod key;
mod offers;
mod origins;
mod progress;
mod run;
mod transfer;
pub(crate) mod usage;

use std::sync::Arc;

use hyper::StatusCode;

pub(crate) use builds::Builds;
pub(crate) use cache::Stored;
pub(crate) use executor::execute;
pub(crate) use inline::{Carried, Malformed, read as read_carried};
pub(crate) use job::{
    Built, Event, Failure, Folder, Future, Job, Lends, Limits, NoCache, Offered, Sources, StepId, Stream,
    Warning,
};
pub(crate) use offers::{Blobs, Offers};
pub(crate) use origins::Origins;

/// The folder of the contexts of running builds, in `DATA_ROOT/build`.
const CONTEXTS: &str = "contexts";

use crate::engine::Engine;
use crate::error::Error;
use crate::router::Route;
use crate::server::{Reply, Request, response};

/// Finds the handler of a path below `/build`.
///
/// # Errors
/// Those of the handlers; `PageNotFound` for other paths.
pub(crate) async fn route(engine: Arc<Engine>, route: &Route, request: Request) -> Result<Reply, Error> {
    let (method, segments) = route.parts();
    match (method, segments.as_slice()) {
        ("POST", ["build"]) => classic::build(engine, request).await,
        ("POST", ["build", "cancel"]) => cancel(&engine, &request),
        ("POST", ["build", "prune"]) => usage::handle_prune(engine, request).await,
        _ => Err(Error::PageNotFound),
    }
}

/// Ends what an engine before this one was building: it is nobody's any more.
pub(crate) async fn reconcile(engine: &Arc<Engine>) {
    crate::containers::step::end_all(engine).await;
    let leftovers = cache_mounts::leftovers(&cache_mounts::folders(engine));
    // They may have many files: nobody waits for that.
    tokio::task::spawn_blocking(move || leftovers.iter().for_each(|folder| cache_mounts::delete(folder)));
    let contexts = engine.config().data_root.join("build").join(CONTEXTS);
    match tokio::fs::remove_dir_all(&contexts).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(folder = %contexts.display(), %error, "files of interrupted builds could not be removed");
        }
        _ => {}
    }
}

/// `POST /build/cancel`: one that is not there is no error.
fn cancel(engine: &Engine, request: &Request) -> Result<Reply, Error> {
    let id =
        request.query.get("id").ok_or_else(|| Error::InvalidParameter("build ID not provided".into()))?;
    engine.builds.cancel(id);
    Ok(response::empty(StatusCode::OK).into())
}
