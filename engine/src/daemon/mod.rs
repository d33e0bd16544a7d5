//! The daemon's life: start-up in order, serving, reload, and the end.
//!
//! Nothing of a container depends on how it ends: after SIGKILL all goes on, and the next start puts the engine's
//! picture together again.

mod activation;
mod identity;
pub(crate) mod limits;
mod listen;
mod notify;
mod pidfile;
pub(crate) mod program;
mod relay;
mod reload;
mod shutdown;
mod start;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::config::{Command, Config, ConfigError};
use crate::error::Error;

/// Why the daemon did not start. `Display` is the line that the user reads.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// Flags or file.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Not root.
    #[error("wherryd needs to be started with root privileges: run it with sudo, or as a system service")]
    NotRoot,
    /// A file or folder.
    #[error("failed to start daemon: {step} {}: {source}", path.display())]
    Io {
        /// What was being done.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Another process of ours has the pid file.
    #[error(
        "failed to start daemon, ensure docker is not running or delete {}: process with PID {pid} is still running",
        path.display()
    )]
    PidfileInUse {
        /// The pid file.
        path: PathBuf,
        /// Who runs.
        pid: u32,
    },
    /// Another engine has the data root.
    #[error(
        "failed to start daemon: another wherryd uses the data root {}; give this one its own --data-root and --exec-root",
        path.display()
    )]
    DataRootInUse {
        /// The data root.
        path: PathBuf,
    },
    /// An address to listen at.
    #[error("failed to load listeners: {host}: {reason}")]
    Listen {
        /// As given.
        host: String,
        /// Why not.
        reason: String,
    },
    /// Images, networks, volumes or containers could not be opened.
    #[error("failed to start daemon: {0}")]
    Engine(#[from] Error),
    /// Threads or signals.
    #[error("failed to start daemon: {step}: {source}")]
    System {
        /// What was being done.
        step: &'static str,
        /// Why not.
        source: std::io::Error,
    },
}

impl StartError {
    fn io(step: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { step, path, source }
    }

    fn system(step: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::System { step, source }
    }
}

/// The process.
pub(crate) fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if std::env::args_os().nth(1).is_some_and(|first| first == "log-relay") {
        return relay::main(arguments.nth(1));
    }
    match Config::load(arguments) {
        Ok(Command::Run(config)) => match start::run(*config) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error.to_string()),
        },
        Ok(Command::Print(text)) => print(&text),
        Err(error) => fail(&error.to_string()),
    }
}

fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn fail(message: &str) -> ExitCode {
    // With stderr closed there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "{message}");
    ExitCode::FAILURE
}
