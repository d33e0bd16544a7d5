//! `POST /images/create`: pulls an image.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use wherry_image_ref::{Digest, Reference};
use wherry_registry::{Credentials, Platform};

use super::pull::Pull;
use super::{credentials, output, registry};
use crate::engine::Engine;
use crate::error::Error;
use crate::server::{Reply, Request};

pub(super) async fn create(engine: Arc<Engine>, request: &Request) -> Result<Reply, Error> {
    let platform = request.query.get("platform").map(Platform::parse).transpose();
    let platform = platform.map_err(Error::InvalidParameter)?;
    let image = request.query.get("fromImage").unwrap_or_default();
    let reference = reference(image, request.query.get("tag"))?;
    if reference.familiar_name() == "scratch" {
        return Err(Error::Forbidden("'scratch' is a reserved name".into()));
    }
    let (client, credentials) = (registry::client(&engine, request), credentials::of(request));
    output::respond(move |output| {
        let pull = Pull {
            client,
            policy: registry::policy(&engine),
            credentials,
            reference,
            platform,
            engine,
            output,
        };
        async move { pull.run().await.map(drop) }
    })
    .await
}

/// An image that a build wants.
#[derive(Debug)]
pub(crate) struct Pulled {
    /// Which one.
    pub(crate) reference: Reference,
    /// For which platform; `None` for this host.
    pub(crate) platform: Option<Platform>,
    /// Whose pull it is.
    pub(crate) credentials: Credentials,
}

/// Pulls an image for a build. Its messages go to `messages`.
///
/// # Errors
/// The registry's, in dockerd's words.
pub(crate) async fn pull_for_build(
    engine: &Arc<Engine>,
    asked: Pulled,
    messages: mpsc::Sender<Bytes>,
) -> Result<Option<Digest>, Error> {
    let pull = Pull {
        client: registry::client_of(engine, "", hyper::HeaderMap::new()),
        policy: registry::policy(engine),
        credentials: asked.credentials,
        reference: asked.reference,
        platform: asked.platform,
        engine: engine.clone(),
        // Nobody waits for the first message here.
        output: output::Output::new(messages, oneshot::channel().0),
    };
    pull.run().await
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
