//! What is known about a container for its lifetime.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::cgroup::Cgroup;
use crate::hooks::HookRunner;
use crate::host_root::HostRoot;
use crate::plan::Plan;
use crate::plan::namespaces::{NEWTIME, Namespaces};
use crate::plan::process::CapabilityPlan;
use crate::plan::scheduling::MemoryPolicy;
use crate::seccomp::Filter;
use crate::{Error, Launch};

/// What is known about a container for its lifetime. Serialisable.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Facts {
    pub(crate) id: String,
    pub(crate) pid: i32,
    pub(crate) bundle: PathBuf,
    pub(crate) cgroup: Cgroup,
    /// `CLONE_NEW*` of the namespaces that are not the host's.
    pub(crate) namespaces: i32,
    /// Whether the pid namespace is the container's own: then all processes end with init.
    #[serde(default)]
    pub(crate) own_pids: bool,
    /// What processes of an exec are filtered with.
    pub(crate) seccomp: Option<Filter>,
    /// What further processes have of what belongs to the container, not to its init.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) memory_policy: Option<MemoryPolicy>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) personality: Option<u64>,
    /// What processes of an exec may that say nothing of it.
    #[serde(default)]
    pub(crate) capabilities: CapabilityPlan,
    /// Whether processes keep their caller's supplementary groups.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) keep_groups: bool,
    /// The name of the session keyring, if the container has its own.
    pub(crate) keyring: Option<std::ffi::CString>,
    pub(crate) hooks: HookRunner,
    /// Where the start socket is, for a container that another process starts.
    pub(crate) start_socket_in: Option<PathBuf>,
    /// Its root file system, if that is mounted in the host's mount namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) host_root: Option<HostRoot>,
}

impl Facts {
    /// What is known of a container that has just been made.
    pub(crate) fn new(
        launch: &Launch<'_>,
        pid: i32,
        cgroup: Cgroup,
        plan: Plan,
        hooks: HookRunner,
        start_socket_in: Option<PathBuf>,
    ) -> Self {
        Facts {
            id: launch.id.to_owned(),
            pid,
            bundle: launch.bundle.to_owned(),
            cgroup,
            namespaces: namespace_flags(&plan.namespaces),
            own_pids: plan.namespaces.new & u64::from(libc::CLONE_NEWPID.unsigned_abs()) != 0,
            seccomp: plan.process.seccomp,
            memory_policy: plan.process.memory_policy,
            personality: plan.process.personality,
            capabilities: plan.process.capabilities.unwrap_or_default(),
            keep_groups: plan.process.keep_groups,
            keyring: plan.process.keyring,
            hooks,
            start_socket_in,
            host_root: None,
        }
    }

    /// Removes everything that a container whose init has ended leaves.
    pub(crate) fn remove(&self) -> Result<(), Error> {
        let result = self.cgroup.destroy();
        if let Some(root) = &self.host_root {
            root.unmount();
        }
        result.and(self.hooks.after_stop())
    }
}

/// All namespaces that an exec has to join.
fn namespace_flags(namespaces: &Namespaces) -> i32 {
    const ALL: i32 = libc::CLONE_NEWNS
        | libc::CLONE_NEWCGROUP
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUSER
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET
        | NEWTIME;
    let new = i32::try_from(namespaces.new & u64::from(ALL.unsigned_abs())).unwrap_or(0);
    let joined = namespaces.join.iter().chain(&namespaces.before_fork).fold(0, |flags, j| flags | j.flag);
    let cgroup = if namespaces.cgroup { libc::CLONE_NEWCGROUP } else { 0 };
    let time = if namespaces.time_offsets.is_some() { NEWTIME } else { 0 };
    new | joined | cgroup | time
}
