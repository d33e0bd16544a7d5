//! From a request's path to its handler.
//!
//! Each area routes its own paths (`containers`, `images`, `networks`, `volumes`, and
//! `system` for the rest); here the version prefix is read and the answer gets the
//! headers that all answers have.

use std::sync::Arc;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{HeaderName, HeaderValue, LOCATION};
use hyper::{Method, StatusCode};

use crate::engine::Engine;
use crate::error::Error;
use crate::server::{ApiVersion, Query, Reply, Request, Response, query, response};
use crate::{build, containers, images, networks, system, volumes};

/// A request's method and decoded path segments (without the version), for handlers to match on.
#[derive(Debug)]
pub(crate) struct Route {
    /// `GET`, `POST`, …
    pub(crate) method: Method,
    /// The path's parts.
    pub(crate) segments: Vec<String>,
}

impl Route {
    /// Method and segments in a form for `match`.
    pub(crate) fn parts(&self) -> (&str, Vec<&str>) {
        (self.method.as_str(), self.segments.iter().map(String::as_str).collect())
    }
}

/// Finds the handler of a request, runs it, and dresses its answer.
pub(crate) async fn dispatch(engine: Arc<Engine>, request: hyper::Request<Incoming>) -> Reply {
    if let Some(elsewhere) = clean_location(request.uri()) {
        let mut response = response::empty(StatusCode::MOVED_PERMANENTLY);
        response.headers_mut().insert(LOCATION, elsewhere);
        return response.into();
    }
    let (head, body) = request.into_parts();
    let mut segments: Vec<String> =
        head.uri.path().split('/').skip(1).map(|s| query::decode(s, false)).collect();
    let mut version = ApiVersion::MAX;
    if let Some(asked) = segments.first().and_then(|s| s.strip_prefix('v')).and_then(ApiVersion::parse) {
        segments.remove(0);
        if let Some(refusal) = refuse_version(asked) {
            return refusal.into();
        }
        version = asked;
    }
    let query = Query::parse(head.uri.query().unwrap_or(""));
    tracing::debug!(method = %head.method, path = %head.uri, "request");
    let route = Route { method: head.method, segments };
    let request = Request { version, query, headers: head.headers, body };
    if route.method == Method::OPTIONS {
        return dress(response::empty(StatusCode::OK)).into();
    }
    match handle(engine, &route, request).await {
        Ok(Reply::Http(response)) => dress(response).into(),
        Ok(hijack @ Reply::Hijack(_)) => hijack,
        Err(Error::PageNotFound) => Error::PageNotFound.into_response().into(),
        Err(error) => dress(error.into_response()).into(),
    }
}

/// Where Go's router sends a client whose path has doubled slashes or dots in it.
fn clean_location(uri: &hyper::Uri) -> Option<HeaderValue> {
    let path = uri.path();
    if !path.contains("//") && !path.split('/').any(|part| matches!(part, "." | "..")) {
        return None;
    }
    let mut clean = crate::containers::clean_path(path);
    if path.ends_with('/') && !clean.ends_with('/') {
        clean.push('/');
    }
    let query = uri.query().map_or(String::new(), |query| format!("?{query}"));
    HeaderValue::from_str(&format!("{clean}{query}")).ok()
}

async fn handle(engine: Arc<Engine>, route: &Route, request: Request) -> Result<Reply, Error> {
    match route.segments.first().map_or("", String::as_str) {
        "build" => build::route(engine, route, request).await,
        "grpc" | "session" => build::buildkit::route(engine, route, request),
        "containers" | "exec" => containers::route(engine, route, request).await,
        "images" | "distribution" => images::route(engine, route, request).await,
        "networks" => networks::route(engine, route, request).await,
        "volumes" => volumes::route(engine, route, request).await,
        _ => system::route(engine, route, request).await,
    }
}

fn dress(mut response: Response) -> Response {
    response::add_common_headers(response.headers_mut());
    response
}

/// dockerd's answer to a version that it does not serve; an old one is told in plain text, since clients of
/// that age knew no JSON errors.
fn refuse_version(asked: ApiVersion) -> Option<Response> {
    let ApiVersion(major, minor) = asked;
    let mut refusal = if asked < ApiVersion::MIN {
        let ApiVersion(min_major, min_minor) = ApiVersion::MIN;
        let text = format!(
            "client version {major}.{minor} is too old. Minimum supported API version is {min_major}.{min_minor}, \
             please upgrade your client to a newer version\n"
        );
        let mut response = response::with_type(
            StatusCode::BAD_REQUEST,
            Some("text/plain; charset=utf-8"),
            Bytes::from(text.into_bytes()),
        );
        let nosniff = HeaderName::from_static("x-content-type-options");
        response.headers_mut().insert(nosniff, HeaderValue::from_static("nosniff"));
        response
    } else if asked > ApiVersion::MAX {
        let ApiVersion(max_major, max_minor) = ApiVersion::MAX;
        Error::InvalidParameter(format!(
            "client version {major}.{minor} is too new. Maximum supported API version is {max_major}.{max_minor}"
        ))
        .into_response()
    } else {
        return None;
    };
    response::add_common_headers(refusal.headers_mut());
    refusal.headers_mut().remove("docker-experimental");
    Some(refusal)
}
