//! From what the engine says to what the runtime library takes, and back.

use std::path::Path;

use oci_spec::runtime::{LinuxNamespaceType, Process, Spec};
use wherry_monitor_api::{Failure, FailureKind, Rootfs, StartSpec};
use wherry_runtime::{CgroupManager, Error, ErrorKind, Launch, RootfsSource, Stdio};

use crate::control::failure;

/// A parsed start.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub(crate) spec: Spec,
    rootfs: RootfsSource,
    cgroup_manager: CgroupManager,
}

impl Parsed {
    /// Takes `start.oci` and `start.rootfs`, leaving them empty.
    pub(crate) fn take(start: &mut StartSpec) -> Result<Self, Failure> {
        let spec: Spec = serde_json::from_value(start.oci.take()).map_err(|e| {
            failure(FailureKind::Protocol, format!("the runtime specification does not parse: {e}"))
        })?;
        let rootfs = match std::mem::replace(&mut start.rootfs, Rootfs::Directory) {
            Rootfs::Directory => RootfsSource::Bundle,
            Rootfs::Overlay(overlay) => {
                RootfsSource::Overlay { lower: overlay.lower, upper: overlay.upper, work: overlay.work }
            }
        };
        let cgroup_manager =
            if start.systemd_cgroup { CgroupManager::Systemd } else { CgroupManager::Cgroupfs };
        Ok(Self { spec, rootfs, cgroup_manager })
    }

    /// What the runtime library is to start. Hooks see the container's folder as the bundle.
    pub(crate) fn launch<'a>(&'a self, start: &'a StartSpec, stdio: Stdio<'a>) -> Launch<'a> {
        let bundle = start.state_path.parent().unwrap_or(Path::new("/"));
        let mut launch = Launch::new(&start.container, bundle, &self.spec, &self.rootfs);
        launch.cgroup_manager = self.cgroup_manager;
        launch.stdio = stdio;
        launch
    }

    /// Whether the program has a terminal.
    pub(crate) fn terminal(&self) -> bool {
        self.spec.process().as_ref().is_some_and(has_terminal)
    }

    /// Whether the container has a process id namespace of its own, whose processes all die with init.
    pub(crate) fn own_pid_namespace(&self) -> bool {
        let namespaces = self.spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
        namespaces.is_some_and(|list| {
            list.iter()
                .any(|namespace| namespace.typ() == LinuxNamespaceType::Pid && namespace.path().is_none())
        })
    }
}

/// Whether a process has a terminal.
pub(crate) fn has_terminal(process: &Process) -> bool {
    process.terminal().unwrap_or(false)
}

/// Parses `process` of the specification.
pub(crate) fn process(json: &serde_json::Value) -> Result<Process, Failure> {
    serde::Deserialize::deserialize(json)
        .map_err(|e| failure(FailureKind::Protocol, format!("the process's settings do not parse: {e}")))
}

/// A failure of the runtime library: its own words, which include the system's.
pub(crate) fn runtime_failure(error: &Error) -> Failure {
    let kind = match error.kind() {
        ErrorKind::NotFound => FailureKind::NotFound,
        ErrorKind::NotExecutable => FailureKind::NotExecutable,
        ErrorKind::BadProcess => FailureKind::BadProcess,
        ErrorKind::State => FailureKind::State,
        ErrorKind::Spec | ErrorKind::System => FailureKind::System,
    };
    failure(kind, error.to_string())
}

/// The exit code that a failed start counts as, as Docker has it.
pub(crate) fn failure_code(kind: FailureKind) -> i32 {
    match kind {
        FailureKind::NotFound | FailureKind::BadProcess => 127,
        FailureKind::NotExecutable => 126,
        FailureKind::State | FailureKind::NoSuchExec | FailureKind::Protocol | FailureKind::System => 128,
    }
}
