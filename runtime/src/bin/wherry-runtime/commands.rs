//! Which command does what.

use crate::arguments::{Command, Global, LIMITS};
use crate::failure::Failure;
use crate::store::Store;
use crate::{control, default_spec, events, exec, features, launch, query, update};

/// Runs a command; gives the exit code.
pub(crate) fn run(global: &Global, command: Command) -> Result<u8, Failure> {
    let store = |id: &str| Store::new(&global.root, id);
    match command {
        Command::Help => print(&help()),
        Command::Version => print(&format!(
            "wherry-runtime version {}\nspec: {}\n",
            env!("CARGO_PKG_VERSION"),
            query::OCI_VERSION
        )),
        Command::Create(options) => return launch::create(global, &options),
        Command::Run(options) => return launch::run(global, &options),
        Command::Exec(options) => return exec::exec(global, &options),
        Command::Start { id } => control::start(&store(&id)?),
        Command::State { id } => query::state(&store(&id)?),
        Command::List { json, quiet } => query::list(&global.root, json, quiet),
        Command::Ps { id, json, options } => query::ps(&store(&id)?, json, &options),
        Command::Kill { id, signal, all } => control::kill(&store(&id)?, &signal, all),
        Command::Delete { id, force } => control::delete(&store(&id)?, &id, force),
        Command::Pause { id } => control::pause(&store(&id)?),
        Command::Resume { id } => control::resume(&store(&id)?),
        Command::Update { id, resources, limits } => {
            update::update(&store(&id)?, resources.as_deref(), &limits)
        }
        Command::Events { id, stats, interval_s } => events::events(&store(&id)?, &id, stats, interval_s),
        Command::Spec { bundle, rootless } => default_spec::write(bundle.as_deref(), rootless),
        Command::Features => features::show(),
        Command::NotSupported(what) => Err(Failure::NotSupported(what)),
    }?;
    Ok(0)
}

/// Writes to standard output.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    use std::io::Write;
    std::io::stdout().write_all(text.as_bytes()).map_err(Failure::file("write", "standard output"))
}

fn help() -> String {
    let limits = LIMITS.map(|limit| format!("[--{limit} N]")).join(" ");
    format!(
        "\
NAME:
   wherry-runtime - an OCI container runtime

USAGE:
   wherry-runtime [global options] command [command options] [arguments...]

COMMANDS:
   create   [-b BUNDLE] [--console-socket PATH] [--pid-file PATH] [--preserve-fds N] ID   make a container
   start    ID                                        let a created container run its program
   run      [-d] [--keep] [options of create] ID      make a container and run its program
   exec     [-t] [-d] [-u UID[:GID]] [-e VAR] [--cwd DIR] [-p PROCESS.JSON] ID COMMAND...   run a further program in it
   state    ID                                        show its state
   list     [-q] [-f table|json]                      list containers
   ps       [-f table|json] ID                        show its processes
   kill     [--all] ID [SIGNAL]                       send a signal (TERM) to its first process
   delete   [--force] ID                              remove it
   pause    ID                                        freeze its processes
   resume   ID                                        thaw them
   update   [-r FILE] {limits} ID
   events   [--stats] [--interval N] ID               show its counters
   spec     [-b BUNDLE]                               write a config.json to begin with
   features                                           show what this runtime can do

GLOBAL OPTIONS:
   --root DIR          where the containers' state is kept (default: /run/wherry-runtime)
   --log FILE          write errors there, too
   --log-format FORMAT text or json
   --systemd-cgroup    make cgroups through systemd
   --debug             accepted
   --help, -h
   --version, -v
"
    )
}
