//! The monitor of one container: parent of its init and of its execs, and owner of their standard I/O,
//! the log, exit codes, restart policy, health probe and attached clients, so that no running
//! container needs the engine.
//!
//! One process per container, one thread, one epoll loop, no async runtime: an idle monitor costs
//! almost nothing. It is started by the engine, which talks to it as `wherry_monitor_api` says, and
//! outlives it. It must not know Docker's HTTP API (the heads of responses that it writes
//! come from the engine), images, or networks. Its files are the container's log and `state.json`.
//!
//! The map: `process` makes the process what it must be; `monitor` is the state and the loop;
//! `control` is the engine's side, `client` a client's socket; `job` is a process with its standard I/O, `pump`
//! moves bytes between jobs and clients; `start`, `exit`, `exec` and `checkpoint` are the lives of processes;
//! `attach`, `wait` and `logs` are the kinds of clients; `ship` sends the log to a server;
//! `restart`, `health`, `journal` what their names say.

mod attach;
mod checkpoint;
mod client;
mod control;
mod dispatch;
mod exec;
mod exit;
mod external;
mod health;
mod job;
mod journal;
mod keys;
mod launch;
mod logs;
mod memory;
mod monitor;
mod outbox;
mod poll;
mod probe;
mod process;
mod pump;
mod restart;
mod ship;
mod signal;
mod start;
mod timers;
mod wait;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (Some(container), None) = (arguments.next(), arguments.next()) else {
        process::say("", "usage: wherry-monitor CONTAINER_ID (wherryd starts it, with two sockets)");
        return ExitCode::from(2);
    };
    let sockets = match process::set_up() {
        Ok(sockets) => sockets,
        Err(error) => {
            process::say(&container, &format!("cannot set up the process: {error}"));
            return ExitCode::FAILURE;
        }
    };
    match monitor::Monitor::new(container.clone(), sockets).and_then(|mut monitor| monitor.run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            process::say(&container, &format!("the event loop failed: {error}"));
            ExitCode::FAILURE
        }
    }
}
