//! `POST /build`: the classic builder. It goes through the Dockerfile instruction by instruction, and tells what it does in the
//! words of dockerd's own; each instruction leaves an image.

mod context;
mod images;
mod output;
mod remote;
mod request;
mod steps;

use std::collections::HashMap;
use std::sync::Arc;

pub(super) use context::{dockerfile, new_folder, unpack};
pub(super) use remote::{Context, DownloadError, download};
use tokio::sync::oneshot;
use wherry_dockerfile::plan::{Frontend, ImageNeed, Planner, Request as PlanRequest};
use wherry_dockerfile::{Dockerfile, Instruction, LocatedError};
use wherry_image_store::Image;

use self::output::Output;
use self::request::Asked;
use self::steps::{Failed, Walk};
use super::base::{self, Finder, Found, PlanError};
use super::job::Folder;
use crate::containers::signals;
use crate::engine::{Engine, blocking};
use crate::error::Error;
use crate::server::{Reply, Request, response};

/// How a Dockerfile is called that nobody has named.
const DOCKERFILE: &str = "Dockerfile";
/// What keeps files out of contexts.
const DOCKERIGNORE: &str = ".dockerignore";

/// Build arguments that need no `ARG`.
const PROXIES: [&str; 5] = ["http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy"];

/// Builds an image. Until the first message a failure is the answer itself, later the last message.
///
/// # Errors
/// 400 and 500 with dockerd's texts.
pub(crate) async fn build(engine: Arc<Engine>, request: Request) -> Result<Reply, Error> {
    let asked = Asked::read(&request, engine.config().experimental)?;
    let folder = remote::context(&engine, &asked, request).await?;
    let (context, name) = (folder.folder, folder.dockerfile.unwrap_or_else(|| asked.dockerfile.clone()));
    let task_folder = context.clone();
    let (text, name) = blocking(move || context::dockerfile(&task_folder, &name)).await?;
    let file = Dockerfile::parse(&text).map_err(|error| refused(&error, &name))?;
    check_target(&file, &asked.target)?;
    let (sender, reply) = response::stream("application/json");
    let output = Output::new(sender, asked.quiet);
    let cancelled = engine.builds.register(&asked.build_id);
    tokio::spawn(in_background(engine, Build { asked, file, context, output }, cancelled));
    Ok(reply.into())
}

fn refused(error: &LocatedError, name: &str) -> Error {
    Error::InvalidParameter(error.classic(name))
}

/// dockerd looks for the target before it answers.
fn check_target(file: &Dockerfile, target: &str) -> Result<(), Error> {
    if target.is_empty() || stage_of(file, target).is_some() {
        return Ok(());
    }
    Err(Error::InvalidParameter(format!("target stage {} could not be found", crate::text::go_quote(target))))
}

/// The number of a stage by its name or number.
fn stage_of(file: &Dockerfile, target: &str) -> Option<usize> {
    let named = file
        .stages
        .iter()
        .position(|stage| stage.name.as_deref().is_some_and(|name| name.eq_ignore_ascii_case(target)));
    named.or_else(|| target.parse().ok().filter(|number| *number < file.stages.len()))
}

struct Build {
    asked: Asked,
    file: Dockerfile,
    context: Arc<Folder>,
    output: Output,
}

async fn in_background(engine: Arc<Engine>, build: Build, cancelled: oneshot::Receiver<()>) {
    let output = build.output.clone();
    let id = build.asked.build_id.clone();
    let result = tokio::select! {
        result = build.run(&engine) => result,
        // Whoever wanted it has gone, or wants it no more: what runs for it is ended as the future is dropped.
        () = output.gone() => Ok(()),
        Ok(()) = cancelled => Err(Failed { message: "build cancelled".into(), code: None }),
    };
    engine.builds.forget(&id);
    if let Err(failed) = result {
        output.failure(&failed.message, failed.code).await;
    }
}

impl Build {
    async fn run(self, engine: &Arc<Engine>) -> Result<(), Failed> {
        let mut planner = Planner::new(self.file.clone(), self.plan_request());
        let total = self.total();
        self.begin(total).await;
        let finder =
            Finder { engine: engine.clone(), pull: self.asked.pull, messages: self.output.pull_messages() };
        let planned = base::plan(&mut planner, |need| self.find(&finder, need)).await;
        let planned = planned.map_err(|error| self.tell(error))?;
        let cache_from = self.cache_sources(engine);
        let mut walk = Walk {
            engine,
            asked: &self.asked,
            planned: &planned,
            context: self.context.clone(),
            cache_from,
            output: &self.output,
            results: HashMap::new(),
        };
        let image = walk.run().await?;
        self.finish(engine, &image).await
    }

    fn plan_request(&self) -> PlanRequest {
        let mut request = PlanRequest::new(Frontend::Classic, |text| signals::parse_signal(text).is_ok());
        request.target.clone_from(&self.asked.target);
        request.build_args.clone_from(&self.asked.build_args);
        request.labels.clone_from(&self.asked.labels);
        request.platform = self.asked.platform.as_ref().map(|platform| {
            wherry_dockerfile::plan::Platform::normal(&platform.os, &platform.architecture, &platform.variant)
        });
        request
    }

    /// How many instructions there are up to the target's last one.
    fn total(&self) -> usize {
        let target = match self.asked.target.as_str() {
            "" => self.file.stages.len(),
            target => stage_of(&self.file, target).map_or(self.file.stages.len(), |number| number + 1),
        };
        let steps: usize = self.file.stages.iter().take(target).map(|stage| 1 + stage.statements.len()).sum();
        self.file.global_args.len() + steps + usize::from(!self.asked.labels.is_empty())
    }

    /// The headings up to the first `FROM`, whose image may have to be pulled now.
    async fn begin(&self, total: usize) {
        let global = self.file.global_args.iter().map(|args| &args.source.text);
        let first = self.file.stages.first().map(|stage| &stage.source.text);
        for (index, text) in global.chain(first).enumerate() {
            self.output.heading(&format!("Step {}/{total} : {text}", index + 1)).await;
        }
    }

    async fn find(&self, finder: &Finder, need: ImageNeed) -> Result<Found, Error> {
        let engine = &finder.engine;
        // By an id, it is here or nowhere.
        if let Ok(id) = engine.store.resolve(&need.written)
            && !finder.pull
        {
            return Ok(Found::here(engine.store.image(&id)?));
        }
        let reference: wherry_image_ref::Reference =
            need.reference.parse().map_err(wherry_image_store::Error::Reference)?;
        let platform = self.asked.platform.as_ref();
        finder.find(&need.reference, platform, self.asked.credentials_for(&reference)).await
    }

    fn tell(&self, error: PlanError) -> Failed {
        let message = match error {
            PlanError::File(error) => error.classic(DOCKERFILE),
            PlanError::Image { error, .. } => error.to_string(),
        };
        Failed { message, code: None }
    }

    /// Images that are not here are no help, as with dockerd; if none is, nothing is known.
    fn cache_sources(&self, engine: &Engine) -> Option<Vec<Arc<Image>>> {
        if self.asked.cache_from.is_empty() {
            return None;
        }
        let found = self.asked.cache_from.iter().filter_map(|name| engine.store.resolve(name).ok());
        Some(found.filter_map(|id| engine.store.image(&id).ok()).collect())
    }

    /// Build arguments that no `ARG` names.
    fn unused_args(&self) -> Vec<&str> {
        let in_stages = self.file.stages.iter().flat_map(|stage| &stage.statements).filter_map(|statement| {
            match &statement.instruction {
                Instruction::Arg(args) => Some(args),
                _ => None,
            }
        });
        let declared = self.file.global_args.iter().map(|global| &global.args).chain(in_stages);
        let declared: Vec<&str> = declared.flatten().map(|arg| arg.name.as_str()).collect();
        let given = self.asked.build_args.keys().map(String::as_str);
        given
            .filter(|name| !declared.contains(name) && !PROXIES.contains(&name.to_lowercase().as_str()))
            .collect()
    }

    async fn finish(&self, engine: &Arc<Engine>, image: &Arc<Image>) -> Result<(), Failed> {
        let unused = self.unused_args();
        if !unused.is_empty() {
            let unused = unused.join(" ");
            let text = format!("[Warning] One or more build-args [{unused}] were not consumed\n");
            self.output.text(&text).await;
        }
        self.output.text(&format!("Successfully built {}\n", image.id.0.short())).await;
        for name in &self.asked.names {
            let (engine, id, reference) = (engine.clone(), image.id, name.clone());
            blocking(move || {
                engine.store.tag(&id, &reference)?;
                crate::images::publish(&engine, "tag", &id, &reference.familiar());
                Ok(())
            })
            .await?;
            self.output.text(&format!("Successfully tagged {}\n", name.familiar())).await;
        }
        if self.asked.quiet {
            self.output.result(&image.id.to_string()).await;
        }
        Ok(())
    }
}
