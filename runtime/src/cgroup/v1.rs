//! Limits of cgroup version 1.

use std::os::fd::OwnedFd;
use std::path::Path;

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources};

use super::Folder;
use super::file::{exists, make_folder, open_write, read, write};
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
    let find = |controller: &str| folders.iter().find(|f| f.has(controller)).map(|f| f.path.as_path());
    if let Some(memory) = resources.memory()
        && memory_is_limited(memory)
    {
        apply_memory(need(find("memory"), "memory")?, memory)?;
    }
    if let Some(cpu) = resources.cpu() {
        apply_cpu(find("cpu"), cpu)?;
        apply_cpuset(find("cpuset"), cpu)?;
    }
    if let Some(limit) =
        resources.pids().as_ref().map(oci_spec::runtime::LinuxPids::limit).filter(|l| *l != 0)
    {
        let value = if limit > 0 { limit.to_string() } else { "max".to_owned() };
        write(need(find("pids"), "pids")?, "pids.max", &value)?;
    }
    if let Some(block_io) = resources.block_io() {
        apply_block_io(find("blkio"), block_io)?;
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        let name = format!("hugetlb.{}.limit_in_bytes", limit.page_size());
        write(need(find("hugetlb"), "hugetlb")?, &name, &limit.limit().to_string())?;
    }
    if let Some(network) = resources.network() {
        if let Some(class) = network.class_id().filter(|class| *class != 0) {
            write(need(find("net_cls"), "net_cls")?, "net_cls.classid", &class.to_string())?;
        }
        for priority in network.priorities().iter().flatten() {
            let value = format!("{} {}", priority.name(), priority.priority());
            write(need(find("net_prio"), "net_prio")?, "net_prio.ifpriomap", &value)?;
        }
    }
    apply_rdma(find("rdma"), resources)
}

fn need<'a>(folder: Option<&'a Path>, controller: &'static str) -> Result<&'a Path, Error> {
    folder.ok_or(Error::Unsupported {
        what: format!("the cgroup controller {controller}"),
        why: "it is not mounted",
    })
}

fn memory_is_limited(memory: &LinuxMemory) -> bool {
    memory.limit().is_some_and(|v| v != 0)
        || memory.swap().is_some_and(|v| v != 0)
        || memory.reservation().is_some_and(|v| v != 0)
        || memory.kernel_tcp().is_some_and(|v| v != 0)
        || memory.swappiness().is_some()
        || memory.disable_oom_killer() == Some(true)
}

fn apply_memory(path: &Path, memory: &LinuxMemory) -> Result<(), Error> {
    let limit = memory.limit().filter(|v| *v != 0);
    let mut swap = memory.swap().filter(|v| *v != 0);
    if limit == Some(-1) && swap.is_none() {
        swap = Some(-1); // no limit of memory is none of memory and swap, either
    }
    let set_limit =
        |value: Option<i64>| value.map_or(Ok(()), |v| write(path, "memory.limit_in_bytes", &v.to_string()));
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
        if value > 100 {
            return Err(Error::spec(
                "linux.resources.memory.swappiness",
                format!("{value} is not in 0 to 100"),
            ));
        }
        write(path, "memory.swappiness", &value.to_string())?;
    }
    Ok(())
}

fn apply_cpu(path: Option<&Path>, cpu: &LinuxCpu) -> Result<(), Error> {
    let set = |name: &str, value: Option<String>| match value {
        Some(value) => write(need(path, "cpu")?, name, &value),
        None => Ok(()),
    };
    let text_u64 = |value: Option<u64>| value.filter(|v| *v != 0).map(|v| v.to_string());
    let text_i64 = |value: Option<i64>| value.filter(|v| *v != 0).map(|v| v.to_string());
    set("cpu.shares", text_u64(cpu.shares()))?;
    let (period, quota) = (text_u64(cpu.period()), text_i64(cpu.quota()));
    // a period that does not fit to the old quota is refused; then the quota goes first
    if let (Some(period), Some(_)) = (&period, &quota) {
        if set("cpu.cfs_period_us", Some(period.clone())).is_err() {
            set("cpu.cfs_quota_us", quota)?;
            set("cpu.cfs_period_us", Some(period.clone()))?;
        } else {
            set("cpu.cfs_quota_us", quota)?;
        }
    } else {
        set("cpu.cfs_period_us", period)?;
        set("cpu.cfs_quota_us", quota)?;
    }
    set("cpu.cfs_burst_us", cpu.burst().map(|v| v.to_string()))?;
    set("cpu.idle", text_i64(cpu.idle()))?;
    set("cpu.rt_period_us", text_u64(cpu.realtime_period()))?;
    set("cpu.rt_runtime_us", text_i64(cpu.realtime_runtime()))
}

fn apply_cpuset(path: Option<&Path>, cpu: &LinuxCpu) -> Result<(), Error> {
    for (name, value) in [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())] {
        if let Some(value) = value.as_deref().filter(|v| !v.is_empty()) {
            write(need(path, "cpuset")?, name, value)?;
        }
    }
    Ok(())
}

fn apply_block_io(path: Option<&Path>, io: &LinuxBlockIo) -> Result<(), Error> {
    let set = |name: &str, value: String| write(need(path, "blkio")?, name, &value);
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
        write(need(path, "rdma")?, "rdma.max", &value)?;
    }
    Ok(())
}
