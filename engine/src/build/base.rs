//! The images that a build begins from: found here or pulled, and the plan made with their configurations.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use wherry_dockerfile::LocatedError;
use wherry_dockerfile::plan::{self, ImageNeed, Plan, Planner, SuppliedImage};
use wherry_image_ref::{Digest, Reference};
use wherry_image_store::{Image, ImageId};
use wherry_registry::{Credentials, Platform};

use super::convert;
use crate::engine::Engine;
use crate::error::Error;
use crate::images;

/// A plan and its images, by their numbers in the plan.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) plan: Plan,
    pub(super) images: Vec<Arc<Image>>,
    /// Of those that were pulled for it, what their registry calls them by.
    pub(super) manifests: Vec<Option<Digest>>,
}

/// An image to begin from.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) image: Arc<Image>,
    /// What its registry calls it by, if it was pulled for this build.
    pub(super) manifest: Option<Digest>,
}

impl Found {
    /// One that is here.
    pub(super) fn here(image: Arc<Image>) -> Self {
        Self { image, manifest: None }
    }
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub(super) enum PlanError {
    /// Something is wrong with the Dockerfile.
    #[error(transparent)]
    File(#[from] LocatedError),
    /// An image cannot be had.
    #[error("{error}")]
    Image {
        /// Where it is named.
        need: Box<ImageNeed>,
        /// Why not.
        error: Error,
    },
}

/// Makes the plan; `find` looks up the images that it asks for.
///
/// # Errors
/// [`PlanError`].
pub(super) async fn plan<F, L>(planner: &mut Planner, mut find: F) -> Result<Planned, PlanError>
where
    F: FnMut(ImageNeed) -> L,
    L: std::future::Future<Output = Result<Found, Error>>,
{
    let mut all: BTreeMap<plan::ImageId, Found> = BTreeMap::new();
    loop {
        let missing = planner.missing()?;
        if missing.is_empty() {
            break;
        }
        for need in missing {
            let id = need.id;
            let found =
                find(need.clone()).await.map_err(|error| PlanError::Image { need: Box::new(need), error })?;
            let document = &found.image.document;
            let architecture = if document.architecture.is_empty() {
                plan::Platform::host()
            } else {
                plan::Platform::normal("linux", &document.architecture, &document.variant)
            };
            let config = convert::of_document(document);
            planner.supply(id, SuppliedImage { config, platform: architecture, digest: None });
            all.insert(id, found);
        }
    }
    let plan = planner.finish()?;
    let (images, manifests) = all.into_values().map(|found| (found.image, found.manifest)).unzip();
    Ok(Planned { plan, images, manifests })
}

/// How a base image is looked for.
pub(super) struct Finder {
    pub(super) engine: Arc<Engine>,
    /// Ask the registry although it is here.
    pub(super) pull: bool,
    /// Messages of a pull.
    pub(super) messages: mpsc::Sender<Bytes>,
}

impl Finder {
    /// Finds it here, or pulls it.
    ///
    /// # Errors
    /// The registry's, in dockerd's words.
    pub(super) async fn find(
        &self,
        name: &str,
        platform: Option<&Platform>,
        credentials: Credentials,
    ) -> Result<Found, Error> {
        if let Some(image) = self.here(name, platform).filter(|_| !self.pull) {
            return Ok(Found::here(image));
        }
        let reference: Reference = name.parse().map_err(wherry_image_store::Error::Reference)?;
        let reference = reference.or_latest();
        let asked = images::Pulled { reference, platform: platform.cloned(), credentials };
        let manifest = images::pull_for_build(&self.engine, asked, self.messages.clone()).await?;
        let image = self.engine.store.image(&self.engine.store.resolve(name)?)?;
        // The name may be another's by now.
        let is_its =
            |digest: &Digest| image.repo_digests.iter().any(|known| known.ends_with(&format!("@{digest}")));
        let manifest = manifest.filter(is_its);
        Ok(Found { image, manifest })
    }

    /// An image of another platform is none.
    fn here(&self, name: &str, platform: Option<&Platform>) -> Option<Arc<Image>> {
        let id: ImageId = self.engine.store.resolve(name).ok()?;
        let image = self.engine.store.image(&id).ok()?;
        let fits = platform.is_none_or(|platform| {
            image.document.architecture.is_empty() || image.document.architecture == platform.architecture
        });
        fits.then_some(image)
    }
}
