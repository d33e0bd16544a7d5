//! What can go wrong, and where.

use std::fmt;
use std::io;

/// A failure of the library: which step, on what, and the system's answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `args[0]`, a bare name, is in none of the folders of the process's `PATH`.
    #[error("exec: {name:?}: executable file not found in $PATH")]
    ExecutableNotInPath {
        /// `args[0]`.
        name: String,
    },
    /// `args[0]`, which has a slash, does not exist in the container.
    #[error("exec: {name:?}: stat {name}: {}", Errno(*errno))]
    ExecutableMissing {
        /// `args[0]`.
        name: String,
        /// Why it could not be looked at (`ENOENT`, `ENOTDIR`, ...).
        errno: i32,
    },
    /// It exists but may not or cannot be executed (`EACCES`, `EISDIR`).
    #[error("exec: {name:?}: {}{}", Errno(*errno), if *errno == libc::EISDIR { ": permission denied" } else { "" })]
    NotExecutable {
        /// `args[0]`.
        name: String,
        /// Why.
        errno: i32,
    },
    /// `execve` itself failed (`ENOEXEC`: not a program for this machine; `ENOENT`: its interpreter is missing).
    #[error("exec {path}: {}", Errno(*errno))]
    Exec {
        /// The file.
        path: String,
        /// Why.
        errno: i32,
    },
    /// The working directory cannot be entered, or is not inside the container.
    #[error("chdir to cwd ({cwd:?}) set in config.json failed: {}", Errno(*errno))]
    BadCwd {
        /// `process.cwd`.
        cwd: String,
        /// Why.
        errno: i32,
    },
    /// The user, group or supplementary groups cannot be taken on.
    #[error("setup user: {subject}: {}", Errno(*errno))]
    BadUser {
        /// The id.
        subject: String,
        /// Why.
        errno: i32,
    },
    /// A mount of the specification failed. The words are those that Docker's users get, which some clients look for:
    /// runc's, and the hint about files and folders.
    #[error("error mounting {origin:?} to rootfs at {target:?}: {}: {}{}", mount_step(*step, origin, target), Errno(*errno), mount_hint(*errno))]
    Mount {
        /// What was to be mounted.
        origin: String,
        /// Where, in the container.
        target: String,
        /// At which step.
        step: Step,
        /// Why.
        errno: i32,
    },
    /// A step of making or entering the container failed.
    #[error("{step}{}{subject}: {}", if subject.is_empty() { "" } else { " " }, Errno(*errno))]
    Setup {
        /// The step.
        step: Step,
        /// On what: a path, a name, a number; may be empty.
        subject: String,
        /// The system's answer.
        errno: i32,
    },
    /// A step in the caller's own process failed.
    #[error("{action} {subject}: {source}")]
    System {
        /// What was tried, as a verb: `open`, `write`.
        action: &'static str,
        /// On what.
        subject: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The specification asks for something impossible or malformed.
    #[error("config.json: {field}: {reason}")]
    Spec {
        /// The field, like `linux.seccomp.syscalls`.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A `config.json`, or a part of one, cannot be read.
    #[error("{field}{}{reason}", if field.is_empty() { "" } else { ": " })]
    Malformed {
        /// The field, like `process.args[0]`; empty where it is not one field's fault.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The specification or the caller asks for something that this library does not do.
    #[error("{what} is not supported{}", if why.is_empty() { String::new() } else { format!(": {why}") })]
    Unsupported {
        /// The feature.
        what: String,
        /// Why, or what to do instead; may be empty.
        why: &'static str,
    },
    /// A process of an exec cannot enter the cgroup that it is meant for.
    #[error("error adding pid to cgroups: {reason}")]
    SubCgroup {
        /// Why.
        reason: String,
    },
    /// The container is not in a state in which this is possible.
    #[error("cannot {action} a container that is {status}")]
    State {
        /// What was asked.
        action: &'static str,
        /// In which state it is.
        status: crate::Status,
    },
    /// The container's id has characters that ids do not have.
    #[error(
        "invalid container ID format: {id:?} is no name or has an invalid character (there are letters, digits, `_`, `+`, `-` and `.`)"
    )]
    InvalidId {
        /// The id.
        id: String,
    },
    /// The child ended before it had executed the program, without a report (killed, out of memory).
    #[error("the container's init ended before it executed the program")]
    InitDied,
    /// A limit cannot be set on this host: its controller or its file is missing, or it does not fit to the others.
    #[error("{field}: {reason}")]
    Limit {
        /// The field, like `linux.resources.memory.limit`.
        field: String,
        /// What is missing or wrong.
        reason: String,
    },
    /// systemd, which the caller wants to make the cgroups, cannot be asked or refuses.
    #[error("{action} {unit}: {reason}")]
    Systemd {
        /// What was asked: `start`, `stop`, `set limits of`, ...
        action: &'static str,
        /// The unit's name.
        unit: String,
        /// systemd's answer, or why there is none.
        reason: String,
    },
    /// criu could not write or bring back processes.
    #[error("{reason}")]
    Criu {
        /// What criu said, and where its log is.
        reason: String,
    },
    /// A hook failed.
    #[error("error running {name} hook #{index}: {reason}")]
    Hook {
        /// `prestart`, `createRuntime`, ...
        name: &'static str,
        /// Its position in the list, from 0.
        index: usize,
        /// `exit status 1`, `timeout`, ...
        reason: String,
    },
}

/// Kinds of failure that a caller may want to treat differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The program was not found (exit code 127 in Docker).
    NotFound,
    /// The program may not or cannot be executed (126).
    NotExecutable,
    /// Working directory or user are not usable.
    BadProcess,
    /// The container's state does not allow it.
    State,
    /// The specification is at fault.
    Spec,
    /// Anything else.
    System,
}

impl Error {
    /// The kind of failure.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::ExecutableNotInPath { .. } => ErrorKind::NotFound,
            Error::ExecutableMissing { errno, .. } if *errno == libc::EACCES => ErrorKind::NotExecutable,
            Error::ExecutableMissing { .. } => ErrorKind::NotFound,
            Error::Exec { errno, .. } if *errno == libc::ENOENT => ErrorKind::NotFound,
            Error::NotExecutable { .. } | Error::Exec { .. } => ErrorKind::NotExecutable,
            Error::BadCwd { .. } | Error::BadUser { .. } => ErrorKind::BadProcess,
            Error::State { .. } => ErrorKind::State,
            Error::SubCgroup { .. } => ErrorKind::BadProcess,
            Error::Spec { .. }
            | Error::Malformed { .. }
            | Error::Limit { .. }
            | Error::InvalidId { .. }
            | Error::Unsupported { .. } => ErrorKind::Spec,
            Error::Mount { .. }
            | Error::Setup { .. }
            | Error::System { .. }
            | Error::InitDied
            | Error::Systemd { .. }
            | Error::Criu { .. }
            | Error::Hook { .. } => ErrorKind::System,
        }
    }

    /// The system's error number, where a system call failed.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Error::ExecutableMissing { errno, .. }
            | Error::NotExecutable { errno, .. }
            | Error::Exec { errno, .. }
            | Error::BadCwd { errno, .. }
            | Error::BadUser { errno, .. }
            | Error::Mount { errno, .. }
            | Error::Setup { errno, .. } => Some(*errno),
            Error::System { source, .. } => source.raw_os_error(),
            Error::ExecutableNotInPath { .. }
            | Error::Spec { .. }
            | Error::Malformed { .. }
            | Error::Limit { .. }
            | Error::InvalidId { .. }
            | Error::Unsupported { .. }
            | Error::State { .. }
            | Error::SubCgroup { .. }
            | Error::InitDied
            | Error::Systemd { .. }
            | Error::Criu { .. }
            | Error::Hook { .. } => None,
        }
    }

    /// What a child reported: a step, how it failed, on what, and what a hook has said.
    pub(crate) fn from_report(step: Step, errno: i32, subject: String, said: &str) -> Self {
        match step {
            Step::FindExecutable => Error::ExecutableNotInPath { name: subject },
            Step::StatExecutable => Error::ExecutableMissing { name: subject, errno },
            Step::CheckExecutable => Error::NotExecutable { name: subject, errno },
            Step::Exec => Error::Exec { path: subject, errno },
            Step::Cwd => Error::BadCwd { cwd: subject, errno },
            Step::User | Step::Groups => Error::BadUser { subject, errno },
            Step::Hook if errno == libc::ETIMEDOUT => Error::hook(&subject, "timed out".to_owned()),
            Step::Hook => Error::hook(&subject, Errno(errno).to_string()),
            Step::HookFailed => Error::hook(&subject, hook_ended(Some(errno), None, said)),
            Step::HookKilled => Error::hook(&subject, hook_ended(None, Some(errno), said)),
            step => Error::Setup { step, subject, errno },
        }
    }

    /// A failed hook, by the label that a child knows it by.
    fn hook(label: &str, reason: String) -> Self {
        let (name, index) = label.split_once(' ').unwrap_or((label, ""));
        let name = if name == "startContainer" { "startContainer" } else { "createContainer" };
        Error::Hook { name, index: index.parse().unwrap_or(0), reason }
    }

    /// A failed step in the caller's own process.
    pub(crate) fn system(
        action: &'static str,
        subject: impl fmt::Display,
        source: impl Into<io::Error>,
    ) -> Self {
        Error::System { action, subject: subject.to_string(), source: source.into() }
    }

    /// A fault of the specification.
    pub(crate) fn spec(field: &'static str, reason: impl Into<String>) -> Self {
        Error::Spec { field, reason: reason.into() }
    }
}

/// How a hook has ended, and what it has said, as runc tells it.
pub(crate) fn hook_ended(code: Option<i32>, signal: Option<i32>, said: &str) -> String {
    let end = match (code, signal) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal: {}", Signal(signal)),
        (None, None) => "an unknown end".to_owned(),
    };
    let said = said.trim();
    if said.is_empty() { end } else { format!("{end}, stdout and stderr: {said}") }
}

/// A signal in the words of Go programs.
struct Signal(i32);

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            libc::SIGHUP => "hangup",
            libc::SIGINT => "interrupt",
            libc::SIGQUIT => "quit",
            libc::SIGILL => "illegal instruction",
            libc::SIGTRAP => "trace/breakpoint trap",
            libc::SIGABRT => "aborted",
            libc::SIGBUS => "bus error",
            libc::SIGFPE => "floating point exception",
            libc::SIGKILL => "killed",
            libc::SIGSEGV => "segmentation fault",
            libc::SIGPIPE => "broken pipe",
            libc::SIGALRM => "alarm clock",
            libc::SIGTERM => "terminated",
            libc::SIGXCPU => "CPU time limit exceeded",
            libc::SIGXFSZ => "file size limit exceeded",
            libc::SIGSYS => "bad system call",
            other => return write!(f, "signal {other}"),
        })
    }
}

fn mount_step(step: Step, origin: &str, target: &str) -> String {
    match step {
        Step::MakeMountTarget => format!("create mountpoint for {target} mount: make mountpoint {target:?}"),
        Step::InsideProc => format!("{target:?} cannot be mounted because it is inside /proc"),
        _ => format!("mount src={origin}, dst={target}"),
    }
}

fn mount_hint(errno: i32) -> &'static str {
    if errno == libc::ENOTDIR {
        ": Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified host path exists and is the expected type"
    } else {
        ""
    }
}

/// An error number in words as Go and C programs print them: lower case, without the number.
struct Errno(i32);

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = io::Error::from_raw_os_error(self.0).to_string();
        let text = text.split(" (os error").next().unwrap_or_default();
        let mut chars = text.chars();
        match (chars.next(), chars.clone().next()) {
            // "No such file" but not "RPC ..." or "I/O error"
            (Some(first), Some(second)) if second.is_lowercase() || second == ' ' => {
                write!(f, "{}{}", first.to_lowercase(), chars.as_str())
            }
            _ => f.write_str(text),
        }
    }
}

macro_rules! steps {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// The steps of making and entering a container, in the words of the error message.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        #[non_exhaustive]
        pub enum Step { $(#[doc = $text] $name,)* }

        impl Step {
            const ALL: &[Step] = &[$(Step::$name,)*];

            /// The step with this number in a child's report.
            pub(crate) fn from_number(number: u8) -> Option<Step> {
                Step::ALL.get(usize::from(number)).copied()
            }
        }

        impl fmt::Display for Step {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Step::$name => $text,)* })
            }
        }
    };
}

steps! {
    Prepare = "prepare process",
    JoinCgroup = "join cgroup",
    JoinNamespace = "join namespace",
    MakeNamespace = "make namespaces",
    Fork = "fork into namespaces",
    WaitForParent = "wait for the runtime",
    Session = "start a session",
    Propagation = "set the propagation of /",
    MountRootfs = "mount root file system",
    OpenMount = "open mount source",
    Mount = "mount",
    MountOptions = "set options of mount",
    MountOption = "mount option",
    MakeMountTarget = "make mount target",
    InsideProc = "mount inside /proc",
    CopyUp = "copy into tmpfs",
    PivotRoot = "pivot_root to",
    Device = "make device",
    Symlink = "make symbolic link",
    Console = "set up console",
    Terminal = "open terminal",
    MaskPath = "mask path",
    ReadonlyPath = "make path read-only",
    ReadonlyRootfs = "make root file system read-only",
    Sysctl = "write sysctl",
    Hostname = "set hostname",
    Domainname = "set domain name",
    Rlimit = "set resource limit",
    OomScoreAdj = "write oom_score_adj",
    Scheduler = "set scheduler",
    IoPriority = "set I/O priority",
    Affinity = "set CPU affinity",
    MemoryPolicy = "set memory policy",
    Personality = "set personality",
    Stdio = "set standard I/O",
    Keyring = "join session keyring",
    User = "set user",
    Groups = "set groups",
    Capabilities = "set capabilities",
    NoNewPrivileges = "set no_new_privs",
    SecurityLabel = "set security label",
    Seccomp = "install seccomp filter",
    Cwd = "change to working directory",
    FindExecutable = "find executable",
    StatExecutable = "look at executable",
    CheckExecutable = "check executable",
    Exec = "execute",
    Hook = "run hook",
    HookFailed = "hook failed:",
    HookKilled = "hook was killed:",
    CloseFds = "close descriptors",
    NetDevice = "set up network device",
    Loopback = "bring up loopback device",
}
