//! `POST /images/NAME/push`: from the store to a registry.

mod layer;

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use wherry_image_ref::{Digest, Reference};
use wherry_image_store::{DiffId, Image, ImageId, NewImage};
use wherry_registry::{
    Access, Client, Credentials, Error as Failure, Manifest, Policy, PushedLayer, Repository,
};

pub(crate) use layer::Pushed;

use super::output::{self, Output};
use super::pull::Stop;
use super::registry::{Asked, Endpoints};
use super::registry_error::plain;
use super::transfers::Transfer;
use super::{credentials, messages, platform, registry};
use crate::engine::{Engine, blocking};
use crate::error::Error;
use crate::server::{ApiVersion, Reply, Request};

/// Clients before this version sent a platform and did not mean it.
const WITH_PLATFORM: ApiVersion = ApiVersion(1, 46);

/// What is to be pushed, and for whom.
struct Push {
    engine: Arc<Engine>,
    client: Client,
    policy: Policy,
    credentials: Credentials,
    /// Without a tag: all tags.
    reference: Reference,
    output: Output,
}

pub(super) async fn push(engine: Arc<Engine>, name: &str, request: &Request) -> Result<Reply, Error> {
    let reference = name.parse::<Reference>().map_err(wherry_image_store::Error::Reference)?;
    let reference = match request.query.get("tag") {
        Some(tag) => reference
            .name_only()
            .with_tag(tag)
            .map_err(|_| Error::InvalidParameter("invalid tag format".into()))?,
        None => reference,
    };
    if let Some(text) = request.query.get("platform").filter(|_| request.version >= WITH_PLATFORM) {
        check_platform(&engine, &reference, text)?;
    }
    let (client, credentials) = (registry::client(&engine, request), credentials::of(request));
    output::respond(move |output| {
        let policy = registry::policy(&engine);
        let push = Push { engine, client, policy, credentials, reference, output };
        async move { push.run().await }
    })
    .await
}

/// Refuses a push of another platform's image than the one that is here.
fn check_platform(engine: &Engine, reference: &Reference, text: &str) -> Result<(), Error> {
    let name = reference.clone().or_latest().familiar();
    platform::find(engine, &name, Some(&platform::decode(text)?)).map(|_| ())
}

impl Push {
    async fn run(&self) -> Result<(), Error> {
        let name = self.reference.familiar_name();
        let shown = self.reference.full_name();
        self.output.send(messages::status(&format!("The push refers to repository [{shown}]"), None)).await;
        let all: Vec<(Reference, ImageId)> = self.engine.store.references();
        if !all.iter().any(|(reference, _)| reference.full_name() == shown) {
            let text = format!("An image does not exist locally with the tag: {name}");
            return Err(Error::server(text));
        }
        let tell = |failure: &Failure| plain(failure, failure.of_upload());
        let (client, policy, credentials) = (&self.client, &self.policy, &self.credentials);
        let asked = Asked { client, policy, credentials, reference: &self.reference };
        let mut endpoints = Endpoints::new(asked, Access::Push, &shown, tell).await;
        while let Some(repository) = endpoints.next().await {
            match self.to(&repository).await {
                Ok(()) => {
                    super::publish_reference(&self.engine, "push", &self.reference);
                    return Ok(());
                }
                Err(stop) => endpoints.failed(stop)?,
            }
        }
        Err(endpoints.into_last())
    }

    async fn to(&self, repository: &Repository) -> Result<(), Stop> {
        if self.reference.digest().is_some() {
            return Err(Error::server("cannot push a digest reference").into());
        }
        let store = &self.engine.store;
        if self.reference.tag().is_some() {
            let Some(id) = store.named(&self.reference) else {
                let text = format!("tag does not exist: {}", self.reference.familiar());
                return Err(Error::server(text).into());
            };
            return self.tag(repository, &self.reference, id).await;
        }
        let name = self.reference.full_name();
        let mut tags = store.references();
        tags.retain(|(reference, _)| reference.full_name() == name && reference.tag().is_some());
        if tags.is_empty() {
            let text = format!("no tags to push for {}", self.reference.familiar_name());
            return Err(Error::server(text).into());
        }
        for (reference, id) in tags {
            self.tag(repository, &reference, id).await?;
        }
        Ok(())
    }

    async fn tag(&self, repository: &Repository, reference: &Reference, id: ImageId) -> Result<(), Stop> {
        let image = self.engine.store.image(&id)?;
        let layers = self.layers(repository, image.diff_ids()).await?;
        let config = Bytes::from(self.engine.store.raw_config(&id)?);
        if repository.blob_size(&id.0).await?.is_none() {
            repository.put_blob(&id.0, config.clone()).await?;
        }
        let manifest = Manifest::docker(&id.0, config.len() as u64, &layers);
        let (digest, size) = (Digest::of(&manifest), manifest.len());
        let tag = reference.tag().unwrap_or(wherry_image_ref::DEFAULT_TAG);
        repository.put_manifest(tag, Manifest::DOCKER_TYPE, manifest.into()).await?;
        self.output.send(messages::status(&format!("{tag}: digest: {digest} size: {size}"), None)).await;
        self.pin(&image, reference.with_digest(digest), &config).await?;
        self.output.send(messages::pushed(tag, &digest, size)).await;
        Ok(())
    }

    /// Sends the layers that the registry lacks. The result has all, the lowest first.
    async fn layers(&self, repository: &Repository, diff_ids: &[DiffId]) -> Result<Vec<PushedLayer>, Stop> {
        let mut transfers: Vec<(DiffId, Arc<Transfer<Pushed>>)> = Vec::new();
        let mut seen = HashSet::new();
        for diff_id in diff_ids.iter().rev().copied() {
            self.output.send(messages::state("Preparing", &diff_id.0.short())).await;
            if !seen.insert(diff_id) {
                continue;
            }
            let (engine, reference) = (self.engine.clone(), self.reference.name_only());
            let repository = repository.clone();
            let name = format!("{} {diff_id}", reference.full_name());
            let transfer = self.engine.registries.uploads.join(name, move |reporter| {
                layer::Job { engine, repository, reference, diff_id, reporter }.run()
            });
            transfers.push((diff_id, transfer));
        }
        let follow = transfers.iter().map(|(_, transfer)| transfer.follow(&self.output));
        let pushed = futures_util::future::try_join_all(follow).await.map_err(Stop::Shared)?;
        let find = |diff_id: &DiffId| {
            let at = transfers.iter().position(|(id, _)| id == diff_id);
            at.and_then(|at| pushed.get(at))
                .map(|pushed| PushedLayer { digest: pushed.digest, size: pushed.size })
        };
        Ok(diff_ids.iter().filter_map(find).collect())
    }

    /// The image is known under the digest that it got, too.
    async fn pin(&self, image: &Arc<Image>, pinned: Reference, config: &Bytes) -> Result<(), Stop> {
        let known = self.engine.store.named(&pinned);
        if let Some(other) = known {
            if other != image.id {
                tracing::error!(%pinned, %other, image = %image.id, "the digest belongs to another image already");
            }
            return Ok(());
        }
        let (store, config, image) = (self.engine.store.clone(), config.clone(), image.clone());
        Ok(blocking(move || {
            let hold = |id: &DiffId| store.layer(id).ok_or(wherry_image_store::Error::NoSuchLayer(*id));
            let layers = image.diff_ids().iter().map(hold).collect::<Result<Vec<_>, _>>()?;
            let names = [pinned];
            store.commit(&NewImage {
                config: &config,
                layers: &layers,
                names: &names,
                parent: image.parent,
                tagged: false,
                fetched: true,
            })?;
            Ok(())
        })
        .await?)
    }
}
