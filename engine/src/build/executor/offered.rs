//! What is taken from caches elsewhere: layers that come when their files are needed, and results of steps whose other stages
//! then need not be made at all.

use std::sync::Arc;

use futures_util::future::try_join_all;
use tokio::sync::OnceCell;
use wherry_dockerfile::plan::{Action, Root, Step, StepId as PlanStep, TransferSource, TransferStep};
use wherry_image_store::Layer;

use super::{Executor, content_of, key};
use crate::build::cache::{Found, Key};
use crate::build::fetch;
use crate::build::file_system::{At, Definition, FileSystem, Made, Part};
use crate::build::job::{Built, Failure, NoCache, StepId};
use crate::build::transfer::{Style, Transfer, content_digest};
use crate::engine::blocking;

impl Executor<'_> {
    /// All layers of the image.
    pub(super) async fn bring_all(&self, file_system: &FileSystem) -> Result<Vec<Arc<Layer>>, Arc<Failure>> {
        if file_system.parts.iter().all(|part| matches!(part.at, At::Here(_))) {
            return self.bring(file_system, None).await.map_err(Arc::new);
        }
        let step = self.progress.declare("loading layers of caches".into(), Vec::new());
        self.progress.start(step);
        let layers = self.bring(file_system, Some(step)).await;
        self.progress.finish(step, None);
        layers.map_err(Arc::new)
    }

    /// All layers of a file system, fetched if need be; `shown` is the step for which they are.
    pub(super) async fn bring(
        &self,
        file_system: &FileSystem,
        shown: Option<StepId>,
    ) -> Result<Vec<Arc<Layer>>, Failure> {
        try_join_all(file_system.parts.iter().map(|part| self.bring_part(part, shown))).await
    }

    async fn bring_part(&self, part: &Part, shown: Option<StepId>) -> Result<Arc<Layer>, Failure> {
        let (offer, made) = match (&part.at, &part.made) {
            (At::Here(layer), _) => return Ok(layer.clone()),
            (At::Offered(offer), made) => (offer, made),
        };
        let messages = self.progress.of_transfers(shown);
        let layer = self.offers.bring(&self.engine.store, offer, messages).await.map_err(Failure::of)?;
        if let Some(made) = made {
            self.engine.builds.cache.adopt(made, layer.clone());
        }
        Ok(layer)
    }

    /// The result of a step that takes files of other stages, if it is known by what makes these: then none of them is made.
    pub(super) async fn by_definition(
        &self,
        id: PlanStep,
        step: &Step,
    ) -> Result<Option<FileSystem>, Arc<Failure>> {
        let cache = &self.engine.builds.cache;
        if self.job.no_cache != NoCache::Nothing || !takes_of_stages(step) {
            return Ok(None);
        }
        if self.offers.is_empty() && !cache.knows_definition(None) {
            return Ok(None);
        }
        let Some(key) = self.definition_of_step(id).await else { return Ok(None) };
        let offer = self.offers.find(&key);
        if offer.is_none() && !cache.knows_definition(Some(&key)) {
            return Ok(None);
        }
        let below = self.root(&step.root).await?;
        let ids = below.diff_ids();
        let definition = Definition { key, below: key::of_layers(&ids) };
        let (at, key, created_ns) = match (cache.by_definition(&definition), offer) {
            (Some(Found { key, layer, created_ns }), _) => (At::Here(layer), key, created_ns),
            (None, Some(offer)) if offer.below() == ids => {
                // What its cache says of its other keys nobody has asked for: it would go into ours, for every later build.
                let created_ns = offer.created_ns();
                (At::Offered(offer), key, created_ns)
            }
            (None, _) => return Ok(None),
        };
        if let Some(step) = self.shown.get(&id) {
            self.progress.known(*step);
        }
        let made = Made { key, definition: Some(definition), created_ns, description: describe(step) };
        Ok(Some(below.with(at, made)))
    }

    /// Notes by which definition a step's result was made, if that is of use to a cache.
    pub(super) async fn note_definition(&self, id: PlanStep, step: &Step, made: &mut FileSystem) {
        let is_of_use = self.job.inline_cache || !self.offers.is_empty();
        if takes_of_stages(step)
            && is_of_use
            && let Some(key) = self.definition_of_step(id).await
        {
            made.define(key);
        }
    }

    /// Forgets what has been made with offers that turned out to be worth nothing, and takes no more of that cache. Whether
    /// there was one.
    pub(super) fn gives_up_offers(&mut self) -> bool {
        let Some((name, reason)) = self.offers.broken() else { return false };
        let others = self.offers.without(&name);
        let step = self.progress.declare(format!("loading layers of cache {name}"), Vec::new());
        self.progress.start(step);
        self.progress.finish(step, Some(reason));
        self.offers = Arc::new(others);
        self.made = self.made.iter().map(|_| OnceCell::new()).collect();
        true
    }

    /// Steps that were not needed because the results of others were known are as good as known.
    pub(super) fn tell_unneeded(&self, built: &Result<Built, Arc<Failure>>) {
        if built.is_err() {
            return;
        }
        for (id, cell) in self.made.iter().enumerate() {
            if let (false, Some(step)) = (cell.initialized(), self.shown.get(&id)) {
                self.progress.known(*step);
            }
        }
    }

    /// A step and all below it by what they do.
    async fn definition(&self, root: &Root) -> Option<Key> {
        let mut builder = key::Builder::new("root");
        match root {
            Root::Scratch | Root::Context(_) => {}
            Root::Image(image) => builder.layers(self.planned.images.get(*image)?.diff_ids()),
            Root::Step(id) => return Box::pin(self.definition_of_step(*id)).await,
        }
        Some(builder.finish())
    }

    /// The same of a step. None where that cannot be known without making it.
    async fn definition_of_step(&self, id: PlanStep) -> Option<Key> {
        let (cell, step) = (self.definitions.get(id)?, self.planned.plan.steps.get(id)?);
        let define = || async {
            let mut builder = self.key(step, "definition", &FileSystem::empty());
            builder.digest(&self.definition(&step.root).await?);
            self.define(&mut builder, step).await?;
            Some(builder.finish())
        };
        *cell.get_or_init(define).await
    }

    /// What a step does, without what it works on. A step that cannot be told fails when it is carried out.
    async fn define(&self, builder: &mut key::Builder, step: &Step) -> Option<()> {
        match &step.action {
            Action::Configure | Action::Refused(_) => {}
            Action::Workdir { path, user } => {
                builder.text("workdir");
                builder.work_dir(path, user, self.job.epoch_s);
            }
            Action::Run(run) => {
                builder.text("run");
                builder.run(run, &self.job.limits);
                for mount in &run.mounts {
                    match &mount.root {
                        Root::Context(name) if key::content_counts(mount.mount.kind) => {
                            let folder = self.context(name.as_deref().unwrap_or_default()).await.ok()?;
                            builder.digest(&content_of(folder, &mount.mount.source).await.ok()?);
                        }
                        root => builder.digest(&self.definition(root).await?),
                    }
                }
            }
            Action::Transfer(transfer) => {
                builder.text("transfer");
                self.define_transfer(builder, transfer).await?;
            }
        }
        Some(())
    }

    /// The same of files that are brought in: those of contexts by what they are, others by what makes them. What is
    /// downloaded is known when it has come.
    async fn define_transfer(&self, builder: &mut key::Builder, transfer: &TransferStep) -> Option<()> {
        let mut materials = Vec::new();
        for source in &transfer.sources {
            match source {
                TransferSource::Files { root: Root::Context(name), path, parents, unpack } => {
                    let folder = self.context(name.as_deref().unwrap_or_default()).await.ok()?;
                    let (path, parents) = (path.clone(), parents.clone());
                    materials.push(fetch::find(folder, path, parents, *unpack, Some((0, 0))).await.ok()?);
                }
                TransferSource::Files { root, path, parents, unpack } => {
                    builder.digest(&self.definition(root).await?);
                    builder.text(path);
                    builder.text(parents.as_deref().unwrap_or("\0none"));
                    builder.number(i64::from(*unpack));
                }
                TransferSource::Inline(file) => {
                    builder.text(&file.name);
                    builder.text(&file.content);
                }
                TransferSource::Http { .. } | TransferSource::Git { .. } => return None,
            }
        }
        builder.transfer(transfer, &materials);
        let (owned, excluded) = (transfer.clone(), fetch::excluded(&transfer.exclude).ok()?);
        let digest = blocking(move || {
            let transfer = Transfer { step: &owned, materials, excluded, style: Style::BuildKit };
            Ok(transfer.digests().map(|digests| content_digest(&digests)))
        });
        builder.digest(&digest.await.ok()?.ok()?);
        Some(())
    }
}

/// Whether a step takes files of stages beside what it works on.
fn takes_of_stages(step: &Step) -> bool {
    step.inputs().iter().skip(1).any(|root| matches!(root, Root::Step(_)))
}

/// A step as the cache shows it.
pub(super) fn describe(step: &Step) -> String {
    step.name.clone().unwrap_or_else(|| step.source.text.clone())
}
