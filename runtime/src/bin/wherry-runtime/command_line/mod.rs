//! The command line: from words to a [`Command`].

pub(crate) mod catalogue;
mod criu;
pub(crate) mod flags;
mod help;

use std::ffi::OsString;
use std::path::PathBuf;

use catalogue::{CommandText, Count, GLOBAL};
pub(crate) use criu::CriuFlags;
use flags::{Given, Misuse, Order};

use crate::failure::Failure;
use crate::version;

/// What is said before the command.
#[derive(Debug, Default)]
pub(crate) struct Global {
    pub(crate) root: PathBuf,
    pub(crate) log: Option<PathBuf>,
    pub(crate) log_json: bool,
    pub(crate) debug: bool,
    pub(crate) systemd_cgroup: bool,
}

/// A whole command line.
#[derive(Debug)]
pub(crate) struct Invocation {
    pub(crate) global: Global,
    pub(crate) command: Command,
}

/// What `create`, `run`, `restore` and `exec` have in common.
#[derive(Debug, Default)]
pub(crate) struct ProcessOptions {
    pub(crate) pid_file: Option<PathBuf>,
    pub(crate) console_socket: Option<PathBuf>,
    pub(crate) pidfd_socket: Option<PathBuf>,
    pub(crate) preserve_fds: u32,
    pub(crate) detach: bool,
}

/// `create` and `run`.
#[derive(Debug, Default)]
pub(crate) struct LaunchOptions {
    pub(crate) id: String,
    pub(crate) bundle: Option<PathBuf>,
    pub(crate) process: ProcessOptions,
    pub(crate) keep: bool,
    pub(crate) no_pivot: bool,
    pub(crate) no_new_keyring: bool,
}

/// `exec`.
#[derive(Debug, Default)]
pub(crate) struct ExecOptions {
    pub(crate) id: String,
    pub(crate) args: Vec<String>,
    pub(crate) process_file: Option<PathBuf>,
    pub(crate) process: ProcessOptions,
    pub(crate) cwd: Option<String>,
    pub(crate) env: Vec<String>,
    pub(crate) tty: bool,
    pub(crate) user: Option<String>,
    pub(crate) additional_gids: Vec<u32>,
    pub(crate) label: Option<String>,
    pub(crate) apparmor: Option<String>,
    pub(crate) no_new_privileges: Option<bool>,
    pub(crate) capabilities: Vec<String>,
    pub(crate) cgroups: Vec<String>,
    pub(crate) ignore_paused: bool,
}

/// The command.
#[derive(Debug)]
pub(crate) enum Command {
    Help(String),
    Version,
    Create(LaunchOptions),
    Run(LaunchOptions),
    Start { id: String },
    State { id: String },
    List { json: bool, quiet: bool },
    Ps { id: String, json: bool, options: Vec<String> },
    Kill { id: String, signal: String, all: bool },
    Delete { id: String, force: bool, regex: bool },
    Exec(Box<ExecOptions>),
    Pause { id: String },
    Resume { id: String },
    Update { id: String, resources: Option<PathBuf>, limits: Vec<(&'static str, String)> },
    Events { id: String, stats: bool, interval_ms: i64 },
    Spec { bundle: Option<PathBuf>, rootless: bool },
    Features,
    Checkpoint { id: String, flags: Box<CriuFlags> },
    Restore { options: LaunchOptions, flags: Box<CriuFlags> },
}

impl Command {
    /// Its name, for messages.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Command::Help(_) => "help",
            Command::Version => "version",
            Command::Create(_) => "create",
            Command::Run(_) => "run",
            Command::Start { .. } => "start",
            Command::State { .. } => "state",
            Command::List { .. } => "list",
            Command::Ps { .. } => "ps",
            Command::Kill { .. } => "kill",
            Command::Delete { .. } => "delete",
            Command::Exec(_) => "exec",
            Command::Pause { .. } => "pause",
            Command::Resume { .. } => "resume",
            Command::Update { .. } => "update",
            Command::Events { .. } => "events",
            Command::Spec { .. } => "spec",
            Command::Features => "features",
            Command::Checkpoint { .. } => "checkpoint",
            Command::Restore { .. } => "restore",
        }
    }
}

/// Parses a command line; `program` is the name by which it was called.
pub(crate) fn parse(program: &str, args: impl IntoIterator<Item = OsString>) -> Result<Invocation, Failure> {
    let misuse = |Misuse(reason)| Failure::Misuse {
        heading: format!("Incorrect Usage. {reason}"),
        help: help::program(program, version::NUMBER),
        reason,
    };
    // options before the command; those after it are the command's
    let mut args = args.into_iter();
    let before = flags::read(&with_version(), Order::First, args.by_ref()).map_err(misuse)?;
    let global = global(&before)?;
    if before.switch("version") {
        return Ok(Invocation { global, command: Command::Version });
    }
    let mut words = before.arguments.into_iter();
    let name = words.next().filter(|_| !before.help);
    let Some(name) = name else {
        let command = Command::Help(help::program(program, version::NUMBER));
        return Ok(Invocation { global, command });
    };
    let words: Vec<OsString> = words.map(OsString::from).collect();
    Ok(Invocation { global, command: command(program, &name, words)? })
}

fn with_version() -> Vec<flags::Flag> {
    let mut all = GLOBAL.to_vec();
    let version = flags::Flag {
        name: "version",
        short: Some("v"),
        kind: flags::Kind::Switch,
        usage: "",
        default: None,
    };
    all.push(version);
    all
}

fn global(given: &Given) -> Result<Global, Failure> {
    let root = match given.text("root") {
        Some(root) => absolute(PathBuf::from(root))?,
        None => default_root(),
    };
    if root == std::path::Path::new("/") {
        return Err(Failure::Arguments("Option --root argument should not be set to /"));
    }
    let log_json = match given.text("log-format").as_deref() {
        None | Some("text") => false,
        Some("json") => true,
        Some(other) => return Err(Failure::LogFormat(other.to_owned())),
    };
    check_rootless(given)?;
    Ok(Global {
        root,
        log: given.text("log").map(PathBuf::from),
        log_json,
        debug: given.switch("debug"),
        systemd_cgroup: given.switch("systemd-cgroup"),
    })
}

/// The library finds out by itself whether the caller lacks the host root's privileges, and then does without cgroups where
/// it may not make them. Who wants it otherwise is told.
fn check_rootless(given: &Given) -> Result<(), Failure> {
    let root = rustix::process::geteuid().is_root();
    match given.text("rootless").as_deref() {
        None | Some("auto") => Ok(()),
        Some("true" | "1" | "t" | "T" | "TRUE" | "True") if !root => Ok(()),
        Some("true" | "1" | "t" | "T" | "TRUE" | "True") => {
            Err(Failure::NotSupported("--rootless=true for root"))
        }
        Some("false" | "0" | "f" | "F" | "FALSE" | "False") if root => Ok(()),
        Some("false" | "0" | "f" | "F" | "FALSE" | "False") => {
            Err(Failure::NotSupported("--rootless=false without privileges"))
        }
        Some(other) => Err(Failure::InvalidValue { option: "rootless", value: other.to_owned() }),
    }
}

/// Without a root of his own, a user's containers are kept where the session's other files are.
fn default_root() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(folder) if !folder.is_empty() && !rustix::process::geteuid().is_root() => {
            PathBuf::from(folder).join("wherry-runtime")
        }
        _ => PathBuf::from("/run/wherry-runtime"),
    }
}

fn absolute(path: PathBuf) -> Result<PathBuf, Failure> {
    std::path::absolute(&path).map_err(Failure::file("resolve", path))
}

fn command(program: &str, name: &str, words: Vec<OsString>) -> Result<Command, Failure> {
    if matches!(name, "help" | "h") {
        let text = match words.first().and_then(|word| word.to_str()) {
            None => help::program(program, version::NUMBER),
            Some(name) => help::command(program, catalogue::find(name).ok_or_else(|| unknown(name))?),
        };
        return Ok(Command::Help(text));
    }
    let text = catalogue::find(name).ok_or_else(|| unknown(name))?;
    let misuse = |heading, reason| Failure::Misuse { heading, help: help::command(program, text), reason };
    let given = flags::read(text.flags, text.order, words)
        .map_err(|Misuse(reason)| misuse(format!("Incorrect Usage: {reason}"), reason))?;
    if given.help {
        return Ok(Command::Help(help::command(program, text)));
    }
    check_count(program, text, given.arguments.len())
        .map_err(|reason| misuse("Incorrect Usage.".to_owned(), reason))?;
    typed(text.name, given)
}

fn unknown(name: &str) -> Failure {
    Failure::NoSuchCommand(name.to_owned())
}

fn check_count(program: &str, text: &CommandText, count: usize) -> Result<(), String> {
    let requires = |what: &str, number: usize| {
        Err(format!("{program}: {:?} requires {what} {number} argument(s)", text.name))
    };
    match text.count {
        Count::Exactly(n) if count != n => requires("exactly", n),
        Count::AtLeast(n) | Count::Between(n, _) if count < n => requires("a minimum of", n),
        Count::Between(_, n) if count > n => requires("a maximum of", n),
        _ => Ok(()),
    }
}

fn typed(name: &'static str, given: Given) -> Result<Command, Failure> {
    let mut words = given.arguments.iter().cloned();
    let id = words.next().unwrap_or_default();
    Ok(match name {
        "create" => Command::Create(launch(&given, id)?),
        "run" => Command::Run(launch(&given, id)?),
        "start" => Command::Start { id },
        "state" => Command::State { id },
        "pause" => Command::Pause { id },
        "resume" => Command::Resume { id },
        "list" => Command::List { json: json(&given)?, quiet: given.switch("quiet") },
        "ps" => Command::Ps { id, json: json(&given)?, options: words.collect() },
        "kill" => {
            let signal =
                words.next().filter(|signal| !signal.is_empty()).unwrap_or_else(|| "TERM".to_owned());
            let signal = signal.trim_start_matches('-').to_owned();
            Command::Kill { id, signal, all: given.switch("all") }
        }
        "delete" => Command::Delete { id, force: given.switch("force"), regex: given.switch("regex") },
        "exec" => Command::Exec(Box::new(exec(&given, id, words.collect())?)),
        "update" => update(&given, id)?,
        "events" => events(&given, id),
        "spec" => Command::Spec { bundle: path(&given, "bundle"), rootless: given.switch("rootless") },
        "features" => Command::Features,
        "checkpoint" => Command::Checkpoint { id, flags: Box::new(criu::criu(&given)?) },
        "restore" => Command::Restore { options: launch(&given, id)?, flags: Box::new(criu::criu(&given)?) },
        other => return Err(unknown(other)),
    })
}

fn path(given: &Given, name: &str) -> Option<PathBuf> {
    given.text(name).map(PathBuf::from)
}

fn json(given: &Given) -> Result<bool, Failure> {
    match given.text("format").as_deref() {
        None | Some("table") => Ok(false),
        Some("json") => Ok(true),
        Some(_) => Err(Failure::Arguments("invalid format option")),
    }
}

fn process(given: &Given) -> Result<ProcessOptions, Failure> {
    let count = given.number("preserve-fds");
    let preserve_fds = u32::try_from(count)
        .map_err(|_| Failure::InvalidValue { option: "preserve-fds", value: count.to_string() })?;
    Ok(ProcessOptions {
        pid_file: path(given, "pid-file").map(absolute).transpose()?,
        console_socket: path(given, "console-socket"),
        pidfd_socket: path(given, "pidfd-socket"),
        preserve_fds,
        detach: given.switch("detach"),
    })
}

fn launch(given: &Given, id: String) -> Result<LaunchOptions, Failure> {
    Ok(LaunchOptions {
        id,
        bundle: path(given, "bundle"),
        process: process(given)?,
        keep: given.switch("keep"),
        no_pivot: given.switch("no-pivot"),
        no_new_keyring: given.switch("no-new-keyring"),
    })
}

fn exec(given: &Given, id: String, args: Vec<String>) -> Result<ExecOptions, Failure> {
    let gid = |gid: String| {
        gid.parse().map_err(|_| Failure::InvalidValue { option: "additional-gids", value: gid.clone() })
    };
    Ok(ExecOptions {
        id,
        args,
        process_file: path(given, "process"),
        process: process(given)?,
        cwd: given.text("cwd"),
        env: given.texts("env"),
        tty: given.switch("tty"),
        user: given.text("user"),
        additional_gids: given.texts("additional-gids").into_iter().map(gid).collect::<Result<_, _>>()?,
        label: given.text("process-label"),
        apparmor: given.text("apparmor"),
        no_new_privileges: given.has("no-new-privs").then(|| given.switch("no-new-privs")),
        capabilities: given.texts("cap"),
        cgroups: given.texts("cgroup"),
        ignore_paused: given.switch("ignore-paused"),
    })
}

/// The options of `update` that are limits.
const LIMITS: [&str; 14] = [
    "blkio-weight",
    "cpu-burst",
    "cpu-idle",
    "cpu-period",
    "cpu-quota",
    "cpu-rt-period",
    "cpu-rt-runtime",
    "cpu-share",
    "cpuset-cpus",
    "cpuset-mems",
    "memory",
    "memory-reservation",
    "memory-swap",
    "pids-limit",
];

fn update(given: &Given, id: String) -> Result<Command, Failure> {
    for schema in ["l3-cache-schema", "mem-bw-schema"] {
        if given.has(schema) {
            return Err(Failure::NotSupported("Intel RDT"));
        }
    }
    let limits = LIMITS.into_iter().filter_map(|name| Some((name, given.text(name)?))).collect();
    Ok(Command::Update { id, resources: path(given, "resources"), limits })
}

fn events(given: &Given, id: String) -> Command {
    let interval_ms = given.text("interval").as_deref().and_then(flags::duration_ms).unwrap_or(5000);
    Command::Events { id, stats: given.switch("stats"), interval_ms }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(args: &[&str]) -> Result<Invocation, Failure> {
        parse("runtime", args.iter().map(OsString::from))
    }

    #[test]
    fn exec_leaves_the_programs_options_alone() {
        let command = of(&["exec", "-t", "-e", "A=1", "box", "ls", "-l", "--", "x"]).unwrap().command;
        let Command::Exec(options) = command else { panic!("not exec") };
        assert!(options.tty);
        assert_eq!((options.id.as_str(), options.env.len()), ("box", 1));
        assert_eq!(options.args, ["ls", "-l", "--", "x"]);
    }

    #[test]
    fn signals_may_look_like_options() {
        for args in [["kill", "box", "-9"], ["kill", "box", "9"]] {
            let command = of(&args).unwrap().command;
            assert!(matches!(command, Command::Kill { signal, all: false, .. } if signal == "9"));
        }
        let command = of(&["kill", "--all", "box"]).unwrap().command;
        assert!(matches!(command, Command::Kill { signal, all: true, .. } if signal == "TERM"));
    }

    #[test]
    fn global_options_come_first() {
        let all = of(&["--root", "/r", "--log-format=json", "--debug", "state", "x"]).unwrap();
        assert!(all.global.log_json && all.global.debug);
        assert_eq!(all.global.root, PathBuf::from("/r"));
        for bad in [
            &["state"][..],
            &["state", "a", "b"],
            &["kill", "a", "b", "c"],
            &["nope"],
            &["--log-format", "xml", "list"],
            &["--root", "/", "list"],
            &["run", "--nope", "x"],
            &["run", "--preserve-fds", "-1", "x"],
        ] {
            assert!(of(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn every_command_has_its_help() {
        for command in &catalogue::COMMANDS {
            let help = of(&[command.name, "-h"]).unwrap().command;
            assert!(matches!(help, Command::Help(text) if text.contains(command.usage)));
        }
    }
}
