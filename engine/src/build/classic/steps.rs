//! The classic builder's walk: instruction after instruction, each leaving an image.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::Arc;

use wherry_dockerfile::plan::{
    Action, ClassicStep, Plan, PlannedStage, Root, RunStep, Step, StepId, TransferSource, TransferStep,
};
use wherry_image_store::{Image, Mountable, mount_detached};

use super::images::{self, Made};
use super::output::Output;
use super::request::Asked;
use crate::build::base::Planned;
use crate::build::transfer::{Material, Style, Transfer, TransferError, work_dir};
use crate::build::{Folder, convert, fetch, files};
use crate::containers::config::{Config, HealthConfig};
use crate::containers::step::visible;
use crate::containers::table::Container;
use crate::engine::{Engine, blocking};
use crate::error::Error;

/// Why a build ended without an image.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(super) struct Failed {
    pub(super) message: String,
    /// The exit code of a step's program.
    pub(super) code: Option<i32>,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self { message: error.to_string(), code: None }
    }
}

fn failed(message: impl Into<String>) -> Failed {
    Failed { message: message.into(), code: None }
}

/// A walk through a plan.
pub(super) struct Walk<'a> {
    pub(super) engine: &'a Arc<Engine>,
    pub(super) asked: &'a Asked,
    pub(super) planned: &'a Planned,
    pub(super) context: Arc<Folder>,
    /// Images whose steps may be taken over, instead of all that were built here.
    pub(super) cache_from: Option<Vec<Arc<Image>>>,
    pub(super) output: &'a Output,
    /// What each step has left.
    pub(super) results: HashMap<StepId, Arc<Image>>,
}

/// Where a stage stands.
struct Stage {
    /// None before the first instruction of a stage from scratch.
    image: Option<Arc<Image>>,
    /// Once an instruction was not found in the cache, none of those after it can be.
    may_be_known: bool,
}

/// What an instruction is made with.
struct Words {
    /// The configuration of the image.
    config: Config,
    /// And of the container that stands for the instruction.
    container: Config,
    author: String,
}

impl Walk<'_> {
    fn plan(&self) -> &Plan {
        &self.planned.plan
    }

    /// Goes through all stages; the image of the last one.
    ///
    /// # Errors
    /// [`Failed`].
    pub(super) async fn run(&mut self) -> Result<Arc<Image>, Failed> {
        let mut last = None;
        let mut images: Vec<Option<Arc<Image>>> = Vec::new();
        for stage in self.plan().stages.clone() {
            let image = self.stage(&stage, &images).await?;
            images.push(image.clone());
            last = image;
        }
        last.ok_or_else(|| failed("No image was generated. Is your Dockerfile empty?"))
    }

    async fn stage(
        &mut self,
        planned: &PlannedStage,
        before: &[Option<Arc<Image>>],
    ) -> Result<Option<Arc<Image>>, Failed> {
        if !self.asked_first(planned) {
            self.output.heading(&heading(&planned.classic)).await;
        }
        let base = match (&planned.base, planned.base_stage) {
            (_, Some(stage)) => before.get(stage).cloned().flatten(),
            (Root::Image(image), None) => self.planned.images.get(*image).cloned(),
            _ => None,
        };
        self.output.arrow(base.as_ref().map(|image| image.id.0.short()).unwrap_or_default().as_str()).await;
        let steps: Vec<(StepId, Step)> =
            planned.steps.iter().filter_map(|id| Some((*id, self.plan().steps.get(*id)?.clone()))).collect();
        let triggers = steps.iter().filter(|(_, step)| step.is_trigger).count();
        match triggers {
            0 => {}
            1 => self.output.heading("# Executing 1 build trigger").await,
            count => self.output.heading(&format!("# Executing {count} build triggers")).await,
        }
        let mut stage = Stage { image: base, may_be_known: !self.asked.no_cache };
        for (id, step) in &steps {
            if let Some(classic) = &step.classic {
                self.output.heading(&heading(classic)).await;
            }
            let image = self.step(&mut stage, step).await?;
            self.output.arrow(&image.id.0.short()).await;
            self.results.insert(*id, image.clone());
            stage.image = Some(image);
        }
        if let Some(image) = &stage.image {
            self.output.image(&image.id.to_string()).await;
        }
        Ok(stage.image)
    }

    /// The heading of the first stage was shown before its image was looked for.
    fn asked_first(&self, stage: &PlannedStage) -> bool {
        stage.number == 0
    }

    async fn step(&self, stage: &mut Stage, step: &Step) -> Result<Arc<Image>, Failed> {
        match &step.action {
            Action::Configure => {
                let words = words(step, stage, "");
                if let Some(known) = self.known(stage, &words).await? {
                    return Ok(known);
                }
                self.in_container(stage, &words, None).await
            }
            Action::Workdir { path, .. } => {
                let words = words(step, stage, "");
                if let Some(known) = self.known(stage, &words).await? {
                    return Ok(known);
                }
                self.in_container(stage, &words, Some(path.clone())).await
            }
            Action::Run(run) => {
                refuse_options(run)?;
                let words = words(step, stage, "");
                if let Some(known) = self.known(stage, &words).await? {
                    return Ok(known);
                }
                self.run_step(stage, &words, step, run).await
            }
            Action::Transfer(transfer) => self.transfer(stage, step, transfer).await,
            Action::Refused(error) => Err(failed(error.classic(super::DOCKERFILE))),
        }
    }

    /// The image of an instruction that was made before.
    async fn known(&self, stage: &mut Stage, words: &Words) -> Result<Option<Arc<Image>>, Failed> {
        if !stage.may_be_known {
            return Ok(None);
        }
        let (engine, parent, sources) = (self.engine.clone(), stage.image.clone(), self.cache_from.clone());
        let (config, container, author) =
            (words.config.clone(), words.container.clone(), words.author.clone());
        let platform = self.asked.platform.clone();
        let found = blocking(move || match sources {
            None => Ok(images::known(&engine, parent.as_ref(), &container, platform.as_ref())),
            Some(sources) => {
                let made = Made {
                    parent: parent.as_ref(),
                    container: "",
                    container_config: &container,
                    config: &config,
                    author: &author,
                    layer: None,
                    platform: platform.as_ref(),
                };
                images::from_sources(&engine, &sources, &made)
            }
        })
        .await?;
        match &found {
            Some(_) => self.output.text(" ---> Using cache\n").await,
            None => stage.may_be_known = false,
        }
        Ok(found)
    }

    /// An instruction that runs nothing. As in dockerd there is a container for it, in which at most a folder is made.
    async fn in_container(
        &self,
        stage: &Stage,
        words: &Words,
        folder: Option<String>,
    ) -> Result<Arc<Image>, Failed> {
        let Some(parent) = stage.image.clone() else {
            return self.without_container(words, folder).await;
        };
        let host = self.asked.limits.host_config();
        let (container, abandoned) = visible::create(self.engine, words.container.clone(), host).await?;
        self.output.arrow(&format!("Running in {}", short(&container))).await;
        let (engine, id, record) = (self.engine.clone(), container.id.clone(), container.record());
        let (config, author) = (words.config.clone(), words.author.clone());
        let made = blocking(move || {
            let mut layer = None;
            if let Some(path) = folder {
                let writable = engine.store.writable(&id)?;
                let root = mount_detached(Mountable::Writable(&writable))?;
                work_dir(files::Root(root.as_fd()), &path, ("", None), Style::Classic).map_err(server)?;
                drop(root);
                layer = Some(engine.store.take_layer(&id)?);
            }
            let made = Made {
                parent: Some(&parent),
                container: &id,
                container_config: &record.config,
                config: &config,
                author: &author,
                layer,
                platform: None,
            };
            images::make(&engine, made)
        })
        .await;
        self.remove(&container, made.is_ok()).await;
        abandoned.disarm();
        Ok(made?)
    }

    /// A stage from scratch has no image yet that a container could be of.
    async fn without_container(&self, words: &Words, folder: Option<String>) -> Result<Arc<Image>, Failed> {
        let (engine, config, author) = (self.engine.clone(), words.config.clone(), words.author.clone());
        let (container, platform) = (words.container.clone(), self.asked.platform.clone());
        let made = blocking(move || {
            let layer = match folder {
                None => None,
                Some(path) => {
                    let draft = engine.store.draft(&[])?;
                    let root = draft.mount()?;
                    work_dir(files::Root(root.as_fd()), &path, ("", None), Style::Classic).map_err(server)?;
                    drop(root);
                    Some(draft.seal()?)
                }
            };
            let made = Made {
                parent: None,
                container: "",
                container_config: &container,
                config: &config,
                author: &author,
                layer,
                platform: platform.as_ref(),
            };
            images::make(&engine, made)
        });
        Ok(made.await?)
    }

    async fn run_step(
        &self,
        stage: &Stage,
        words: &Words,
        step: &Step,
        run: &RunStep,
    ) -> Result<Arc<Image>, Failed> {
        let Some(parent) = stage.image.clone() else {
            return Err(failed("No image was generated. Is your Dockerfile empty?"));
        };
        let mut config = words.config.clone();
        config.env = Some(run.env.iter().chain(&run.proxy).cloned().collect());
        config.cmd = Some(run.args.clone());
        // The image's own program has nothing to do with it, nor has its probe.
        config.entrypoint = Some(vec![String::new()]);
        config.healthcheck =
            Some(HealthConfig { test: Some(vec!["NONE".into()]), ..HealthConfig::default() });
        config.volumes.clone_from(&convert::to_config(&step.config).volumes);
        let host = self.asked.limits.host_config();
        let (container, abandoned) = visible::create(self.engine, config, host).await?;
        self.output.arrow(&format!("Running in {}", short(&container))).await;
        let made = match self.program(&container).await {
            Ok(0) => self.image_of(&container, words, parent).await,
            Ok(code) => {
                let message =
                    format!("The command '{}' returned a non-zero code: {code}", run.args.join(" "));
                Err(Failed { message, code: Some(code) })
            }
            Err(error) => Err(error),
        };
        self.remove(&container, made.is_ok()).await;
        abandoned.disarm();
        made
    }

    /// What a container's program has written becomes a layer.
    async fn image_of(
        &self,
        container: &Container,
        words: &Words,
        parent: Arc<Image>,
    ) -> Result<Arc<Image>, Failed> {
        let (engine, id, keep) = (self.engine.clone(), container.id.clone(), !self.asked.remove);
        let (config, author, with) = (words.config.clone(), words.author.clone(), words.container.clone());
        let made = blocking(move || {
            // One that stays keeps its files.
            let store = &engine.store;
            let layer = if keep { store.layer_of_writable(&id)? } else { store.take_layer(&id)? };
            let made = Made {
                parent: Some(&parent),
                container: &id,
                container_config: &with,
                config: &config,
                author: &author,
                layer: Some(layer),
                platform: None,
            };
            images::make(&engine, made)
        });
        Ok(made.await?)
    }

    /// Runs the container's program and shows what it writes.
    async fn program(&self, container: &Arc<Container>) -> Result<i32, Failed> {
        let output = |stream: u8, bytes: Vec<u8>| async move { self.output.program(stream, &bytes).await };
        Ok(visible::run(self.engine, container, output).await?)
    }

    /// Removes a step's container, if that is wanted.
    async fn remove(&self, container: &Arc<Container>, succeeded: bool) {
        if !(self.asked.force_remove || self.asked.remove && succeeded) {
            return;
        }
        match visible::remove(self.engine, container).await {
            Ok(()) => {
                self.output
                    .text(&format!(" ---> Removed intermediate container {}\n", short(container)))
                    .await;
            }
            Err(error) => {
                let text = format!("Error removing intermediate container {}: {error}\n", short(container));
                self.output.text(&text).await;
            }
        }
    }

    async fn transfer(
        &self,
        stage: &mut Stage,
        step: &Step,
        transfer: &TransferStep,
    ) -> Result<Arc<Image>, Failed> {
        let name = if transfer.is_add { "ADD" } else { "COPY" };
        if !transfer.chmod.is_empty() {
            return Err(requires_buildkit("--chmod"));
        }
        if transfer.sources.iter().any(|source| matches!(source, TransferSource::Inline(_))) {
            return Err(failed(format!("{name} failed: no source files were specified")));
        }
        if let Some(outside) = outside(transfer) {
            return Err(failed(format!(
                "{name} failed: forbidden path outside the build context: {outside} ()"
            )));
        }
        let tell = |error: TransferError| failed(tell_transfer(name, error));
        let mut materials = Vec::new();
        for source in &transfer.sources {
            materials.push(self.material(source).await.map_err(|error| match error {
                fetch::FetchError::Transfer(error) => tell(error),
                other => failed(format!("{name} failed: {other}")),
            })?);
        }
        let excluded = fetch::excluded(&transfer.exclude).map_err(|error| failed(error.to_string()))?;
        let owned = transfer.clone();
        // The files are looked at once for what they are, and copied if nobody has done that before.
        let (materials, hash) = blocking_transfer(move || {
            let transfer = Transfer { step: &owned, materials, excluded, style: Style::Classic };
            let digests = transfer.digests()?;
            let hash = (!digests.is_empty()).then(|| hash_of(transfer.step, &digests));
            Ok(((transfer.materials, transfer.excluded), hash))
        })
        .await?
        .map_err(tell)?;
        let Some(hash) = hash else {
            return Err(failed(format!("{name} failed: no source files were specified")));
        };
        let words = words(step, stage, &hash);
        if let Some(known) = self.known(stage, &words).await? {
            return Ok(known);
        }
        let (engine, parent, owned) = (self.engine.clone(), stage.image.clone(), transfer.clone());
        let platform = self.asked.platform.clone();
        let made = blocking_transfer(move || {
            let (materials, excluded) = materials;
            let below = parent.as_ref().map(|image| image.diff_ids().to_vec()).unwrap_or_default();
            let draft = match engine.store.draft(&below) {
                Ok(draft) => draft,
                Err(error) => return Ok(Err(Error::from(error))),
            };
            let root = match draft.mount() {
                Ok(root) => root,
                Err(error) => return Ok(Err(Error::from(error))),
            };
            let transfer = Transfer { step: &owned, materials, excluded, style: Style::Classic };
            transfer.carry_out(files::Root(root.as_fd()), &draft.upper())?;
            drop(root);
            let layer = match draft.seal() {
                Ok(layer) => layer,
                Err(error) => return Ok(Err(Error::from(error))),
            };
            let made = Made {
                parent: parent.as_ref(),
                container: "",
                container_config: &words.container,
                config: &words.config,
                author: &words.author,
                layer: Some(layer),
                platform: platform.as_ref(),
            };
            Ok(images::make(&engine, made))
        });
        Ok(made.await?.map_err(tell)??)
    }

    async fn material(&self, source: &TransferSource) -> Result<Material, fetch::FetchError> {
        match source {
            TransferSource::Files { root, path, parents, unpack } => {
                let folder = self.folder(root).await?;
                let owner = matches!(root, Root::Context(_)).then_some((0, 0));
                let (path, parents, unpack) = (path.clone(), parents.clone(), *unpack);
                fetch::find(folder, path, parents, unpack, owner).await
            }
            other => Ok(fetch::fetch(self.engine, other, None, &|_, _, _| {}).await?.material),
        }
    }

    /// A file system that files are taken of.
    async fn folder(&self, root: &Root) -> Result<Arc<Folder>, fetch::FetchError> {
        let image = match root {
            Root::Context(_) => return Ok(self.context.clone()),
            Root::Scratch => None,
            Root::Image(image) => self.planned.images.get(*image).cloned(),
            Root::Step(step) => self.results.get(step).cloned(),
        };
        let engine = self.engine.clone();
        let folder = blocking(move || {
            let layers = image.as_ref().map(|image| image.diff_ids()).unwrap_or_default();
            Folder::of_layers(&engine.store, layers).map(Arc::new)
        });
        Ok(folder.await?)
    }
}

/// A source that would be outside of the context or image, as it was written.
fn outside(transfer: &TransferStep) -> Option<&str> {
    transfer.sources.iter().find_map(|source| match source {
        TransferSource::Files { path, .. } if !path.starts_with('/') => Some(path.as_str()),
        _ => None,
    })
}

fn server(error: TransferError) -> Error {
    Error::server(error.to_string())
}

/// Blocking work with files.
async fn blocking_transfer<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, TransferError> + Send + 'static,
) -> Result<Result<T, TransferError>, Error> {
    blocking(move || Ok(work())).await
}

fn heading(step: &ClassicStep) -> String {
    format!("Step {}/{} : {}", step.number, step.total, step.text)
}

fn short(container: &Container) -> &str {
    container.id.get(..12).unwrap_or(&container.id)
}

fn requires_buildkit(option: &str) -> Failed {
    failed(format!(
        "the {option} option requires BuildKit. Refer to https://docs.docker.com/go/buildkit/ to learn how to build images \
         with BuildKit enabled"
    ))
}

fn refuse_options(run: &RunStep) -> Result<(), Failed> {
    match run {
        run if !run.mounts.is_empty() => Err(requires_buildkit("--mount")),
        run if run.insecure => Err(requires_buildkit("--security")),
        run if run.network != wherry_dockerfile::RunNetwork::Default => Err(requires_buildkit("--network")),
        _ => Ok(()),
    }
}

fn tell_transfer(name: &str, error: TransferError) -> String {
    match error {
        TransferError::Missing(path) => format!(
            "{name} failed: file not found in build context or excluded by .dockerignore: stat {path}: file does not exist"
        ),
        error @ (TransferError::NotFolder(_) | TransferError::Owner(_)) => error.to_string(),
        TransferError::File(error) => format!("failed to copy files: {error}"),
        TransferError::Unpack(error) => format!("failed to copy files: {error}"),
    }
}

/// `file:…`, `dir:…`, `multi:…`; of one download without a kind.
fn hash_of(step: &TransferStep, digests: &[(Vec<u8>, files::Digested)]) -> String {
    match digests {
        [(_, one)] if matches!(step.sources.as_slice(), [TransferSource::Http { .. }]) => one.digest.hex(),
        [(_, one)] if one.is_folder => format!("dir:{}", one.digest.hex()),
        [(_, one)] => format!("file:{}", one.digest.hex()),
        several => format!("multi:{}", crate::build::transfer::content_digest(several).hex()),
    }
}

/// The configurations of the image and of the container that the step is made in.
fn words(step: &Step, stage: &Stage, hash: &str) -> Words {
    let config = image_config(step, stage);
    let container = Config { cmd: Some(step.history.classic.command(hash)), ..config.clone() };
    Words { config, container, author: step.config.author.clone() }
}

fn image_config(step: &Step, stage: &Stage) -> Config {
    let image = stage.image.as_ref().map(|image| image.id.to_string()).unwrap_or_default();
    Config { image, ..convert::to_config(&step.config) }
}
