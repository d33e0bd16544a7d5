//! The first phase: which stages are built, and which images they need.

use std::collections::BTreeSet;
use std::sync::Arc;

use wherry_image_ref::Reference;

use super::globals::Globals;
use super::request::{Frontend, Request};
use super::{ImageConfig, ImageId, Plan, PlannedImage, Platform};
use crate::file::{Dockerfile, Lines, Source, Stage, Statement};
use crate::instruction::{Change, Instruction};
use crate::lint::{CheckOptions, Linter, Rule, Warning, look_at_file};
use crate::shell::{Environment, Lexer, LookedUp};
use crate::suggest::nearest;
use crate::{Error, LocatedError, Phase};

pub(super) type Result<T> = std::result::Result<T, LocatedError>;

/// An image whose configuration is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageNeed {
    /// Its number, for [`Planner::supply`].
    pub id: ImageId,
    /// With domain and tag or digest; for the classic builder it may be an id instead.
    pub reference: String,
    /// As the Dockerfile names it.
    pub written: String,
    /// What the client has given for this name, if it has.
    pub context: Option<String>,
    /// The platform to take.
    pub platform: Platform,
    /// The lines that name it first.
    pub lines: Lines,
    pub(super) supplied: Option<SuppliedImage>,
}

/// An image that was looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SuppliedImage {
    /// Its configuration.
    pub config: ImageConfig,
    /// Its platform.
    pub platform: Platform,
    /// `sha256:…`, if the reference was pinned by a look at the registry: step names show it.
    pub digest: Option<String>,
}

/// What a stage begins from, or files come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    Scratch,
    Stage(usize),
    /// By reference, until its number is known.
    Named(String),
    /// The same of what a context of the client stands for.
    Given {
        /// As the file names it.
        name: String,
        /// The image.
        reference: String,
    },
    Image(ImageId),
    Context(String),
}

/// An instruction of a stage, its sources found.
#[derive(Debug, Clone)]
pub(super) struct Command {
    pub(super) statement: Statement,
    /// Of `COPY --from` one, of `RUN` one for each mount.
    pub(super) sources: Vec<Option<Origin>>,
    pub(super) is_trigger: bool,
}

/// A stage on its way into the plan.
#[derive(Debug, Clone)]
pub(super) struct Draft {
    pub(super) name: Option<String>,
    pub(super) display: String,
    pub(super) source: Source,
    pub(super) base: Origin,
    pub(super) platform: Option<Platform>,
    pub(super) commands: Vec<Command>,
    /// A context of the client stands for the whole stage.
    pub(super) is_replaced: bool,
    pub(super) has_triggers: bool,
    /// How many of its steps step names count.
    pub(super) total: usize,
}

/// Makes the plan of a build.
#[derive(Debug)]
pub struct Planner {
    pub(super) file: Dockerfile,
    pub(super) request: Request,
    pub(super) linter: Linter,
    pub(super) globals: Globals,
    pub(super) drafts: Vec<Draft>,
    pub(super) target: usize,
    pub(super) needs: Vec<ImageNeed>,
    is_prepared: bool,
}

impl Planner {
    /// A planner for one file and one request.
    #[must_use]
    pub fn new(file: Dockerfile, request: Request) -> Self {
        Self {
            file,
            request,
            linter: Linter::default(),
            globals: Globals::default(),
            drafts: Vec::new(),
            target: 0,
            needs: Vec::new(),
            is_prepared: false,
        }
    }

    /// The images that are needed next; when there is none, [`Self::finish`] can be called.
    ///
    /// # Errors
    /// What is wrong with the file, as BuildKit says it.
    pub fn missing(&mut self) -> Result<Vec<ImageNeed>> {
        if !self.is_prepared {
            self.prepare()?;
            self.is_prepared = true;
        }
        self.discover()?;
        Ok(self.needs.iter().filter(|need| need.supplied.is_none()).cloned().collect())
    }

    /// Gives an image that was missing.
    pub fn supply(&mut self, id: ImageId, image: SuppliedImage) {
        if let Some(need) = self.needs.get_mut(id) {
            need.supplied = Some(image);
        }
    }

    /// The plan.
    ///
    /// # Errors
    /// What is wrong with the file, as BuildKit says it.
    pub fn finish(&mut self) -> Result<Plan> {
        if let Some(need) = self.missing()?.first() {
            let error = Error::ImageMissing(need.reference.clone());
            return Err(LocatedError::new(error, need.lines, Phase::Whole));
        }
        let plan = super::stages::plan(self)?;
        self.linter.verdict().map_err(LocatedError::whole)?;
        Ok(plan)
    }

    /// The warnings so far, also if there was an error.
    ///
    /// The classic builder has none but [`Dockerfile::classic_warnings`].
    #[must_use]
    pub fn warnings(&self) -> &[Warning] {
        self.linter.warnings()
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> &Dockerfile {
        &self.file
    }

    fn prepare(&mut self) -> Result<()> {
        if self.request.frontend == Frontend::BuildKit {
            let given = self.request.build_args.get("BUILDKIT_DOCKERFILE_CHECK").map(String::as_str);
            let written = self.file.directive("check").map(|directive| directive.value.as_str());
            let options = CheckOptions::parse(given.or(written).unwrap_or_default());
            self.linter = Linter::new(options.map_err(LocatedError::whole)?);
        } else {
            self.linter = Linter::silent();
        }
        look_at_file(&self.file, &mut self.linter);
        self.check_defaults();
        self.globals = Globals::read(&self.file, &self.request, false)?;
        for number in 0..self.file.stages.len() {
            self.draft(number)?;
        }
        self.target = self.find_target()?;
        if self.request.frontend == Frontend::Classic {
            self.drafts.truncate(self.target + 1);
            self.refuse_second_names()?;
        }
        for at in 0..self.drafts.len() {
            self.find_sources(at)?;
        }
        self.check_circles()
    }

    /// Whether base images have names if no build argument is given.
    fn check_defaults(&mut self) {
        let Ok(globals) = Globals::read(&self.file, &self.request, true) else { return };
        let environment = Environment::of(&globals.entries);
        let lexer = Lexer::new(self.file.escape, &environment);
        for stage in &self.file.stages {
            let Ok(name) = lexer.word(&stage.base) else { return };
            if name.parse::<Reference>().is_err() {
                let message = format!(
                    "Default value for ARG {} results in empty or invalid base image name",
                    stage.base
                );
                self.linter.warn(Rule::InvalidDefaultArgInFrom, stage.source.lines, message);
            }
        }
    }

    fn draft(&mut self, number: usize) -> Result<()> {
        let Some(stage) = self.file.stages.get(number).cloned() else { return Ok(()) };
        let lines = stage.source.lines;
        let located = |error| LocatedError::new(error, lines, Phase::Whole);
        let (base, _) = self.expand_from(&stage.base, lines).map_err(located)?;
        if base.is_empty() {
            return Err(located(Error::BlankBase(stage.base)));
        }
        let platform = self.stage_platform(&stage).map_err(located)?;
        let replaced = stage.name.as_deref().and_then(|name| self.named_context(name));
        let is_replaced = replaced.is_some();
        let origin = match replaced {
            Some(origin) => origin,
            None => match self.stage_by_base(&base) {
                Some(stage) => Origin::Stage(stage),
                None if base == "scratch" => Origin::Scratch,
                None => Origin::Named(base),
            },
        };
        let counts = |statement: &&Statement| {
            use Instruction::{Change as Config, Run, Transfer};
            matches!(&statement.instruction, Run(_) | Transfer(_) | Config(Change::Workdir(_)))
        };
        let own = stage.statements.iter().filter(counts).count();
        let from = usize::from(!matches!(origin, Origin::Scratch | Origin::Stage(_)));
        let commands = stage.statements.iter().cloned();
        let command = |statement| Command { statement, sources: Vec::new(), is_trigger: false };
        self.drafts.push(Draft {
            display: stage.name.clone().unwrap_or_else(|| format!("stage-{number}")),
            name: stage.name,
            source: stage.source,
            base: origin,
            platform,
            commands: if is_replaced { Vec::new() } else { commands.map(command).collect() },
            is_replaced,
            has_triggers: false,
            total: from + own,
        });
        Ok(())
    }

    /// Replaces the variables of `FROM`.
    fn expand_from(&mut self, text: &str, lines: Lines) -> crate::Result<(String, LookedUp)> {
        let environment = Environment::of(&self.globals.entries);
        let (expanded, names) = Lexer::new(self.file.escape, &environment).expand(text);
        for name in &names.unset {
            if self.globals.declared.contains(name) {
                continue;
            }
            let mut message = format!("FROM argument '{name}' is not declared");
            if let Some(near) = nearest(name, &self.globals.names()) {
                message.push_str(&format!(" (did you mean {near}?)"));
            }
            self.linter.warn(Rule::UndefinedArgInFrom, lines, message);
        }
        Ok((expanded?, names))
    }

    fn stage_platform(&mut self, stage: &Stage) -> crate::Result<Option<Platform>> {
        let Some(written) = &stage.platform else { return Ok(None) };
        let (text, names) = self.expand_from(written, stage.source.lines)?;
        self.check_platform(stage, written, &text, &names);
        let near = names.unset.iter().find_map(|name| nearest(name, &self.globals.names()));
        if text.is_empty() {
            return Err(Error::EmptyPlatform(written.clone()).suggest(near));
        }
        text.parse::<Platform>().map(Some).map_err(|error| {
            let near = near.map(|near| format!(" (did you mean {near}?)")).unwrap_or_default();
            Error::Platform(written.clone(), format!("{error}{near}"))
        })
    }

    fn check_platform(&mut self, stage: &Stage, written: &str, text: &str, names: &LookedUp) {
        let lines = stage.source.lines;
        let only_target = names.used.len() == 1
            && names.unset.is_empty()
            && names.used.contains("TARGETPLATFORM")
            && self.globals.get("TARGETPLATFORM") == Some(text);
        if only_target {
            let message = format!(
                "Setting platform to predefined {written} in FROM is redundant as this is the default behavior"
            );
            self.linter.warn(Rule::RedundantTargetPlatform, lines, message);
        }
        if names.used.is_empty()
            && names.unset.is_empty()
            && let Ok(platform) = text.parse::<Platform>()
        {
            let name = stage.name.as_deref().unwrap_or_default();
            if !name.contains(&platform.os) && !name.contains(&platform.architecture) {
                let message = format!("FROM --platform flag should not use constant value {text:?}");
                self.linter.warn(Rule::FromPlatformFlagConstDisallowed, lines, message);
            }
        }
    }

    fn find_target(&self) -> Result<usize> {
        let target = &self.request.target;
        if target.is_empty() {
            return Ok(self.drafts.len().saturating_sub(1));
        }
        let found = match self.request.frontend {
            Frontend::BuildKit => self.stage_by_name(target),
            Frontend::Classic => {
                let is_it =
                    |draft: &Draft| draft.name.as_deref().is_some_and(|n| n.eq_ignore_ascii_case(target));
                self.drafts.iter().position(is_it)
            }
        };
        found.ok_or_else(|| {
            let names: Vec<&str> = self.drafts.iter().map(|draft| draft.display.as_str()).collect();
            let near = nearest(target, &names).filter(|_| self.request.frontend == Frontend::BuildKit);
            LocatedError::whole(Error::NoTarget(target.clone()).suggest(near))
        })
    }

    fn refuse_second_names(&self) -> Result<()> {
        let mut seen = BTreeSet::new();
        let second =
            self.drafts.iter().filter_map(|draft| draft.name.as_ref()).find(|name| !seen.insert(*name));
        second.map_or(Ok(()), |name| Err(LocatedError::whole(Error::StageNameTwice(name.clone()))))
    }

    /// BuildKit leaves the stage's name out if there is nothing but one stage; sources that are no stages count too.
    pub(super) fn is_single(&self) -> bool {
        let not_stage = |source: &Option<Origin>| !matches!(source, Some(Origin::Stage(_)));
        let commands = self.drafts.iter().flat_map(|draft| &draft.commands);
        let mut sources = commands.filter(|command| !command.is_trigger).flat_map(|command| &command.sources);
        self.drafts.len() == 1 && !sources.any(not_stage)
    }

    pub(super) fn planned_images(&self) -> Vec<PlannedImage> {
        let planned = |need: &ImageNeed| {
            let config = need.supplied.as_ref().map(|image| image.config.clone()).unwrap_or_default();
            PlannedImage {
                reference: need.reference.clone(),
                written: need.written.clone(),
                platform: need.platform.clone(),
                config: Arc::new(config),
            }
        };
        self.needs.iter().map(planned).collect()
    }
}
