//! Which command does what.

use crate::command_line::Command;
use crate::failure::Failure;
use crate::store::Store;
use crate::{
    Session, checkpoint, control, default_spec, events, exec, features, launch, query, update, version,
};

/// Runs a command; gives the exit code.
pub(crate) fn run(session: &Session, command: Command) -> Result<u8, Failure> {
    let store = |id: &str| Store::new(&session.global.root, id);
    match command {
        Command::Help(text) => print(&text),
        Command::Version => print(&version::text(&session.program)),
        Command::Create(options) => return launch::create(session, &options),
        Command::Run(options) => return launch::run(session, &options),
        Command::Exec(options) => return exec::exec(session, &options),
        Command::Start { id } => control::start(session, &store(&id)?),
        Command::State { id } => query::state(&store(&id)?),
        Command::List { json, quiet } => query::list(&session.global.root, json, quiet),
        Command::Ps { id, json, options } => query::ps(&store(&id)?, json, &options),
        Command::Kill { id, signal, all } => control::kill(&store(&id)?, &signal, all),
        Command::Delete { id, force, regex: false } => control::delete(session, &store(&id)?, &id, force),
        Command::Delete { id, force, regex: true } => control::delete_all(session, &id, force),
        Command::Pause { id } => control::pause(&store(&id)?),
        Command::Resume { id } => control::resume(&store(&id)?),
        Command::Update { id, resources, limits } => {
            update::update(&session.log, &store(&id)?, resources.as_deref(), &limits)
        }
        Command::Events { id, stats, interval_ms } => events::events(&store(&id)?, &id, stats, interval_ms),
        Command::Spec { bundle, rootless } => default_spec::write(bundle.as_deref(), rootless),
        Command::Features => features::show(),
        Command::Checkpoint { id, flags } => checkpoint::checkpoint(session, &store(&id)?, &flags),
        Command::Restore { options, flags } => return launch::restore(session, &options, &flags),
    }?;
    Ok(0)
}

/// Writes to standard output.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    use std::io::Write;
    std::io::stdout().write_all(text.as_bytes()).map_err(Failure::file("write", "standard output"))
}
