//! `RUN` as a step.

use super::names::{Names, shown};
use super::planner::Planner;
use super::request::{Frontend, PROXIES, Request};
use super::state::{Made, State, clean};
use super::variables::set_in_place;
use super::{Action, Root, RunMount, RunStep};
use crate::heredoc::Heredoc;
use crate::instruction::CommandLine;
use crate::mount::{Mount, MountKind};
use crate::run::Run;
use crate::shell::{Environment, Lexer};
use crate::transfer::InlineFile;
use crate::{Error, Result, Source};

impl State {
    pub(super) fn run(
        &mut self,
        run: &Run,
        sources: &[Option<Root>],
        planner: &mut Planner,
        names: &mut Names,
        source: &Source,
    ) -> Result<Made> {
        if let (Frontend::Classic, Some(flag)) = (self.frontend, run.first_flag) {
            return Err(Error::NeedsBuildKit(flag.to_owned()));
        }
        if let Some(device) = run.devices.first() {
            return Err(Error::Device(device.clone()));
        }
        let environment = self.environment(&planner.request);
        let mounts = self.mounts(run, sources, &environment)?;
        let (args, script, summary) = self.run_args(run);
        let history = self.run_history(&args, &planner.request);
        let name = step_name(self, source, &summary, &mounts, &environment, names);
        let action = Action::Run(Box::new(RunStep {
            args,
            proxy: self.proxies(&planner.request),
            env: environment,
            user: self.config.user.clone(),
            working_dir: self.config.working_dir.clone(),
            mounts,
            script,
            network: run.network,
            insecure: run.insecure,
        }));
        Ok(Made { name: Some(name), action, history })
    }

    /// The command's words, the document that is a program, and what the step's name says of documents.
    fn run_args(&self, run: &Run) -> (Vec<String>, Option<InlineFile>, String) {
        // The classic builder reads documents, and does nothing with them.
        let first = run.documents.first().filter(|_| self.frontend == Frontend::BuildKit);
        let (CommandLine::Shell(Some(line)), Some(first)) = (&run.command, first) else {
            return (self.words(run.command.clone()), None, String::new());
        };
        if !matches!(Heredoc::parse(line), Ok(Some(_))) {
            // The shell knows what to do with documents.
            let mut whole = line.clone();
            for document in &run.documents {
                whole.push('\n');
                whole.push_str(&document.content);
                whole.push_str(&document.name);
            }
            return (self.words(CommandLine::Shell(Some(whole))), None, String::new());
        }
        let summary = format!(" ({})", first.summary());
        if !first.content.starts_with("#!") {
            return (self.words(CommandLine::Shell(Some(first.text()))), None, summary);
        }
        let path = format!("/dev/pipes/{}", first.name);
        let script = InlineFile { name: first.name.clone(), content: first.text(), expand: false };
        // With a program of its own the document needs no shell, but it gets one.
        (self.words(CommandLine::Shell(Some(path))), Some(script), summary)
    }

    /// Proxies that the build gives, in both cases of letters.
    fn proxies(&self, request: &Request) -> Vec<String> {
        let mut proxies = Vec::new();
        if self.frontend == Frontend::Classic {
            return proxies; // they are among the variables
        }
        for (name, value) in &request.build_args {
            let Some(known) = PROXIES.iter().find(|known| known.eq_ignore_ascii_case(name)) else { continue };
            if !value.is_empty() {
                set_in_place(&mut proxies, &known.to_uppercase(), value);
                set_in_place(&mut proxies, &known.to_lowercase(), value);
            }
        }
        proxies
    }

    fn mounts(&self, run: &Run, sources: &[Option<Root>], environment: &[String]) -> Result<Vec<RunMount>> {
        let variables = Environment::of(environment);
        let lexer = Lexer::new(self.escape, &variables);
        let mut mounts = Vec::with_capacity(run.mounts.len());
        for (number, text) in run.mounts.iter().enumerate() {
            let mut mount = Mount::parse(text, |value| lexer.word(value))?;
            let source = sources.get(number).cloned().flatten();
            let root = match (mount.kind, source) {
                (MountKind::Bind | MountKind::Cache, Some(root)) => root,
                (MountKind::Bind, None) => Root::Context(None),
                _ => Root::Scratch,
            };
            self.complete(&mut mount)?;
            mounts.push(RunMount { mount, root });
        }
        Ok(mounts)
    }

    /// Puts in what a mount leaves to its defaults.
    fn complete(&self, mount: &mut Mount) -> Result<()> {
        match mount.kind {
            MountKind::Secret => {
                if !mount.source.is_empty() {
                    mount.id = std::mem::take(&mut mount.source);
                }
                if mount.id.is_empty() {
                    mount.id = last_part(&mount.target).to_owned();
                }
                if mount.target.is_empty() && mount.env.is_none() {
                    mount.target = format!("/run/secrets/{}", last_part(&mount.id));
                }
                if mount.env.as_deref() == Some("") {
                    mount.env = Some(mount.id.clone());
                }
                return Ok(());
            }
            MountKind::Ssh => {
                if mount.id.is_empty() {
                    mount.id = "default".into();
                }
                return Ok(());
            }
            MountKind::Cache if mount.id.is_empty() => mount.id = cleaned_id(&mount.target),
            _ => {}
        }
        let written = std::mem::take(&mut mount.target);
        mount.target = match written.starts_with('/') {
            true => clean(&written),
            false => clean(&format!("{}/{written}", self.config.working_dir)),
        };
        match mount.target.as_str() {
            "/" => Err(Error::MountTarget(mount.target.clone())),
            _ => Ok(()),
        }
    }
}

fn last_part(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or_default()
}

/// Go's `path.Clean`, which leaves a relative path relative.
fn cleaned_id(path: &str) -> String {
    let cleaned = clean(path);
    match path.starts_with('/') {
        true => cleaned,
        false if cleaned == "/" => ".".into(),
        false => cleaned.trim_start_matches('/').to_owned(),
    }
}

fn step_name(
    state: &State,
    source: &Source,
    summary: &str,
    mounts: &[RunMount],
    environment: &[String],
    names: &mut Names,
) -> String {
    let mut masked = environment.to_vec();
    for mount in mounts {
        if let (MountKind::Secret, Some(name)) = (mount.mount.kind, &mount.mount.env) {
            set_in_place(&mut masked, name, "****");
        }
    }
    let variables = Environment::of(&masked);
    let lexer = Lexer::new(state.escape, &variables).keep_quotes().keep_unset();
    let text = shown(&format!("{}{summary}", source.text), &lexer);
    names.next(&text, &state.platform, environment)
}
