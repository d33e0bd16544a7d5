//! The messages between the engine and a container's monitor, and the state that
//! the monitor leaves on disk. Types only: no I/O, no Docker API.
//!
//! **Channel.** The engine starts `wherry-monitor` with two sockets as its standard input and output
//! (so that posix_spawn does, without a fork of the engine): 0 is
//! listening at `EXEC_ROOT/containers/ID/monitor.sock`, 1 is one end of
//! a connected socket pair, which is the first control connection. The monitor moves both out of the
//! way and puts /dev/null there. Standard error is the engine's log. A later
//! engine connects to the listening socket. Frames are `wherry_ipc`'s. The engine
//! sends [`Call`]s; the monitor answers each with one [`Message::Reply`] of the
//! same id, in any order, and sends [`Message::Event`] to connections that
//! subscribed.
//!
//! **Handing over a client.** Calls that carry a client's socket have it as their
//! only descriptor. Once the monitor has registered the client it writes the request's
//! `head` (the HTTP response's head, made by the engine) at once, before anything else and
//! before it replies, then the body in the requested [`BodyEncoding`], and closes the socket. On a failed
//! reply it has written nothing, so that the engine can still answer with an error.
//!
//! **Lifetime.** A monitor lives while it has something to hold: a container that
//! runs or will be restarted, clients that wait for one, or, after the last exit, an
//! engine that has yet to say [`Request::Release`]. It ends when its control
//! connections are all closed and no container runs or will be restarted.

mod log;
mod spec;
mod state;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use log::{
    GelfCompression, LogDriver, LogFormat, LogSpec, LogTarget, RemoteLog, SyslogForm, TlsServer, WhenFull,
};
pub use spec::{
    ExecSpec, ExternalRuntime, Health, Leftovers, OverlayRootfs, RestartPolicy, Rootfs, StartSpec,
    UnhealthyRestart,
};
pub use state::{Event, EventKind, ExecRecord, HealthLogEntry, HealthState, HealthStatus, Phase, State};

/// The version of this protocol and of the state file; both sides refuse another one.
pub const VERSION: u32 = 1;
/// The monitor's socket in `EXEC_ROOT/containers/ID/`.
pub const SOCKET: &str = "monitor.sock";
/// The descriptor number of the listening socket in a new monitor.
pub const LISTEN_FD: i32 = 0;
/// The descriptor number of the first control connection in a new monitor.
pub const CONTROL_FD: i32 = 1;

/// Engine → monitor: a request, and the id that its reply will carry.
#[derive(Debug, Serialize, Deserialize)]
pub struct Call {
    /// Chosen by the engine, unique on its connection.
    pub id: u64,
    /// What is asked.
    pub request: Request,
}

/// Monitor → engine.
#[derive(Debug, Serialize, Deserialize)]
pub enum Message {
    /// The answer to the call of that id.
    Reply {
        /// The call's id.
        id: u64,
        /// What came of it.
        result: Result<Reply, Failure>,
    },
    /// Something happened; only on connections that subscribed.
    Event(Event),
}

/// What the engine may ask of a monitor.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// First on each connection. Replies [`Reply::Hello`].
    Hello {
        /// [`VERSION`] of the engine.
        version: u32,
    },
    /// Makes and starts the container; replies [`Reply::Started`] once the program has been executed.
    Start(Box<StartSpec>),
    /// Ends what a monitor that was killed has left of the container, and removes it: processes, cgroups, and what
    /// another runtime keeps. Only a monitor that has started nothing does that.
    Clear(Box<Leftovers>),
    /// Events from now on; those of the journal with a greater sequence number are sent first.
    Subscribe {
        /// The last event that the engine has seen; 0 for none.
        after: u64,
    },
    /// The engine has stored all events up to this one; the monitor may forget them.
    Acknowledge {
        /// Sequence number.
        up_to: u64,
    },
    /// Carries a client. Streams the container's standard I/O, now or when it is started.
    Attach(AttachRequest),
    /// Carries a client. Answers with the exit code when the condition is met.
    Wait(WaitRequest),
    /// Carries a client. Writes log entries, and those to come until the container ends.
    FollowLogs(LogsRequest),
    /// Starts a further process in the container; replies [`Reply::ExecStarted`]. Carries a
    /// client unless `attach` is `None`.
    Exec {
        /// The exec's id (64 hex digits).
        exec: String,
        /// The process.
        spec: Box<ExecSpec>,
        /// How the client is attached; `None` detaches.
        attach: Option<AttachRequest>,
    },
    /// All execs that run, and the last 64 that ended. Replies [`Reply::Execs`].
    Execs,
    /// Sets a terminal's size, of the container (`exec: None`) or of an exec.
    Resize {
        /// The exec's id; `None` for the container itself.
        exec: Option<String>,
        /// Lines.
        rows: u16,
        /// Columns.
        columns: u16,
    },
    /// Sends a signal to the container's init. A restart policy then applies only if `manual` is false.
    Kill {
        /// Signal number.
        signal: i32,
        /// Whether it counts as the user's wish that the container ends (docker kill: SIGKILL and the stop signal do).
        manual: bool,
    },
    /// Signal, wait, SIGKILL; replies `Ok` after the exit has been recorded. No restart policy applies.
    Stop {
        /// The first signal's number.
        signal: i32,
        /// How long to wait before SIGKILL; `None` waits for ever.
        timeout_ms: Option<u64>,
        /// Whether it is the user's wish (then `manually_stopped` is set); false when the engine stops all
        /// containers before it ends itself, after which `unless-stopped` starts them again.
        manual: bool,
    },
    /// Freezes all processes.
    Pause,
    /// Thaws them.
    Resume,
    /// Replaces resource limits (`linux.resources` of the OCI specification, JSON) and the restart policy.
    Update {
        /// New limits; `None` keeps them.
        resources: Option<serde_json::Value>,
        /// New policy; `None` keeps it.
        restart: Option<RestartPolicy>,
    },
    /// Writes all processes to files (criu). Replies `Ok`; if it is to end by that, the exit is an event of its own.
    Checkpoint {
        /// An empty folder.
        images: PathBuf,
        /// Whether it ends; else it goes on.
        exit: bool,
    },
    /// The process ids in the container, as the host sees them. Replies [`Reply::Processes`].
    Processes,
    /// A sample of the cgroup's counters. Replies [`Reply::Stats`].
    Stats,
    /// The current state. Replies [`Reply::State`].
    State,
    /// After the last exit: the engine has recorded it, and removed the container if it was to be
    /// (`--rm`). Waiters for removal are answered; the monitor ends.
    Release,
}

/// The answers, by request.
#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    /// Done; also for requests that carry a client: the monitor has it now.
    Ok,
    /// To [`Request::Hello`].
    Hello {
        /// [`VERSION`] of the monitor.
        version: u32,
        /// The monitor's own process id.
        pid: i32,
        /// The state at this moment.
        state: Box<State>,
    },
    /// To [`Request::Start`].
    Started {
        /// Init's process id on the host.
        pid: i32,
        /// Nanoseconds since the epoch.
        at_ns: i64,
    },
    /// To [`Request::Exec`].
    ExecStarted {
        /// Process id on the host.
        pid: i32,
    },
    /// To [`Request::Execs`].
    Execs(Vec<ExecRecord>),
    /// To [`Request::Processes`].
    Processes(Vec<i32>),
    /// To [`Request::Stats`]: the runtime library's statistics, JSON.
    Stats(serde_json::Value),
    /// To [`Request::State`].
    State(Box<State>),
}

/// A request that failed: which step, on what, and the system's error number where there is one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Failure {
    /// What kind of failure, for the engine to choose a status from.
    pub kind: FailureKind,
    /// The step, its subject and the reason in words, whole: nothing is to be added to it.
    pub message: String,
    /// errno, where a system call failed and `message` does not say so already.
    pub errno: Option<i32>,
}

/// The kinds of failure that the engine must tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// The program was not found in the container (exit status 127). `message` is the
    /// runtime library's text, like `exec: "nosuchcmd": executable file not found in $PATH`.
    NotFound,
    /// The program may not be executed (126): no permission, a folder, not an executable format.
    NotExecutable,
    /// The working directory, user or another part of the process's settings is not usable (126 or 127 as runc).
    BadProcess,
    /// The request does not fit the state: not running, already running, already paused.
    State,
    /// No such exec.
    NoSuchExec,
    /// The other side speaks another version, or the message is malformed.
    Protocol,
    /// Anything that the system refused while setting up or controlling the container.
    System,
}

/// How the bytes of a response's body are wrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BodyEncoding {
    /// As they are; the end is the end of the connection (a hijacked connection).
    UntilClose,
    /// HTTP/1.1 chunks, with the last one at the end.
    Chunked,
}

/// How output of two streams shares a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Framing {
    /// As it comes (terminals).
    Raw,
    /// Each piece behind 8 bytes: stream number (1 stdout, 2 stderr), three zeros, big-endian length.
    Multiplexed,
}

/// Parameters of an attached client.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AttachRequest {
    /// Written to the client as soon as it is registered, before all else; not wrapped by `encoding`.
    pub head: Vec<u8>,
    /// Whether what the client sends goes to standard input.
    pub stdin: bool,
    /// Whether the client gets standard output.
    pub stdout: bool,
    /// Whether the client gets standard error.
    pub stderr: bool,
    /// Whether to stream from now on; otherwise only `logs` are written.
    pub stream: bool,
    /// Whether to write the log so far first.
    pub logs: bool,
    /// How the streams share the connection.
    pub framing: Framing,
    /// How the body is wrapped.
    pub encoding: BodyEncoding,
    /// The byte sequence that detaches a client of a terminal; empty for none.
    pub detach_keys: Vec<u8>,
    /// Sent, as output, to a client that has detached.
    #[serde(default)]
    pub on_detach: String,
    /// What the engine had already read from the client beyond the request.
    pub already_read: Vec<u8>,
}

/// Parameters of a client that waits for an exit.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WaitRequest {
    /// Written to the client as soon as it is registered, before all else; not wrapped by `encoding`.
    pub head: Vec<u8>,
    /// When to answer.
    pub condition: WaitCondition,
    /// The answer is `prefix`, the exit code in decimal, `suffix`.
    pub prefix: String,
    /// See `prefix`.
    pub suffix: String,
    /// How the body is wrapped.
    pub encoding: BodyEncoding,
}

/// What a waiting client waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum WaitCondition {
    /// The container is not running: at once if it is not (a pending restart counts as running here), else its next exit,
    /// whatever the restart policy does then.
    NotRunning,
    /// Its next exit, whatever the restart policy does then.
    NextExit,
    /// Its removal: after [`Request::Release`], or after the exit when no engine is connected.
    Removed,
}

/// Parameters of a client that reads logs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LogsRequest {
    /// Written to the client as soon as it is registered, before all else; not wrapped by `encoding`.
    pub head: Vec<u8>,
    /// Whether standard output is wanted.
    pub stdout: bool,
    /// Whether standard error is wanted.
    pub stderr: bool,
    /// Only entries at or after this time (nanoseconds since the epoch).
    pub since_ns: Option<i64>,
    /// Only entries at or before this time; following ends there.
    pub until_ns: Option<i64>,
    /// Only the last entries before following; `None` for all.
    pub tail: Option<u64>,
    /// Whether each entry begins with its time (RFC 3339, nine digits, `Z`) and a space.
    pub timestamps: bool,
    /// Whether the entry's attributes and a space come before its text (`docker logs --details`).
    #[serde(default)]
    pub details: bool,
    /// Whether to go on with entries to come.
    pub follow: bool,
    /// How the streams share the connection.
    pub framing: Framing,
    /// How the body is wrapped.
    pub encoding: BodyEncoding,
}

/// `EXEC_ROOT/containers/ID`, where the monitor's socket is.
#[must_use]
pub fn run_dir(exec_root: &std::path::Path, container: &str) -> PathBuf {
    exec_root.join("containers").join(container)
}
