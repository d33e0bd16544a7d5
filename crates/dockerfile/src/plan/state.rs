//! What an instruction finds, and what it makes of it.

use std::cell::RefCell;

use super::history::{buildkit_run, classic_run, comment, pairs_text, short_comment};
use super::names::{Names, shown};
use super::planner::Planner;
use super::request::{Frontend, PROXIES, Request};
use super::variables::{get, name_of, set_in_place, set_last};
use super::weight::{MAX_BYTES, of_config, of_texts};
use super::{Action, ClassicHistory, History, ImageConfig, Platform, Root};
use crate::instruction::{Arg, Change, CommandLine, Instruction, Pair};
use crate::lint::{Linter, Rule};
use crate::shell::{Environment, Lexer, LookedUp};
use crate::suggest::nearest;
use crate::{Error, Healthcheck, Lines, LocatedError, Result, Source, Statement};

/// The variable that every command has.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where a stage stands.
#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) frontend: Frontend,
    pub(super) escape: char,
    pub(super) platform: Platform,
    pub(super) root: Root,
    pub(super) config: ImageConfig,
    /// BuildKit's: variables and arguments, the last that was set wins.
    variables: Vec<String>,
    /// Declared arguments in their order; one without a value has none.
    args: Vec<(String, Option<String>)>,
    has_workdir: bool,
    /// The lines of the last of each: only one of a kind counts.
    cmd: Option<Lines>,
    entrypoint: Option<Lines>,
    healthcheck: Option<Lines>,
}

/// What an instruction has become.
pub(super) struct Made {
    pub(super) name: Option<String>,
    pub(super) action: Action,
    pub(super) history: History,
}

impl Made {
    /// Of an instruction that cannot be done.
    pub(super) fn refused(error: LocatedError) -> Self {
        let classic = ClassicHistory::Command(Vec::new());
        let history = History { created_by: None, is_empty_layer: true, classic };
        Self { name: None, action: Action::Refused(Box::new(error)), history }
    }
}

/// All that there are, of three protocols.
const MAX_PORTS: usize = 3 * u16::MAX as usize;

impl State {
    pub(super) fn new(frontend: Frontend, escape: char, platform: Platform, root: Root) -> Self {
        Self {
            frontend,
            escape,
            platform,
            root,
            config: ImageConfig::default(),
            variables: Vec::new(),
            args: Vec::new(),
            has_workdir: false,
            cmd: None,
            entrypoint: None,
            healthcheck: None,
        }
    }

    /// The state of a stage that begins from this one's end.
    pub(super) fn child(&self) -> Self {
        let mut child = self.clone();
        child.config.on_build.clear();
        (child.cmd, child.entrypoint, child.healthcheck) = (None, None, None);
        if self.frontend == Frontend::Classic {
            child.args.clear();
        }
        child
    }

    /// Bytes that it takes.
    pub(super) fn weight(&self) -> usize {
        let args = self.args.iter().flat_map(|(name, value)| std::iter::once(name).chain(value));
        of_config(&self.config) + of_texts(self.variables.iter().chain(args))
    }

    pub(super) fn begin_stage(&mut self) {
        if get(&self.config.env, "PATH").is_none() && self.platform.os != "windows" {
            self.config.env.push(format!("PATH={DEFAULT_PATH}"));
        }
        for entry in &self.config.env {
            let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
            set_last(&mut self.variables, name, value);
        }
        if !self.config.working_dir.is_empty() && self.frontend == Frontend::BuildKit {
            self.config.working_dir = joined(&self.config.working_dir, "");
        }
    }

    /// The variables that an instruction sees.
    pub(super) fn environment(&self, request: &Request) -> Vec<String> {
        match self.frontend {
            Frontend::BuildKit => self.variables.clone(),
            Frontend::Classic => {
                let mut all = self.config.env.clone();
                all.extend(self.classic_args(request));
                all
            }
        }
    }

    /// The classic builder's arguments, as far as no variable has their name.
    pub(super) fn classic_args(&self, request: &Request) -> Vec<String> {
        let declared =
            self.args.iter().filter_map(|(name, value)| Some(format!("{name}={}", value.as_ref()?)));
        let is_declared = |name: &str| self.args.iter().any(|(known, _)| known == name);
        let proxies = PROXIES
            .iter()
            .filter(|name| !is_declared(name))
            .filter_map(|name| request.build_args.get(*name).map(|value| format!("{name}={value}")));
        declared.chain(proxies).filter(|entry| get(&self.config.env, name_of(entry)).is_none()).collect()
    }

    /// Whether an argument is declared.
    pub(super) fn has_arg(&self, name: &str) -> bool {
        self.args.iter().any(|(known, _)| known == name)
    }

    /// Declared arguments for BuildKit's history: each once, the last value wins.
    pub(super) fn history_args(&self) -> Vec<(String, String)> {
        let mut seen: Vec<(String, String)> = Vec::new();
        for (name, value) in &self.args {
            let value = get(&self.variables, name).map(str::to_owned).or_else(|| value.clone());
            let value = value.unwrap_or_default();
            match seen.iter_mut().find(|(known, _)| known == name) {
                Some(known) => known.1 = value,
                None => seen.push((name.clone(), value)),
            }
        }
        seen
    }

    /// Turns a statement into a step.
    pub(super) fn dispatch(
        &mut self,
        statement: Statement,
        sources: &[Option<Root>],
        planner: &mut Planner,
        names: &mut Names,
    ) -> Result<Made> {
        let environment = self.environment(&planner.request);
        let lines = statement.source.lines;
        let variables = Environment::of(&environment);
        let lexer = Lexer::new(self.escape, &variables);
        let linter = RefCell::new(std::mem::take(&mut planner.linter));
        let note = |(expanded, names): (Result<String>, LookedUp)| {
            self.warn_unset(&names, &environment, &mut linter.borrow_mut(), lines);
            expanded
        };
        let mut expand = |text: &str| note(lexer.expand(text));
        let documents = |text: &str| note(Lexer::new('\\', &variables).plain_quotes().expand(text));
        let instruction = match statement.instruction {
            Instruction::Change(change) => {
                change.expand_with(&mut expand, &|text| lexer.words(text)).map(Instruction::Change)
            }
            Instruction::Transfer(transfer) => {
                transfer.expand_with(&mut expand, &documents).map(Instruction::Transfer)
            }
            other => Ok(other),
        };
        planner.linter = linter.into_inner();
        self.dispatch_expanded(instruction?, sources, planner, names, &statement.source)
    }

    /// The same, when variables have been replaced.
    pub(super) fn dispatch_expanded(
        &mut self,
        instruction: Instruction,
        sources: &[Option<Root>],
        planner: &mut Planner,
        names: &mut Names,
        source: &Source,
    ) -> Result<Made> {
        match instruction {
            Instruction::Arg(args) => self.arg(&args, planner, source),
            Instruction::Change(Change::Workdir(path)) => self.workdir(&path, planner, names, source),
            Instruction::Change(change) => self.change(change, planner, source),
            Instruction::Maintainer(author) => {
                let text = format!("MAINTAINER {author}");
                self.config.author = author;
                Ok(self.configured(text.clone(), &text))
            }
            Instruction::Run(run) => self.run(&run, sources, planner, names, source),
            Instruction::Shell(words) => {
                let text = format!("SHELL [{}]", words.join(" "));
                self.config.shell = Some(words);
                Ok(self.configured(text.clone(), &text))
            }
            Instruction::Transfer(transfer) => self.transfer(&transfer, sources, planner, names, source),
        }
    }

    fn warn_unset(&self, names: &LookedUp, environment: &[String], linter: &mut Linter, lines: Lines) {
        if self.frontend == Frontend::Classic {
            return;
        }
        for name in &names.unset {
            let is_silent =
                ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"].contains(&name.as_str());
            if is_silent || self.has_arg(name) {
                continue;
            }
            let mut message = format!("Usage of undefined variable '${name}'");
            let known: Vec<&str> = environment.iter().map(|entry| name_of(entry)).collect();
            if let Some(near) = nearest(name, &known) {
                message.push_str(&format!(" (did you mean ${near}?)"));
            }
            linter.warn(Rule::UndefinedVar, lines, message);
        }
    }

    /// A step that changes the configuration only, with BuildKit's and the classic builder's words.
    fn configured(&self, created_by: String, classic: &str) -> Made {
        let history = History {
            created_by: Some(created_by),
            is_empty_layer: true,
            classic: comment(&self.config, classic),
        };
        Made { name: None, action: Action::Configure, history }
    }

    fn arg(&mut self, args: &[Arg], planner: &mut Planner, source: &Source) -> Result<Made> {
        let mut words: Vec<String> = Vec::with_capacity(args.len());
        let (mut expanded_bytes, mut bytes) = (0, 0_usize);
        for arg in args {
            bytes = bytes.saturating_add(of_texts(words.last()));
            if bytes > MAX_BYTES {
                return Err(Error::TooLarge(MAX_BYTES));
            }
            let environment = self.environment(&planner.request);
            let variables = Environment::of(&environment).with_expanded(expanded_bytes);
            let lexer = Lexer::new(self.escape, &variables);
            let given = planner.request.build_args.get(&arg.name);
            let value = match self.frontend {
                Frontend::Classic => {
                    let default = arg.default.as_ref().map(|text| lexer.word(text)).transpose()?;
                    words.push(match &default {
                        Some(value) => format!("{}={value}", arg.name),
                        None => arg.name.clone(),
                    });
                    let global = planner.globals.get(&arg.name).map(str::to_owned);
                    given.cloned().or(default).or(global)
                }
                Frontend::BuildKit => {
                    warn_secret("ARG", &arg.name, &mut planner.linter, source.lines);
                    let value = match (given, &arg.default) {
                        (Some(given), _) => Some(given.clone()),
                        (None, Some(default)) => {
                            let (expanded, names) = lexer.expand(default);
                            self.warn_unset(&names, &environment, &mut planner.linter, source.lines);
                            Some(expanded?)
                        }
                        (None, None) => planner.globals.get(&arg.name).map(str::to_owned),
                    };
                    words.push(match &value {
                        Some(value) => format!("{}={value}", arg.name),
                        None => arg.name.clone(),
                    });
                    value
                }
            };
            expanded_bytes = variables.expanded();
            if let Some(value) = &value {
                set_last(&mut self.variables, &arg.name, value);
            }
            if self.frontend == Frontend::Classic {
                self.args.retain(|(known, _)| *known != arg.name);
            }
            self.args.push((arg.name.clone(), value));
        }
        let text = format!("ARG {}", words.join(" "));
        Ok(self.configured(text.clone(), &text))
    }

    fn change(&mut self, change: Change, planner: &mut Planner, source: &Source) -> Result<Made> {
        let linter = &mut planner.linter;
        let lines = source.lines;
        let keyword = source.text.split(crate::words::blank).next().unwrap_or_default().to_owned();
        let text = match change {
            Change::Env(pairs) => {
                for pair in &pairs {
                    warn_legacy(&keyword, pair, linter, lines);
                    warn_secret("ENV", &pair.name, linter, lines);
                    set_last(&mut self.variables, &pair.name, &pair.value);
                    set_in_place(&mut self.config.env, &pair.name, &pair.value);
                }
                format!("ENV{}", pairs_text(&pairs))
            }
            Change::Label(pairs) => {
                let text = format!("LABEL{}", pairs_text(&pairs));
                for pair in pairs {
                    warn_legacy(&keyword, &pair, linter, lines);
                    self.config.labels.insert(pair.name, pair.value);
                }
                text
            }
            Change::OnBuild(trigger) => {
                let text = format!("ONBUILD {trigger}");
                self.config.on_build.push(trigger);
                let mut made = self.configured(text.clone(), &text);
                made.history.created_by = None;
                return Ok(made);
            }
            Change::Cmd(command) => {
                // To the classic builder an empty one is none.
                let is_one = self.frontend == Frontend::BuildKit || !is_empty(&command);
                let before = if is_one { self.cmd.replace(lines) } else { self.cmd };
                let words = self.command(command, &keyword, before, linter, lines);
                let text = format!("CMD {}", crate::go::quote_all(&words));
                self.config.cmd = Some(words);
                self.config.args_escaped |= self.frontend == Frontend::BuildKit;
                text
            }
            Change::Entrypoint(command) => {
                let before = self.entrypoint.replace(lines);
                let words = self.command(command, &keyword, before, linter, lines);
                let text = format!("ENTRYPOINT {}", crate::go::quote_all(&words));
                self.config.entrypoint = Some(words).filter(|words| !words.is_empty());
                if self.cmd.is_none() {
                    self.config.cmd = None;
                }
                text
            }
            Change::Healthcheck(check) => {
                let before = self.healthcheck.replace(lines);
                warn_second(before, &keyword, linter);
                return Ok(self.healthcheck(check));
            }
            Change::Expose(words) => return self.expose(&words, linter, lines),
            Change::User(user) => {
                self.config.user.clone_from(&user);
                format!("USER {user}")
            }
            Change::Volume(paths) => {
                let text = format!("VOLUME [{}]", paths.join(" "));
                self.config.volumes.extend(paths);
                text
            }
            Change::StopSignal(signal) => {
                if !(planner.request.is_signal)(&signal) {
                    return Err(Error::Signal(signal));
                }
                self.config.stop_signal.clone_from(&signal);
                format!("STOPSIGNAL {signal}")
            }
            // It has a file system to change, and does not come here.
            Change::Workdir(path) => format!("WORKDIR {path}"),
        };
        Ok(self.configured(text.clone(), &text))
    }

    fn healthcheck(&mut self, check: Healthcheck) -> Made {
        let (created_by, classic) = super::history::healthcheck(&check);
        let made = self.configured(created_by, &classic);
        let before = self.config.healthcheck.take().filter(|_| self.frontend == Frontend::Classic);
        let before = before.unwrap_or_default();
        let or = |own: i64, before: i64| if own == 0 { before } else { own };
        // The classic builder keeps the times of the one before.
        self.config.healthcheck = Some(Healthcheck {
            interval_ns: or(check.interval_ns, before.interval_ns),
            timeout_ns: or(check.timeout_ns, before.timeout_ns),
            start_period_ns: or(check.start_period_ns, before.start_period_ns),
            start_interval_ns: or(check.start_interval_ns, before.start_interval_ns),
            retries: or(check.retries, before.retries),
            test: check.test,
        });
        made
    }

    fn command(
        &self,
        command: CommandLine,
        keyword: &str,
        before: Option<Lines>,
        linter: &mut Linter,
        lines: Lines,
    ) -> Vec<String> {
        warn_second(before, keyword, linter);
        if matches!(command, CommandLine::Shell(_)) && self.config.shell.is_none() {
            let message = format!(
                "JSON arguments recommended for {keyword} to prevent unintended behavior related to OS signals"
            );
            linter.warn(Rule::JsonArgsRecommended, lines, message);
        }
        self.words(command)
    }

    /// A command's words; the shell form is run by the image's shell.
    pub(super) fn words(&self, command: CommandLine) -> Vec<String> {
        match command {
            CommandLine::Exec(words) => words,
            CommandLine::Shell(line) => {
                let line = match self.frontend {
                    Frontend::BuildKit => Some(line.unwrap_or_default()),
                    Frontend::Classic => line,
                };
                self.config.shell().into_iter().chain(line).collect()
            }
        }
    }

    fn expose(&mut self, words: &[String], linter: &mut Linter, lines: Lines) -> Result<Made> {
        let mut ports: Vec<String> = Vec::new();
        for word in words {
            let exposed = crate::exposed(word);
            ports.extend(match (self.frontend, exposed) {
                (Frontend::BuildKit, Err(Error::Port(error))) => return Err(Error::BuildKitPort(error)),
                (Frontend::BuildKit, exposed) => {
                    crate::ports::warn(word, linter, lines);
                    exposed?
                }
                (Frontend::Classic, exposed) => exposed?,
            });
            if ports.len() > MAX_PORTS {
                return Err(Error::TooMany(MAX_PORTS));
            }
        }
        self.config.exposed_ports.extend(ports.iter().cloned());
        let created_by = format!("EXPOSE [{}]", ports.join(" "));
        Ok(self.configured(created_by, &format!("EXPOSE {}", words.join(" "))))
    }

    fn workdir(
        &mut self,
        asked: &str,
        planner: &mut Planner,
        names: &mut Names,
        source: &Source,
    ) -> Result<Made> {
        if !self.has_workdir && !asked.starts_with('/') {
            let message = format!(
                "Relative workdir {} can have unexpected results if the base image changes",
                crate::go_quote(asked)
            );
            planner.linter.warn(Rule::WorkdirRelativePath, source.lines, message);
        }
        self.has_workdir = true;
        if self.frontend == Frontend::Classic && asked.is_empty() {
            return Err(Error::EmptyWorkdir);
        }
        // BuildKit leaves an absolute path as it is.
        let path = match self.frontend {
            Frontend::BuildKit => joined(&self.config.working_dir, asked),
            Frontend::Classic => clean(&joined(&self.config.working_dir, asked)),
        };
        self.config.working_dir.clone_from(&path);
        let text = format!("WORKDIR {path}");
        let classic = short_comment(&self.config, &text);
        let is_root = clean(&path) == "/";
        let history = History { created_by: Some(text), is_empty_layer: path == "/", classic };
        if is_root {
            return Ok(Made { name: None, action: Action::Configure, history });
        }
        let environment = self.environment(&planner.request);
        let variables = Environment::of(&environment);
        let text = shown(&source.text, &Lexer::new(self.escape, &variables));
        let name = Some(names.next(&text, &self.platform, &environment));
        let user = self.config.user.clone();
        Ok(Made { name, action: Action::Workdir { path: clean(&path), user }, history })
    }

    /// The history of a command.
    pub(super) fn run_history(&self, args: &[String], request: &Request) -> History {
        let classic = classic_run(args, &self.classic_args(request), |name| {
            self.has_arg(name) || !PROXIES.contains(&name)
        });
        History { created_by: Some(buildkit_run(args, &self.history_args())), is_empty_layer: false, classic }
    }
}

/// `path` as seen from `current`: an absolute one stays as it is written.
fn joined(current: &str, path: &str) -> String {
    match path {
        "" if current.is_empty() => "/".into(),
        "" if current.starts_with('/') => current.to_owned(),
        path if path.starts_with('/') => path.to_owned(),
        path => clean(&format!("/{current}/{path}")),
    }
}

/// An absolute path without `.`, `..` and empty parts.
pub(super) fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

fn is_empty(command: &CommandLine) -> bool {
    match command {
        CommandLine::Exec(words) => words.is_empty(),
        CommandLine::Shell(line) => line.is_none(),
    }
}

fn warn_second(before: Option<Lines>, keyword: &str, linter: &mut Linter) {
    if let Some(lines) = before {
        let message = format!(
            "Multiple {keyword} instructions should not be used in the same stage because only the last one \
             will be used"
        );
        linter.warn(Rule::MultipleInstructionsDisallowed, lines, message);
    }
}

fn warn_legacy(keyword: &str, pair: &Pair, linter: &mut Linter, lines: Lines) {
    if pair.legacy {
        let message = format!(
            "\"{keyword} key=value\" should be used instead of legacy \"{keyword} key value\" format"
        );
        linter.warn(Rule::LegacyKeyValueFormat, lines, message);
    }
}

/// Names that look like those of secrets.
fn warn_secret(kind: &str, name: &str, linter: &mut Linter, lines: Lines) {
    const SECRETS: [&str; 10] = [
        "apikey",
        "auth",
        "credential",
        "credentials",
        "key",
        "password",
        "pword",
        "passwd",
        "secret",
        "token",
    ];
    let lower = name.to_lowercase();
    let has = |words: &[&str]| lower.split('_').any(|part| words.contains(&part));
    if has(&SECRETS) && !has(&["public"]) {
        let name = crate::go_quote(name);
        let message = format!("Do not use ARG or ENV instructions for sensitive data ({kind} {name})");
        linter.warn(Rule::SecretsUsedInArgOrEnv, lines, message);
    }
}
