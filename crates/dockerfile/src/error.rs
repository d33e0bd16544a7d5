//! What can be wrong with a Dockerfile, in BuildKit's words.

use crate::Lines;

/// Why text is no instruction.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// More than a build may have.
    #[error("more than {0} instructions or ports are not supported by this engine")]
    TooMany(usize),
    /// More memory than a plan may take.
    #[error(
        "what its instructions set takes more than {0} bytes, all steps together: not supported by this engine"
    )]
    TooLarge(usize),
    /// `RUN --device`.
    #[error("RUN --device={0} is not supported by this engine")]
    Device(String),
    /// There is nothing but comments and blanks.
    #[error("file with no instructions")]
    NoInstructions,
    /// The directive `escape` names neither `\` nor a backtick.
    #[error("invalid escape token '{0}' does not match ` or \\")]
    EscapeToken(String),
    /// A directive is given twice.
    #[error("only one {0} parser directive can be used")]
    DirectiveTwice(String),
    /// An instruction that `commit` and `import` do not take.
    #[error("{0} is not a valid change command")]
    NoChange(String),
    /// The instruction needs an argument.
    #[error("{0} requires at least one argument")]
    AtLeastOne(&'static str),
    /// The instruction needs one argument, no more, no less.
    #[error("{0} requires exactly one argument")]
    ExactlyOne(&'static str),
    /// `ENV name` without a value.
    #[error("{0} must have two arguments")]
    TwoArguments(&'static str),
    /// `ENV =value`.
    #[error("{0} names can not be blank")]
    BlankName(&'static str),
    /// A word among `name=value` pairs that is none.
    #[error("Syntax error - can't find = in {0:?}. Must be of the form: name=value")]
    NoEquals(String),
    /// An array with other things than strings.
    #[error("when using JSON array syntax, arrays must be comprised of strings only")]
    NotStrings,
    /// `ONBUILD ONBUILD`.
    #[error("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")]
    OnBuildChain,
    /// An instruction that cannot wait for a build.
    #[error("{0} isn't allowed as an ONBUILD trigger")]
    OnBuildTrigger(String),
    /// `VOLUME ""`.
    #[error("VOLUME specified can not be an empty string")]
    EmptyVolume,
    /// An option that the instruction does not have.
    #[error("unknown flag: {0}")]
    UnknownFlag(String),
    /// An option given twice.
    #[error("duplicate flag specified: {0}")]
    DuplicateFlag(String),
    /// An option without its value.
    #[error("missing a value on flag: {0}")]
    FlagValue(String),
    /// `HEALTHCHECK NONE something`.
    #[error("HEALTHCHECK NONE takes no arguments")]
    HealthNone,
    /// `HEALTHCHECK CMD` without a command.
    #[error("Missing command after HEALTHCHECK CMD")]
    HealthCommand,
    /// Neither `CMD` nor `NONE`.
    #[error("Unknown type {0:?} in HEALTHCHECK (try CMD)")]
    HealthType(String),
    /// A time that is no Go duration.
    #[error(transparent)]
    Duration(#[from] wherry_rfc3339::DurationError),
    /// A time that is too short to mean anything.
    #[error("Interval {0:?} cannot be less than 1ms")]
    HealthInterval(String),
    /// Retries that are no number.
    #[error("strconv.ParseInt: parsing {text:?}: {reason}")]
    Number {
        /// What was given.
        text: String,
        /// Go's reason.
        reason: &'static str,
    },
    /// Negative retries.
    #[error("--retries cannot be negative ({0})")]
    HealthRetries(i64),
    /// Variables cannot be replaced in a word.
    #[error("failed to process {word:?}: {reason}")]
    Word {
        /// The word.
        word: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An option that takes only `true` and `false`.
    #[error("expecting boolean value for flag {0}, not: {1}")]
    FlagBool(String, String),
    /// An error, and the word that was probably meant.
    #[error("{0} (did you mean {1}?)")]
    Suggestion(Box<Self>, String),
    /// A line that is longer than it may be.
    #[error("dockerfile line greater than max allowed size of {0}")]
    LongLine(usize),
    /// `<<NAME`, and no line `NAME` after it.
    #[error("unterminated heredoc")]
    UnterminatedHeredoc,
    /// A document where none can be.
    #[error("{0} cannot accept a heredoc as {1}")]
    MisplacedHeredoc(&'static str, &'static str),
    /// No such instruction.
    #[error("unknown instruction: {0}")]
    UnknownInstruction(String),
    /// An instruction before the first `FROM`.
    #[error("no build stage in current context")]
    NoStage,
    /// The file is empty.
    #[error("the Dockerfile cannot be empty")]
    EmptyFile,
    /// There is no `FROM`.
    #[error("dockerfile contains no stages to build")]
    NoStages,
    /// An image's trigger that is not one instruction.
    #[error("onbuild trigger should be a single expression")]
    TriggerCount,
    /// `FROM` with too few or too many words.
    #[error("FROM requires either one or three arguments")]
    FromArguments,
    /// The name after `AS`.
    #[error("invalid name for build stage: {0:?}, name can't start with a number or contain symbols")]
    StageName(String),
    /// `COPY` or `ADD` with one path only.
    #[error(
        "{0} requires at least two arguments, but only one was provided. Destination could not be determined"
    )]
    NoDestination(&'static str),
    /// `SHELL` that is no JSON array.
    #[error("{0} requires the arguments to be in JSON form")]
    NotJson(&'static str),
    /// `RUN --network` with another word than it knows.
    #[error("invalid network mode {0:?}")]
    NetworkMode(String),
    /// `RUN --security` with another word than it knows.
    #[error("security {0:?} is not valid")]
    Security(String),
    /// `RUN --mount` that cannot be read.
    #[error(transparent)]
    Mount(#[from] crate::mount::MountError),
    /// A base image's name of which nothing is left.
    #[error("base name ({0}) should not be blank")]
    BlankBase(String),
    /// A base image's name that is none.
    #[error("failed to parse stage name {0:?}: {1}")]
    BaseReference(String, String),
    /// `--platform` of which nothing is left.
    #[error("empty platform value from expression {0}")]
    EmptyPlatform(String),
    /// `--platform` that names none.
    #[error("failed to parse platform {0}: {1}")]
    Platform(String, String),
    /// No such stage.
    #[error("target stage {0:?} could not be found")]
    NoTarget(String),
    /// The classic builder takes a name once only.
    #[error("{0} stage name already used")]
    StageNameTwice(String),
    /// A stage by a number that there is not.
    #[error("invalid stage index {0}")]
    StageNumber(i64),
    /// `COPY --from=$x`.
    #[error(
        "variable expansion is not supported for --from, define a new stage with FROM using ARG from global \
         scope as a workaround"
    )]
    FromVariable,
    /// The classic builder's stage by a number that there is not.
    #[error("invalid from flag value {0}: {1}")]
    ClassicFrom(String, &'static str),
    /// Stages that need each other.
    #[error("circular dependency detected on stage: {0}")]
    Circle(String),
    /// `COPY --from` of a stage that comes later.
    #[error("cannot copy from stage {from:?}, it needs to be defined before current stage {stage:?}")]
    CopyTooEarly {
        /// The later stage.
        from: String,
        /// The stage that copies.
        stage: String,
    },
    /// `RUN --mount=from` of a stage that comes later.
    #[error(
        "cannot mount from stage {from:?} to {target:?}, stage needs to be defined before current command"
    )]
    MountTooEarly {
        /// The later stage.
        from: String,
        /// Where it is mounted.
        target: String,
    },
    /// A mount over everything.
    #[error("invalid mount target {0:?}")]
    MountTarget(String),
    /// An option that the classic builder does not know.
    #[error(
        "the --{0} option requires BuildKit. Refer to https://docs.docker.com/go/buildkit/ to learn how to \
         build images with BuildKit enabled"
    )]
    NeedsBuildKit(String),
    /// No signal.
    #[error("invalid signal: {0}")]
    Signal(String),
    /// `WORKDIR ""`.
    #[error("cannot normalize nothing")]
    EmptyWorkdir,
    /// `--chmod` with another number.
    #[error("invalid chmod parameter: '{0}'. it should be octal string and between 0 and 07777")]
    Chmod(String),
    /// `--chmod` with letters that mean nothing.
    #[error("invalid syntax")]
    ChmodSyntax,
    /// `--checksum` for several sources.
    #[error("checksum can't be specified for multiple sources")]
    ChecksumCount,
    /// `--checksum` for files.
    #[error("checksum requires HTTP(S) or Git sources")]
    ChecksumSource,
    /// `--checksum` of a file is no digest.
    #[error("{0}")]
    ChecksumDigest(&'static str),
    /// `COPY` of an address.
    #[error("source can't be a URL for COPY")]
    CopyUrl,
    /// `COPY` of an address, in the classic builder's words.
    #[error("COPY failed: source can't be a URL for COPY")]
    ClassicCopyUrl,
    /// `COPY` of a repository.
    #[error("source can't be a git ref for COPY")]
    CopyGit,
    /// What stands after `?` in a repository's address.
    #[error("{0}")]
    GitQuery(String),
    /// The address and the option say different things.
    #[error("inconsistent keep-git-dir configuration")]
    GitKeepConflict,
    /// The address and the option say different things.
    #[error("checksum mismatch {0:?} != {1:?}")]
    GitChecksumConflict(String, String),
    /// The directive `check` has an option that there is not.
    #[error("failed to parse check options: invalid check option {0:?}")]
    CheckOption(String),
    /// The directive `check` has a value that is neither yes nor no.
    #[error(
        "failed to parse check options: failed to parse check option {option:?}: strconv.ParseBool: parsing \
         {value:?}: invalid syntax"
    )]
    CheckBool {
        /// The option.
        option: String,
        /// Its value.
        value: String,
    },
    /// Warnings that are errors.
    #[error("lint violation found for rules: {0}")]
    Lint(String),
    /// The caller did not give an image's configuration.
    #[error("the configuration of {0} is not known")]
    ImageMissing(String),
    /// A pattern of `.dockerignore` that is none.
    #[error("syntax error in pattern: {0}")]
    IgnorePattern(String),
    /// `!` alone in `.dockerignore`.
    #[error("illegal exclusion pattern: \"!\"")]
    LoneException,
    /// A pattern of a source that is none.
    #[error("syntax error in pattern")]
    Pattern,
    /// A port that cannot be exposed.
    #[error(transparent)]
    Port(#[from] crate::ports::PortError),
    /// The same, in BuildKit's words.
    #[error("{}", .0.buildkit())]
    BuildKitPort(crate::ports::PortError),
}

impl Error {
    /// Adds what was probably meant, if something was.
    pub(crate) fn suggest(self, suggestion: Option<String>) -> Self {
        match suggestion {
            Some(suggestion) => Self::Suggestion(Box::new(self), suggestion),
            None => self,
        }
    }
}

/// An error, and where in the Dockerfile it is.
///
/// Its text is BuildKit's, which names the line in one case only: for the others the client shows the lines by
/// [`Self::lines`], which go beside the message over the wire.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{error}", self.prefix())]
pub struct LocatedError {
    /// What is wrong.
    pub error: Error,
    /// The lines of the statement; for an error of a whole file, none.
    pub lines: Vec<Lines>,
    /// What was being done.
    pub phase: Phase,
}

/// When an error was found, by which its text differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// When the text was taken apart.
    Form,
    /// When a statement was understood.
    Meaning,
    /// When the file as a whole was looked at, or a build planned.
    Whole,
}

impl LocatedError {
    pub(crate) fn new(error: Error, lines: Lines, phase: Phase) -> Self {
        Self { error, lines: vec![lines], phase }
    }

    pub(crate) fn whole(error: Error) -> Self {
        Self { error, lines: Vec::new(), phase: Phase::Whole }
    }

    fn prefix(&self) -> String {
        match (self.phase, self.lines.first()) {
            (Phase::Meaning, Some(lines)) => format!("dockerfile parse error on line {}: ", lines.first),
            _ => String::new(),
        }
    }

    /// The text of the classic builder, which names the file for errors of form.
    #[must_use]
    pub fn classic(&self, file: &str) -> String {
        match (self.phase, &self.error) {
            (Phase::Form, error) => format!("failed to parse {file}: {error}"),
            (_, Error::EmptyFile) => format!("the Dockerfile ({file}) cannot be empty"),
            (Phase::Meaning | Phase::Whole, _) => self.to_string(),
        }
    }
}
