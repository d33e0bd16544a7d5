//! What a monitor is told about the container that it starts.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::LogSpec;

/// All that a monitor needs to start a container, and to start it again while no engine is there.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StartSpec {
    /// The container's id (64 hex digits).
    pub container: String,
    /// The OCI runtime specification (`config.json`). `root.path` is the empty folder on which
    /// `rootfs` is mounted inside the container's mount namespace.
    pub oci: serde_json::Value,
    /// Where the root file system comes from.
    pub rootfs: Rootfs,
    /// Whether cgroups are made through systemd; else directly.
    pub systemd_cgroup: bool,
    /// Where the monitor keeps [`crate::State`]; it is the only writer.
    pub state_path: PathBuf,
    /// Where output goes.
    pub log: LogSpec,
    /// Whether standard input stays open for clients that attach.
    pub open_stdin: bool,
    /// Whether standard input closes when its first attached client goes.
    pub stdin_once: bool,
    /// Initial terminal size, rows and columns.
    pub console_size: Option<(u16, u16)>,
    /// What follows an exit.
    pub restart: RestartPolicy,
    /// How often the policy has restarted it so far (reset by a start that the user asked for).
    pub restart_count: u32,
    /// The probe.
    pub health: Option<Health>,
    /// The program that makes the container; `None` for the runtime library.
    #[serde(default)]
    pub external: Option<ExternalRuntime>,
    /// The folder of a checkpoint from which this start, and no restart, brings it back.
    #[serde(default)]
    pub checkpoint: Option<PathBuf>,
}

/// What is known of a container whose monitor was killed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Leftovers {
    /// `linux.cgroupsPath` of the OCI runtime specification.
    pub cgroups_path: PathBuf,
    /// Whether the cgroups were made through systemd.
    pub systemd_cgroup: bool,
    /// Its `root.path`.
    pub root: PathBuf,
    /// The program that had made it.
    pub external: Option<ExternalRuntime>,
}

/// Another OCI runtime, with runc's command line.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExternalRuntime {
    /// Absolute: a monitor has no search path.
    pub path: PathBuf,
    /// Put before its command.
    pub args: Vec<String>,
}

/// Where a root file system comes from.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Rootfs {
    /// `root.path` itself, as it is.
    Directory,
    /// An overlay mounted on `root.path`, in the container's mount namespace only.
    Overlay(OverlayRootfs),
}

/// The folders of an overlay mount.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OverlayRootfs {
    /// Read-only layers, the topmost first; at least one.
    pub lower: Vec<PathBuf>,
    /// The writable layer.
    pub upper: PathBuf,
    /// Overlayfs's work folder, empty, on the same file system as `upper`.
    pub work: PathBuf,
}

/// A further process in a running container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExecSpec {
    /// `process` of the OCI runtime specification.
    pub process: serde_json::Value,
    /// Initial terminal size, rows and columns.
    pub console_size: Option<(u16, u16)>,
}

/// What follows an exit that nobody asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RestartPolicy {
    /// Nothing.
    No,
    /// A restart, whatever the exit code.
    Always,
    /// As `Always`; differs for the engine's own start only.
    UnlessStopped,
    /// A restart after a non-zero exit code.
    OnFailure {
        /// At most so many restarts in a row; 0 means without limit.
        max_retries: u32,
    },
}

/// A health probe. All durations in milliseconds, defaults filled in.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Health {
    /// The process that is run; its exit code 0 means healthy.
    pub process: serde_json::Value,
    /// Between the end of one probe and the begin of the next.
    pub interval_ms: u64,
    /// A probe that takes longer is killed and counts as failed.
    pub timeout_ms: u64,
    /// In this time from the start failures do not count.
    pub start_period_ms: u64,
    /// `interval_ms` during the start period.
    pub start_interval_ms: u64,
    /// So many failures in a row mean unhealthy.
    pub retries: u32,
    /// How the container is ended, and then restarted, when it becomes unhealthy; `None` leaves it.
    #[serde(default)]
    pub restart: Option<UnhealthyRestart>,
}

/// How an unhealthy container is ended.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct UnhealthyRestart {
    /// The first signal.
    pub signal: i32,
    /// How long to wait before SIGKILL; `None` waits for ever.
    pub timeout_ms: Option<u64>,
}
