//! Images: Docker's endpoints over the store and the registry client.

use std::sync::Arc;

use crate::engine::Engine;
use crate::error::Error;
use crate::router::Route;
use crate::server::{Reply, Request};

/// Finds the handler of a path below `/images` or `/distribution`.
pub(crate) async fn route(_engine: Arc<Engine>, _route: &Route, _request: Request) -> Result<Reply, Error> {
    Err(Error::PageNotFound)
}
