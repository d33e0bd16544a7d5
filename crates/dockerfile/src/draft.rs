//! From logical lines to instructions, in BuildKit's two passes: the form of all statements first, then the
//! meaning of each.

use crate::file::Source;
use crate::health::{self, Healthcheck};
use crate::heredoc::Heredoc;
use crate::instruction::{Arg, Change, CommandLine, Instruction, Pair};
use crate::lines::{Directive, LogicalLine, Reader};
use crate::run::Run;
use crate::suggest::nearest;
use crate::transfer::Transfer;
use crate::words::{blank, blank_separated, json_array, list, options, pairs, words};
use crate::{Error, Lines, LocatedError, Phase, Result};

/// All instructions, `FROM` included.
const NAMES: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// A whole file, read by its form.
pub(crate) struct Drafts {
    pub(crate) statements: Vec<Draft>,
    pub(crate) directives: Vec<Directive>,
    pub(crate) escape: char,
    /// The last lines of statements that have empty lines in them.
    pub(crate) empty_continuations: Vec<usize>,
}

impl Drafts {
    pub(crate) fn read(text: &str) -> std::result::Result<Self, LocatedError> {
        let mut reader = Reader::new(text);
        let mut statements = Vec::new();
        let mut empty_continuations = Vec::new();
        loop {
            let before = reader.line;
            let logical = reader.next_logical();
            let at = Lines { first: before.max(1), last: reader.line.max(1) };
            let Some(logical) = logical.map_err(|error| LocatedError::new(error, at, Phase::Form))? else {
                break;
            };
            if logical.empty_continuation {
                empty_continuations.push(logical.lines.last);
            }
            let first = logical.lines.first;
            let draft = Draft::read_with_documents(logical, &mut reader).map_err(|error| {
                let last = reader.line;
                LocatedError::new(error, Lines { first, last }, Phase::Form)
            });
            statements.push(draft?);
            if statements.len() > MAX_INSTRUCTIONS {
                let at = Lines { first, last: reader.line };
                return Err(LocatedError::new(Error::TooMany(MAX_INSTRUCTIONS), at, Phase::Form));
            }
        }
        if statements.is_empty() {
            let at = Lines { first: reader.line, last: reader.line };
            return Err(LocatedError::new(Error::NoInstructions, at, Phase::Form));
        }
        let escape = reader.escape();
        Ok(Self { statements, directives: reader.into_directives(), escape, empty_continuations })
    }
}

/// A build has no more: its steps are walked by recursion, and each keeps a configuration.
pub(crate) const MAX_INSTRUCTIONS: usize = 1000;

/// A statement, taken apart as far as all instructions have it.
#[derive(Debug)]
pub(crate) struct Draft {
    /// The instruction's name as written.
    pub(crate) name: String,
    pub(crate) source: Source,
    arguments: Result<Arguments>,
    options: Vec<String>,
    documents: Vec<Heredoc>,
}

/// Arguments in the form that the instruction has.
#[derive(Debug)]
enum Arguments {
    Command(CommandLine),
    Pairs(Vec<Pair>),
    List { words: Vec<String>, is_json: bool },
    Text(String),
    Health(Healthcheck),
    Trigger(Option<Box<Draft>>),
}

impl Draft {
    fn read_with_documents(logical: LogicalLine, reader: &mut Reader<'_>) -> Result<Self> {
        let source =
            Source { lines: logical.lines, text: logical.text.trim().to_owned(), comments: logical.comments };
        let mut draft = Self::read(source, &logical.text, reader.escape())?;
        if draft.can_have_documents() && logical.text.contains("<<") {
            draft.documents = Heredoc::of_line(&logical.text)?;
            for document in &mut draft.documents {
                reader.document(document)?;
            }
            draft.source.lines.last = reader.line;
        }
        Ok(draft)
    }

    /// Reads a line. Errors of its form are BuildKit's first pass over the whole file; others come with
    /// [`Self::into_instruction`].
    fn read(source: Source, line: &str, escape: char) -> Result<Self> {
        let trimmed = line.trim();
        let (name, rest) = trimmed.split_once(blank).unwrap_or((trimmed, ""));
        let (options, rest_of_options) = options(rest, escape);
        let text = rest_of_options.trim();
        let words_of = |words| Ok(Arguments::List { words, is_json: false });
        let arguments = match name.to_uppercase().as_str() {
            "CMD" | "ENTRYPOINT" | "RUN" | "SHELL" => Ok(Arguments::Command(match json_array(text)? {
                Some(array) => CommandLine::Exec(array),
                None => CommandLine::Shell((!text.is_empty()).then(|| text.to_owned())),
            })),
            "ENV" => early(pairs(text, "ENV", escape)).map(|pairs| pairs.map(Arguments::Pairs))?,
            "LABEL" => early(pairs(text, "LABEL", escape)).map(|pairs| pairs.map(Arguments::Pairs))?,
            "EXPOSE" | "FROM" => words_of(blank_separated(text)),
            "ARG" => words_of(words(text, escape)),
            "ADD" | "COPY" | "VOLUME" => {
                let is_json = json_array(text)?.is_some();
                Ok(Arguments::List { words: list(text)?, is_json })
            }
            "HEALTHCHECK" => early(health::read(rest, escape)).map(|check| check.map(Arguments::Health))?,
            "ONBUILD" if text.is_empty() => Ok(Arguments::Trigger(None)),
            "ONBUILD" => {
                let source = Source { text: text.to_owned(), ..source.clone() };
                // A chain is refused by the trigger's name; reading on would recurse as deep as it is long.
                let inner = text.split(blank).next().unwrap_or_default();
                let text = if inner.to_uppercase() == "ONBUILD" { inner } else { text };
                Ok(Arguments::Trigger(Some(Box::new(Self::read(source, text, escape)?))))
            }
            _ => Ok(Arguments::Text(text.to_owned())),
        };
        Ok(Self { name: name.to_owned(), source, arguments, options, documents: Vec::new() })
    }

    fn can_have_documents(&self) -> bool {
        match (self.name.to_uppercase().as_str(), &self.arguments) {
            ("ADD" | "COPY", Ok(Arguments::List { is_json, .. })) => !is_json,
            ("RUN", Ok(Arguments::Command(command))) => !matches!(command, CommandLine::Exec(_)),
            ("ONBUILD", Ok(Arguments::Trigger(Some(trigger)))) => {
                trigger.name.to_uppercase() != "ONBUILD" && trigger.can_have_documents()
            }
            _ => false,
        }
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

    /// The words and options of `FROM`; `None` for every other instruction.
    pub(crate) fn as_from(&self) -> Option<(&[String], &[String])> {
        match &self.arguments {
            Ok(Arguments::List { words, .. }) if self.name.eq_ignore_ascii_case("FROM") => {
                Some((words, &self.options))
            }
            _ => None,
        }
    }

    pub(crate) fn into_instruction(self) -> Result<Instruction> {
        let upper = self.name.to_uppercase();
        let arguments = self.arguments?;
        let (options, documents) = (&self.options, self.documents);
        let text = match &arguments {
            Arguments::Text(text) if !text.is_empty() => Some(text.clone()),
            _ => None,
        };
        let one = |name| text.clone().ok_or(Error::ExactlyOne(name));
        let change = match (upper.as_str(), arguments) {
            // These two come before their options are looked at.
            ("ARG", Arguments::List { words, .. }) => return args(words).map(Instruction::Arg),
            ("MAINTAINER", _) => {
                let author = one("MAINTAINER")?;
                no_options(options)?;
                return Ok(Instruction::Maintainer(author));
            }
            ("COPY", Arguments::List { words, .. }) => {
                return Transfer::read_copy(words, &documents, options).map(Instruction::Transfer);
            }
            ("ADD", Arguments::List { words, .. }) => {
                return Transfer::read_add(words, &documents, options).map(Instruction::Transfer);
            }
            ("RUN", Arguments::Command(command)) => {
                return Run::read(command, documents, options).map(Instruction::Run);
            }
            ("SHELL", Arguments::Command(command)) => {
                no_options(options)?;
                return shell(command).map(Instruction::Shell);
            }
            ("STOPSIGNAL", _) => Change::StopSignal(one("STOPSIGNAL")?),
            ("HEALTHCHECK", Arguments::Health(check)) => Change::Healthcheck(check),
            ("USER", _) => without_options(options, one("USER").map(Change::User))?,
            ("WORKDIR", _) => without_options(options, one("WORKDIR").map(Change::Workdir))?,
            ("ONBUILD", Arguments::Trigger(trigger)) => {
                on_build(trigger.as_deref(), options, &self.source.text, &documents)?
            }
            (_, arguments) => {
                no_options(options)?;
                change(&upper, arguments).unwrap_or_else(|| {
                    let names: Vec<&str> = NAMES.to_vec();
                    let unknown = Error::UnknownInstruction(self.name.clone());
                    Err(unknown.suggest(suggestion(&self.name, &names)))
                })?
            }
        };
        Ok(Instruction::Change(change))
    }
}

/// The nearest instruction, in the case of the word.
fn suggestion(name: &str, names: &[&str]) -> Option<String> {
    let found = nearest(&name.to_uppercase(), names)?;
    Some(if name.chars().any(char::is_uppercase) { found } else { found.to_lowercase() })
}

/// The changes that are nothing but their arguments.
fn change(upper: &str, arguments: Arguments) -> Option<Result<Change>> {
    Some(match (upper, arguments) {
        ("CMD", Arguments::Command(command)) => Ok(Change::Cmd(command)),
        ("ENTRYPOINT", Arguments::Command(command)) => Ok(Change::Entrypoint(command)),
        ("ENV", Arguments::Pairs(pairs)) => Ok(Change::Env(pairs)),
        ("LABEL", Arguments::Pairs(pairs)) => Ok(Change::Label(pairs)),
        ("EXPOSE", Arguments::List { words, .. }) if words.is_empty() => Err(Error::AtLeastOne("EXPOSE")),
        ("EXPOSE", Arguments::List { mut words, .. }) => {
            words.sort();
            Ok(Change::Expose(words))
        }
        ("VOLUME", Arguments::List { words, .. }) if words.is_empty() => Err(Error::AtLeastOne("VOLUME")),
        ("VOLUME", Arguments::List { words, .. }) => {
            let paths: Vec<String> = words.iter().map(|path| path.trim().to_owned()).collect();
            match paths.iter().any(String::is_empty) {
                true => Err(Error::EmptyVolume),
                false => Ok(Change::Volume(paths)),
            }
        }
        _ => return None,
    })
}

fn no_options(options: &[String]) -> Result<()> {
    crate::flags::Flags::parse(options, &[]).map(drop)
}

fn without_options(options: &[String], read: Result<Change>) -> Result<Change> {
    let read = read?;
    no_options(options)?;
    Ok(read)
}

fn args(words: Vec<String>) -> Result<Vec<Arg>> {
    if words.is_empty() {
        return Err(Error::AtLeastOne("ARG"));
    }
    let arg = |word: String| match word.split_once('=') {
        Some(("", _)) => Err(Error::BlankName("ARG")),
        Some((name, value)) => Ok(Arg { name: name.to_owned(), default: Some(value.to_owned()) }),
        None => Ok(Arg { name: word, default: None }),
    };
    words.into_iter().map(arg).collect()
}

fn shell(command: CommandLine) -> Result<Vec<String>> {
    match command {
        CommandLine::Exec(words) if !words.is_empty() => Ok(words),
        CommandLine::Exec(_) | CommandLine::Shell(None) => Err(Error::AtLeastOne("SHELL")),
        CommandLine::Shell(Some(_)) => Err(Error::NotJson("SHELL")),
    }
}

/// Tells errors of a statement's form, which come at once, from those of its meaning, which are kept.
fn early<T>(read: Result<T>) -> Result<Result<T>> {
    match read {
        Err(error @ (Error::TwoArguments(_) | Error::NoEquals(_) | Error::NotStrings)) => Err(error),
        other => Ok(other),
    }
}

fn on_build(
    trigger: Option<&Draft>,
    options: &[String],
    original: &str,
    documents: &[Heredoc],
) -> Result<Change> {
    let Some(trigger) = trigger else { return Err(Error::AtLeastOne("ONBUILD")) };
    no_options(options)?;
    let name = trigger.name.to_uppercase();
    match name.as_str() {
        "ONBUILD" => Err(Error::OnBuildChain),
        "MAINTAINER" | "FROM" => Err(Error::OnBuildTrigger(name)),
        _ => {
            let expression = original.trim_start().get("ONBUILD".len()..).unwrap_or_default();
            let mut expression = expression.trim_start().to_owned();
            for document in documents {
                expression.push('\n');
                expression.push_str(&document.content);
                expression.push_str(&document.name);
            }
            Ok(Change::OnBuild(expression))
        }
    }
}
