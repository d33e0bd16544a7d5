//! Typed instructions.

use crate::health::Healthcheck;
use crate::run::Run;
use crate::shell::{Environment, Lexer};
use crate::transfer::Transfer;
use crate::{Error, Result};

/// A name and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// What stands before `=`.
    pub name: String,
    /// What stands after it.
    pub value: String,
    /// Whether it was written in the old form, `name value`.
    pub legacy: bool,
}

/// A build argument that is declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arg {
    /// Its name.
    pub name: String,
    /// Its value, unless the build gives another.
    pub default: Option<String>,
}

/// A command in one of its two forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandLine {
    /// `["program", "argument"]`: run as it is.
    Exec(Vec<String>),
    /// A line for the image's shell; without an argument there is none.
    Shell(Option<String>),
}

/// An instruction of a stage; what stands in it is as written until it is expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instruction {
    /// Declares build arguments.
    Arg(Vec<Arg>),
    /// Changes the image's configuration only.
    Change(Change),
    /// The image's author.
    Maintainer(String),
    /// Runs a command.
    Run(Run),
    /// The shell of commands that are lines.
    Shell(Vec<String>),
    /// `COPY` and `ADD`.
    Transfer(Transfer),
}

/// An instruction that changes an image's configuration; `docker commit` takes these too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
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

impl Change {
    /// Replaces variables by their values in `environment` (`NAME=value` each), and takes quotes off.
    ///
    /// # Errors
    /// [`Error::Word`].
    pub fn expand(self, environment: &[String], escape: char) -> Result<Self> {
        let environment = Environment::of(environment);
        let lexer = Lexer::new(escape, &environment);
        self.expand_with(&mut |text| lexer.word(text), &|text| lexer.words(text))
    }

    /// The same, with other ways to expand a word to one, and to several.
    pub(crate) fn expand_with(
        self,
        word: &mut dyn FnMut(&str) -> Result<String>,
        words: &dyn Fn(&str) -> Result<Vec<String>>,
    ) -> Result<Self> {
        Ok(match self {
            Self::Env(pairs) => Self::Env(expand_pairs(pairs, word)?),
            Self::Label(pairs) => Self::Label(expand_pairs(pairs, word)?),
            // The only one where a variable may stand for several words.
            Self::Expose(ports) => {
                let ports = ports.iter().map(|port| words(port)).collect::<Result<Vec<_>>>()?;
                Self::Expose(ports.into_iter().flatten().collect())
            }
            Self::StopSignal(signal) => Self::StopSignal(word(&signal)?),
            Self::User(user) => Self::User(word(&user)?),
            Self::Volume(paths) => {
                let paths = paths.iter().map(|path| word(path)).collect::<Result<Vec<_>>>()?;
                if paths.iter().any(String::is_empty) {
                    return Err(Error::EmptyVolume);
                }
                Self::Volume(paths)
            }
            Self::Workdir(path) => Self::Workdir(word(&path)?),
            same @ (Self::Cmd(_) | Self::Entrypoint(_) | Self::Healthcheck(_) | Self::OnBuild(_)) => same,
        })
    }
}

fn expand_pairs(pairs: Vec<Pair>, word: &mut dyn FnMut(&str) -> Result<String>) -> Result<Vec<Pair>> {
    let expand =
        |pair: Pair| Ok(Pair { name: word(&pair.name)?, value: word(&pair.value)?, legacy: pair.legacy });
    pairs.into_iter().map(expand).collect()
}
