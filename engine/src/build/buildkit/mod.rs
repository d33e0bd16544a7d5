//! BuildKit's door: what `docker build`, buildx and Compose speak. The wire is `wherry_buildkit`'s; here is what its builds
//! mean: a [`Job`](super::Job) of the front end's attributes, the executor's events as BuildKit's vertexes, and what becomes of
//! the image.
//!
//! Two requests take their connections over: `POST /grpc`, on which the client calls, and `POST /session`, on which we do.

mod attributes;
mod door;
mod export;
mod failure;
mod files;
mod filters;
mod folders;
mod imports;
mod layout;
mod provenance;
mod remote;
mod sources;
mod subrequests;
mod usage;
mod watch;
mod worker;

pub(super) use folders::Folders;

use std::sync::{Arc, OnceLock};

use hyper::StatusCode;
use wherry_buildkit::control::Control;
use wherry_buildkit::session::Sessions;

use self::door::Door;
use crate::engine::Engine;
use crate::error::Error;
use crate::router::Route;
use crate::server::response::render_head;
use crate::server::{Reply, Request};

/// What all of BuildKit's connections share.
#[derive(Debug, Default)]
pub(crate) struct BuildKit {
    control: OnceLock<Arc<Control<Door>>>,
}

impl BuildKit {
    fn control(&self, engine: &Arc<Engine>) -> Arc<Control<Door>> {
        let control = self.control.get_or_init(|| {
            let sessions = Arc::new(Sessions::default());
            let door = Door::new(Arc::downgrade(engine), sessions.clone());
            let history = engine.config().data_root.join("build").join("history");
            Control::new(Arc::new(door), sessions, history)
        });
        control.clone()
    }
}

/// Takes over the connections of `POST /grpc` and `POST /session`.
///
/// # Errors
/// dockerd's for a request that asks for no upgrade or for another one; `PageNotFound` for other paths.
pub(crate) fn route(engine: Arc<Engine>, route: &Route, request: Request) -> Result<Reply, Error> {
    let (method, segments) = route.parts();
    let is_session = match (method, segments.as_slice()) {
        ("POST", ["grpc"]) => false,
        ("POST", ["session"]) => true,
        _ => return Err(Error::PageNotFound),
    };
    let refuse = |message: String| match is_session {
        true => Err(Error::InvalidParameter(message)),
        false => Err(Error::server(message)),
    };
    match request.header("upgrade") {
        None => return refuse("no upgrade proto in request".into()),
        Some("h2c") => {}
        Some(other) => return refuse(format!("protocol {other} not supported")),
    }
    let control = engine.buildkit.control(&engine);
    let headers = request.headers;
    Ok(Reply::Hijack(Box::new(move |client| {
        Box::pin(async move {
            let upgrade = [("Connection", "Upgrade"), ("Upgrade", "h2c")];
            let head = render_head(StatusCode::SWITCHING_PROTOCOLS, "Switching Protocols", &upgrade);
            let mut io = client.into_io();
            if let Err(error) = tokio::io::AsyncWriteExt::write_all(&mut io, &head).await {
                tracing::debug!(%error, "a client of BuildKit went at once");
                return;
            }
            if is_session {
                if let Err(error) = control.sessions().hold(&headers, io).await {
                    tracing::debug!(%error, "a session was refused");
                }
            } else {
                control.serve(io).await;
            }
        })
    })))
}
