//! What belongs to no kind of object: ping, version, info, events, disk use, and the paths of what this engine does not
//! do (swarm, builds, plugins), with clear words.

mod auth;
mod cgroup;
mod disk_usage;
mod events;
pub(crate) mod host;
mod info;
pub(crate) mod swarm;
mod version;

use std::sync::Arc;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};

use crate::engine::Engine;
use crate::error::Error;
use crate::router::Route;
use crate::server::{Reply, Request, Response, response};

/// Answers all requests that no other area does.
///
/// # Errors
/// Those of the handlers; `PageNotFound` for other paths.
pub(crate) async fn route(engine: Arc<Engine>, route: &Route, request: Request) -> Result<Reply, Error> {
    let (method, segments) = route.parts();
    match (method, segments.as_slice()) {
        ("GET" | "HEAD", ["_ping"]) => Ok(ping(method).into()),
        ("GET", ["version"]) => {
            let document = version::document(engine.config().experimental);
            Ok(response::json(StatusCode::OK, &document).into())
        }
        ("GET", ["info"]) => info::info(engine, request.version).await,
        ("GET", ["events"]) => events::stream(&engine, &request),
        ("GET", ["system", "df"]) => disk_usage::answer(engine, &request).await,
        ("POST", ["auth"]) => auth::check(engine, request).await,
        (_, ["swarm" | "nodes" | "services" | "tasks" | "secrets" | "configs", ..]) => {
            Err(swarm::refuse(method, &segments))
        }
        ("GET", ["plugins"]) => Ok(response::json(StatusCode::OK, &[(); 0]).into()),
        ("GET", ["plugins", name, "json"]) => Err(Error::NotFound(format!("plugin {name:?} not found"))),
        (_, ["plugins", ..]) => Err(Error::NotImplemented("plugins are not supported by this engine".into())),
        ("POST", ["commit"]) => crate::containers::commit(engine, request).await,
        _ => Err(Error::PageNotFound),
    }
}

/// `OK`, which a HEAD request gets in length 0 as dockerd says.
fn ping(method: &str) -> Response {
    let (body, length) = if method == "HEAD" { ("", 0) } else { ("OK", 2) };
    let kind = Some("text/plain; charset=utf-8");
    let mut response = response::with_type(StatusCode::OK, kind, Bytes::from_static(body.as_bytes()));
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    add_ping_headers(response.headers_mut());
    response
}

fn add_ping_headers(headers: &mut HeaderMap) {
    let more = [
        // 2: clients prefer BuildKit.
        ("builder-version", "2"),
        ("cache-control", "no-cache, no-store, must-revalidate"),
        ("pragma", "no-cache"),
        ("swarm", "inactive"),
    ];
    for (name, value) in more {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
}
