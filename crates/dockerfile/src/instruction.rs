//! Typed instructions.

use crate::health::{self, Healthcheck};
use crate::shell::{Environment, Lexer};
use crate::words::{blank, json_array, list, options, pairs};
use crate::{Error, Result};

/// A name and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// What stands before `=`.
    pub name: String,
    /// What stands after it.
    pub value: String,
}

/// A command in one of its two forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandLine {
    /// `["program", "argument"]`: run as it is.
    Exec(Vec<String>),
    /// A line for the image's shell; without an argument there is none.
    Shell(Option<String>),
}

/// An instruction that changes an image's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instruction {
    /// Default arguments, or the program.
    Cmd(CommandLine),
    /// The program.
    Entrypoint(CommandLine),
    /// Environment variables.
    Env(Vec<Pair>),
    /// Ports, not read yet: see [`crate::exposed`].
    Expose(Vec<String>),
    /// The health probe.
    Healthcheck(Healthcheck),
    /// Labels.
    Label(Vec<Pair>),
    /// An instruction for builds from the image, as written.
    OnBuild(String),
    /// The signal that asks the process to end.
    StopSignal(String),
    /// The user.
    User(String),
    /// Paths that get volumes.
    Volume(Vec<String>),
    /// The working directory; may be relative to the one before.
    Workdir(String),
}

impl Instruction {
    /// Replaces variables by their values in `environment` (`NAME=value` each), and takes quotes off.
    ///
    /// # Errors
    /// [`Error::Word`].
    pub fn expand(self, environment: &[String], escape: char) -> Result<Self> {
        let environment = Environment::of(environment);
        let lexer = Lexer::new(escape, &environment);
        let one = |text: String| lexer.word(&text);
        let all = |texts: Vec<String>| texts.into_iter().map(one).collect::<Result<Vec<_>>>();
        let both = |pairs: Vec<Pair>| {
            let expand = |pair: Pair| Ok(Pair { name: one(pair.name)?, value: one(pair.value)? });
            let pairs = pairs.into_iter().map(expand).collect::<Result<Vec<_>>>()?;
            Ok::<_, Error>(pairs)
        };
        Ok(match self {
            Self::Env(pairs) => Self::Env(both(pairs)?),
            Self::Label(pairs) => Self::Label(both(pairs)?),
            // The only one where a variable may stand for several words.
            Self::Expose(ports) => {
                let words = ports.iter().map(|port| lexer.words(port)).collect::<Result<Vec<_>>>()?;
                Self::Expose(words.into_iter().flatten().collect())
            }
            Self::StopSignal(signal) => Self::StopSignal(one(signal)?),
            Self::User(user) => Self::User(one(user)?),
            Self::Volume(paths) => {
                let paths = all(paths)?;
                if paths.iter().any(String::is_empty) {
                    return Err(Error::EmptyVolume);
                }
                Self::Volume(paths)
            }
            Self::Workdir(path) => Self::Workdir(one(path)?),
            same @ (Self::Cmd(_) | Self::Entrypoint(_) | Self::Healthcheck(_) | Self::OnBuild(_)) => same,
        })
    }
}

/// A logical line, taken apart as far as all instructions have it.
#[derive(Debug)]
pub(crate) struct Statement {
    /// The instruction's name as written.
    pub(crate) name: String,
    arguments: Result<Arguments>,
    options: Vec<String>,
    original: String,
}

/// Arguments in the form that the instruction has.
#[derive(Debug)]
enum Arguments {
    Command(CommandLine),
    Pairs(Vec<Pair>),
    List(Vec<String>),
    Text(String),
    Health(Healthcheck),
}

impl Statement {
    /// Reads a line. Errors of its form are BuildKit's first pass over the whole file; others come with
    /// [`Self::into_instruction`].
    pub(crate) fn read(line: &str, escape: char) -> Result<Self> {
        let trimmed = line.trim();
        let (name, rest) = trimmed.split_once(blank).unwrap_or((trimmed, ""));
        let (options, rest_of_options) = options(rest, escape);
        let text = rest_of_options.trim();
        let upper = name.to_uppercase();
        let arguments = match upper.as_str() {
            "CMD" | "ENTRYPOINT" => Ok(Arguments::Command(match json_array(text)? {
                Some(array) => CommandLine::Exec(array),
                None => CommandLine::Shell((!text.is_empty()).then(|| text.to_owned())),
            })),
            "ENV" => early(pairs(text, "ENV", escape)).map(|pairs| pairs.map(Arguments::Pairs))?,
            "LABEL" => early(pairs(text, "LABEL", escape)).map(|pairs| pairs.map(Arguments::Pairs))?,
            "EXPOSE" => {
                Ok(Arguments::List(text.split(blank).filter(|w| !w.is_empty()).map(str::to_owned).collect()))
            }
            "VOLUME" => Ok(Arguments::List(list(text)?)),
            "HEALTHCHECK" => early(health::read(rest, escape)).map(|check| check.map(Arguments::Health))?,
            _ => Ok(Arguments::Text(text.to_owned())),
        };
        Ok(Self { name: name.to_owned(), arguments, options, original: line.to_owned() })
    }

    /// Whether `commit` and `import` take it.
    pub(crate) fn is_change(&self) -> bool {
        matches!(
            self.name.to_uppercase().as_str(),
            "CMD"
                | "ENTRYPOINT"
                | "ENV"
                | "EXPOSE"
                | "HEALTHCHECK"
                | "LABEL"
                | "ONBUILD"
                | "STOPSIGNAL"
                | "USER"
                | "VOLUME"
                | "WORKDIR"
        )
    }

    pub(crate) fn into_instruction(self) -> Result<Instruction> {
        let upper = self.name.to_uppercase();
        let arguments = self.arguments?;
        if upper != "HEALTHCHECK"
            && let Some(option) = self.options.first()
        {
            let flag = option.split('=').next().unwrap_or_default();
            return Err(Error::UnknownFlag(flag.to_owned()));
        }
        let one = |name| match &arguments {
            Arguments::Text(text) if !text.is_empty() => Ok(text.clone()),
            _ => Err(Error::ExactlyOne(name)),
        };
        match (upper.as_str(), &arguments) {
            ("STOPSIGNAL", _) => return one("STOPSIGNAL").map(Instruction::StopSignal),
            ("USER", _) => return one("USER").map(Instruction::User),
            ("WORKDIR", _) => return one("WORKDIR").map(Instruction::Workdir),
            ("ONBUILD", Arguments::Text(trigger)) => return on_build(trigger, &self.original),
            _ => {}
        }
        match (upper.as_str(), arguments) {
            ("CMD", Arguments::Command(command)) => Ok(Instruction::Cmd(command)),
            ("ENTRYPOINT", Arguments::Command(command)) => Ok(Instruction::Entrypoint(command)),
            ("ENV", Arguments::Pairs(pairs)) => Ok(Instruction::Env(pairs)),
            ("LABEL", Arguments::Pairs(pairs)) => Ok(Instruction::Label(pairs)),
            ("HEALTHCHECK", Arguments::Health(check)) => Ok(Instruction::Healthcheck(check)),
            ("EXPOSE", Arguments::List(ports)) if ports.is_empty() => Err(Error::AtLeastOne("EXPOSE")),
            ("EXPOSE", Arguments::List(mut ports)) => {
                ports.sort();
                Ok(Instruction::Expose(ports))
            }
            ("VOLUME", Arguments::List(paths)) if paths.is_empty() => Err(Error::AtLeastOne("VOLUME")),
            ("VOLUME", Arguments::List(paths)) => {
                let paths: Vec<String> = paths.iter().map(|path| path.trim().to_owned()).collect();
                if paths.iter().any(String::is_empty) {
                    return Err(Error::EmptyVolume);
                }
                Ok(Instruction::Volume(paths))
            }
            _ => Err(Error::NoChange(self.name)),
        }
    }
}

/// Tells errors of a statement's form, which come at once, from those of its meaning, which are kept.
fn early<T>(read: Result<T>) -> Result<Result<T>> {
    match read {
        Err(error @ (Error::TwoArguments(_) | Error::NoEquals(_) | Error::NotStrings)) => Err(error),
        other => Ok(other),
    }
}

fn on_build(trigger: &str, original: &str) -> Result<Instruction> {
    let first = trigger.split(blank).next().unwrap_or_default().to_uppercase();
    match first.as_str() {
        "" => Err(Error::AtLeastOne("ONBUILD")),
        "ONBUILD" => Err(Error::OnBuildChain),
        "MAINTAINER" | "FROM" => Err(Error::OnBuildTrigger(first)),
        _ => {
            let original = original.trim_start();
            let expression = original.get("ONBUILD".len()..).unwrap_or_default().trim_start();
            Ok(Instruction::OnBuild(expression.to_owned()))
        }
    }
}
