//! From a container's record to the OCI runtime specification, as dockerd generates it.
//!
//! Pure: reads nothing but its input, except the host's device nodes (for `--device`
//! and `--privileged`) and what kernel features there are.

use std::path::Path;

use serde_json::Value;

use super::files::EtcPaths;
use super::record::Record;
use super::users::ResolvedUser;
use crate::config::Config;
use crate::error::Error;

/// What a specification is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Input<'a> {
    /// The container.
    pub(crate) record: &'a Record,
    /// The daemon's settings.
    pub(crate) config: &'a Config,
    /// Whom `Config.User` means.
    pub(crate) user: &'a ResolvedUser,
    /// The empty folder on which the root file system will be mounted.
    pub(crate) rootfs: &'a Path,
    /// The network namespace; `None` for the host's.
    pub(crate) netns: Option<&'a Path>,
    /// Files to mount over `/etc/hosts`, `/etc/hostname`, `/etc/resolv.conf`.
    pub(crate) etc: &'a EtcPaths,
    /// `/proc/PID/ns/pid` of the container whose processes it shares (`PidMode` `container:X`).
    pub(crate) pid_ns: Option<&'a Path>,
    /// `/proc/PID/ns/ipc` of the container whose IPC it shares (`IpcMode` `container:X`).
    pub(crate) ipc_ns: Option<&'a Path>,
    /// A folder to bind to `/dev/shm`, for `IpcMode` `shareable` and `container:X`: a tmpfs that the caller has mounted on the
    /// host ([`shareable_shm_options`]). `None`: a tmpfs of its own (private), or the host's (host).
    pub(crate) shm: Option<&'a Path>,
    /// Whether the host has only cgroup v2.
    pub(crate) cgroup_v2: bool,
    /// Variables of links, put before those of the configuration.
    pub(crate) extra_env: &'a [String],
}

/// The specification.
///
/// # Errors
/// With dockerd's texts for settings that only turn out wrong at start (devices, security options, capabilities).
pub(crate) fn generate(input: &Input<'_>) -> Result<Value, Error> {
    let _ = input;
    Ok(Value::Null)
}

/// A process's environment as dockerd and runc put it together: defaults, links, the configuration's, `extra`
/// (exec's own), and HOME from /etc/passwd.
pub(crate) fn environment(record: &Record, tty: bool, links: &[String], extra: &[String], home: &str) -> Vec<String> {
    let _ = (record, tty, links, extra, home);
    Vec::new()
}

/// `process` of the specification for an exec in a running container.
///
/// # Errors
/// 400 for unknown capabilities.
pub(crate) fn exec_process(input: &ExecInput<'_>) -> Result<Value, Error> {
    let _ = input;
    Ok(Value::Null)
}

/// What an exec's process is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ExecInput<'a> {
    /// The container.
    pub(crate) record: &'a Record,
    /// Whom the exec's user (or the container's) means.
    pub(crate) user: &'a ResolvedUser,
    /// Program and arguments.
    pub(crate) args: &'a [String],
    /// Its own variables.
    pub(crate) env: &'a [String],
    /// Working directory; empty for the container's.
    pub(crate) cwd: &'a str,
    /// Whether it has a terminal.
    pub(crate) tty: bool,
    /// Whether it has all capabilities.
    pub(crate) privileged: bool,
}
