//! What belongs to no kind of object: ping, version, info, events, disk use, and the paths of what this engine does not
//! do (swarm, builds, plugins), with clear words.

pub(crate) mod host;
pub(crate) mod swarm;

use std::sync::Arc;

use crate::engine::Engine;
use crate::error::Error;
use crate::router::Route;
use crate::server::{Reply, Request};

/// Answers all requests that no other area does.
///
/// # Errors
/// Those of the handlers; `PageNotFound` for other paths.
pub(crate) async fn route(engine: Arc<Engine>, route: &Route, request: Request) -> Result<Reply, Error> {
    let _ = (engine, request, route);
    Err(Error::PageNotFound)
}
