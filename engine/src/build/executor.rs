//! Carrying out a plan: a graph of steps, of which those run at the same time that do not need each other.
//!
//! Nothing is scheduled: who needs a file system asks for it, the first one to ask makes it, the others wait for that. So
//! only what the target needs is ever made, and all of it belongs to one future, with which it ends.

mod made_of;
mod offered;

use std::collections::{BTreeMap, HashMap};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::try_join_all;
use tokio::sync::OnceCell;
use wherry_dockerfile::plan::{
    Action, Frontend, Planner, Request as PlanRequest, Root, RunStep, Step, StepId as PlanStep,
    TransferSource, TransferStep,
};
use wherry_dockerfile::{Dockerfile, LocatedError, RunNetwork};
use wherry_image_ref::Reference;
use wherry_image_store::{DiffId, Image};

use self::offered::describe;
use super::base::{self, Finder, Found, PlanError, Planned};
use super::cache::Key;
use super::document::{self, Entry};
use super::fetch::{self, FetchError};
use super::file_system::{At, FileSystem, Made};
use super::git::GitError;
use super::job::{Built, Event, Failure, Folder, Job, NoCache, Place, StepId, Stream, Warning};
use super::offers::Offers;
use super::progress::Progress;
use super::run::{Run, Shown};
use super::transfer::{Style, Transfer, TransferError, content_digest, work_dir};
use super::{files, key};
use crate::clock;
use crate::containers::signals;
use crate::engine::{Engine, blocking};
use crate::error::Error;

type Asked<'a, T> = Pin<Box<dyn Future<Output = Result<T, Arc<Failure>>> + Send + 'a>>;

/// Builds an image. If this future is dropped, all that runs for it ends.
///
/// # Errors
/// [`Failure`], with its place in the Dockerfile where there is one.
pub(crate) async fn execute(engine: &Arc<Engine>, job: Job) -> Result<Built, Failure> {
    let file = Dockerfile::parse(&job.dockerfile).map_err(|error| located(&error))?;
    let progress = Progress::new(job.events.clone());
    let mut planner = Planner::new(file, plan_request(&job));
    let planned = make_plan(engine, &job, &mut planner, &progress).await;
    for warning in planner.warnings() {
        progress.send(Event::Warning(Warning {
            rule: warning.rule.name().to_owned(),
            description: warning.rule.description().to_owned(),
            detail: warning.message.clone(),
            url: warning.rule.url(),
            line: u32::try_from(warning.lines.first).unwrap_or(0),
        }));
    }
    let planned = planned?;
    check_rights(&job, &planned)?;
    let mut executor = Executor::new(engine, &job, &planned, &progress);
    let mut built = executor.target().await;
    while built.is_err() && executor.gives_up_offers() {
        built = executor.target().await;
    }
    executor.tell_unneeded(&built);
    let (task_engine, settled) = (engine.clone(), built.is_ok());
    tokio::task::spawn_blocking(move || {
        task_engine.builds.cache.save();
        if settled {
            task_engine.builds.cache.settle();
        }
    });
    built.map_err(|failure| Arc::try_unwrap(failure).unwrap_or_else(|shared| shared.copy()))
}

/// Says before anything is done what the client has not allowed.
fn check_rights(job: &Job, planned: &Planned) -> Result<(), Failure> {
    for step in &planned.plan.steps {
        let Action::Run(run) = &step.action else { continue };
        let missing = match run {
            run if run.insecure && !job.allow_insecure => "security.insecure",
            run if run.network == RunNetwork::Host && !job.allow_host_network => "network.host",
            _ => continue,
        };
        return Err(Failure::plain(format!("failed to load LLB: {missing} is not allowed")));
    }
    Ok(())
}

fn plan_request(job: &Job) -> PlanRequest {
    let mut request = PlanRequest::new(Frontend::BuildKit, |text| signals::parse_signal(text).is_ok());
    request.target.clone_from(&job.target);
    request.build_args.clone_from(&job.build_args);
    request.labels.clone_from(&job.labels);
    request.named_contexts.clone_from(&job.named_contexts);
    request.platform = job.platform.as_ref().map(|platform| {
        wherry_dockerfile::plan::Platform::normal(&platform.os, &platform.architecture, &platform.variant)
    });
    request
}

/// What is wrong with the Dockerfile, and where.
fn located(error: &LocatedError) -> Failure {
    let place = error.lines.first().map(|lines| Place {
        first_line: u32::try_from(lines.first).unwrap_or(0),
        last_line: u32::try_from(lines.last).unwrap_or(0),
    });
    Failure { message: error.to_string(), place, step: None, code: None }
}

async fn make_plan(
    engine: &Arc<Engine>,
    job: &Job,
    planner: &mut Planner,
    progress: &Progress,
) -> Result<Planned, Failure> {
    let find = |need: wherry_dockerfile::plan::ImageNeed| async move {
        if let Some(result) = result_of(job, &need.reference) {
            return result.image().map(Arc::new).map(Found::here);
        }
        let name = match &need.context {
            Some(given) => format!("[context {}] load metadata for {given}", need.written),
            None => format!("[internal] load metadata for {}", need.reference),
        };
        let step = progress.declare(name, Vec::new());
        progress.start(step);
        let found = find_image(engine, job, &need.reference, &need.platform, (progress, step)).await;
        progress.finish(step, found.as_ref().err().map(ToString::to_string));
        found
    };
    base::plan(planner, find).await.map_err(|error| match error {
        PlanError::File(error) => located(&error),
        PlanError::Image { need, error } => Failure {
            message: match need.context {
                Some(_) => format!("failed to resolve source metadata for {}: {error}", need.reference),
                None => format!(
                    "{}: failed to resolve source metadata for {}: {error}",
                    need.written, need.reference
                ),
            },
            place: Some(Place {
                first_line: u32::try_from(need.lines.first).unwrap_or(0),
                last_line: u32::try_from(need.lines.last).unwrap_or(0),
            }),
            step: None,
            code: None,
        },
    })
}

async fn find_image(
    engine: &Arc<Engine>,
    job: &Job,
    name: &str,
    platform: &wherry_dockerfile::plan::Platform,
    (progress, step): (&Progress, StepId),
) -> Result<Found, Error> {
    let reference: Reference = name.parse().map_err(wherry_image_store::Error::Reference)?;
    let platform = wherry_registry::Platform {
        os: platform.os.clone(),
        architecture: platform.architecture.clone(),
        variant: platform.variant.clone(),
    };
    // Only a platform that was asked for keeps us from an image that is here.
    let platform =
        (job.platform.is_some() || platform != wherry_registry::Platform::host()).then_some(platform);
    let finder = Finder { engine: engine.clone(), pull: job.pull, messages: progress.of_pull(step) };
    let credentials = job.sources.credentials(reference.domain()).await?;
    finder.find(name, platform.as_ref(), credentials).await
}

/// The build whose result a context names. No image of a registry may be called `sha256`.
fn result_of<'a>(job: &'a Job, name: &str) -> Option<&'a Arc<Built>> {
    let id = name.strip_prefix("docker.io/library/").unwrap_or(name);
    job.results.iter().find(|built| built.id().to_string() == id)
}

struct Executor<'a> {
    engine: &'a Arc<Engine>,
    job: &'a Job,
    planned: &'a Planned,
    progress: &'a Progress,
    /// The numbers of the plan's steps that are shown.
    shown: HashMap<PlanStep, StepId>,
    /// What steps have left, once somebody has asked.
    made: Vec<OnceCell<FileSystem>>,
    /// What steps are by what makes what they work on, once somebody has asked.
    definitions: Vec<OnceCell<Option<Key>>>,
    /// What is offered of steps' results.
    offers: Arc<Offers>,
    contexts: Mutex<BTreeMap<String, Arc<OnceCell<Arc<Folder>>>>>,
    /// What was fetched for a step's sources, by their numbers.
    versions: Mutex<HashMap<(StepId, usize), String>>,
}

impl<'a> Executor<'a> {
    /// Declares all steps.
    fn new(engine: &'a Arc<Engine>, job: &'a Job, planned: &'a Planned, progress: &'a Progress) -> Self {
        let plan = &planned.plan;
        let mut shown: HashMap<PlanStep, StepId> = HashMap::new();
        let mut bases: HashMap<usize, StepId> = HashMap::new();
        for stage in &plan.stages {
            if let (Some(name), Root::Image(image)) = (&stage.from_name, &stage.base) {
                let reference = plan.images.get(*image).map_or("", |image| &image.reference);
                if result_of(job, reference).is_some() {
                    continue;
                }
                let step = progress.declare(name.clone(), Vec::new());
                bases.entry(*image).or_insert(step);
                progress.start(step);
                progress.finish(step, None);
            }
        }
        for (id, step) in plan.steps.iter().enumerate() {
            let Some(name) = &step.name else { continue };
            let inputs = step.inputs().into_iter().filter_map(|root| match root {
                Root::Step(input) => shown.get(input).copied(),
                Root::Image(image) => bases.get(image).copied(),
                Root::Scratch | Root::Context(_) => None,
            });
            let mut inputs: Vec<StepId> = inputs.collect();
            inputs.dedup();
            shown.insert(id, progress.declare(name.clone(), inputs));
        }
        let made = plan.steps.iter().map(|_| OnceCell::new()).collect();
        let definitions = plan.steps.iter().map(|_| OnceCell::new()).collect();
        let (offers, contexts, versions) = (job.offers.clone(), Mutex::default(), Mutex::default());
        Self { engine, job, planned, progress, shown, made, definitions, offers, contexts, versions }
    }

    /// Makes the target's file system and its document.
    async fn target(&self) -> Result<Built, Arc<Failure>> {
        let plan = &self.planned.plan;
        let Some(stage) = plan.stages.get(plan.target) else {
            return Err(Arc::new(Failure::plain("the plan has no target")));
        };
        let file_system = self.root(&stage.root).await?;
        let base = self.base_of(plan.target);
        let document = document::Image {
            base: base.map(|image| &*image.document),
            platform: &stage.platform,
            config: &stage.config,
            history: &self.history(plan.target),
            created_ns: self.epoch_ns(),
            layers: &file_system.diff_ids(),
            cache: self.job.inline_cache.then(|| file_system.results()),
        };
        let layers = self.bring_all(&file_system).await?;
        Ok(Built { config: document.render(), layers, origins: self.origins() })
    }

    /// The image that a stage begins from, by way of other stages perhaps.
    fn base_of(&self, stage: usize) -> Option<&Arc<Image>> {
        let mut stage = self.planned.plan.stages.get(stage)?;
        while let Some(base) = stage.base_stage {
            stage = self.planned.plan.stages.get(base)?;
        }
        match stage.base {
            Root::Image(image) => self.planned.images.get(image),
            _ => None,
        }
    }

    /// One entry for each step of the target's lineage, with the times at which their results were made.
    fn history(&self, target: usize) -> Vec<Entry> {
        let plan = &self.planned.plan;
        let mut latest = 0;
        let steps = plan.lineage(target).into_iter().filter_map(|id| Some((id, plan.steps.get(id)?)));
        let mut entries: Vec<Entry> = steps
            .filter_map(|(id, step)| {
                latest = self.made.get(id).and_then(OnceCell::get).map_or(latest, |made| made.created_ns);
                Some(Entry {
                    created_by: step.history.created_by.clone()?,
                    created_ns: latest,
                    is_empty_layer: step.history.is_empty_layer,
                })
            })
            .collect();
        // What comes before the first step that made something was decided when that was; if none has, when the base was made.
        let of_base =
            self.base_of(target).and_then(|base| clock::parse_rfc3339(base.document.created.as_deref()?));
        let first = entries.iter().map(|entry| entry.created_ns).find(|at| *at != 0);
        let first = first.or(of_base).unwrap_or_else(clock::now_ns);
        for entry in entries.iter_mut().filter(|entry| entry.created_ns == 0) {
            entry.created_ns = first;
        }
        if let Some(epoch) = self.epoch_ns() {
            entries.iter_mut().for_each(|entry| entry.created_ns = entry.created_ns.min(epoch));
        }
        entries
    }

    /// The time that the client wants the image to have. Nanoseconds since the epoch.
    fn epoch_ns(&self) -> Option<i64> {
        self.job.epoch_s.map(|epoch| epoch.saturating_mul(1_000_000_000))
    }

    /// A file system, made if it is not there yet.
    fn root<'b>(&'b self, root: &'b Root) -> Asked<'b, FileSystem> {
        Box::pin(async move {
            match root {
                Root::Scratch | Root::Context(_) => Ok(FileSystem::empty()),
                Root::Image(image) => self.image(*image),
                Root::Step(id) => {
                    let (Some(cell), Some(step)) = (self.made.get(*id), self.planned.plan.steps.get(*id))
                    else {
                        return Err(Arc::new(Failure::plain("the plan names a step that it has not")));
                    };
                    cell.get_or_try_init(|| self.step(*id, step)).await.cloned()
                }
            }
        })
    }

    fn image(&self, image: usize) -> Result<FileSystem, Arc<Failure>> {
        let Some(image) = self.planned.images.get(image) else {
            return Err(Arc::new(Failure::plain("the plan names an image that it has not")));
        };
        let layers = self.engine.store.hold_layers(image.diff_ids());
        let layers = layers.map_err(|error| Arc::new(Failure::plain(error.to_string())))?;
        Ok(FileSystem::of_layers(layers))
    }

    /// Makes a step, with all that it needs.
    async fn step(&self, id: PlanStep, step: &Step) -> Result<FileSystem, Arc<Failure>> {
        let shown = self.shown.get(&id).copied();
        if let Some(known) = self.by_definition(id, step).await? {
            return Ok(known);
        }
        let inputs: Vec<&Root> = step.inputs();
        let file_systems = try_join_all(inputs.iter().map(|root| self.root(root))).await?;
        if let Some(shown) = shown {
            self.progress.start(shown);
        }
        let mut result = self.act(step, shown, file_systems).await;
        if let Ok(made) = &mut result {
            self.note_definition(id, step, made).await;
        }
        if let Some(shown) = shown {
            // What fails for a cache that does not keep its promise is done again without it.
            let failed = result.as_ref().err().filter(|_| self.offers.broken().is_none());
            self.progress.finish(shown, failed.map(|failure| failure.message.clone()));
        }
        result.map_err(|failure| {
            let place = Place {
                first_line: u32::try_from(step.source.lines.first).unwrap_or(0),
                last_line: u32::try_from(step.source.lines.last).unwrap_or(0),
            };
            Arc::new(Failure { place: Some(place), step: shown, ..failure })
        })
    }

    /// `inputs` are those of [`Step::inputs`], the first one what the step works on.
    async fn act(
        &self,
        step: &Step,
        shown: Option<StepId>,
        mut inputs: Vec<FileSystem>,
    ) -> Result<FileSystem, Failure> {
        let others = inputs.split_off(1.min(inputs.len()));
        let Some(below) = inputs.pop() else { return Err(Failure::plain("a step without a file system")) };
        match &step.action {
            Action::Configure => Ok(below),
            Action::Refused(error) => Err(located(error)),
            Action::Workdir { path, user } => {
                let mut builder = self.key(step, "workdir", &below);
                builder.work_dir(path, user, self.job.epoch_s);
                let (path, user, epoch_s) = (path.clone(), user.clone(), self.job.epoch_s);
                self.known_or(step, shown, (builder.finish(), below), |draft| async move {
                    blocking(move || {
                        let root = draft.mount()?;
                        let made =
                            work_dir(files::Root(root.as_fd()), &path, (&user, epoch_s), Style::BuildKit);
                        made.map_err(|error| Error::server(error.to_string()))?;
                        drop(root);
                        Ok(draft)
                    })
                    .await
                    .map_err(Failure::of)
                })
                .await
            }
            Action::Run(run) => self.run(step, run, shown, (below, others)).await,
            Action::Transfer(transfer) => self.transfer(step, transfer, shown, (below, others)).await,
        }
    }

    /// What all keys begin with.
    fn key(&self, step: &Step, kind: &str, below: &FileSystem) -> key::Builder {
        let mut builder = key::Builder::new(kind);
        if let Some(stage) = self.planned.plan.stages.get(step.stage) {
            builder.text(&stage.platform.to_string());
        }
        builder.layers(&below.diff_ids());
        builder
    }

    fn may_be_known(&self, step: &Step) -> bool {
        match &self.job.no_cache {
            NoCache::Nothing => true,
            NoCache::Everything => false,
            NoCache::Stages(names) => {
                let stage = self.planned.plan.stages.get(step.stage);
                !stage.is_some_and(|stage| names.iter().any(|name| name.eq_ignore_ascii_case(&stage.name)))
            }
        }
    }

    /// The layer with this key, or a new one that `make` writes.
    async fn known_or<M>(
        &self,
        step: &Step,
        shown: Option<StepId>,
        (key, below): (Key, FileSystem),
        make: impl FnOnce(wherry_image_store::Draft) -> M,
    ) -> Result<FileSystem, Failure>
    where
        M: Future<Output = Result<wherry_image_store::Draft, Failure>>,
    {
        let cache = &self.engine.builds.cache;
        // Two builds that come to the same step at the same time make it once.
        let _turn = self.engine.builds.turn(&key).await;
        let may_be_known = self.may_be_known(step);
        let made = |created_ns| Made { key, definition: None, created_ns, description: describe(step) };
        let known = if may_be_known { cache.find(&key) } else { None };
        let known = known.map(|layer| (At::Here(layer), cache.created(&key).unwrap_or_default()));
        let offered = || {
            let offer = self.offers.find(&key).filter(|_| may_be_known)?;
            Some((At::Offered(offer.clone()), offer.created_ns()))
        };
        if let Some((at, created_ns)) = known.or_else(offered) {
            if let Some(step) = shown {
                self.progress.send(Event::Cached { step });
            }
            return Ok(below.with(at, made(created_ns)));
        }
        let held = self.bring(&below, shown).await?;
        let (engine, ids) = (self.engine.clone(), below.diff_ids());
        let draft = blocking(move || Ok(engine.store.draft(&ids)?)).await.map_err(Failure::of)?;
        drop(held);
        let draft = make(draft).await?;
        let layer = Arc::new(blocking(move || Ok(draft.seal()?)).await.map_err(Failure::of)?);
        let created_ns = cache.add(key, &describe(step), layer.clone());
        Ok(below.with(At::Here(layer), made(created_ns)))
    }

    async fn run(
        &self,
        step: &Step,
        run: &RunStep,
        shown: Option<StepId>,
        (below, mounted): (FileSystem, Vec<FileSystem>),
    ) -> Result<FileSystem, Failure> {
        let mut builder = self.key(step, "run", &below);
        builder.run(run, &self.job.limits);
        let mut all_mounted = Vec::new();
        for (mount, file_system) in run.mounts.iter().zip(mounted) {
            if let Root::Context(name) = &mount.root {
                let folder = self.context(name.as_deref().unwrap_or_default()).await?;
                let content = content_of(folder.clone(), &mount.mount.source).await?;
                if key::content_counts(mount.mount.kind) {
                    builder.digest(&content);
                }
                all_mounted.push(Ok((folder, content)));
            } else {
                builder.layers(&file_system.diff_ids());
                all_mounted.push(Err(file_system));
            }
        }
        let output = |stream: u8, bytes: Vec<u8>| {
            let stream = if stream == 2 { Stream::Err } else { Stream::Out };
            if let Some(step) = shown {
                let at_ns = clock::now_ns();
                self.progress.send(Event::Output { step, stream, bytes, at_ns });
            }
            std::future::ready(())
        };
        self.known_or(step, shown, (builder.finish(), below), |draft| async move {
            let mut all_shown = Vec::new();
            for mounted in all_mounted {
                all_shown.push(match mounted {
                    Ok((folder, content)) => Shown::Folder(folder, content),
                    Err(file_system) => Shown::Layers(self.bring(&file_system, shown).await?),
                });
            }
            let command = Run {
                engine: self.engine,
                step: run,
                shown: all_shown,
                limits: &self.job.limits,
                sources: &*self.job.sources,
                caches: &self.engine.builds.mounts,
            };
            let draft = Arc::new(draft);
            let code = command.carry_out(&draft, output).await.map_err(Failure::of)?;
            let draft = Arc::into_inner(draft);
            match code {
                0 => draft.ok_or_else(|| Failure::of(Error::server("a step's layer is still in use"))),
                code => Err(Failure {
                    message: format!(
                        "process {} did not complete successfully: exit code: {code}",
                        crate::text::go_quote(&run.args.join(" "))
                    ),
                    place: None,
                    step: shown,
                    code: Some(code),
                }),
            }
        })
        .await
    }

    async fn transfer(
        &self,
        step: &Step,
        transfer: &TransferStep,
        shown: Option<StepId>,
        (below, sources): (FileSystem, Vec<FileSystem>),
    ) -> Result<FileSystem, Failure> {
        let mut sources = sources.into_iter();
        let mut materials = Vec::new();
        for (number, source) in transfer.sources.iter().enumerate() {
            let material = match source {
                TransferSource::Files { root, path, parents, unpack } => {
                    let file_system = sources.next();
                    let (folder, owner) = match root {
                        Root::Context(name) => {
                            (self.context(name.as_deref().unwrap_or_default()).await?, Some((0, 0)))
                        }
                        _ => (self.mounted(file_system, shown).await?, None),
                    };
                    fetch::find(folder, path.clone(), parents.clone(), *unpack, owner).await
                }
                other => {
                    let watch = |id: &str, current: u64, total: u64| {
                        if let Some(step) = shown {
                            let (id, done) = (id.to_owned(), current == total);
                            self.progress.send(Event::Transfer { step, id, current, total, done });
                        }
                    };
                    let fetched = fetch::fetch(self.engine, other, Some(&*self.job.sources), &watch).await;
                    if let (Ok(fetched), Some(step)) = (&fetched, shown) {
                        let mut versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
                        versions.insert((step, number), fetched.version.clone());
                    }
                    fetched.map(|fetched| fetched.material)
                }
            };
            materials.push(material.map_err(tell)?);
        }
        let mut builder = self.key(step, "transfer", &below);
        builder.transfer(transfer, &materials);
        let excluded = fetch::excluded(&transfer.exclude).map_err(Failure::of)?;
        let owned = transfer.clone();
        let looked_at = blocking(move || {
            let transfer = Transfer { step: &owned, materials, excluded, style: Style::BuildKit };
            let digest = transfer.digests().map(|digests| content_digest(&digests));
            Ok(digest.map(|digest| (digest, transfer.materials, transfer.excluded)))
        });
        let (digest, materials, excluded) =
            looked_at.await.map_err(Failure::of)?.map_err(|error| tell(error.into()))?;
        builder.digest(&digest);
        let owned = transfer.clone();
        self.known_or(step, shown, (builder.finish(), below), |draft| async move {
            let done = blocking(move || {
                let root = draft.mount()?;
                let transfer = Transfer { step: &owned, materials, excluded, style: Style::BuildKit };
                let done = transfer.carry_out(files::Root(root.as_fd()), &draft.upper());
                drop(root);
                Ok(done.map(|()| draft))
            });
            done.await.map_err(Failure::of)?.map_err(|error| tell(error.into()))
        })
        .await
    }

    /// A file system that files are taken of.
    async fn mounted(
        &self,
        file_system: Option<FileSystem>,
        shown: Option<StepId>,
    ) -> Result<Arc<Folder>, Failure> {
        let layers = match file_system {
            Some(file_system) => self.bring(&file_system, shown).await?,
            None => Vec::new(),
        };
        let engine = self.engine.clone();
        let folder = blocking(move || {
            let ids: Vec<DiffId> = layers.iter().map(|layer| layer.diff_id()).collect();
            Folder::of_layers(&engine.store, &ids).map(Arc::new)
        });
        folder.await.map_err(Failure::of)
    }

    /// A context of the client, asked for once.
    async fn context(&self, name: &str) -> Result<Arc<Folder>, Failure> {
        let cell = {
            let mut contexts = self.contexts.lock().unwrap_or_else(PoisonError::into_inner);
            contexts.entry(name.to_owned()).or_default().clone()
        };
        let asked = cell.get_or_try_init(|| async {
            let folder = self.job.sources.context(name).await.map_err(Failure::of)?;
            folder.ok_or_else(|| Failure::plain(format!("the client has no context {name:?}")))
        });
        asked.await.cloned()
    }
}

/// What a bind mount of a context shows, as a number.
async fn content_of(folder: Arc<Folder>, path: &str) -> Result<wherry_image_ref::Digest, Failure> {
    let path = files::clean(path);
    let digest = blocking(move || {
        let root = files::Root(folder.root.as_fd());
        let selected = match files::select_one(root, &path) {
            Err(error) if error.is_missing() => return Ok(Err(TransferError::Missing(path))),
            selected => selected,
        };
        let known = folder.known.as_deref();
        let digest = |selected| files::digest(root, &selected, (Some((0, 0)), None), &|_, _| false, known);
        let digested = selected.and_then(digest);
        if let Some(known) = known {
            known.save();
        }
        Ok(digested.map(|digested| digested.digest).map_err(TransferError::from))
    });
    digest.await.map_err(Failure::of)?.map_err(|error| tell(error.into()))
}

/// BuildKit's words for what is not there.
fn tell(error: FetchError) -> Failure {
    match error {
        FetchError::Transfer(error @ TransferError::Missing(_)) => Failure::plain(format!(
            "failed to compute cache key: failed to calculate checksum of ref: {error}"
        )),
        FetchError::Status { code, .. } => {
            Failure::plain(format!("failed to load cache key: invalid response status {code}"))
        }
        error @ FetchError::Git(
            GitError::NoReference(_) | GitError::NoCommit(_) | GitError::Unreachable { .. },
        ) => Failure::plain(format!("failed to load cache key: {error}")),
        other => Failure::plain(other.to_string()),
    }
}

impl Failure {
    fn plain(message: impl Into<String>) -> Self {
        Self { message: message.into(), place: None, step: None, code: None }
    }

    #[allow(clippy::needless_pass_by_value, reason = "a function for map_err")]
    fn of(error: Error) -> Self {
        Self::plain(error.to_string())
    }

    fn copy(&self) -> Self {
        Self { message: self.message.clone(), place: self.place, step: self.step, code: self.code }
    }
}
