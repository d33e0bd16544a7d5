//! Why a command failed.

use std::path::{Path, PathBuf};

/// Why a command failed, in words for the user.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The command line does not make sense.
    #[error("{reason}")]
    Misuse {
        /// What is said above the help.
        heading: String,
        /// The help to show.
        help: String,
        /// What does not make sense.
        reason: String,
    },
    /// Something that does not make sense, or is not as it must be.
    #[error("{0}")]
    Arguments(&'static str),
    /// There is no such command.
    #[error("No help topic for '{0}'")]
    NoSuchCommand(String),
    /// A log format that does not exist.
    #[error("invalid log-format: {0}")]
    LogFormat(String),
    /// A bundle without specification.
    #[error("JSON specification file config.json not found")]
    NoSpecification,
    /// `exec --cgroup` with something that is no cgroup.
    #[error("invalid --cgroup argument: {argument} ({reason})")]
    SubCgroup {
        /// The argument.
        argument: String,
        /// Why.
        reason: &'static str,
    },
    /// As above.
    #[error("Container cannot be checkpointed in {0} state")]
    NotCheckpointed(wherry_runtime::Status),
    /// A namespace that cannot be made anew.
    #[error("namespace {0:?} is not supported")]
    EmptyNamespace(String),
    /// A descriptor of `--preserve-fds` is not open.
    #[error("unable to stat preserved-fd {index} (of {count}): no such file or directory")]
    NoDescriptor {
        /// Which of them.
        index: u32,
        /// How many were announced.
        count: u32,
    },
    /// `ps` itself failed.
    #[error("{status}: {output}")]
    Ps {
        /// Its exit status.
        status: std::process::ExitStatus,
        /// What it wrote.
        output: String,
    },
    /// What runc can do and this program cannot.
    #[error("{0} is not supported yet")]
    NotSupported(&'static str),
    /// The container is unknown.
    #[error("container does not exist")]
    NoSuchContainer,
    /// The id is taken.
    #[error("container with given ID already exists")]
    Exists,
    /// The container's state forbids it.
    #[error("cannot start an already running container")]
    AlreadyRunning,
    /// As above.
    #[error("cannot start a container that has stopped")]
    StartStopped,
    /// As above.
    #[error("container not running")]
    NotRunning,
    /// As above.
    #[error("container not paused")]
    NotPaused,
    /// As above.
    #[error("cannot start a container in the {0} state")]
    StartIn(wherry_runtime::Status),
    /// As above.
    #[error("container with id {0} is not running")]
    EventsStopped(String),
    /// As above.
    #[error("cannot exec in a stopped container")]
    ExecStopped,
    /// As above.
    #[error("cannot delete container {id} that is not stopped: {status}")]
    NotStopped {
        /// The container.
        id: String,
        /// Its status.
        status: wherry_runtime::Status,
    },
    /// As above.
    #[error("cannot exec in a paused container (use --ignore-paused to override)")]
    Paused,
    /// A signal that does not exist.
    #[error("unknown signal {0:?}")]
    UnknownSignal(String),
    /// A value that cannot be parsed.
    #[error("invalid value {value:?} for --{option}")]
    InvalidValue {
        /// The option.
        option: &'static str,
        /// The value.
        value: String,
    },
    /// A terminal is wanted, but there is nobody to hand it to; or the reverse.
    #[error("{0}")]
    Console(&'static str),
    /// A file could not be read, written or parsed.
    #[error("{action} {path}: {source}", path = path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A specification, or a part of one, cannot be read.
    #[error("parse {path}: {source}", path = path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The field, and what is wrong with it.
        source: wherry_runtime::Error,
    },
    /// A file that cannot be a specification.
    #[error("read {path}: it is larger than 32 MiB", path = path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The library failed.
    #[error(transparent)]
    Runtime(#[from] wherry_runtime::Error),
}

impl Failure {
    /// For `map_err` of what is read from a file.
    pub(crate) fn malformed(path: &Path) -> impl FnOnce(wherry_runtime::Error) -> Failure {
        let path = path.to_owned();
        move |source| Failure::Malformed { path, source }
    }

    /// For `map_err` of what is done to a file.
    pub(crate) fn file<E: Into<std::io::Error>>(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(E) -> Failure {
        let path = path.into();
        move |source| Failure::File { action, path, source: source.into() }
    }
}
