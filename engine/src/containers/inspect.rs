//! `GET /containers/{id}/json`.

use std::sync::Arc;

use crate::engine::Engine;
use crate::error::Error;
use crate::server::{Reply, Request};

/// Shows all of a container.
pub(crate) async fn inspect(engine: &Arc<Engine>, name: &str, request: &Request) -> Result<Reply, Error> {
    let _ = (engine, name, request);
    Err(Error::PageNotFound)
}
