//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::{Arg, Parser, ValueExt};

use crate::failure::Failure;

/// What is said before the command.
#[derive(Debug, Default)]
pub(crate) struct Global {
    pub(crate) root: PathBuf,
    pub(crate) log: Option<PathBuf>,
    pub(crate) log_json: bool,
    pub(crate) systemd_cgroup: bool,
}

/// A whole command line.
#[derive(Debug)]
pub(crate) struct Invocation {
    pub(crate) global: Global,
    pub(crate) command: Command,
}

/// What `create`, `run` and `exec` have in common.
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
    pub(crate) no_new_privileges: bool,
    pub(crate) capabilities: Vec<String>,
    pub(crate) ignore_paused: bool,
}

/// The command.
#[derive(Debug)]
pub(crate) enum Command {
    Help,
    Version,
    Create(LaunchOptions),
    Run(LaunchOptions),
    Start { id: String },
    State { id: String },
    List { json: bool, quiet: bool },
    Ps { id: String, json: bool, options: Vec<String> },
    Kill { id: String, signal: String, all: bool },
    Delete { id: String, force: bool },
    Exec(Box<ExecOptions>),
    Pause { id: String },
    Resume { id: String },
    Update { id: String, resources: Option<PathBuf>, limits: Vec<(&'static str, String)> },
    Events { id: String, stats: bool, interval_s: u64 },
    Spec { bundle: Option<PathBuf>, rootless: bool },
    Features,
    NotSupported(&'static str),
}

impl Command {
    /// Its name, for messages.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Command::Help => "help",
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
            Command::NotSupported(name) => name,
        }
    }
}

/// The options of `update` that are limits; the names are also those of the help.
pub(crate) const LIMITS: [&str; 14] = [
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

/// Parses a command line.
pub(crate) fn parse(mut parser: Parser) -> Result<Invocation, Failure> {
    let mut global = Global { root: PathBuf::from("/run/wherry-runtime"), ..Global::default() };
    let command = loop {
        match parser.next()? {
            Some(Arg::Long("root")) => global.root = parser.value()?.into(),
            Some(Arg::Long("log")) => global.log = Some(parser.value()?.into()),
            Some(Arg::Long("log-format")) => {
                global.log_json = json_or(parser.value()?, "log-format", "text")?
            }
            Some(Arg::Long("debug")) => flag(&mut parser),
            Some(Arg::Long("systemd-cgroup")) => {
                flag(&mut parser);
                global.systemd_cgroup = true;
            }
            Some(Arg::Long("rootless")) => drop(parser.value()?),
            Some(Arg::Long("help") | Arg::Short('h')) | None => break Command::Help,
            Some(Arg::Long("version") | Arg::Short('v')) => break Command::Version,
            Some(Arg::Value(name)) => break command(&name.string()?, &mut parser)?,
            Some(other) => return Err(other.unexpected().into()),
        }
    };
    Ok(Invocation { global, command })
}

/// `--flag=true`, as Go's flags allow it.
fn flag(parser: &mut Parser) {
    let _ = parser.optional_value();
}

fn json_or(value: OsString, option: &'static str, other: &str) -> Result<bool, Failure> {
    let value = value.string()?;
    match value.as_str() {
        "json" => Ok(true),
        text if text == other => Ok(false),
        _ => Err(Failure::InvalidValue { option, value }),
    }
}

fn command(name: &str, parser: &mut Parser) -> Result<Command, Failure> {
    Ok(match name {
        "help" | "h" => Command::Help,
        "create" => Command::Create(launch(parser, false)?),
        "run" => Command::Run(launch(parser, true)?),
        "start" => Command::Start { id: only_id(parser)? },
        "state" => Command::State { id: only_id(parser)? },
        "pause" => Command::Pause { id: only_id(parser)? },
        "resume" => Command::Resume { id: only_id(parser)? },
        "list" => list(parser)?,
        "ps" => ps(parser)?,
        "kill" => kill(parser)?,
        "delete" => delete(parser)?,
        "exec" => Command::Exec(Box::new(exec(parser)?)),
        "update" => update(parser)?,
        "events" => events(parser)?,
        "spec" => spec(parser)?,
        "features" => Command::Features,
        "checkpoint" => Command::NotSupported("checkpoint"),
        "restore" => Command::NotSupported("restore"),
        other => return Err(Failure::NoSuchCommand(other.to_owned())),
    })
}

const NO_ID: Failure = Failure::Arguments("a container id is required");

fn take_id(id: &mut Option<String>, value: OsString) -> Result<(), Failure> {
    if id.is_some() {
        return Err(Failure::Arguments("there is more than one container id"));
    }
    *id = Some(value.string()?);
    Ok(())
}

fn only_id(parser: &mut Parser) -> Result<String, Failure> {
    let mut id = None;
    while let Some(arg) = parser.next()? {
        match arg {
            Arg::Value(value) => take_id(&mut id, value)?,
            other => return Err(other.unexpected().into()),
        }
    }
    id.ok_or(NO_ID)
}

/// An option of those that make a process. Says whether it was one.
fn process_option(arg: &Arg<'_>) -> Option<&'static str> {
    match arg {
        Arg::Long("pid-file") => Some("pid-file"),
        Arg::Long("console-socket") => Some("console-socket"),
        Arg::Long("pidfd-socket") => Some("pidfd-socket"),
        Arg::Long("preserve-fds") => Some("preserve-fds"),
        Arg::Long("detach") | Arg::Short('d') => Some("detach"),
        _ => None,
    }
}

fn set_process_option(options: &mut ProcessOptions, name: &str, parser: &mut Parser) -> Result<(), Failure> {
    match name {
        "pid-file" => options.pid_file = Some(parser.value()?.into()),
        "console-socket" => options.console_socket = Some(parser.value()?.into()),
        "pidfd-socket" => options.pidfd_socket = Some(parser.value()?.into()),
        "preserve-fds" => options.preserve_fds = parser.value()?.parse()?,
        _ => {
            flag(parser);
            options.detach = true;
        }
    }
    Ok(())
}

fn launch(parser: &mut Parser, run: bool) -> Result<LaunchOptions, Failure> {
    let mut options = LaunchOptions::default();
    let mut id = None;
    while let Some(arg) = parser.next()? {
        if let Some(name) = process_option(&arg)
            && (run || name != "detach")
        {
            set_process_option(&mut options.process, name, parser)?;
            continue;
        }
        match arg {
            Arg::Long("bundle") | Arg::Short('b') => options.bundle = Some(parser.value()?.into()),
            Arg::Long("no-pivot") => return Err(Failure::NotSupported("--no-pivot")),
            Arg::Long("no-new-keyring") => {
                flag(parser);
                options.no_new_keyring = true;
            }
            // there is nobody to be reaped
            Arg::Long("no-subreaper") if run => flag(parser),
            Arg::Long("keep") if run => {
                flag(parser);
                options.keep = true;
            }
            Arg::Value(value) => take_id(&mut id, value)?,
            other => return Err(other.unexpected().into()),
        }
    }
    options.id = id.ok_or(NO_ID)?;
    Ok(options)
}

fn list(parser: &mut Parser) -> Result<Command, Failure> {
    let (mut json, mut quiet) = (false, false);
    while let Some(arg) = parser.next()? {
        match arg {
            Arg::Long("format") | Arg::Short('f') => json = json_or(parser.value()?, "format", "table")?,
            Arg::Long("quiet") | Arg::Short('q') => quiet = true,
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Command::List { json, quiet })
}

fn ps(parser: &mut Parser) -> Result<Command, Failure> {
    let mut json = false;
    while let Some(arg) = parser.next()? {
        match arg {
            Arg::Long("format") | Arg::Short('f') => json = json_or(parser.value()?, "format", "table")?,
            Arg::Value(id) => {
                let options = parser.raw_args()?.map(Lossless::string_lossless).collect::<Result<_, _>>()?;
                return Ok(Command::Ps { id: id.string()?, json, options });
            }
            other => return Err(other.unexpected().into()),
        }
    }
    Err(NO_ID)
}

/// lexopt's `string`, by value.
trait Lossless {
    fn string_lossless(self) -> Result<String, lexopt::Error>;
}

impl Lossless for OsString {
    fn string_lossless(self) -> Result<String, lexopt::Error> {
        self.string()
    }
}

fn kill(parser: &mut Parser) -> Result<Command, Failure> {
    let (mut id, mut signal, mut all) = (None, None, false);
    while let Some(arg) = parser.next()? {
        match arg {
            Arg::Long("all") | Arg::Short('a') => all = true,
            Arg::Value(value) if id.is_none() => {
                id = Some(value.string()?);
                // `-9` is a signal here, not an option
                if let Some(mut rest) = parser.try_raw_args()
                    && let Some(next) = rest.next()
                {
                    signal = Some(next.string()?);
                }
            }
            other => return Err(other.unexpected().into()),
        }
    }
    let signal = signal.map_or_else(|| "TERM".to_owned(), |s| s.trim_start_matches('-').to_owned());
    Ok(Command::Kill { id: id.ok_or(NO_ID)?, signal, all })
}

fn delete(parser: &mut Parser) -> Result<Command, Failure> {
    let (mut id, mut force) = (None, false);
    while let Some(arg) = parser.next()? {
        match arg {
            Arg::Long("force") | Arg::Short('f') => force = true,
            Arg::Value(value) => take_id(&mut id, value)?,
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Command::Delete { id: id.ok_or(NO_ID)?, force })
}

fn exec(parser: &mut Parser) -> Result<ExecOptions, Failure> {
    let mut options = ExecOptions::default();
    while let Some(arg) = parser.next()? {
        if let Some(name) = process_option(&arg) {
            set_process_option(&mut options.process, name, parser)?;
            continue;
        }
        match arg {
            Arg::Long("cwd") => options.cwd = Some(parser.value()?.string()?),
            Arg::Long("env") | Arg::Short('e') => options.env.push(parser.value()?.string()?),
            Arg::Long("tty") | Arg::Short('t') => {
                flag(parser);
                options.tty = true;
            }
            Arg::Long("user") | Arg::Short('u') => options.user = Some(parser.value()?.string()?),
            Arg::Long("additional-gids") | Arg::Short('g') => {
                options.additional_gids.push(parser.value()?.parse()?)
            }
            Arg::Long("process") | Arg::Short('p') => options.process_file = Some(parser.value()?.into()),
            Arg::Long("process-label") => options.label = Some(parser.value()?.string()?),
            Arg::Long("apparmor") => options.apparmor = Some(parser.value()?.string()?),
            Arg::Long("no-new-privs") => {
                flag(parser);
                options.no_new_privileges = true;
            }
            Arg::Long("cap") | Arg::Short('c') => options.capabilities.push(parser.value()?.string()?),
            Arg::Long("cgroup") => return Err(Failure::NotSupported("--cgroup")),
            Arg::Long("ignore-paused") => {
                flag(parser);
                options.ignore_paused = true;
            }
            Arg::Value(id) => {
                options.id = id.string()?;
                // what follows is the program's, options included
                options.args = parser.raw_args()?.map(Lossless::string_lossless).collect::<Result<_, _>>()?;
                return Ok(options);
            }
            other => return Err(other.unexpected().into()),
        }
    }
    Err(NO_ID)
}

fn update(parser: &mut Parser) -> Result<Command, Failure> {
    let (mut id, mut resources, mut limits) = (None, None, Vec::new());
    while let Some(arg) = parser.next()? {
        match arg {
            Arg::Long("resources") | Arg::Short('r') => resources = Some(parser.value()?.into()),
            Arg::Long(name) => match LIMITS.iter().find(|limit| **limit == name) {
                Some(limit) => limits.push((*limit, parser.value()?.string()?)),
                None => return Err(Arg::Long(name).unexpected().into()),
            },
            Arg::Value(value) => take_id(&mut id, value)?,
            other @ Arg::Short(_) => return Err(other.unexpected().into()),
        }
    }
    Ok(Command::Update { id: id.ok_or(NO_ID)?, resources, limits })
}

fn events(parser: &mut Parser) -> Result<Command, Failure> {
    let (mut id, mut stats, mut interval_s) = (None, false, 5);
    while let Some(arg) = parser.next()? {
        match arg {
            Arg::Long("stats") => stats = true,
            Arg::Long("interval") => {
                let value = parser.value()?.string()?;
                let seconds = value.trim_end_matches('s').parse().ok().filter(|s| *s > 0);
                interval_s = seconds.ok_or(Failure::InvalidValue { option: "interval", value })?;
            }
            Arg::Value(value) => take_id(&mut id, value)?,
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Command::Events { id: id.ok_or(NO_ID)?, stats, interval_s })
}

fn spec(parser: &mut Parser) -> Result<Command, Failure> {
    let (mut bundle, mut rootless) = (None, false);
    while let Some(arg) = parser.next()? {
        match arg {
            Arg::Long("bundle") | Arg::Short('b') => bundle = Some(parser.value()?.into()),
            Arg::Long("rootless") => rootless = true,
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Command::Spec { bundle, rootless })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command_of(args: &[&str]) -> Command {
        parse(Parser::from_args(args)).unwrap().command
    }

    #[test]
    fn exec_leaves_the_programs_options_alone() {
        let Command::Exec(options) = command_of(&["exec", "-t", "-e", "A=1", "box", "ls", "-l", "--", "x"])
        else {
            panic!("not exec")
        };
        assert!(options.tty);
        assert_eq!((options.id.as_str(), options.env.len()), ("box", 1));
        assert_eq!(options.args, ["ls", "-l", "--", "x"]);
    }

    #[test]
    fn signals_may_look_like_options() {
        for args in [["kill", "box", "-9"], ["kill", "box", "9"]] {
            assert!(matches!(command_of(&args), Command::Kill { signal, all: false, .. } if signal == "9"));
        }
        assert!(
            matches!(command_of(&["kill", "--all", "box"]), Command::Kill { signal, all: true, .. } if signal == "TERM")
        );
    }

    #[test]
    fn global_options_come_first() {
        let all =
            parse(Parser::from_args(["--root", "/r", "--log-format=json", "--debug", "state", "x"])).unwrap();
        assert!(all.global.log_json);
        assert_eq!(all.global.root, PathBuf::from("/r"));
        for bad in [
            &["state"][..],
            &["state", "a", "b"],
            &["nope"],
            &["--log-format", "xml"],
            &["run", "--no-pivot", "x"],
        ] {
            assert!(parse(Parser::from_args(bad)).is_err(), "{bad:?}");
        }
    }
}
