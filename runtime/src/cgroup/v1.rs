//! Limits of cgroup version 1.

use std::os::fd::OwnedFd;
use std::path::Path;

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources};

use super::file::{exists, make_folder, open_write, read, read_number, write};
use super::{Folder, missing};
use crate::Error;

/// Makes a folder; gives its `tasks` file.
pub(crate) fn make(folder: &Folder) -> Result<OwnedFd, Error> {
    let new = make_folder(&folder.path)?;
    if folder.has("cpuset") && (new || !is_set(&folder.path, "cpuset.cpus")) {
        inherit_cpuset(&folder.path, &folder.mount)?;
    }
    open_write(&folder.path.join("tasks"))
}

fn is_set(path: &Path, name: &str) -> bool {
    read(path, name).is_some_and(|text| !text.trim().is_empty())
}

/// A new cpuset has no processors and no memory, and nobody can enter it: gives it its parent's.
fn inherit_cpuset(path: &Path, mount: &Path) -> Result<(), Error> {
    let Some(parent) = path.parent().filter(|_| path != mount) else { return Ok(()) };
    for name in ["cpuset.cpus", "cpuset.mems"] {
        if is_set(path, name) {
            continue; // cgroup.clone_children did it
        }
        if !is_set(parent, name) {
            inherit_cpuset(parent, mount)?;
        }
        let value = read(parent, name).unwrap_or_default();
        write(path, name, value.trim())?;
    }
    Ok(())
}

/// Sets limits.
pub(crate) fn apply(folders: &[Folder], resources: &LinuxResources) -> Result<(), Error> {
    if resources.unified().as_ref().is_some_and(|files| !files.is_empty()) {
        return Err(Error::spec("linux.resources.unified", "cannot be set with cgroup version 1"));
    }
    let find = |controller: &str| folders.iter().find(|f| f.has(controller)).map(|f| f.path.as_path());
    if let Some(memory) = resources.memory()
        && memory_is_limited(memory)
    {
        apply_memory(need(find("memory"), "memory", "memory")?, memory)?;
    }
    if let Some(cpu) = resources.cpu() {
        apply_cpu(find("cpu"), cpu)?;
        apply_cpuset(find("cpuset"), cpu)?;
    }
    if let Some(limit) =
        resources.pids().as_ref().map(oci_spec::runtime::LinuxPids::limit).filter(|l| *l != 0)
    {
        let value = if limit > 0 { limit.to_string() } else { "max".to_owned() };
        write(need(find("pids"), "pids", "pids.limit")?, "pids.max", &value)?;
    }
    if let Some(block_io) = resources.block_io() {
        apply_block_io(find("blkio"), block_io)?;
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        let path = need(find("hugetlb"), "hugetlb", "hugepageLimits")?;
        let value = limit.limit().to_string();
        write(path, &format!("hugetlb.{}.limit_in_bytes", limit.page_size()), &value)?;
        // reservations count as well, where the kernel knows them
        let reserved = format!("hugetlb.{}.rsvd.limit_in_bytes", limit.page_size());
        if exists(path, &reserved) {
            write(path, &reserved, &value)?;
        }
    }
    if let Some(network) = resources.network() {
        if let Some(class) = network.class_id().filter(|class| *class != 0) {
            write(
                need(find("net_cls"), "net_cls", "network.classID")?,
                "net_cls.classid",
                &class.to_string(),
            )?;
        }
        for priority in network.priorities().iter().flatten() {
            let value = format!("{} {}", priority.name(), priority.priority());
            write(need(find("net_prio"), "net_prio", "network.priorities")?, "net_prio.ifpriomap", &value)?;
        }
    }
    apply_rdma(find("rdma"), resources)
}

fn need<'a>(folder: Option<&'a Path>, controller: &str, field: &str) -> Result<&'a Path, Error> {
    folder.ok_or_else(|| missing::controller(field, controller))
}

fn memory_is_limited(memory: &LinuxMemory) -> bool {
    memory.limit().is_some_and(|v| v != 0)
        || memory.swap().is_some_and(|v| v != 0)
        || memory.reservation().is_some_and(|v| v != 0)
        || memory.kernel_tcp().is_some_and(|v| v != 0)
        || memory.swappiness().is_some()
        || memory.disable_oom_killer() == Some(true)
        || memory.use_hierarchy() == Some(true)
}

fn apply_memory(path: &Path, memory: &LinuxMemory) -> Result<(), Error> {
    let limit = memory.limit().filter(|v| *v != 0);
    let mut swap = memory.swap().filter(|v| *v != 0);
    if limit == Some(-1) && swap.is_none() {
        swap = Some(-1); // no limit of memory is none of memory and swap, either
    }
    if memory.use_hierarchy() == Some(true) && read_number(path, "memory.use_hierarchy") == Some(0) {
        write(path, "memory.use_hierarchy", "1")?;
    }
    let set_limit = |value: Option<i64>| value.map_or(Ok(()), |value| set_memory_limit(path, value));
    let set_swap = |value: Option<i64>| match value {
        // a kernel without swap accounting has no such file; no limit needs none
        Some(-1) if !exists(path, "memory.memsw.limit_in_bytes") => Ok(()),
        Some(v) => write(path, "memory.memsw.limit_in_bytes", &v.to_string()),
        None => Ok(()),
    };
    // memory <= memory+swap must hold after each write, so a raised one goes first
    let current_swap = read(path, "memory.memsw.limit_in_bytes").and_then(|t| t.trim().parse::<u64>().ok());
    let grows = match (swap, current_swap) {
        (Some(-1), _) => true,
        (Some(new), Some(current)) => u64::try_from(new).is_ok_and(|new| new > current),
        _ => false,
    };
    if grows {
        set_swap(swap)?;
        set_limit(limit)?;
    } else {
        set_limit(limit)?;
        set_swap(swap)?;
    }
    if let Some(value) = memory.reservation().filter(|v| *v != 0) {
        write(path, "memory.soft_limit_in_bytes", &value.to_string())?;
    }
    if let Some(value) = memory.kernel_tcp().filter(|v| *v != 0) {
        write(path, "memory.kmem.tcp.limit_in_bytes", &value.to_string())?;
    }
    if memory.disable_oom_killer() == Some(true) {
        write(path, "memory.oom_control", "1")?;
    }
    if let Some(value) = memory.swappiness() {
        write(path, "memory.swappiness", &value.to_string())?;
    }
    Ok(())
}

/// The kernel refuses a limit that it cannot reach by giving pages back; then it helps to know how far away that is.
fn set_memory_limit(path: &Path, limit: i64) -> Result<(), Error> {
    let result = write(path, "memory.limit_in_bytes", &limit.to_string());
    match result {
        Err(error) if error.errno() == Some(libc::EBUSY) => {
            let number = |name: &str| read_number(path, name).unwrap_or(0);
            let (usage, peak) = (number("memory.usage_in_bytes"), number("memory.max_usage_in_bytes"));
            Err(Error::Limit {
                field: "linux.resources.memory.limit".to_owned(),
                reason: format!(
                    "unable to set memory limit to {limit} (current usage: {usage}, peak usage: {peak})"
                ),
            })
        }
        other => other,
    }
}

fn apply_cpu(path: Option<&Path>, cpu: &LinuxCpu) -> Result<(), Error> {
    let text_u64 = |value: Option<u64>| value.filter(|v| *v != 0).map(|v| v.to_string());
    let text_i64 = |value: Option<i64>| value.filter(|v| *v != 0).map(|v| v.to_string());
    if let Some(idle) = cpu.idle() {
        write(need(path, "cpu", "cpu.idle")?, "cpu.idle", &idle.to_string())?;
    }
    // an idle group has no shares
    if let Some(shares) = cpu.shares().filter(|shares| *shares != 0 && cpu.idle() != Some(1)) {
        // the kernel would silently take the nearest
        let refused = |reason: &str| {
            Err(Error::Limit { field: "linux.resources.cpu.shares".to_owned(), reason: reason.to_owned() })
        };
        match shares {
            0..2 => return refused("the minimum allowed cpu-shares is 2"),
            262_145.. => return refused("the maximum allowed cpu-shares is 262144"),
            _ => write(need(path, "cpu", "cpu.shares")?, "cpu.shares", &shares.to_string())?,
        }
    }
    let bandwidth = [
        ("cpu.cfs_period_us", text_u64(cpu.period()), "cpu.period"),
        ("cpu.cfs_burst_us", cpu.burst().map(|v| v.to_string()), "cpu.burst"),
    ];
    in_order(path, bandwidth, ("cpu.cfs_quota_us", text_i64(cpu.quota()), "cpu.quota"))?;
    let period = ("cpu.rt_period_us", text_u64(cpu.realtime_period()), "cpu.realtimePeriod");
    in_order(path, [period], ("cpu.rt_runtime_us", text_i64(cpu.realtime_runtime()), "cpu.realtimeRuntime"))
}

/// A file, its new value, and the field that asks for it.
type Setting<'a> = (&'a str, Option<String>, &'a str);

/// Sets values that must fit to each other after each write: what the kernel refuses beside the old quota is tried again
/// beside the new one.
fn in_order<const N: usize>(
    path: Option<&Path>,
    first: [Setting<'_>; N],
    (file, quota, field): Setting<'_>,
) -> Result<(), Error> {
    let mut again = Vec::new();
    for (name, value, field) in &first {
        let Some(value) = value else { continue };
        match write(need(path, "cpu", field)?, name, value) {
            Err(error) if error.errno() == Some(libc::EINVAL) && quota.is_some() => again.push((name, value)),
            result => result?,
        }
    }
    let Some(quota) = quota else { return Ok(()) };
    let path = need(path, "cpu", field)?;
    write(path, file, &quota)?;
    again.into_iter().try_for_each(|(name, value)| write(path, name, value))
}

fn apply_cpuset(path: Option<&Path>, cpu: &LinuxCpu) -> Result<(), Error> {
    for (name, value) in [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())] {
        if let Some(value) = value.as_deref().filter(|v| !v.is_empty()) {
            write(need(path, "cpuset", "cpu.cpus")?, name, value)?;
        }
    }
    Ok(())
}

fn apply_block_io(path: Option<&Path>, io: &LinuxBlockIo) -> Result<(), Error> {
    let set = |name: &str, value: String| write(need(path, "blkio", "blockIO")?, name, &value);
    // with the BFQ scheduler the files have its name in theirs
    let prefix =
        if path.is_some_and(|p| exists(p, "blkio.bfq.weight")) { "blkio.bfq.weight" } else { "blkio.weight" };
    if let Some(weight) = io.weight().filter(|w| *w != 0) {
        set(prefix, weight.to_string())?;
    }
    if let Some(weight) = io.leaf_weight().filter(|w| *w != 0) {
        set("blkio.leaf_weight", weight.to_string())?;
    }
    for device in io.weight_device().iter().flatten() {
        let name = format!("{}:{}", device.major(), device.minor());
        if let Some(weight) = device.weight() {
            set(&format!("{prefix}_device"), format!("{name} {weight}"))?;
        }
        if let Some(weight) = device.leaf_weight() {
            set("blkio.leaf_weight_device", format!("{name} {weight}"))?;
        }
    }
    for (file, devices) in [
        ("blkio.throttle.read_bps_device", io.throttle_read_bps_device()),
        ("blkio.throttle.write_bps_device", io.throttle_write_bps_device()),
        ("blkio.throttle.read_iops_device", io.throttle_read_iops_device()),
        ("blkio.throttle.write_iops_device", io.throttle_write_iops_device()),
    ] {
        for device in devices.iter().flatten() {
            set(file, format!("{}:{} {}", device.major(), device.minor(), device.rate()))?;
        }
    }
    Ok(())
}

fn apply_rdma(path: Option<&Path>, resources: &LinuxResources) -> Result<(), Error> {
    for (device, limit) in resources.rdma().iter().flatten() {
        let value = super::v2::rdma_line(device, limit);
        write(need(path, "rdma", "rdma")?, "rdma.max", &value)?;
    }
    Ok(())
}
