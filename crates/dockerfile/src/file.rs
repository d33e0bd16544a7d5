//! A whole Dockerfile: directives, global arguments, stages of statements.

use crate::draft::{Draft, Drafts};
use crate::flags::{Flags, Takes};
use crate::instruction::{Arg, Instruction};
use crate::lines::Directive;
use crate::{Error, LocatedError, Phase, Result};

/// Lines of a file, from 1, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lines {
    /// The first.
    pub first: usize,
    /// The last, its documents included.
    pub last: usize,
}

/// Where a statement stands, and how it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its lines.
    pub lines: Lines,
    /// Its text, continued lines joined, without documents: what the builders print.
    pub text: String,
    /// The comments just before it, without `#`.
    pub comments: Vec<String>,
}

/// An instruction and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// The instruction's name as written: case is kept.
    pub keyword: String,
    /// What it says.
    pub instruction: Instruction,
    /// Where it stands.
    pub source: Source,
}

/// `ARG` before the first `FROM`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GlobalArgs {
    /// What is declared.
    pub args: Vec<Arg>,
    /// Where it stands.
    pub source: Source,
}

/// `FROM` and what follows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// The name after `AS`, in lower case.
    pub name: Option<String>,
    /// An image, a stage before this one, or `scratch`; variables are not replaced.
    pub base: String,
    /// `--platform`; variables are not replaced.
    pub platform: Option<String>,
    /// `FROM` as written.
    pub keyword: String,
    /// The words after `FROM` as written, for warnings.
    pub words: Vec<String>,
    /// Where `FROM` stands.
    pub source: Source,
    /// Its instructions.
    pub statements: Vec<Statement>,
}

/// A Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dockerfile {
    /// `# name=value` at its beginning.
    pub directives: Vec<Directive>,
    /// `\`, or what the directive `escape` says.
    pub escape: char,
    /// What `FROM` can use.
    pub global_args: Vec<GlobalArgs>,
    /// At least one.
    pub stages: Vec<Stage>,
    /// The last lines of statements that have empty lines in them.
    pub empty_continuations: Vec<usize>,
}

impl Dockerfile {
    /// Reads a Dockerfile.
    ///
    /// # Errors
    /// BuildKit's, with their lines; [`LocatedError::classic`] has the classic builder's text.
    pub fn parse(text: &str) -> std::result::Result<Self, LocatedError> {
        if text.is_empty() {
            return Err(LocatedError::whole(Error::EmptyFile));
        }
        let drafts = Drafts::read(text)?;
        let mut file = Self {
            directives: drafts.directives,
            escape: drafts.escape,
            global_args: Vec::new(),
            stages: Vec::new(),
            empty_continuations: drafts.empty_continuations,
        };
        for draft in drafts.statements {
            let lines = draft.source.lines;
            let added = file.add(draft);
            added.map_err(|error| {
                let phase = if error == Error::NoStage { Phase::Whole } else { Phase::Meaning };
                LocatedError::new(error, lines, phase)
            })?;
        }
        if file.stages.is_empty() {
            return Err(LocatedError::whole(Error::NoStages));
        }
        Ok(file)
    }

    /// The value of a directive: `syntax`, `check` or `escape`.
    #[must_use]
    pub fn directive(&self, name: &str) -> Option<&Directive> {
        self.directives.iter().find(|directive| directive.name == name)
    }

    /// The lines that the classic builder prints before it begins.
    #[must_use]
    pub fn classic_warnings(&self) -> Vec<String> {
        let globals = self.global_args.iter().map(|global| &global.source);
        let stages = self.stages.iter().flat_map(|stage| {
            std::iter::once(&stage.source).chain(stage.statements.iter().map(|statement| &statement.source))
        });
        let is_meant = |source: &&Source| self.empty_continuations.contains(&source.lines.last);
        let mut lines: Vec<String> = globals
            .chain(stages)
            .filter(is_meant)
            .map(|source| format!("[WARNING]: Empty continuation line found in: {}", source.text))
            .collect();
        if !lines.is_empty() {
            lines.push("[WARNING]: Empty continuation lines will become errors in a future release.".into());
        }
        lines
    }

    fn add(&mut self, draft: Draft) -> Result<()> {
        if draft.as_from().is_some() {
            self.stages.push(Stage::read(&draft)?);
            return Ok(());
        }
        let (keyword, source) = (draft.name.clone(), draft.source.clone());
        let instruction = draft.into_instruction()?;
        match (self.stages.last_mut(), instruction) {
            (Some(stage), instruction) => stage.statements.push(Statement { keyword, instruction, source }),
            (None, Instruction::Arg(args)) => self.global_args.push(GlobalArgs { args, source }),
            (None, _) => return Err(Error::NoStage),
        }
        Ok(())
    }
}

impl Stage {
    fn read(draft: &Draft) -> Result<Self> {
        let (words, options) = draft.as_from().unwrap_or_default();
        let (base, name) = match words {
            [base] => (base, None),
            [base, keyword, name] if keyword.eq_ignore_ascii_case("as") => (base, Some(stage_name(name)?)),
            _ => return Err(Error::FromArguments),
        };
        let flags = Flags::parse(options, &[("platform", Takes::Text)])?;
        Ok(Self {
            name,
            base: base.clone(),
            platform: flags.text("platform").filter(|platform| !platform.is_empty()),
            keyword: draft.name.clone(),
            words: words.to_vec(),
            source: draft.source.clone(),
            statements: Vec::new(),
        })
    }
}

fn stage_name(written: &str) -> Result<String> {
    let name = written.to_lowercase();
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
    match name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(is_plain) {
        true => Ok(name),
        false => Err(Error::StageName(written.to_owned())),
    }
}

/// Reads a trigger: one instruction, of a kind that can wait. Its lines are those of the `FROM` that it is for.
///
/// # Errors
/// Those of [`Dockerfile::parse`], without lines.
pub(crate) fn parse_trigger(text: &str, lines: Lines) -> Result<Statement> {
    let mut drafts = Drafts::read(text).map_err(|located| located.error)?;
    let (Some(draft), true) = (drafts.statements.pop(), drafts.statements.is_empty()) else {
        return Err(Error::TriggerCount);
    };
    let (keyword, source) = (draft.name.clone(), Source { lines, ..draft.source.clone() });
    if draft.as_from().is_some() {
        return Err(Error::OnBuildTrigger("FROM".into()));
    }
    Ok(Statement { keyword, instruction: draft.into_instruction()?, source })
}
