//! `wherry-runtime`: the runtime library as a command, compatible with runc's command line.
//!
//! One command, one thread, then it ends. What it keeps of a container is in `--root`/ID/:
//! `state.json`, and `start.sock` until the container has been started.

mod arguments;
mod commands;
mod console;
mod control;
mod default_spec;
mod events;
mod exec;
mod failure;
mod features;
mod foreground;
mod launch;
mod log;
mod query;
mod signal_name;
mod store;
mod time;
mod update;

use std::process::ExitCode;

use arguments::{Invocation, parse};
use failure::Failure;

fn main() -> ExitCode {
    let invocation = match parse(lexopt::Parser::from_env()) {
        Ok(invocation) => invocation,
        Err(error) => {
            log::Log::default().error(&error.to_string());
            return ExitCode::from(1);
        }
    };
    let Invocation { global, command } = invocation;
    let log = log::Log::open(&global);
    let name = command.name();
    // as in runc: an exec that fails cannot be mistaken for a program's exit code
    let code_of_failure = if name == "exec" { 255 } else { 1 };
    match commands::run(&global, command) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            log.error(&describe(name, &failure));
            ExitCode::from(code_of_failure)
        }
    }
}

/// The message as runc words it: the commands that make processes say so.
fn describe(command: &str, failure: &Failure) -> String {
    match (command, failure) {
        ("create" | "run" | "exec", Failure::Runtime(error)) => {
            format!("{command} failed: unable to start container process: {error}")
        }
        ("create" | "run" | "exec", failure) => format!("{command} failed: {failure}"),
        (_, failure) => failure.to_string(),
    }
}
