//! Caches elsewhere from which a build may take results: images in registries and here, layouts in folders of the client. One
//! that is of no use is told, and fails no build.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::sync::mpsc;
use wherry_buildkit::control::{Progress, Step};
use wherry_buildkit::pb::control::CacheOptionsEntry;
use wherry_buildkit::session::Session;
use wherry_image_ref::Reference;
use wherry_image_store::{DiffId, Layer};
use wherry_registry::Platform;

use super::layout::Layout;
use crate::build::{Blobs, Carried, Future, Malformed, Offers, Sources, read_carried};
use crate::engine::{Engine, blocking};
use crate::error::Error;
use crate::images::{Pulled, Remote};

/// A build that takes from caches.
pub(super) struct Importer<'a> {
    pub(super) engine: &'a Arc<Engine>,
    pub(super) session: &'a Arc<Session>,
    pub(super) sources: &'a dyn Sources,
    /// What is built; `None` for this host.
    pub(super) platform: Option<&'a Platform>,
    pub(super) progress: &'a Progress,
}

/// What a cache has, and from where its layers come.
type Found = (Carried, Box<dyn Blobs>);

/// Why a cache is of no use.
#[derive(Debug, thiserror::Error)]
enum ImportError {
    /// There are no such caches.
    #[error("unknown cache importer: {0}")]
    Kind(String),
    /// It cannot be had.
    #[error("failed to configure {kind} cache importer: {error}")]
    Configure {
        /// Of which kind it is.
        kind: &'static str,
        /// Why not.
        error: Box<Error>,
    },
    /// It cannot be read.
    #[error(transparent)]
    Own(#[from] Error),
    /// What it says of results makes no sense.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// Neither does what it says of layers.
    #[error("layers from manifest don't match image configuration")]
    Layers,
}

impl Importer<'_> {
    /// Looks into all of them at the same time.
    pub(super) async fn import(&self, entries: &[CacheOptionsEntry]) -> Offers {
        let mut offers = Offers::default();
        let found = join_all(entries.iter().map(|entry| self.one(entry))).await;
        for (entry, found) in entries.iter().zip(found) {
            if let Some((carried, blobs)) = found {
                offers.add(&name(entry), &carried, blobs);
            }
        }
        offers
    }

    async fn one(&self, entry: &CacheOptionsEntry) -> Option<Found> {
        let step = self.progress.start(&format!("importing cache manifest from {}", name(entry)));
        let attribute = |name: &str| entry.attrs.get(name).map_or("", String::as_str);
        let found = match entry.r#type.as_str() {
            "registry" => self.image(attribute("ref"), &step).await,
            "local" => self.layout(attribute("src"), attribute("digest"), &step).await,
            other => Err(ImportError::Kind(other.to_owned())),
        };
        step.end(&found);
        found.ok().flatten()
    }

    /// An image: one that is here under this name counts, whatever the registry has.
    async fn image(&self, name: &str, step: &Step) -> Result<Option<Found>, ImportError> {
        let configure = |error: Error| ImportError::Configure { kind: "registry", error: Box::new(error) };
        let reference: Reference =
            name.parse().map_err(|error| configure(wherry_image_store::Error::Reference(error).into()))?;
        let reference = reference.or_latest();
        if let Some(found) = self.image_here(&reference).await? {
            return Ok(Some(found));
        }
        let credentials = self.sources.credentials(reference.domain()).await.map_err(configure)?;
        let asked = Pulled { reference, platform: self.platform.cloned(), credentials };
        let Some(remote) = Remote::find(self.engine, &asked).await.map_err(configure)? else {
            return Ok(None);
        };
        let found = remote.documents();
        tell_type(step, &found.media_type);
        let carried = of_image(&found.config, found.manifest.layers.len())?;
        Ok(Some((carried, Box::new(InRegistry { engine: self.engine.clone(), remote }))))
    }

    async fn image_here(&self, reference: &Reference) -> Result<Option<Found>, ImportError> {
        let Some(id) = self.engine.store.named(reference) else { return Ok(None) };
        let engine = self.engine.clone();
        let read = blocking(move || {
            let held = engine.store.hold_layers(engine.store.image(&id)?.diff_ids())?;
            Ok((engine.store.raw_config(&id)?, held))
        });
        let (config, held) = read.await?;
        Ok(Some((read_carried(&config)?, Box::new(Here { _held: held }))))
    }

    async fn layout(&self, folder: &str, digest: &str, step: &Step) -> Result<Option<Found>, ImportError> {
        let configure = |error: Error| ImportError::Configure { kind: "local", error: Box::new(error) };
        let layout =
            Layout { engine: self.engine.clone(), session: self.session.clone(), folder: folder.into() };
        let body = layout.open(digest).await.map_err(configure)?;
        let Some(found) = layout.image(&body, self.platform).await? else { return Ok(None) };
        tell_type(step, &found.media_type);
        let carried = of_image(&found.config, found.manifest.layers.len())?;
        Ok(Some((carried, Box::new(layout.blobs(found.manifest)))))
    }
}

/// As BuildKit calls a cache: an image by its name, others by a number that stands for what was asked for.
fn name(entry: &CacheOptionsEntry) -> String {
    match entry.attrs.get("ref").filter(|name| entry.r#type == "registry" && !name.is_empty()) {
        Some(name) => name.clone(),
        None => {
            let mut hasher = DefaultHasher::new();
            entry.attrs.hash(&mut hasher);
            format!("{}:{}", entry.r#type, hasher.finish())
        }
    }
}

fn tell_type(step: &Step, media_type: &str) {
    step.part(&format!("inferred cache manifest type: {media_type}"), "").end();
}

/// What an image's document says, if it has as many layers as its manifest.
fn of_image(config: &[u8], layers: usize) -> Result<Carried, ImportError> {
    let carried = read_carried(config)?;
    if carried.diff_ids.len() == layers { Ok(carried) } else { Err(ImportError::Layers) }
}

/// An image that is here.
struct Here {
    /// Its layers stay as long as they may be taken.
    _held: Vec<Layer>,
}

impl Blobs for Here {
    fn layer(&self, _: usize, diff_id: DiffId, _: mpsc::Sender<Bytes>) -> Future<'_, Arc<Layer>> {
        Box::pin(async move { Err(wherry_image_store::Error::NoSuchLayer(diff_id).into()) })
    }
}

/// An image in a registry.
struct InRegistry {
    engine: Arc<Engine>,
    remote: Remote,
}

impl Blobs for InRegistry {
    fn layer(&self, number: usize, id: DiffId, messages: mpsc::Sender<Bytes>) -> Future<'_, Arc<Layer>> {
        Box::pin(self.remote.layer(&self.engine, (number, id), messages))
    }
}
