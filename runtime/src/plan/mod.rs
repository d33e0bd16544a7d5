//! The plan: a specification compiled into what the child will do.
//!
//! Every string is NUL-terminated, every list has its length, every file that the parent can open is
//! open, and everything that can be refused without trying has been.

pub(crate) mod annotations;
mod cgroup_mounts;
pub(crate) mod devices;
pub(crate) mod hooks;
mod idmap;
pub(crate) mod mounts;
pub(crate) mod namespaces;
pub(crate) mod net_devices;
pub(crate) mod options;
pub(crate) mod process;
pub(crate) mod rootfs;
pub(crate) mod scheduling;
pub(crate) mod validate;

use std::ffi::CString;
use std::path::{Component, Path};

use oci_spec::runtime::{Linux, Process, Spec};
use rustix::io::Errno;

use crate::cgroup::{Cgroup, Entry, Hierarchies};
use crate::{Error, Launch, Step, Warning};
use cgroup_mounts::CgroupView;
use devices::Device;
use hooks::ChildHooks;
use mounts::{BindView, Mount, Symlink};
use namespaces::Namespaces;
use net_devices::NetDevice;
use process::ProcessPlan;
use rootfs::Rootfs;

/// All that the init of a container does.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) namespaces: Namespaces,
    pub(crate) entry: Entry,
    /// The version 1 cgroups are made while the child is at work, which gets them by its channel.
    pub(crate) cgroups_come_later: bool,
    pub(crate) rootfs: Rootfs,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) symlinks: Vec<Symlink>,
    /// `None` when the specification brings a `/dev` of its own.
    pub(crate) devices: Option<Vec<Device>>,
    /// Make device nodes by binding the host's, as in a user namespace.
    pub(crate) bind_devices: bool,
    /// The working directory, relative to the root, which is made if it is missing; `None` for the root itself.
    pub(crate) working_directory: Option<CString>,
    pub(crate) masked_paths: Vec<CString>,
    pub(crate) readonly_paths: Vec<CString>,
    pub(crate) hostname: Option<CString>,
    pub(crate) domainname: Option<CString>,
    /// Path below `/proc/sys`, value.
    pub(crate) sysctls: Vec<(CString, CString)>,
    /// Which come from the host.
    pub(crate) net_devices: Vec<NetDevice>,
    pub(crate) hooks: ChildHooks,
    pub(crate) process: ProcessPlan,
    /// Report readiness, and wait for the start, before `execve`.
    pub(crate) wait_for_start: bool,
    /// What is not as it was asked for.
    pub(crate) warnings: Vec<Warning>,
}

/// Compiles the plan for a container's init. `entry` comes from the cgroup, which exists already.
pub(crate) fn compile(
    launch: &Launch<'_>,
    hierarchies: &Hierarchies,
    cgroup: &Cgroup,
    wait_for_start: bool,
) -> Result<Plan, Error> {
    let spec = launch.spec;
    let Some(process_spec) = spec.process() else {
        return Err(Error::spec("process", "is missing"));
    };
    let Some(linux) = spec.linux() else {
        return Err(Error::spec("linux", "is missing"));
    };
    let mut warnings = Vec::new();
    validate::spec(spec, &mut warnings)?;
    refuse_unsupported(linux)?;
    let namespaces = namespaces::compile(linux)?;
    if !namespaces.uts
        && [spec.hostname(), spec.domainname()].into_iter().flatten().any(|name| !name.is_empty())
    {
        return Err(Error::spec("hostname", "cannot be set without a UTS namespace: it would be the host's"));
    }
    let mut symlinks = Vec::new();
    let view = CgroupView { hierarchies, cgroup, namespaced: namespaces.cgroup };
    let rootfs = rootfs::compile(launch, namespaces.mount)?;
    let binds = BindView {
        bundle: launch.bundle,
        root: rootfs.host_path(),
        user: namespaces.user.as_ref(),
        parent_maps: namespaces.user.is_some() && namespaces.caller_is_root,
    };
    let mounts = mounts::compile(spec.mounts().as_deref().unwrap_or_default(), binds, view, &mut symlinks)?;
    // a /dev that is bound from elsewhere is not ours to fill
    let foreign_dev = mounts.iter().any(|m| m.target.as_bytes() == b"dev" && m.source.is_bound());
    let process = init_process(launch, process_spec, linux, &namespaces, &mut warnings)?;
    Ok(Plan {
        bind_devices: namespaces.user.is_some(),
        devices: (!foreign_dev).then(|| devices::compile(linux)).transpose()?,
        rootfs,
        working_directory: Some(inside(process_spec.cwd())?).filter(|folder| folder.as_bytes() != b"."),
        masked_paths: paths("linux.maskedPaths", linux.masked_paths())?,
        readonly_paths: paths("linux.readonlyPaths", linux.readonly_paths())?,
        hostname: name("hostname", spec.hostname())?,
        domainname: name("domainname", spec.domainname())?,
        sysctls: sysctls(spec, &namespaces)?,
        net_devices: net_devices::compile(linux, &namespaces)?,
        hooks: hooks::compile(launch)?,
        entry: Entry::default(),
        cgroups_come_later: false,
        namespaces,
        mounts,
        symlinks,
        process,
        wait_for_start,
        warnings,
    })
}

/// What init is to become.
fn init_process(
    launch: &Launch<'_>,
    process: &Process,
    linux: &Linux,
    namespaces: &Namespaces,
    warnings: &mut Vec<Warning>,
) -> Result<ProcessPlan, Error> {
    c_string("process.cwd", &process.cwd().to_string_lossy())?; // names the field
    let mut process = process::compile(process, launch.stdio, launch.preserve_fds)?;
    process.capabilities.get_or_insert_default(); // what is not given is not had, as with runc
    process.grant_at_most_own(namespaces.user.is_some(), warnings)?;
    process.keep_groups = annotations::is_set(launch.spec, annotations::KEEP_GROUPS);
    let strict = annotations::is_set(launch.spec, annotations::FAIL_UNKNOWN_SYSCALL);
    let filter = linux.seccomp().as_ref().map(|seccomp| crate::seccomp::compile(seccomp, strict));
    process.seccomp = filter.transpose()?.flatten();
    process.keyring =
        (!launch.inherit_keyring).then(|| c_string("id", &format!("_ses.{}", launch.id))).transpose()?;
    process.report_exec_failure = launch.report_exec_failure;
    process.memory_policy = linux.memory_policy().as_ref().map(scheduling::memory_policy).transpose()?;
    process.personality = linux.personality().as_ref().map(process::personality).transpose()?;
    Ok(process)
}

/// Paths in the container.
fn paths(field: &'static str, list: &Option<Vec<String>>) -> Result<Vec<CString>, Error> {
    let refused = |path: &String| Error::spec(field, format!("{path:?} is not an absolute path without .."));
    list.iter().flatten().map(|path| inside(Path::new(path)).map_err(|_| refused(path))).collect()
}

/// A name that may be empty, which is none.
fn name(field: &'static str, name: &Option<String>) -> Result<Option<CString>, Error> {
    name.as_deref().filter(|name| !name.is_empty()).map(|name| c_string(field, name)).transpose()
}

impl Plan {
    /// How often the child asks its parent for something, and waits for the answer.
    pub(crate) fn questions(&self) -> usize {
        self.mounts.iter().filter(|mount| mount.asks_parent()).count() + usize::from(self.hooks.in_parent)
    }

    /// A child knows a mount by its target only, and a field not at all; says what it was about.
    pub(crate) fn explain(&self, error: Error) -> Error {
        let Error::Setup { step, subject, errno } = error else { return error };
        let missing = errno == libc::ENOENT || errno == libc::ENOTDIR;
        if matches!(step, Step::MountRootfs | Step::PivotRoot) && missing && self.rootfs.is_bound() {
            return Error::spec("root.path", format!("{subject}: there is no such directory"));
        }
        if step == Step::JoinNamespace && errno == libc::EINVAL {
            let reason = format!("{subject} is not a namespace of the type it is listed as");
            return Error::spec("linux.namespaces", reason);
        }
        if step == Step::Scheduler
            && errno == libc::EPERM
            && self.process.scheduler.is_some_and(|s| s.policy == 6)
        {
            let reason =
                "process scheduler can't be used together with AllowedCPUs (linux.resources.cpu.cpus)";
            return Error::spec("process.scheduler", reason);
        }
        if step == Step::MountOption {
            let with = self.mounts.iter().find(|m| m.source.has_option(&subject));
            let target = with.map(|m| m.target.to_string_lossy()).unwrap_or_default();
            let text = std::io::Error::from_raw_os_error(errno).to_string();
            let text = text.split(" (os error").next().unwrap_or_default().to_lowercase();
            return Error::spec("mounts.options", format!("{subject:?} of the mount on /{target}: {text}"));
        }
        let is_target =
            matches!(step, Step::Mount | Step::MountOptions | Step::MakeMountTarget | Step::InsideProc);
        let mount = self.mounts.iter().find(|m| is_target && m.target.as_bytes() == subject.as_bytes());
        let symlink = matches!(errno, libc::ENOTDIR | libc::ELOOP);
        match mount {
            Some(mount) if symlink && (mount.source.is(b"proc") || mount.source.is(b"sysfs")) => Error::spec(
                "mounts",
                format!("filesystem {:?} must be mounted on ordinary directory", mount.source.origin()),
            ),
            Some(mount) => mount.failure(step, Errno::from_raw_os_error(errno)),
            None => Error::Setup { step, subject, errno },
        }
    }
}

/// What is asked for must be done or refused, not left out.
fn refuse_unsupported(linux: &Linux) -> Result<(), Error> {
    let label = linux.mount_label().as_ref().is_some_and(|label| !label.is_empty());
    for (asked, what) in [
        (linux.intel_rdt().is_some(), "linux.intelRdt"),
        (label && !Path::new("/sys/fs/selinux/enforce").exists(), "linux.mountLabel without SELinux"),
    ] {
        if asked {
            return Err(Error::Unsupported { what: what.to_owned(), why: "" });
        }
    }
    Ok(())
}

/// Kernel parameters; only such as belong to one of the container's own namespaces.
fn sysctls(spec: &Spec, namespaces: &Namespaces) -> Result<Vec<(CString, CString)>, Error> {
    let domain = spec.domainname().as_deref().unwrap_or_default();
    let other_name = |value: &String| !domain.is_empty() && value != domain;
    let mut out = Vec::new();
    for (key, value) in spec.linux().iter().filter_map(|l| l.sysctl().as_ref()).flatten() {
        // a dot separates, unless slashes do: then dots are part of names (of interfaces)
        let first_separator = key.find(['.', '/']).and_then(|at| key.as_bytes().get(at)).copied();
        let path = match first_separator {
            Some(b'/') => key.clone(),
            _ => key
                .chars()
                .map(|c| match c {
                    '.' => '/',
                    '/' => '.',
                    c => c,
                })
                .collect(),
        };
        let reason = match path.split('/').next() {
            _ if path.split('/').any(|part| part.is_empty() || part == "..") => Some("is malformed"),
            Some("net") if namespaces.net => None,
            Some("net") => Some("needs an own network namespace"),
            Some("fs") if path.starts_with("fs/mqueue/") && namespaces.ipc => None,
            Some("kernel") if is_ipc_sysctl(&path) && namespaces.ipc => None,
            Some("kernel") if is_ipc_sysctl(&path) => Some("needs an own IPC namespace"),
            Some("kernel") if path == "kernel/domainname" && other_name(value) => {
                Some("conflicts with domainname")
            }
            Some("kernel") if path == "kernel/domainname" && namespaces.uts => None,
            Some("kernel") if path == "kernel/hostname" => Some("conflicts with hostname"),
            Some("user") if namespaces.user.is_some() => None,
            _ => Some("is not in a separate kernel namespace"),
        };
        if let Some(reason) = reason {
            return Err(Error::spec("linux.sysctl", format!("{key:?} {reason}")));
        }
        out.push((c_string("linux.sysctl", &format!("sys/{path}"))?, c_string("linux.sysctl", value)?));
    }
    out.sort();
    Ok(out)
}

fn is_ipc_sysctl(path: &str) -> bool {
    matches!(
        path,
        "kernel/msgmax"
            | "kernel/msgmnb"
            | "kernel/msgmni"
            | "kernel/sem"
            | "kernel/shmall"
            | "kernel/shmmax"
            | "kernel/shmmni"
            | "kernel/shm_rmid_forced"
            | "kernel/msg_next_id"
            | "kernel/sem_next_id"
            | "kernel/shm_next_id"
    )
}

/// A string for the kernel.
pub(crate) fn c_string(field: &'static str, text: &str) -> Result<CString, Error> {
    CString::new(text).map_err(|_| Error::spec(field, "has a NUL byte"))
}

/// A path in the container, cleaned and relative to its root; the root itself is `.`. A `..` goes up
/// as in a path that has no symbolic links, and not beyond the root.
pub(crate) fn inside(path: &Path) -> Result<CString, Error> {
    let mut parts: Vec<&str> = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => match name.to_str() {
                Some(name) => parts.push(name),
                None => return Err(Error::spec("path", format!("{} is not UTF-8", path.display()))),
            },
            Component::ParentDir => {
                parts.pop();
            }
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    c_string("path", if parts.is_empty() { "." } else { "" })
        .and_then(|root| if parts.is_empty() { Ok(root) } else { c_string("path", &parts.join("/")) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside() {
        let check = |path: &str, expect: &str| {
            assert_eq!(inside(Path::new(path)).unwrap().to_str().unwrap(), expect, "{path}");
        };
        check("/", ".");
        check("/proc/", "proc");
        check("/../../etc", "etc");
        check("/a/./b//c", "a/b/c");
        check("relative", "relative");
    }
}
