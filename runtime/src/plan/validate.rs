//! What can be refused by reading the specification alone, before anything is opened or made: values that
//! contradict each other, that the kernel would take for something else, or that would leave their place.

use std::path::Path;

use oci_spec::runtime::{
    Hook, Hooks, Linux, LinuxIdMapping, LinuxNamespaceType, LinuxResources, LinuxSeccomp, Mount, Process,
    Spec,
};

use super::inside;
use crate::cgroup::device_access;
use crate::{Error, Warning};

/// The kernel takes this id for "do not change": asking for it would leave root's.
const NO_ID: u32 = u32::MAX;

/// The longest name that `sethostname` and `setdomainname` take.
const NAME_MAX: usize = 64;

/// The greatest error number of the kernel.
const ERRNO_MAX: u32 = 4095;

fn refuse<T>(field: &'static str, reason: impl Into<String>) -> Result<T, Error> {
    Err(Error::spec(field, reason))
}

/// Checks a container's specification.
pub(crate) fn spec(spec: &Spec, warnings: &mut Vec<Warning>) -> Result<(), Error> {
    version(spec.version())?;
    for (field, name) in [("hostname", spec.hostname()), ("domainname", spec.domainname())] {
        if name.as_ref().is_some_and(|name| name.len() > NAME_MAX) {
            return refuse(field, format!("is longer than {NAME_MAX} bytes"));
        }
    }
    for mount in spec.mounts().iter().flatten() {
        destination(mount)?;
    }
    spec.hooks().as_ref().map_or(Ok(()), hooks)?;
    spec.linux().as_ref().map_or(Ok(()), |spec| linux(spec, warnings))
}

/// None, as runc has it, or a version 1.
fn version(version: &str) -> Result<(), Error> {
    let major = version.split('.').next().unwrap_or_default();
    if !version.is_empty() && major != "1" {
        return refuse("ociVersion", format!("{version:?} is not a version 1 of the runtime specification"));
    }
    Ok(())
}

fn destination(mount: &Mount) -> Result<(), Error> {
    let destination = mount.destination();
    if inside(destination)?.as_bytes() == b"." {
        return refuse("mounts.destination", format!("{} is on the top of rootfs", destination.display()));
    }
    Ok(())
}

/// A hook's path is the host's, or the container's for `startContainer`; never the working directory's.
fn hooks(hooks: &Hooks) -> Result<(), Error> {
    let lists: [(&'static str, &Option<Vec<Hook>>); 6] = [
        ("hooks.prestart", hooks.prestart()),
        ("hooks.createRuntime", hooks.create_runtime()),
        ("hooks.createContainer", hooks.create_container()),
        ("hooks.startContainer", hooks.start_container()),
        ("hooks.poststart", hooks.poststart()),
        ("hooks.poststop", hooks.poststop()),
    ];
    for (field, hook) in
        lists.into_iter().flat_map(|(field, list)| list.iter().flatten().map(move |h| (field, h)))
    {
        if !hook.path().is_absolute() {
            return refuse(field, format!("{:?} is not an absolute path", hook.path()));
        }
        if hook.timeout().is_some_and(|seconds| seconds <= 0) {
            return refuse(field, "the timeout must be greater than 0");
        }
    }
    Ok(())
}

fn linux(linux: &Linux, warnings: &mut Vec<Warning>) -> Result<(), Error> {
    for namespace in linux.namespaces().iter().flatten() {
        let path = namespace.path().as_deref().unwrap_or(Path::new("/"));
        if !path.as_os_str().is_empty() && !path.is_absolute() {
            return refuse("linux.namespaces", format!("{path:?} is not an absolute path"));
        }
    }
    time_offsets(linux)?;
    mappings("linux.uidMappings", linux.uid_mappings())?;
    mappings("linux.gidMappings", linux.gid_mappings())?;
    for device in linux.devices().iter().flatten() {
        let path = device.path();
        if inside(path)?.as_bytes() == b"." {
            return refuse("linux.devices", format!("{path:?} is no path of a device"));
        }
        if [device.uid(), device.gid()].contains(&Some(NO_ID)) {
            return refuse("linux.devices", format!("{path:?} cannot belong to id {NO_ID}"));
        }
    }
    if linux.cgroups_path().as_ref().is_some_and(|path| path.as_os_str().as_encoded_bytes().contains(&0)) {
        return refuse("linux.cgroupsPath", "has a NUL byte");
    }
    linux.resources().as_ref().map_or(Ok(()), |limits| resources(limits, warnings))?;
    linux.seccomp().as_ref().map_or(Ok(()), seccomp)
}

fn time_offsets(linux: &Linux) -> Result<(), Error> {
    let Some(offsets) = linux.time_offsets().as_ref().filter(|offsets| !offsets.is_empty()) else {
        return Ok(());
    };
    let mut namespaces = linux.namespaces().iter().flatten();
    let is_new = |path: &Option<std::path::PathBuf>| path.as_ref().is_none_or(|p| p.as_os_str().is_empty());
    if !namespaces.any(|n| n.typ() == LinuxNamespaceType::Time && is_new(n.path())) {
        return refuse("linux.timeOffsets", "there is no new time namespace to have them");
    }
    for (clock, offset) in offsets {
        if !matches!(clock.as_str(), "monotonic" | "boottime") {
            return refuse("linux.timeOffsets", format!("{clock:?} is neither monotonic nor boottime"));
        }
        if offset.nanosecs().is_some_and(|n| n >= 1_000_000_000) {
            return refuse("linux.timeOffsets", format!("{clock}: nanosecs must be below 1000000000"));
        }
    }
    Ok(())
}

/// Ranges of ids that exist and do not overlap.
pub(super) fn mappings(field: &'static str, list: &Option<Vec<LinuxIdMapping>>) -> Result<(), Error> {
    let list = list.as_deref().unwrap_or_default();
    for (index, mapping) in list.iter().enumerate() {
        let fits = |first: u32| u64::from(first) + u64::from(mapping.size()) <= u64::from(NO_ID);
        if mapping.size() == 0 {
            return refuse(field, format!("[{index}] has the size 0"));
        }
        if !fits(mapping.container_id()) || !fits(mapping.host_id()) {
            return refuse(field, format!("[{index}] goes beyond the greatest id"));
        }
        let overlaps = |a: u32, b: u32, b_size: u32| {
            u64::from(a) < u64::from(b) + u64::from(b_size)
                && u64::from(b) < u64::from(a) + u64::from(mapping.size())
        };
        if list.iter().take(index).any(|other| {
            overlaps(mapping.container_id(), other.container_id(), other.size())
                || overlaps(mapping.host_id(), other.host_id(), other.size())
        }) {
            return refuse(field, format!("[{index}] overlaps with one before"));
        }
    }
    Ok(())
}

/// Names in resources become names of files.
pub(crate) fn resources(resources: &LinuxResources, warnings: &mut Vec<Warning>) -> Result<(), Error> {
    for rule in resources.devices().iter().flatten() {
        let Some(access) = rule.access().as_deref().filter(|access| !access.is_empty()) else { continue };
        let known = device_access(rule);
        if known.is_empty() {
            return refuse("linux.resources.devices", format!("the access {access:?} is not of r, w and m"));
        }
        if known != access {
            warnings.push(Warning::DeviceAccess { access: access.to_owned() });
        }
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        let size = limit.page_size();
        let number = ["KB", "MB", "GB"].iter().find_map(|unit| size.strip_suffix(unit)).unwrap_or_default();
        if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
            return refuse(
                "linux.resources.hugepageLimits",
                format!("the page size {size:?} is not like 2MB"),
            );
        }
    }
    if let Some(value) =
        resources.memory().as_ref().and_then(|memory| memory.swappiness()).filter(|v| *v > 100)
    {
        return refuse("linux.resources.memory.swappiness", format!("{value} is not in 0 to 100"));
    }
    for file in resources.unified().iter().flat_map(|unified| unified.keys()) {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if !file.contains('.') || file.starts_with('.') || !file.chars().all(plain) {
            return refuse("linux.resources.unified", format!("{file:?} is not the name of a cgroup's file"));
        }
    }
    Ok(())
}

fn seccomp(seccomp: &LinuxSeccomp) -> Result<(), Error> {
    let of_rules =
        seccomp.syscalls().iter().flatten().map(|rule| ("linux.seccomp.syscalls", rule.errno_ret()));
    let default = [("linux.seccomp.defaultErrnoRet", seccomp.default_errno_ret())];
    match default.into_iter().chain(of_rules).find(|(_, errno)| errno.is_some_and(|e| e > ERRNO_MAX)) {
        Some((field, errno)) => refuse(field, format!("{} is no error number", errno.unwrap_or_default())),
        None => Ok(()),
    }
}

/// Checks a process: a container's first, or one of an exec.
pub(crate) fn process(process: &Process) -> Result<(), Error> {
    let user = process.user();
    for (field, id) in [("process.user.uid", user.uid()), ("process.user.gid", user.gid())] {
        if id == NO_ID {
            return refuse(field, format!("{id} is no id"));
        }
    }
    if user.additional_gids().iter().flatten().any(|gid| *gid == NO_ID) {
        return refuse("process.user.additionalGids", format!("{NO_ID} is no id"));
    }
    if let Some(umask) = user.umask().filter(|umask| *umask > 0o777) {
        return refuse("process.user.umask", format!("{umask} is more than 0777"));
    }
    for entry in process.env().iter().flatten() {
        match entry.split_once('=') {
            None => return refuse("process.env", format!("{entry:?} has no '='")),
            Some(("", _)) => return refuse("process.env", format!("{entry:?} has no name")),
            Some(_) => {}
        }
    }
    let limits = process.rlimits().as_deref().unwrap_or_default();
    for (index, limit) in limits.iter().enumerate() {
        if limits.iter().take(index).any(|earlier| earlier.typ() == limit.typ()) {
            return refuse("process.rlimits", format!("{} is there twice", limit.typ()));
        }
        if limit.soft() > limit.hard() {
            return refuse("process.rlimits", format!("{}: soft is more than hard", limit.typ()));
        }
    }
    match process.oom_score_adj() {
        Some(score) if !(-1000..=1000).contains(&score) => {
            refuse("process.oomScoreAdj", format!("{score} is not in -1000 to 1000"))
        }
        _ => Ok(()),
    }
}
