//! Networks: Docker's endpoints over netd, which keeps them.

mod netd;

use std::sync::Arc;

pub(crate) use netd::Netd;
use wherry_netd::protocol::Network;

use crate::engine::Engine;
use crate::error::Error;
use crate::router::Route;
use crate::server::{Reply, Request};

/// Answers requests below `/networks`.
///
/// # Errors
/// Those of the handlers; `PageNotFound` for other paths.
pub(crate) async fn route(engine: Arc<Engine>, route: &Route, request: Request) -> Result<Reply, Error> {
    let _ = (engine, request);
    match (route.method.as_str(), route.segments.as_slice()) {
        _ => Err(Error::PageNotFound),
    }
}

/// A network by its name, its id, or the only one whose id begins so. Its `endpoints` may be out of date.
///
/// # Errors
/// 404 `network X not found`; 400 when several ids begin so.
pub(crate) async fn find(engine: &Engine, name_or_id: &str) -> Result<Arc<Network>, Error> {
    let known = engine.netd.known_networks().await?;
    let mut prefixed = known.iter().filter(|n| n.spec.id.starts_with(name_or_id));
    let exact = known.iter().find(|n| n.spec.id == name_or_id).or_else(|| known.iter().find(|n| n.spec.name == name_or_id));
    if let Some(network) = exact {
        return Ok(network.clone());
    }
    match (prefixed.next(), prefixed.next()) {
        (Some(network), None) if !name_or_id.is_empty() => Ok(network.clone()),
        (Some(_), Some(_)) if !name_or_id.is_empty() => Err(Error::InvalidParameter(format!(
            "network {name_or_id} is ambiguous (2 matches found based on ID prefix)"
        ))),
        _ => Err(Error::NotFound(format!("network {name_or_id} not found"))),
    }
}
