//! An image in a registry whose documents are read, and of which only those layers come that somebody asks for.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use wherry_image_ref::{DEFAULT_TAG, Digest, Reference};
use wherry_image_store::{DiffId, Layer};
use wherry_registry::{Access, Error as Failure, Manifest, ManifestDocument, Platform, Repository, Selected};

use super::create::Pulled;
use super::layer::Job;
use super::output::Output;
use super::pull::Stop;
use super::registry::{self, Asked, Endpoints};
use super::registry_error::plain;
use crate::engine::Engine;
use crate::error::Error;

/// The largest manifest and the largest configuration that are read.
pub(crate) const MAX_MANIFEST_BYTES: usize = 4 << 20;
pub(crate) const MAX_CONFIG_BYTES: usize = 8 << 20;
/// What BuildKit's own caches call their configuration.
const CACHE_TYPE: &str = "application/vnd.buildkit.cacheconfig.v0";
/// Most lists within lists.
const MAX_DEPTH: u32 = 4;

/// Such an image.
#[derive(Debug)]
pub(crate) struct Remote {
    repository: Repository,
    reference: Reference,
    found: FoundImage,
}

/// The documents of an image.
#[derive(Debug)]
pub(crate) struct FoundImage {
    /// Of the manifest, or of the list that it was found by.
    pub(crate) media_type: String,
    /// The manifest.
    pub(crate) manifest: Manifest,
    /// The configuration, as it came.
    pub(crate) config: Bytes,
}

impl Remote {
    /// Finds an image by its name; `None` if that is a cache that BuildKit wrote.
    ///
    /// # Errors
    /// The registry's. One that has no such image says `NAME: not found`, as containerd does.
    pub(crate) async fn find(engine: &Engine, asked: &Pulled) -> Result<Option<Self>, Error> {
        let (client, policy) =
            (registry::client_of(engine, "", hyper::HeaderMap::new()), registry::policy(engine));
        let reference = asked.reference.clone().or_latest();
        let tell = |failure: &Failure| match failure.api() {
            Some(api) if matches!(api.code, "MANIFEST_UNKNOWN" | "NAME_UNKNOWN") => {
                Error::server(format!("{reference}: not found"))
            }
            _ => plain(failure, failure.to_string()),
        };
        let by = Asked {
            client: &client,
            policy: &policy,
            credentials: &asked.credentials,
            reference: &reference,
        };
        let mut endpoints = Endpoints::new(by, Access::Pull, &reference.familiar(), tell).await;
        while let Some(repository) = endpoints.next().await {
            let found = match resolve(&repository, &reference).await {
                Ok(body) => image_of(&repository, &body, asked.platform.as_ref()).await,
                Err(failure) => Err(failure),
            };
            let reference = reference.clone();
            match found {
                Ok(found) => return Ok(found.map(|found| Self { repository, reference, found })),
                Err(failure) => endpoints.failed(failure.into())?,
            }
        }
        Err(endpoints.into_last())
    }

    /// Its documents.
    pub(crate) fn documents(&self) -> &FoundImage {
        &self.found
    }

    /// Brings a layer, which must have this id, into the store. Messages of the transfer go to `messages`.
    ///
    /// # Errors
    /// The registry's; a layer that is another one.
    pub(crate) async fn layer(
        &self,
        engine: &Arc<Engine>,
        (number, diff_id): (usize, DiffId),
        messages: mpsc::Sender<Bytes>,
    ) -> Result<Arc<Layer>, Error> {
        let Some(descriptor) = self.found.manifest.layers.get(number).cloned() else {
            return Err(Error::server(format!("{} has no layer {number}", self.reference)));
        };
        let (blob, is_gzip) = (descriptor.digest, descriptor.is_gzip());
        let (task_engine, repository) = (engine.clone(), self.repository.clone());
        let transfer = engine.registries.downloads.join(Job::name(&descriptor, &diff_id), move |reporter| {
            Job { engine: task_engine, repository, descriptor, diff_id, reporter }.run()
        });
        let output = Output::new(messages, oneshot::channel().0);
        let layer = transfer
            .follow(&output)
            .await
            .map_err(|stop| Stop::Shared(stop).into_error(|failure| plain(failure, failure.to_string())))?;
        if is_gzip {
            engine.registries.sources.remember(&diff_id, blob, &self.reference);
        }
        Ok(layer)
    }
}

/// The manifest that a name stands for.
async fn resolve(repository: &Repository, reference: &Reference) -> Result<Bytes, Failure> {
    let (digest, body) = match reference.digest() {
        Some(digest) => (*digest, None),
        None => {
            let resolved = repository.resolve(reference.tag().unwrap_or(DEFAULT_TAG)).await?;
            (resolved.digest, resolved.body)
        }
    };
    match body {
        Some(body) => Ok(body),
        None => repository.manifest(&digest).await,
    }
}

/// Where manifests and configurations are.
pub(crate) trait Documents: Sync {
    /// Why one cannot be had, or is of no use.
    type Error: From<Failure>;

    /// A manifest or a list of them, with this digest.
    fn manifest(&self, digest: &Digest) -> impl Future<Output = Result<Bytes, Self::Error>> + Send;

    /// A configuration document, with this digest.
    fn config(&self, digest: &Digest) -> impl Future<Output = Result<Bytes, Self::Error>> + Send;
}

impl Documents for Repository {
    type Error = Failure;

    async fn manifest(&self, digest: &Digest) -> Result<Bytes, Failure> {
        Self::manifest(self, digest).await
    }

    async fn config(&self, digest: &Digest) -> Result<Bytes, Failure> {
        self.small_blob(digest, MAX_CONFIG_BYTES).await
    }
}

/// The image that a manifest or list has for a platform, with its configuration. `None` for a cache that BuildKit wrote, which is
/// no image.
///
/// # Errors
/// That there is none, or that it cannot be read.
pub(crate) async fn image_of<D: Documents>(
    documents: &D,
    body: &[u8],
    platform: Option<&Platform>,
) -> Result<Option<FoundImage>, D::Error> {
    if is_cache(body) {
        return Ok(None);
    }
    let document = ManifestDocument::parse(body)?;
    let media_type = document.media_type().to_owned();
    let manifest = select(documents, document, platform).await?;
    let config = documents.config(&manifest.config.digest).await?;
    Ok(Some(FoundImage { media_type, manifest, config }))
}

/// Whether a manifest, or an entry of a list, is of BuildKit's own kind.
fn is_cache(body: &[u8]) -> bool {
    let Ok(document) = serde_json::from_slice::<serde_json::Value>(body) else { return false };
    let is_cache = |part: &serde_json::Value| part.get("mediaType").is_some_and(|kind| kind == CACHE_TYPE);
    let listed = document.get("manifests").and_then(serde_json::Value::as_array);
    document.get("config").is_some_and(is_cache) || listed.is_some_and(|list| list.iter().any(is_cache))
}

/// The manifest of the image for a platform, by way of lists if need be.
///
/// # Errors
/// That there is none, or that it cannot be read.
pub(super) async fn select<D: Documents>(
    documents: &D,
    mut document: ManifestDocument,
    platform: Option<&Platform>,
) -> Result<Manifest, D::Error> {
    for _ in 0..MAX_DEPTH {
        match document.select(platform)? {
            Selected::Image(manifest) => return Ok(manifest),
            Selected::Listed(listed) => {
                let body = documents.manifest(&listed.digest).await?;
                if listed.size != body.len() as u64 {
                    let text = format!("{} has {} bytes, not {}", listed.digest, body.len(), listed.size);
                    return Err(Failure::Manifest(text).into());
                }
                document = ManifestDocument::parse(&body)?;
            }
        }
    }
    Err(Failure::Manifest("lists within lists".into()).into())
}
