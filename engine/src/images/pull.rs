//! Pulling: from a name to an image in the store.
//!
//! Layers come in parallel, three at a time, and each is hashed, inflated and unpacked while it
//! arrives: nothing is kept aside. What happens is told in dockerd's messages.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinSet;
use wherry_image_ref::{Digest, Reference};
use wherry_image_store::{DiffId, Document, ImageId, Layer, NewImage};
use wherry_registry::{
    Access, Client, Credentials, Descriptor, Error as Failure, Manifest, ManifestDocument, Platform, Policy,
    Repository,
};

use super::layer::{Fetched, Job};
use super::messages;
use super::output::Output;
use super::registry::{Asked, Endpoints};
use super::registry_error::translate;
use super::remote::{self, MAX_CONFIG_BYTES};
use crate::engine::{Engine, blocking};
use crate::error::Error;

/// What is to be pulled, and for whom.
pub(super) struct Pull {
    pub(super) engine: Arc<Engine>,
    pub(super) client: Client,
    pub(super) policy: Policy,
    pub(super) credentials: Credentials,
    /// Without tag and digest: all tags.
    pub(super) reference: Reference,
    /// As the user asked for it.
    pub(super) platform: Option<Platform>,
    pub(super) output: Output,
}

/// Why a pull or push ended.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The registry's doing: another endpoint may do better.
    Registry(Failure),
    /// Ours: no endpoint would help.
    Own(Error),
    /// Either, of a layer that others wanted, too.
    Shared(Arc<Stop>),
}

impl Stop {
    /// The registry's failure, if it is one.
    pub(super) fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Registry(failure) => Some(failure),
            Self::Own(_) => None,
            Self::Shared(stop) => stop.failure(),
        }
    }

    /// The answer, where the registry's failures are told by `tell`.
    pub(crate) fn into_error(self, tell: impl Fn(&Failure) -> Error) -> Error {
        match self {
            Self::Registry(failure) => tell(&failure),
            Self::Own(error) => error,
            Self::Shared(stop) => match (stop.failure(), &*stop) {
                (Some(failure), _) => tell(failure),
                (None, stop) => Error::server(stop.text()),
            },
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Registry(failure) => failure.to_string(),
            Self::Own(error) => error.to_string(),
            Self::Shared(stop) => stop.text(),
        }
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Registry(failure)
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Own(error)
    }
}

impl From<wherry_image_store::Error> for Stop {
    fn from(error: wherry_image_store::Error) -> Self {
        Self::Own(error.into())
    }
}

impl Pull {
    /// Pulls from the first endpoint that can serve it. What that calls it by; of all tags, the last one.
    ///
    /// # Errors
    /// The last endpoint's failure, in dockerd's words.
    pub(super) async fn run(&self) -> Result<Option<Digest>, Error> {
        let tell = |failure: &Failure| translate(failure, &self.reference);
        let (client, policy, credentials) = (&self.client, &self.policy, &self.credentials);
        let asked = Asked { client, policy, credentials, reference: &self.reference };
        let mut endpoints = Endpoints::new(asked, Access::Pull, &self.reference.familiar(), tell).await;
        while let Some(repository) = endpoints.next().await {
            match self.from(&repository).await {
                Ok(digest) => return Ok(digest),
                Err(stop) => endpoints.failed(stop)?,
            }
        }
        Err(endpoints.into_last())
    }

    async fn from(&self, repository: &Repository) -> Result<Option<Digest>, Stop> {
        let mut references = vec![self.reference.clone()];
        if self.reference.is_name_only() {
            references.clear();
            for tag in repository.tags().await? {
                references.extend(self.reference.with_tag(&tag));
            }
        }
        let (mut newer, mut digest) = (false, None);
        for reference in &references {
            let (is_newer, of_this) = self.one(repository, reference).await?;
            newer |= is_newer;
            digest = Some(of_this);
        }
        let verdict = if newer { "Downloaded newer image" } else { "Image is up to date" };
        let name = self.reference.familiar();
        self.output.send(messages::status(&format!("Status: {verdict} for {name}"), None)).await;
        super::publish_reference(&self.engine, "pull", &self.reference);
        Ok(digest)
    }

    /// Pulls one tag or digest. Whether it was not what we had, and its digest.
    async fn one(&self, repository: &Repository, reference: &Reference) -> Result<(bool, Digest), Stop> {
        let (digest, body) = match (reference.digest(), reference.tag()) {
            (Some(digest), _) => (*digest, None),
            (None, tag) => {
                let resolved = repository.resolve(tag.unwrap_or(wherry_image_ref::DEFAULT_TAG)).await?;
                (resolved.digest, resolved.body)
            }
        };
        let known = self.known(&reference.with_digest(digest));
        let document = match known {
            Some(_) => None,
            None => Some(ManifestDocument::parse(&self.document(repository, &digest, body).await?)?),
        };
        let what = reference.tag().map_or_else(|| digest.to_string(), str::to_owned);
        self.output.send(messages::status(&format!("Pulling from {}", reference.path()), Some(&what))).await;
        let newer = match (known, document) {
            (Some(id), _) => self.name(id, reference).await?,
            (None, Some(document)) => self.fetch(repository, reference, digest, document).await?,
            (None, None) => false,
        };
        self.output.send(messages::status(&format!("Digest: {digest}"), None)).await;
        Ok((newer, digest))
    }

    /// The image that is here under this digest, if it is the one for the platform: a list's digest may stand for
    /// another's image.
    fn known(&self, pinned: &Reference) -> Option<ImageId> {
        let id = self.engine.store.named(pinned).filter(|_| self.platform.is_none())?;
        let image = self.engine.store.image(&id).ok()?;
        let platform = Platform {
            os: image.document.os.clone(),
            architecture: image.document.architecture.clone(),
            variant: image.document.variant.clone(),
        };
        platform.runs_on(&Platform::best_of_host()).then_some(id)
    }

    async fn document(
        &self,
        repository: &Repository,
        digest: &Digest,
        body: Option<Bytes>,
    ) -> Result<Bytes, Failure> {
        match body {
            Some(body) => Ok(body),
            None => repository.manifest(digest).await,
        }
    }

    /// An image that we have needs only the name. Whether it is new to the image.
    async fn name(&self, id: ImageId, reference: &Reference) -> Result<bool, Stop> {
        let (engine, reference) = (self.engine.clone(), reference.clone());
        if engine.store.named(&reference) == Some(id) || reference.digest().is_some() {
            return Ok(false);
        }
        blocking(move || Ok(engine.store.tag(&id, &reference)?)).await?;
        Ok(true)
    }

    async fn fetch(
        &self,
        repository: &Repository,
        reference: &Reference,
        digest: Digest,
        document: ManifestDocument,
    ) -> Result<bool, Stop> {
        let manifest = remote::select(repository, document, self.platform.as_ref()).await?;
        let id = ImageId(manifest.config.digest);
        let config = match self.engine.store.raw_config(&id) {
            Ok(config) => Bytes::from(config),
            Err(_) => {
                let read = repository.small_blob(&manifest.config.digest, MAX_CONFIG_BYTES).await;
                read.map_err(|failure| Failure::Config(Box::new(failure)))?
            }
        };
        let layers = self.layers(repository, &manifest, &config).await?;
        self.commit(reference, digest, config, layers).await
    }

    /// Fetches the layers that are missing. The result has all, the lowest first.
    async fn layers(
        &self,
        repository: &Repository,
        manifest: &Manifest,
        config: &[u8],
    ) -> Result<Vec<Layer>, Stop> {
        let document: Document =
            serde_json::from_slice(config).map_err(|e| Failure::Manifest(e.to_string()))?;
        if !document.os.is_empty() && document.os != "linux" {
            let text = format!("image operating system {:?} cannot be used on this platform", document.os);
            return Err(Error::server(format!("{text}: operating system is not supported")).into());
        }
        let diff_ids = &document.rootfs.diff_ids;
        if diff_ids.len() != manifest.layers.len() {
            return Err(Error::server("layers from manifest don't match image configuration").into());
        }
        // An image that is there needs no words about its layers.
        if self.engine.store.image(&ImageId(manifest.config.digest)).is_ok() {
            return self.hold(diff_ids);
        }
        let mut fetched = self.start(repository, &manifest.layers, diff_ids).await;
        let mut kept = Vec::new();
        while let Some(finished) = fetched.join_next().await {
            match finished {
                Ok(layer) => kept.push(layer.map_err(Stop::Shared)?),
                Err(ended) => return Err(Error::server(format!("a layer's transfer ended: {ended}")).into()),
            }
        }
        self.remember(manifest, diff_ids).await?;
        self.hold(diff_ids)
    }

    /// Follows the transfer of each layer that is missing; who else wants it follows the same one. Transfers that
    /// nobody follows any more are called off, as when the set is dropped.
    async fn start(
        &self,
        repository: &Repository,
        descriptors: &[Descriptor],
        diff_ids: &[DiffId],
    ) -> JoinSet<Result<Fetched, Arc<Stop>>> {
        let mut tasks = JoinSet::new();
        let mut seen = HashSet::new();
        for (descriptor, diff_id) in descriptors.iter().zip(diff_ids) {
            let id = descriptor.digest.short();
            if let Some(layer) = self.engine.store.layer(diff_id) {
                self.output.send(messages::state("Already exists", &id)).await;
                tasks.spawn(async move { Ok(Arc::new(layer)) });
                continue;
            }
            if !seen.insert(*diff_id) {
                continue;
            }
            self.output.send(messages::state("Pulling fs layer", &id)).await;
            let (engine, repository) = (self.engine.clone(), repository.clone());
            let (descriptor, diff_id) = (descriptor.clone(), *diff_id);
            let name = Job::name(&descriptor, &diff_id);
            let transfer =
                self.engine.registries.downloads.join(name, move |reporter| {
                    Job { engine, repository, descriptor, diff_id, reporter }.run()
                });
            let output = self.output.clone();
            tasks.spawn(async move { transfer.follow(&output).await });
        }
        tasks
    }

    /// Notes where the layers are, for pushes.
    async fn remember(&self, manifest: &Manifest, diff_ids: &[DiffId]) -> Result<(), Stop> {
        let (engine, repository) = (self.engine.clone(), self.reference.clone());
        let blobs = manifest.layers.iter().zip(diff_ids).filter(|(blob, _)| blob.is_gzip());
        let known: Vec<_> = blobs.map(|(blob, diff_id)| (*diff_id, blob.digest)).collect();
        Ok(blocking(move || {
            for (diff_id, digest) in known {
                engine.registries.sources.remember(&diff_id, digest, &repository);
            }
            Ok(())
        })
        .await?)
    }

    fn hold(&self, diff_ids: &[DiffId]) -> Result<Vec<Layer>, Stop> {
        let store = &self.engine.store;
        let hold = |id: &DiffId| store.layer(id).ok_or(wherry_image_store::Error::NoSuchLayer(*id));
        Ok(diff_ids.iter().map(hold).collect::<Result<_, _>>()?)
    }

    async fn commit(
        &self,
        reference: &Reference,
        digest: Digest,
        config: Bytes,
        layers: Vec<Layer>,
    ) -> Result<bool, Stop> {
        let id = ImageId(Digest::of(&config));
        let pinned = reference.with_digest(digest);
        let is_new = self.engine.store.named(reference) != Some(id);
        let mut names = vec![pinned];
        if is_new && reference.digest().is_none() {
            names.push(reference.clone());
        }
        let store = self.engine.store.clone();
        blocking(move || {
            store.commit(&NewImage {
                config: &config,
                layers: &layers,
                names: &names,
                parent: None,
                tagged: true,
                fetched: true,
            })?;
            Ok(())
        })
        .await?;
        Ok(is_new)
    }
}
