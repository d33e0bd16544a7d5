//! `POST /containers/create`.

use std::sync::Arc;

use crate::engine::Engine;
use crate::error::Error;
use crate::server::{Reply, Request};

/// Makes a container.
pub(crate) async fn create(engine: Arc<Engine>, request: Request) -> Result<Reply, Error> {
    let _ = (engine, request);
    Err(Error::PageNotFound)
}
