//! `POST /auth`: `docker login`.

use std::sync::Arc;

use crate::engine::Engine;
use crate::error::Error;
use crate::server::{Reply, Request};

/// Checks credentials with a registry.
///
/// # Errors
/// 501: it comes with authenticated pulls.
pub(super) async fn check(engine: Arc<Engine>, request: Request) -> Result<Reply, Error> {
    let _ = (engine, request);
    Err(Error::NotImplemented("docker login is not supported by this engine yet".into()))
}
