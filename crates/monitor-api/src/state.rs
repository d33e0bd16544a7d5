//! What a monitor knows about its container: on disk in `state.json`, and in replies.

use serde::{Deserialize, Serialize};

/// The state of a container since its last start, as its monitor wrote it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// [`crate::VERSION`].
    pub version: u32,
    /// The container's id.
    pub container: String,
    /// The monitor's process id and start time (field 22 of /proc/PID/stat), to tell a dead monitor from a new process.
    pub monitor: (i32, u64),
    /// Where it stands.
    pub phase: Phase,
    /// Restarts by the policy since the user's last start.
    pub restart_count: u32,
    /// Whether the user stopped or killed it (then `unless-stopped` does not start it at boot).
    pub manually_stopped: bool,
    /// The probe's results; `None` without a probe.
    pub health: Option<HealthState>,
    /// The number of the newest event so far; 0 if there was none.
    #[serde(default)]
    pub last_seq: u64,
    /// Events that no engine has acknowledged, oldest first, at most 256.
    pub journal: Vec<Event>,
}

/// Where a container stands. Times are nanoseconds since the epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Phase {
    /// Not started yet: the monitor only holds clients.
    Waiting,
    /// Init runs.
    Running {
        /// Init's process id.
        pid: i32,
        /// Init's start time (field 22 of /proc/PID/stat).
        pid_start: u64,
        /// When it was started.
        started_at_ns: i64,
        /// Whether its processes are frozen.
        paused: bool,
    },
    /// It ended; the restart policy will start it again.
    Restarting {
        /// The exit code of the last run.
        code: i32,
        /// When that run began.
        started_at_ns: i64,
        /// When it ended.
        finished_at_ns: i64,
        /// Whether the kernel killed it for lack of memory.
        oom_killed: bool,
        /// When it will be started again.
        next_start_ns: i64,
    },
    /// It ended and stays so.
    Exited {
        /// 0–255; 128 + signal number after a signal.
        code: i32,
        /// When the last run began; 0 if it never ran.
        started_at_ns: i64,
        /// When it ended.
        finished_at_ns: i64,
        /// Whether the kernel killed it for lack of memory.
        oom_killed: bool,
        /// Why it could not be started, if so.
        error: String,
    },
}

/// Something that happened to a container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Counts from 1, without gaps, over the life of the container (carried on across monitors
    /// through the state file).
    pub seq: u64,
    /// Nanoseconds since the epoch.
    pub at_ns: i64,
    /// What happened.
    pub kind: EventKind,
}

/// The kinds of events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum EventKind {
    /// Init has been executed.
    Started {
        /// Its process id.
        pid: i32,
        /// Whether the restart policy did it (else a request).
        by_policy: bool,
    },
    /// Init ended. Where the phase was [`Phase::Restarting`], the restart was called off by a stop: the
    /// code is that of the exit before, which has been reported already.
    Exited {
        /// Exit code as in [`Phase::Exited`].
        code: i32,
        /// Whether a restart will follow.
        restarting: bool,
        /// Whether the kernel killed it for lack of memory.
        oom_killed: bool,
        /// Whether it was by [`crate::Request::Stop`].
        stopped: bool,
    },
    /// A restart by the policy failed.
    StartFailed {
        /// Why.
        error: String,
        /// The code that the failure counts as (125–127).
        code: i32,
        /// Whether another attempt will follow.
        restarting: bool,
    },
    /// The patience of [`crate::Request::Stop`] is at its end: SIGKILL is sent.
    StopTimedOut,
    /// The kernel killed a process of the container for lack of memory.
    OutOfMemory,
    /// Frozen.
    Paused,
    /// Thawed.
    Resumed,
    /// A further process was started.
    ExecStarted {
        /// Its id.
        exec: String,
    },
    /// A further process ended.
    ExecExited {
        /// Its id.
        exec: String,
        /// Its exit code.
        code: i32,
    },
    /// A client detached by its keys.
    Detached {
        /// From an exec; `None` from the container.
        exec: Option<String>,
    },
    /// The probe's verdict changed.
    Health {
        /// The new verdict.
        status: HealthStatus,
    },
}

/// An exec, running or ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExecRecord {
    /// Its id.
    pub exec: String,
    /// `process` of the OCI specification, as requested.
    pub process: serde_json::Value,
    /// Process id on the host; 0 after its end.
    pub pid: i32,
    /// `None` while it runs.
    pub exit_code: Option<i32>,
}

/// Results of the probe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HealthState {
    /// The verdict.
    pub status: HealthStatus,
    /// Failures in a row.
    pub failing_streak: u32,
    /// The last five results, oldest first.
    pub log: Vec<HealthLogEntry>,
}

/// The probe's verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum HealthStatus {
    /// No verdict yet.
    Starting,
    /// The last probe succeeded.
    Healthy,
    /// Too many failed in a row.
    Unhealthy,
}

/// One run of the probe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HealthLogEntry {
    /// Nanoseconds since the epoch.
    pub start_ns: i64,
    /// Nanoseconds since the epoch.
    pub end_ns: i64,
    /// The probe's exit code; -1 when it could not be run or took too long.
    pub code: i32,
    /// The first 4096 bytes of its output.
    pub output: String,
}
