//! Containers: from the API's requests to monitors, netd and the store, and back.

pub(crate) mod config;
mod create;
mod exec;
pub(crate) mod files;
mod inspect;
mod list;
mod monitor;
pub(crate) mod record;
pub(crate) mod signals;
pub(crate) mod spec;
pub(crate) mod state;
pub(crate) mod table;
pub(crate) mod users;

use std::sync::Arc;

pub(crate) use table::{Container, Containers};

use crate::engine::Engine;
use crate::error::Error;
use crate::router::Route;
use crate::server::{Reply, Request};

/// Finds the handler of a path below `/containers` or `/exec`.
pub(crate) async fn route(_engine: Arc<Engine>, _route: &Route, _request: Request) -> Result<Reply, Error> {
    Err(Error::PageNotFound)
}
