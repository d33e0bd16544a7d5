//! The engine as what is behind BuildKit's wire.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, Weak};

use tokio::sync::{Mutex, mpsc};
use wherry_buildkit::control::{Backend, BuildRequest, Outcome, PlanRequest, Planned, Progress};
use wherry_buildkit::errdefs;
use wherry_buildkit::grpc::{Code, Status};
use wherry_buildkit::pb::control::{
    BuildkitVersion, DiskUsageRequest, PruneRequest, UsageRecord, WorkerRecord,
};
use wherry_buildkit::pb::gateway::{ResolveImageConfigRequest, ResolveImageConfigResponse};
use wherry_buildkit::session::{Session, Sessions};
use wherry_dockerfile::Dockerfile;

use super::attributes::{Place, Wanted};
use super::export::Work;
use super::files::{self, Definition};
use super::imports::Importer;
use super::remote::Brought;
use super::sources::Client;
use super::watch::{self, Watch};
use super::{export, failure, provenance, remote, subrequests, worker};
use crate::build::{Built, Job, Origins};
use crate::engine::{Engine, blocking};

/// Of so many builds may one consist, those that it uses counted each time.
const MAX_WEIGHT: usize = 256;

/// The engine.
#[derive(Debug)]
pub(crate) struct Door {
    engine: Weak<Engine>,
    sessions: Arc<Sessions>,
}

/// A build that is known but not done.
pub(crate) struct Plan {
    wanted: Wanted,
    definition: Definition,
    /// The files of a context that is not the client's.
    fetched: Option<Brought>,
    /// The front end's attributes, as the client gave them.
    options: BTreeMap<String, String>,
    /// Builds whose results this one uses, by name.
    inputs: BTreeMap<String, Arc<Plan>>,
    /// How many builds it is, with all that it uses as often as they are used.
    weight: usize,
    session: Arc<Session>,
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plan").field("wanted", &self.wanted).finish_non_exhaustive()
    }
}

impl Door {
    /// A door of an engine that may go.
    pub(super) fn new(engine: Weak<Engine>, sessions: Arc<Sessions>) -> Self {
        Self { engine, sessions }
    }

    fn engine(&self) -> Result<Arc<Engine>, Status> {
        self.engine.upgrade().ok_or_else(|| Status::new(Code::Unavailable, "the engine is shutting down"))
    }

    /// A folder of the client, and the session that offers it.
    async fn folder(
        &self,
        wanted: &Wanted,
        name: &str,
        own: &Arc<Session>,
    ) -> Result<(String, Arc<Session>), Status> {
        let (name, session) = wanted.folder(name);
        match session {
            Some(id) => Ok((name, self.session(&id).await?)),
            None => Ok((name, own.clone())),
        }
    }

    async fn session(&self, id: &str) -> Result<Arc<Session>, Status> {
        self.sessions.get(id).await.map_err(failure::of_session)
    }
}

impl Backend for Door {
    type Plan = Plan;

    fn workers(&self) -> Vec<WorkerRecord> {
        self.engine().map(|engine| vec![worker::record(&engine)]).unwrap_or_default()
    }

    fn version(&self) -> BuildkitVersion {
        worker::version()
    }

    async fn disk_usage(&self, request: DiskUsageRequest) -> Result<Vec<UsageRecord>, Status> {
        let engine = self.engine()?;
        in_background(move || super::usage::list(&engine, &request.filter)).await
    }

    async fn prune(&self, request: PruneRequest) -> Result<Vec<UsageRecord>, Status> {
        let engine = self.engine()?;
        in_background(move || super::usage::prune(&engine, &request)).await
    }

    async fn plan(&self, request: PlanRequest<Plan>, progress: Progress) -> Result<Planned<Plan>, Status> {
        let engine = self.engine()?;
        let wanted = Wanted::read(&request.frontend, &request.options, &request.cache_imports)?;
        let session = self.session(&request.session).await?;
        let (definition, fetched) = match &wanted.dockerfile_in {
            Some(folder) => {
                let (folder, offered_by) = self.folder(&wanted, folder, &session).await?;
                let definition =
                    files::from_client(&offered_by, &folder, &wanted.filename, &progress).await?;
                (definition, remote::fetch(&engine, &session, &wanted, &progress).await?)
            }
            None => remote::with_dockerfile(&engine, &session, &wanted, &progress).await?,
        };
        check_syntax(&wanted, &definition)?;
        let mut metadata = BTreeMap::new();
        if let Some(question) = &wanted.request {
            let ignore = match (&definition.ignore, &wanted.context, question.as_str()) {
                (None, Place::Client(folder), "frontend.lint") => {
                    let (folder, offered_by) = self.folder(&wanted, folder, &session).await?;
                    files::ignore_from_client(&offered_by, &folder, "internal", &progress).await?
                }
                (known, _, _) => known.clone(),
            };
            metadata = subrequests::answer(&engine, question, &wanted, &definition, ignore.as_deref())?;
            return Ok(Planned { plan: None, metadata });
        }
        if let Err(error) = Dockerfile::parse(&definition.text) {
            return Err(failure::of_dockerfile(&error, &definition));
        }
        let inputs = request.inputs;
        let weight = inputs.values().fold(1, |sum: usize, input| sum.saturating_add(input.weight));
        if weight > MAX_WEIGHT {
            let text =
                format!("more than {MAX_WEIGHT} builds that use each other's results are not supported");
            return Err(Status::new(Code::ResourceExhausted, text));
        }
        let options = request.options;
        let plan = Plan { wanted, definition, fetched, options, inputs, weight, session };
        Ok(Planned { plan: Some(plan), metadata })
    }

    async fn build(&self, request: BuildRequest<Plan>, progress: Progress) -> Result<Outcome, Status> {
        let engine = self.engine()?;
        export::check(&request.exporters)?;
        if let Some(other) = request.cache_exports.iter().find(|cache| cache.r#type != "inline") {
            let kind = crate::text::go_quote(&other.r#type);
            return Err(Status::unknown(format!("unknown cache exporter: {kind}")));
        }
        for what in &request.plan.wanted.unheeded {
            progress.warn(watch::plain_warning(what, &request.plan.definition));
        }
        let host_network = host_network(&request.entitlements)?;
        let plan = &request.plan;
        let as_cache = !request.cache_exports.is_empty();
        let built = self.execute(&engine, plan, (host_network, as_cache), &progress).await?;
        let work = Work { engine: &engine, session: &plan.session, progress: &progress, as_cache };
        let response = export::export(&work, &built, &request.exporters).await?;
        let asked = provenance::Asked {
            options: &plan.options,
            wanted: &plan.wanted,
            definition: &plan.definition,
            context: plan.fetched.as_ref().map(|brought| &brought.origins),
            began: progress.began(),
        };
        let provenance = provenance::predicate(&asked, &built.origins);
        // Only an image has a document that somebody could look at.
        let config = response.contains_key("containerimage.config.digest").then(|| built.config.clone());
        Ok(Outcome { response, provenance, config })
    }

    async fn resolve_image(
        &self,
        request: ResolveImageConfigRequest,
        _: String,
    ) -> Result<ResolveImageConfigResponse, Status> {
        let engine = self.engine()?;
        let name = request.r#ref.clone();
        let found = blocking(move || {
            let id = engine.store.resolve(&name)?;
            Ok((id, engine.store.raw_config(&id)?))
        });
        let (id, config) = found.await.map_err(|error| Status::new(Code::NotFound, error.to_string()))?;
        Ok(ResolveImageConfigResponse { digest: id.to_string(), config, r#ref: request.r#ref })
    }
}

/// Runs what blocks.
async fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Status::new(Code::Unavailable, error.to_string())))
}

/// Whether the client allows its build the host's network. The other right that there is, dockerd does not grant either.
fn host_network(entitlements: &[String]) -> Result<bool, Status> {
    match entitlements.iter().find(|right| *right != "network.host") {
        Some(other) => Err(Status::unknown(format!(
            "granting entitlement {other} is not allowed by build daemon configuration"
        ))),
        None => Ok(!entitlements.is_empty()),
    }
}

impl Door {
    /// Builds a plan, and before it those whose results it uses. It may have the host's network, and its image may have to be
    /// a cache.
    async fn execute(
        &self,
        engine: &Arc<Engine>,
        plan: &Plan,
        (host_network, as_cache): (bool, bool),
        progress: &Progress,
    ) -> Result<Arc<Built>, Status> {
        let mut contexts = plan.wanted.contexts.clone();
        let mut results = Vec::new();
        // Several contexts may be the same input, which is built once: so much is what is weighed.
        let mut built_inputs: BTreeMap<String, String> = BTreeMap::new();
        for (name, place) in &mut contexts {
            if let Place::Input(input) = place {
                if let Some(id) = built_inputs.get(input) {
                    *place = Place::Image(id.clone());
                    continue;
                }
                let plan = plan.inputs.get(input.as_str()).ok_or_else(|| {
                    Status::unknown(format!("invalid context input {input:?} for {name}: no such input"))
                })?;
                let built = Box::pin(self.execute(engine, plan, (host_network, false), progress)).await?;
                let id = built.id().to_string();
                built_inputs.insert(input.clone(), id.clone());
                *place = Place::Image(id);
                results.push(built);
            }
        }
        let (events, told) = mpsc::unbounded_channel();
        let mut watch = Watch::new(progress.clone());
        let brought: Arc<std::sync::Mutex<Origins>> = Arc::default();
        let job = self.job(engine, plan, (contexts, brought.clone()), host_network, progress, events);
        let importer = Importer {
            engine,
            session: &plan.session,
            sources: &*job.sources,
            platform: job.platform.as_ref(),
            progress,
        };
        let offers = Arc::new(importer.import(&plan.wanted.imports).await);
        let job = Job { results, offers, inline_cache: as_cache, ..job };
        let (built, ()) =
            tokio::join!(crate::build::execute(engine, job), watch.follow(told, &plan.definition),);
        match built {
            Ok(mut built) => {
                built.origins.add(&brought.lock().unwrap_or_else(PoisonError::into_inner));
                if let Some(context) = &plan.fetched {
                    built.origins.add(&context.origins);
                }
                let locals = provenance::used_locals(&plan.wanted, &built.origins);
                built.origins.locals.extend(locals);
                Ok(Arc::new(built))
            }
            Err(error) => Err(failure::of_build(&error, &plan.definition, &watch)),
        }
    }

    fn job(
        &self,
        engine: &Arc<Engine>,
        plan: &Plan,
        (contexts, origins): (BTreeMap<String, Place>, Arc<std::sync::Mutex<Origins>>),
        host_network: bool,
        progress: &Progress,
        events: mpsc::UnboundedSender<crate::build::Event>,
    ) -> Job {
        let wanted = &plan.wanted;
        let named = contexts.iter().map(|(name, place)| (name.clone(), place.as_named())).collect();
        let sources = Client {
            engine: engine.clone(),
            session: plan.session.clone(),
            progress: progress.clone(),
            sessions: self.sessions.clone(),
            wanted: wanted.clone(),
            ignore: plan.definition.ignore.clone(),
            fetched: plan.fetched.as_ref().map(|brought| brought.folder.clone()),
            contexts,
            synced: Mutex::new(HashMap::new()),
            origins,
        };
        Job {
            dockerfile: plan.definition.text.clone(),
            target: wanted.target.clone(),
            build_args: wanted.build_args.clone(),
            labels: wanted.labels.clone(),
            platform: wanted.platform.clone(),
            pull: wanted.pull,
            no_cache: wanted.no_cache.clone(),
            limits: wanted.limits.clone(),
            epoch_s: wanted.epoch_s,
            allow_insecure: false,
            allow_host_network: host_network,
            named_contexts: named,
            offers: Arc::default(),
            inline_cache: false,
            results: Vec::new(),
            sources: Arc::new(sources),
            events,
        }
    }
}

/// The built-in front end is BuildKit's `docker/dockerfile:1`; another one would be a program in an image.
fn check_syntax(wanted: &Wanted, definition: &Definition) -> Result<(), Status> {
    let parsed = Dockerfile::parse(&definition.text).ok();
    let directive = parsed.as_ref().and_then(|file| file.directive("syntax"));
    let (named, line) = match (&wanted.syntax, directive) {
        (Some(named), _) => (named.as_str(), None),
        (None, Some(directive)) => (directive.value.as_str(), Some(directive.line)),
        (None, None) => return Ok(()),
    };
    let name = named.split(char::is_whitespace).next().unwrap_or_default();
    if is_built_in(name) {
        return Ok(());
    }
    let text = format!(
        "front end {} is not supported by this engine: it has docker/dockerfile:1 built in",
        crate::text::go_quote(name)
    );
    let mut status = Status::unknown(text);
    if let Some(line) = line {
        status.details.push(definition.source(&[(line, line)]));
    }
    status.details.push(errdefs::frontend("gateway.v0"));
    Err(status)
}

fn is_built_in(name: &str) -> bool {
    let Ok(reference) = name.parse::<wherry_image_ref::Reference>() else { return false };
    let is_docker = reference.domain() == "docker.io";
    let is_frontend = matches!(reference.path(), "docker/dockerfile" | "docker/dockerfile-upstream");
    let tag = reference.tag().unwrap_or("latest");
    is_docker
        && is_frontend
        && (tag == "1"
            || tag.starts_with("1.")
            || tag.starts_with("1-")
            || matches!(tag, "latest" | "labs" | "master"))
}

#[cfg(test)]
mod tests {
    use super::is_built_in;

    #[test]
    fn the_front_end_is_dockers_first() {
        for name in [
            "docker/dockerfile:1",
            "docker/dockerfile:1.7-labs",
            "docker.io/docker/dockerfile:1-labs",
            "docker/dockerfile",
        ] {
            assert!(is_built_in(name), "{name}");
        }
        for name in [
            "",
            "docker/dockerfile:2",
            "docker/dockerfile:12",
            "example.com/docker/dockerfile:1",
            "tonistiigi/dockerfile:1",
        ] {
            assert!(!is_built_in(name), "{name}");
        }
    }
}
