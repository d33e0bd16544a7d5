//! The second phase: the steps of each stage, when the images' configurations are known.

use std::sync::Arc;

use super::names::Names;
use super::planner::{Draft, Origin, Planner};
use super::request::{Frontend, PROXIES, Request};
use super::state::{Made, State};
use super::weight::{self, Weight};
use super::{ClassicStep, ImageConfig, Plan, PlannedStage, Platform, Root, Step};
use crate::draft::MAX_INSTRUCTIONS;
use crate::file::GlobalArgs;
use crate::instruction::{Change, Instruction, Pair};
use crate::lint::Rule;
use crate::{Error, Lines, LocatedError, Phase, Source};

type Result<T> = std::result::Result<T, LocatedError>;

/// Makes the plan.
pub(super) fn plan(planner: &mut Planner) -> Result<Plan> {
    let built = planner.reachable();
    let mut building = Building {
        plan: Plan {
            images: planner.planned_images(),
            classic_globals: classic_globals(planner),
            unused_args: unused_args(planner),
            ..Plan::default()
        },
        places: vec![None; planner.drafts.len()],
        states: Vec::new(),
        number: planner.file.global_args.len(),
        total: classic_total(planner),
        is_single: planner.is_single(),
        weight: Weight::default(),
        has_refused: false,
    };
    for at in built {
        building.stage(planner, at)?;
        if building.has_refused {
            return Ok(building.plan);
        }
    }
    building.plan.target = building.places.get(planner.target).copied().flatten().unwrap_or_default();
    if planner.request.frontend == Frontend::BuildKit {
        building.add_labels(&planner.request);
    }
    Ok(building.plan)
}

/// The instructions that the classic builder counts.
fn classic_total(planner: &Planner) -> usize {
    let own = |draft: &Draft| 1 + draft.commands.iter().filter(|command| !command.is_trigger).count();
    let labels = planner.request.labels.len();
    planner.file.global_args.len() + planner.drafts.iter().map(own).sum::<usize>() + labels
}

/// The classic builder's steps before the first stage.
fn classic_globals(planner: &Planner) -> Vec<ClassicStep> {
    let total = classic_total(planner);
    let globals = planner.file.global_args.iter().zip(1..);
    let step = |(global, number): (&GlobalArgs, usize)| ClassicStep {
        number,
        total,
        text: global.source.text.clone(),
    };
    globals.map(step).collect()
}

/// Build arguments that no instruction of the planned stages declares.
fn unused_args(planner: &Planner) -> Vec<String> {
    let commands = planner.drafts.iter().flat_map(|draft| &draft.commands);
    let local = commands.filter_map(|command| match &command.statement.instruction {
        Instruction::Arg(args) => Some(args),
        _ => None,
    });
    let global = planner.file.global_args.iter().map(|global| &global.args);
    let declared: Vec<&str> = local.chain(global).flatten().map(|arg| arg.name.as_str()).collect();
    let given = planner.request.build_args.keys();
    let unused = given.filter(|name| !declared.contains(&name.as_str()) && !PROXIES.contains(&name.as_str()));
    unused.cloned().collect()
}

/// A plan that is being made.
struct Building {
    plan: Plan,
    /// Where a stage of the file is in the plan, when it has been planned.
    places: Vec<Option<usize>>,
    /// Of each planned stage, in its end.
    states: Vec<State>,
    /// The classic builder's last step.
    number: usize,
    total: usize,
    is_single: bool,
    weight: Weight,
    /// The last step cannot be done.
    has_refused: bool,
}

impl Building {
    fn stage(&mut self, planner: &mut Planner, at: usize) -> Result<()> {
        let Some(draft) = planner.drafts.get(at).cloned() else { return Ok(()) };
        let name = if self.is_single { String::new() } else { draft.display.clone() };
        let classic = self.next_classic(&draft.source.text);
        let mut state = self.begin(planner, &draft)?;
        // Triggers count, but not yet where BuildKit names the image that has them.
        let triggers = draft.commands.iter().filter(|command| command.is_trigger).count();
        let without = draft.total.saturating_sub(triggers);
        let mut names = Names::new(name.clone(), without, planner.request.is_multi_platform);
        let from_name = from_name(planner, &draft, &state, &mut names);
        names.total = draft.total;
        let place = self.plan.stages.len();
        let from = draft.source.lines;
        let kept = |error| LocatedError::new(error, from, Phase::Whole);
        self.weight.add(state.weight()).map_err(kept)?;
        let initial = Arc::new(state.config.clone());
        let base_stage = match draft.base {
            Origin::Stage(base) => self.places.get(base).copied().flatten(),
            _ => None,
        };
        self.plan.stages.push(PlannedStage {
            name,
            number: at,
            source: draft.source.clone(),
            from_name,
            classic,
            base: state.root.clone(),
            base_stage,
            platform: state.platform.clone(),
            initial: initial.clone(),
            steps: Vec::new(),
            root: state.root.clone(),
            config: initial,
        });
        let is_target = at == planner.target;
        for command in draft.commands {
            // Triggers of base images count, too.
            if self.plan.steps.len() >= MAX_INSTRUCTIONS {
                let error = Error::TooMany(MAX_INSTRUCTIONS);
                return Err(LocatedError::new(error, command.statement.source.lines, Phase::Whole));
            }
            let sources = self.roots(&command.sources, &command.statement, &draft.display)?;
            let source = command.statement.source.clone();
            names.is_trigger = command.is_trigger;
            let lines = source.lines;
            let step = state.dispatch(command.statement, &sources, planner, &mut names);
            let made = match step.map_err(|error| LocatedError::new(error, lines, Phase::Whole)) {
                Err(error) if planner.request.frontend == Frontend::Classic => {
                    self.has_refused = true;
                    Made::refused(error)
                }
                made => made?,
            };
            let classic = (!command.is_trigger).then(|| self.next_classic(&source.text));
            let pushed = self.push(place, &mut state, made, source, command.is_trigger, classic);
            pushed.map_err(|error| LocatedError::new(error, lines, Phase::Whole))?;
            if self.has_refused {
                return Ok(());
            }
        }
        if is_target && planner.request.frontend == Frontend::Classic {
            self.classic_labels(place, &mut state, planner, &mut names)?;
        }
        let config = self.config(place, &state);
        if let Some(stage) = self.plan.stages.get_mut(place) {
            (stage.root, stage.config) = (state.root.clone(), config);
        }
        // It stays, for stages that begin from this one.
        self.weight.add(state.weight()).map_err(kept)?;
        if let Some(known) = self.places.get_mut(at) {
            *known = Some(place);
        }
        self.states.push(state);
        Ok(())
    }

    fn push(
        &mut self,
        stage: usize,
        state: &mut State,
        made: Made,
        source: Source,
        is_trigger: bool,
        classic: Option<ClassicStep>,
    ) -> crate::Result<()> {
        let id = self.plan.steps.len();
        let config = self.config(stage, state);
        if Arc::strong_count(&config) == 1 {
            self.weight.add(weight::of_config(&config))?;
        }
        let step = Step {
            stage,
            source,
            is_trigger,
            name: made.name,
            classic,
            root: state.root.clone(),
            action: made.action,
            config,
            history: made.history,
        };
        self.weight.add(weight::of_step(&step))?;
        state.root = step.output(id);
        self.plan.steps.push(step);
        if let Some(stage) = self.plan.stages.get_mut(stage) {
            stage.steps.push(id);
        }
        Ok(())
    }

    /// A stage's configuration as it is now: the one of its last step if that is the same, as most steps change none.
    fn config(&self, stage: usize, state: &State) -> Arc<ImageConfig> {
        let last = self.plan.stages.get(stage).and_then(|stage| match stage.steps.last() {
            Some(&step) => self.plan.steps.get(step).map(|step| &step.config),
            None => Some(&stage.initial),
        });
        match last {
            Some(last) if **last == state.config => last.clone(),
            _ => Arc::new(state.config.clone()),
        }
    }

    fn next_classic(&mut self, text: &str) -> ClassicStep {
        self.number += 1;
        ClassicStep { number: self.number, total: self.total, text: text.to_owned() }
    }

    /// The state in which a stage's first instruction finds the world.
    fn begin(&self, planner: &mut Planner, draft: &Draft) -> Result<State> {
        let lines = draft.source.lines;
        let target = planner.request.target_platform().clone();
        let escape = planner.file.escape;
        let frontend = planner.request.frontend;
        let mut state = match &draft.base {
            Origin::Stage(base) => {
                let base = self.places.get(*base).copied().flatten();
                let base = base.and_then(|place| self.states.get(place));
                base.ok_or_else(|| LocatedError::new(Error::NoStage, lines, Phase::Whole))?.child()
            }
            Origin::Image(id) => {
                let need = planner.needs.get(*id).cloned();
                let supplied = need.as_ref().and_then(|need| need.supplied.as_ref());
                let config = supplied.map(|image| image.config.clone()).unwrap_or_default();
                let platform = need.as_ref().map_or(target, |need| need.platform.clone());
                if let (Some(need), Some(image)) = (&need, supplied) {
                    check_platform(planner, &need.written, &platform, &image.platform, lines);
                }
                let mut state = State::new(frontend, escape, platform, Root::Image(*id));
                state.config = config;
                state.config.on_build.clear();
                state
            }
            Origin::Context(name) => {
                let platform = draft.platform.clone().unwrap_or(target);
                State::new(frontend, escape, platform, Root::Context(Some(name.clone())))
            }
            Origin::Scratch | Origin::Named(_) | Origin::Given { .. } => {
                let mut state = State::new(frontend, escape, target, Root::Scratch);
                if frontend == Frontend::BuildKit {
                    state.config.working_dir = "/".into();
                }
                state
            }
        };
        state.begin_stage();
        Ok(state)
    }

    /// The file systems that a command takes files from.
    fn roots(
        &self,
        sources: &[Option<Origin>],
        statement: &crate::Statement,
        stage: &str,
    ) -> Result<Vec<Option<Root>>> {
        let mut roots = Vec::with_capacity(sources.len());
        for (number, source) in sources.iter().enumerate() {
            let Some(source) = source else {
                roots.push(None);
                continue;
            };
            let root = match source {
                Origin::Stage(at) => {
                    let planned = self.places.get(*at).copied().flatten();
                    let root = planned.and_then(|place| self.plan.stages.get(place));
                    root.map(|stage| stage.root.clone()).ok_or_else(|| {
                        let error = too_early(statement, number, stage);
                        LocatedError::new(error, statement.source.lines, Phase::Whole)
                    })?
                }
                Origin::Image(id) => Root::Image(*id),
                Origin::Context(name) => Root::Context(Some(name.clone())),
                Origin::Scratch | Origin::Named(_) | Origin::Given { .. } => Root::Scratch,
            };
            roots.push(Some(root));
        }
        Ok(roots)
    }

    /// BuildKit puts the labels of a request in without a trace in the history.
    fn add_labels(&mut self, request: &Request) {
        let Some(stage) = self.plan.stages.get_mut(self.plan.target) else { return };
        if !request.labels.is_empty() {
            let mut config = (*stage.config).clone();
            config.labels.extend(request.labels.clone());
            stage.config = Arc::new(config);
        }
    }

    /// The classic builder makes an instruction of each label of a request.
    fn classic_labels(
        &mut self,
        place: usize,
        state: &mut State,
        planner: &mut Planner,
        names: &mut Names,
    ) -> Result<()> {
        let lines = self.plan.stages.get(place).map_or(Lines { first: 0, last: 0 }, |s| s.source.lines);
        for (name, value) in planner.request.labels.clone() {
            let text = format!("LABEL {name}={value}");
            let source = Source { lines, text, comments: Vec::new() };
            let pair = Pair { name, value, legacy: false };
            let change = Instruction::Change(Change::Label(vec![pair]));
            let made = state.dispatch_expanded(change, &[], planner, names, &source);
            let made = made.map_err(|error| LocatedError::new(error, lines, Phase::Whole))?;
            let classic = self.next_classic(&source.text);
            let pushed = self.push(place, state, made, source, false, Some(classic));
            pushed.map_err(|error| LocatedError::new(error, lines, Phase::Whole))?;
        }
        Ok(())
    }
}

fn from_name(planner: &Planner, draft: &Draft, state: &State, names: &mut Names) -> Option<String> {
    let Origin::Image(id) = draft.base else { return None };
    let need = planner.needs.get(id)?;
    if let Some(given) = &need.context {
        // It is none of the stage's own steps, which are counted as if it were.
        return Some(format!("[context {}] {given}", need.written));
    }
    let pin = need.supplied.as_ref().and_then(|image| image.digest.as_deref());
    let pin = pin.map(|digest| format!("@{digest}")).unwrap_or_default();
    let reference =
        if need.reference.contains('@') { &need.reference } else { &format!("{}{pin}", need.reference) };
    Some(names.next(&format!("FROM {reference}"), &state.platform, &[]))
}

fn too_early(statement: &crate::Statement, number: usize, stage: &str) -> Error {
    match &statement.instruction {
        Instruction::Transfer(transfer) => {
            let from = transfer.from().unwrap_or_default().to_owned();
            Error::CopyTooEarly { from, stage: stage.to_owned() }
        }
        Instruction::Run(run) => {
            let from = run.mount_sources.get(number).cloned().flatten().unwrap_or_default();
            let target =
                run.mounts.get(number).map(|mount| crate::mount::target_of(mount)).unwrap_or_default();
            Error::MountTooEarly { from, target }
        }
        _ => Error::NoStage,
    }
}

fn check_platform(planner: &mut Planner, name: &str, expected: &Platform, actual: &Platform, lines: Lines) {
    if expected.os != actual.os || expected.architecture != actual.architecture {
        let message = format!(
            "Base image {name} was pulled with platform \"{actual}\", expected \"{expected}\" for current build"
        );
        planner.linter.warn(Rule::InvalidBaseImagePlatform, lines, message);
    }
}
