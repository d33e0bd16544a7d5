//! What can be wrong with a Dockerfile, in BuildKit's words.

/// Why text is no instruction.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
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
    /// A port that cannot be exposed.
    #[error("{0}")]
    Port(String),
}
