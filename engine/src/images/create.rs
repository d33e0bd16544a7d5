//! `POST /images/create`: pulls an image.

use std::sync::Arc;

use hyper::StatusCode;
use tokio::sync::oneshot;
use wherry_image_ref::{Digest, Reference};
use wherry_registry::{Client, Platform, Policy};

use super::output::Output;
use super::pull::Pull;
use super::{credentials, messages};
use crate::engine::Engine;
use crate::error::Error;
use crate::server::{Reply, Request, response};

/// Where registries' certificates are, by host.
const CERTIFICATES: &str = "/etc/docker/certs.d";

/// A client for one request: its connections end with it.
pub(super) fn client() -> Client {
    Client::new("docker/28.5.2 (linux)", CERTIFICATES)
}

/// The administrator's settings of this moment.
pub(super) fn policy(engine: &Engine) -> Policy {
    let config = engine.config();
    Policy { mirrors: config.registry_mirrors.clone(), insecure: config.insecure_registries.clone() }
}

pub(super) async fn create(engine: Arc<Engine>, request: &Request) -> Result<Reply, Error> {
    let platform = request.query.get("platform").map(Platform::parse).transpose();
    let platform = platform.map_err(Error::InvalidParameter)?;
    let Some(image) = request.query.get("fromImage") else {
        return Err(Error::NotImplemented(
            "docker import is not supported by this engine yet: load an archive made by docker save instead"
                .into(),
        ));
    };
    let (sender, response) = response::stream("application/json");
    let (begun, has_begun) = oneshot::channel();
    let pull = Pull {
        client: client(),
        policy: policy(&engine),
        credentials: credentials::of(request),
        reference: reference(image, request.query.get("tag"))?,
        platform,
        engine,
        output: Output::new(sender, begun),
    };
    let task = tokio::spawn(run(pull));
    // Until something was sent, a failure is the answer itself.
    if has_begun.await.is_ok() {
        return Ok(response.into());
    }
    match task.await {
        Ok(Err(error)) => Err(error),
        Ok(Ok(())) => Ok(response::empty(StatusCode::OK).into()),
        Err(ended) => Err(Error::server(format!("the pull ended: {ended}"))),
    }
}

/// Pulls until it is done or the client has gone, which ends all transfers.
async fn run(pull: Pull) -> Result<(), Error> {
    let output = pull.output.clone();
    let result = tokio::select! {
        result = pull.run() => result,
        () = output.gone() => return Ok(()),
    };
    // What holds the other end of `begun` is gone now, unless it was used.
    drop(pull);
    match result {
        Err(error) if output.has_begun() => {
            tracing::warn!(%error, "pull failed");
            output.send(messages::error(&error.to_string())).await;
            Ok(())
        }
        result => result,
    }
}

/// `fromImage` and `tag`, which may be a digest. Without any, all tags are meant.
fn reference(image: &str, tag: Option<&str>) -> Result<Reference, Error> {
    let parsed = image.trim_end_matches(':').parse::<Reference>();
    let reference = parsed.map_err(wherry_image_store::Error::Reference)?;
    let Some(tag) = tag else { return Ok(reference) };
    match tag.parse::<Digest>() {
        Ok(digest) => Ok(reference.with_digest(digest)),
        Err(_) => reference.with_tag(tag).map_err(|_| Error::InvalidParameter("invalid tag format".into())),
    }
}
