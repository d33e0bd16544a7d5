//! Volumes: the `local` driver, in `DATA_ROOT/volumes`.

mod local;

use std::sync::Arc;

pub(crate) use local::{Volume, Volumes};

use crate::engine::Engine;
use crate::error::Error;
use crate::router::Route;
use crate::server::{Reply, Request};

/// Answers requests below `/volumes`.
///
/// # Errors
/// Those of the handlers; `PageNotFound` for other paths.
pub(crate) async fn route(engine: Arc<Engine>, route: &Route, request: Request) -> Result<Reply, Error> {
    let _ = (engine, request, route);
    Err(Error::PageNotFound)
}
