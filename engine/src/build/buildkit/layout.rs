//! An image in a layout (`blobs/sha256/…`) in a folder of the client, which offers its blobs by their digests.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use wherry_buildkit::session::Session;
use wherry_image_ref::Digest;
use wherry_image_store::{DiffId, Expected, Layer};
use wherry_registry::{Manifest, Platform};

use super::failure;
use crate::build::{Blobs, Future};
use crate::engine::{Engine, blocking};
use crate::error::Error;
use crate::images::{
    BlockingBody, Documents, FoundImage, MAX_CONFIG_BYTES, MAX_MANIFEST_BYTES, Stop, image_of,
};

/// Such a folder.
#[derive(Clone)]
pub(super) struct Layout {
    pub(super) engine: Arc<Engine>,
    pub(super) session: Arc<Session>,
    /// As the client calls it.
    pub(super) folder: String,
}

/// An image in it.
pub(super) struct LayoutImage {
    layout: Layout,
    manifest: Manifest,
}

impl Layout {
    /// The manifest or list with this digest.
    ///
    /// # Errors
    /// That it is not there, or too large, or another one.
    pub(super) async fn open(&self, digest: &str) -> Result<Bytes, Error> {
        let digest: Digest =
            digest.parse().map_err(|error| Error::InvalidParameter(format!("{digest:?}: {error}")))?;
        self.document(&digest, MAX_MANIFEST_BYTES).await
    }

    /// The image that a manifest or list has for a platform. `None` for a cache that BuildKit wrote.
    ///
    /// # Errors
    /// That there is none, or that it cannot be read.
    pub(super) async fn image(
        &self,
        body: &[u8],
        platform: Option<&Platform>,
    ) -> Result<Option<FoundImage>, Error> {
        let tell = |failure: &wherry_registry::Error| Error::server(failure.to_string());
        image_of(self, body, platform).await.map_err(|stop: Stop| stop.into_error(tell))
    }

    /// The layers of a manifest.
    pub(super) fn blobs(self, manifest: Manifest) -> LayoutImage {
        LayoutImage { layout: self, manifest }
    }

    fn store(&self) -> String {
        format!("local:{}", self.folder)
    }

    async fn document(&self, digest: &Digest, limit: usize) -> Result<Bytes, Error> {
        let told = |error| Error::server(failure::of_session(error).message);
        let (store, name) = (self.store(), digest.to_string());
        let size = self.session.content_size(&store, &name).await.map_err(told)?;
        let too_large = || Error::server(format!("{digest} is larger than {limit} bytes"));
        if size > limit as u64 {
            return Err(too_large());
        }
        let mut content = self.session.content(&store, &name).await.map_err(told)?;
        let mut bytes = Vec::new();
        while let Some(piece) = content.next().await.map_err(told)? {
            bytes.extend_from_slice(&piece);
            if bytes.len() > limit {
                return Err(too_large());
            }
        }
        match Digest::of(&bytes) {
            actual if actual == *digest => Ok(bytes.into()),
            actual => Err(Error::server(format!("{digest}: the client sent {actual}"))),
        }
    }
}

impl Documents for Layout {
    type Error = Stop;

    async fn manifest(&self, digest: &Digest) -> Result<Bytes, Stop> {
        Ok(self.document(digest, MAX_MANIFEST_BYTES).await?)
    }

    async fn config(&self, digest: &Digest) -> Result<Bytes, Stop> {
        Ok(self.document(digest, MAX_CONFIG_BYTES).await?)
    }
}

impl LayoutImage {
    async fn bring(&self, number: usize, diff_id: DiffId) -> Result<Arc<Layer>, Error> {
        let told = |error| Error::server(failure::of_session(error).message);
        let Some(descriptor) = self.manifest.layers.get(number) else {
            return Err(Error::server(format!("the image has no layer {number}")));
        };
        let (sender, body) = BlockingBody::channel();
        let expected = Expected { diff_id: Some(diff_id), blob: Some((descriptor.digest, descriptor.size)) };
        let store = self.layout.engine.store.clone();
        let unpacking = tokio::spawn(blocking(move || Ok(store.ingest(expected, body)?)));
        let (session, digest) = (&self.layout.session, descriptor.digest.to_string());
        let mut content = session.content(&self.layout.store(), &digest).await.map_err(told)?;
        while let Some(piece) = content.next().await.map_err(told)? {
            if sender.send(Ok(piece)).await.is_err() {
                break; // the one that unpacks says why
            }
        }
        drop(sender);
        match unpacking.await {
            Ok(layer) => layer.map(Arc::new),
            Err(ended) => Err(Error::server(format!("unpacking ended: {ended}"))),
        }
    }
}

impl Blobs for LayoutImage {
    fn layer(&self, number: usize, diff_id: DiffId, _: mpsc::Sender<Bytes>) -> Future<'_, Arc<Layer>> {
        Box::pin(self.bring(number, diff_id))
    }
}
