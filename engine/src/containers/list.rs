//! `GET /containers/json`.

use std::sync::Arc;

use crate::engine::Engine;
use crate::error::Error;
use crate::server::{Reply, Request};

/// Lists containers.
pub(crate) async fn list(engine: &Arc<Engine>, request: &Request) -> Result<Reply, Error> {
    let _ = (engine, request);
    Err(Error::PageNotFound)
}
