//! `wherry-runtime`: the runtime library as a command, compatible with runc's command line.
//!
//! One command, one thread, then it ends. What it keeps of a container is in `--root`/ID/:
//! `state.json`, and `start.sock` until the container has been started. Called by another name (a link
//! `runc` to it), it answers by that name.

mod arena;
mod checkpoint;
mod command_line;
mod commands;
mod config;
mod console;
mod control;
mod default_spec;
mod descriptors;
mod events;
mod exec;
mod failure;
mod features;
mod foreground;
mod launch;
mod log;
mod notify;
mod query;
mod signal_name;
mod store;
mod time;
mod update;
mod version;

use std::path::Path;
use std::process::ExitCode;

use command_line::{Global, Invocation, parse};
use descriptors::Descriptors;
use failure::Failure;
use log::Log;

/// What every command knows.
#[derive(Debug)]
pub(crate) struct Session {
    /// The name by which this program was called.
    pub(crate) program: String,
    /// What was said before the command.
    pub(crate) global: Global,
    /// Where messages go.
    pub(crate) log: Log,
    /// Which of the caller's descriptors processes get.
    pub(crate) descriptors: Descriptors,
}

#[global_allocator]
static MEMORY: arena::Arena = arena::Arena::new();

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let program = args.next().unwrap_or_default();
    let name = Path::new(&program).file_name().map(|name| name.to_string_lossy().into_owned());
    let program = name.unwrap_or_else(|| "wherry-runtime".to_owned());
    let Invocation { global, command } = match parse(&program, args) {
        Ok(invocation) => invocation,
        Err(failure) => return refuse(&failure),
    };
    // before anything is opened: what is open is the caller's
    let opened = Descriptors::of(&command).and_then(|descriptors| Ok((descriptors, Log::open(&global)?)));
    let (descriptors, log) = match opened {
        Ok(opened) => opened,
        Err(failure) => return refuse(&failure),
    };
    let name = command.name();
    // as in runc: an exec that fails cannot be mistaken for a program's exit code
    let code_of_failure = if name == "exec" { 255 } else { 1 };
    let session = Session { program, global, log, descriptors };
    match commands::run(&session, command) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            session.log.error(&describe(&session.program, name, &failure));
            ExitCode::from(code_of_failure)
        }
    }
}

/// A command line that makes no sense.
fn refuse(failure: &Failure) -> ExitCode {
    if let Failure::Misuse { heading, help, .. } = failure {
        let _ = commands::print(&format!("{heading}\n\n{help}"));
    }
    Log::default().error(&failure.to_string());
    ExitCode::from(if matches!(failure, Failure::NoSuchCommand(_)) { 3 } else { 1 })
}

/// The message as runc words it: the commands that make processes say so.
fn describe(program: &str, command: &str, failure: &Failure) -> String {
    let prefix = match command {
        "create" | "run" => format!("{program} {command} failed"),
        "exec" => "exec failed".to_owned(),
        _ => return failure.to_string(),
    };
    match failure {
        Failure::Runtime(error @ wherry_runtime::Error::Spec { .. }) => {
            format!("{prefix}: unable to start container process: invalid configuration: {error}")
        }
        Failure::Runtime(error @ wherry_runtime::Error::Mount { .. }) => {
            format!("{prefix}: unable to start container process: error during container init: {error}")
        }
        Failure::Runtime(error) => format!("{prefix}: unable to start container process: {error}"),
        failure => format!("{prefix}: {failure}"),
    }
}
