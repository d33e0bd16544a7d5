//! From a container's record to the OCI runtime specification, as dockerd generates it.
//!
//! It decides nothing about the host: what it reads there are device nodes (for `--device` and
//! `--privileged`), the mount table (for shared mounts) and which kernel this is.

pub(crate) mod capabilities;
pub(crate) mod cdi;
mod devices;
pub(crate) mod mounts;
mod process;
mod propagation;
pub(crate) mod resources;
mod seccomp;
mod seccomp_profile;
pub(crate) mod security;
mod sysctls;

use std::path::Path;

use serde_json::{Map, Value, json};

pub(crate) use process::{ExecInput, exec_process};

use self::security::Seccomp;
use super::files::EtcPaths;
use super::record::Record;
use super::users::ResolvedUser;
use crate::config::Config;
use crate::error::Error;

/// The version of the specification that this follows.
const OCI_VERSION: &str = "1.2.1";

/// Paths that unprivileged containers cannot look into, unless the user says otherwise.
pub(crate) const MASKED_PATHS: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// Paths that unprivileged containers cannot write, unless the user says otherwise.
pub(crate) const READONLY_PATHS: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

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
    /// What to bind to `/dev/shm`: that of the container whose IPC namespace is joined. `None`: a tmpfs of its own, or
    /// the host's for `host`.
    pub(crate) shm: Option<&'a Path>,
    /// Whether the host has only cgroup v2.
    pub(crate) cgroup_v2: bool,
    /// Variables of links, put before those of the configuration.
    pub(crate) extra_env: &'a [String],
}

/// The specification. Blocking, but quick: about 0.1 ms unless there are devices to look up.
///
/// # Errors
/// With dockerd's texts for settings that only turn out wrong at start (devices, tmpfs options, seccomp profiles).
pub(crate) fn generate(input: &Input<'_>) -> Result<Value, Error> {
    let record = input.record;
    let host = &record.host_config;
    let security = security::parse(host.security_opt.as_deref())?;
    let capabilities = capabilities::effective(host)?;
    let mut mounts = mounts::gather(input, security.writable_cgroups.unwrap_or(host.privileged))?;
    let mut init = process::init(input, &capabilities, security.no_new_privileges)?;
    if process::wants_init(host, input.config) {
        let binary = process::find_init()?;
        process::put_init_before(&mut init);
        let mount = json!({
            "destination": process::INIT_IN_CONTAINER, "type": "bind", "source": binary, "options": ["bind", "ro"],
        });
        mounts.list.push(mount);
    }
    let mut linux = linux(input)?;
    if let Some(propagation) = mounts.root_propagation {
        linux.insert("rootfsPropagation".into(), propagation.into());
    }
    let profile = match security.seccomp {
        _ if host.privileged => None,
        Seccomp::Unconfined => None,
        Seccomp::Default => Some(seccomp::default_profile(&capabilities)),
        Seccomp::Custom(text) => Some(seccomp::custom_profile(&text, &capabilities)?),
    };
    if let Some(profile) = profile {
        linux.insert("seccomp".into(), profile);
    }
    let mut spec = Map::new();
    spec.insert("ociVersion".into(), OCI_VERSION.into());
    spec.insert("process".into(), init.into());
    spec.insert("root".into(), root(input));
    if host.uts_mode != "host" {
        spec.insert("hostname".into(), record.config.hostname.as_str().into());
    }
    spec.insert("mounts".into(), mounts.list.into());
    if let Some(annotations) = host.annotations.as_ref().filter(|a| !a.is_empty()) {
        spec.insert("annotations".into(), json!(annotations));
    }
    spec.insert("linux".into(), linux.into());
    let cdi: Vec<String> = devices::cdi_names(host);
    if !cdi.is_empty() {
        cdi::inject(&cdi, &input.config.cdi_spec_dirs, &mut spec)?;
    }
    Ok(spec.into())
}

fn root(input: &Input<'_>) -> Value {
    let mut root = json!({ "path": input.rootfs });
    if input.record.host_config.readonly_rootfs {
        root["readonly"] = true.into();
    }
    root
}

fn linux(input: &Input<'_>) -> Result<Map<String, Value>, Error> {
    let host = &input.record.host_config;
    let mut linux = Map::new();
    let sysctls = sysctls::gather(input)?;
    if !sysctls.is_empty() {
        linux.insert("sysctl".into(), sysctls.into());
    }
    let devices = devices::gather(host)?;
    let mut resources = resources::limits(host)?;
    resources.insert("devices".into(), devices.rules.into());
    linux.insert("resources".into(), resources.into());
    linux.insert("cgroupsPath".into(), cgroups_path(input.record, input.config).into());
    linux.insert("namespaces".into(), namespaces(input).into());
    if !devices.nodes.is_empty() {
        linux.insert("devices".into(), devices.nodes.into());
    }
    if !host.privileged {
        let lists = [
            ("maskedPaths", &host.masked_paths, MASKED_PATHS.as_slice()),
            ("readonlyPaths", &host.readonly_paths, READONLY_PATHS.as_slice()),
        ];
        for (name, given, default) in lists {
            let paths = given.as_ref().map_or_else(|| json!(default), |paths| json!(paths));
            linux.insert(name.into(), paths);
        }
    }
    Ok(linux)
}

/// Where the container's cgroup is: a path, or `slice:docker:ID` for systemd.
pub(crate) fn cgroups_path(record: &Record, config: &Config) -> String {
    let given =
        [&record.host_config.cgroup_parent, &config.cgroup_parent].into_iter().find(|p| !p.is_empty());
    let parent = given.map(String::as_str);
    if config.systemd_cgroup {
        format!("{}:docker:{}", parent.unwrap_or("system.slice"), record.id)
    } else {
        format!("{}/{}", parent.unwrap_or("/docker").trim_end_matches('/'), record.id)
    }
}

fn namespaces(input: &Input<'_>) -> Vec<Value> {
    let host = &input.record.host_config;
    let own = |kind: &str| json!({ "type": kind });
    let joined = |kind: &str, path: &Path| json!({ "type": kind, "path": path });
    let mut namespaces = vec![own("mount")];
    if input.record.config.network_disabled && input.netns.is_none() {
        namespaces.push(own("network"));
    } else if let Some(path) = input.netns {
        namespaces.push(joined("network", path));
    }
    if host.uts_mode != "host" {
        namespaces.push(own("uts"));
    }
    for (kind, mode, path) in [("pid", &host.pid_mode, input.pid_ns), ("ipc", &host.ipc_mode, input.ipc_ns)] {
        match path {
            Some(path) => namespaces.push(joined(kind, path)),
            None if mode != "host" => namespaces.push(own(kind)),
            None => {}
        }
    }
    let private_cgroup = match host.cgroupns_mode.as_str() {
        "private" => true,
        "host" => false,
        _ => input.cgroup_v2,
    };
    if private_cgroup {
        namespaces.push(own("cgroup"));
    }
    namespaces
}

/// What runc would refuse, in dockerd's words around runc's.
fn refused_by_runtime(reason: &str) -> Error {
    Error::server(format!(
        "failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: \
         {reason}"
    ))
}

/// Whether the running kernel's release is at least `(major, minor)`.
fn kernel_is_at_least(wanted: (u32, u32)) -> bool {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let mut numbers = release.split(['.', '-', '+']).map_while(|part| part.parse::<u32>().ok());
    numbers.next().zip(numbers.next()).is_some_and(|version| version >= wanted)
}

#[cfg(test)]
pub(crate) mod test_data;
#[cfg(test)]
mod tests;
