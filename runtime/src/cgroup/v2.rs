//! Limits of cgroup version 2.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::Path;

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxRdma, LinuxResources};

use super::file::{exists, make_folder, open_folder, read, read_number, write};
use super::{Folder, missing};
use crate::Error;

/// Makes the folder with the controllers that the resources need, plus those that statistics want.
pub(crate) fn make(folder: &Folder, resources: Option<&LinuxResources>) -> Result<OwnedFd, Error> {
    let Some(parent) = folder.path.parent().filter(|p| p.starts_with(&folder.mount)) else {
        return Err(Error::spec("linux.cgroupsPath", "a container cannot be in the root cgroup"));
    };
    make_folder(&folder.path)?;
    if resources.is_some() {
        enable_controllers(parent, &folder.mount)?;
    }
    open_folder(&folder.path)
}

/// Enables all controllers that there are in `folder` for its children, from the mount point downwards.
fn enable_controllers(folder: &Path, mount: &Path) -> Result<(), Error> {
    let available = controllers(folder, "cgroup.controllers");
    let enabled = controllers(folder, "cgroup.subtree_control");
    if enabled.is_superset(&wanted(&available)) && !enabled.is_empty() {
        return Ok(()); // and then so it is above
    }
    if folder != mount
        && let Some(parent) = folder.parent()
    {
        enable_controllers(parent, mount)?;
    }
    for controller in wanted(&controllers(folder, "cgroup.controllers")).difference(&enabled) {
        // one by one: one that cannot be enabled (a realtime process for cpu) must not stop the
        // others, and a limit that needs it fails with its own message
        let _ = write(folder, "cgroup.subtree_control", &format!("+{controller}"));
    }
    Ok(())
}

fn wanted(available: &BTreeSet<String>) -> BTreeSet<String> {
    const WANTED: [&str; 7] = ["cpu", "cpuset", "hugetlb", "io", "memory", "pids", "rdma"];
    available.iter().filter(|c| WANTED.contains(&c.as_str())).cloned().collect()
}

fn controllers(folder: &Path, file: &str) -> BTreeSet<String> {
    read(folder, file).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

/// The folder that a further process is born in: the container's, or that of `init` where the container itself manages
/// groups below its own (systemd inside), which then must have no processes.
pub(crate) fn open_for_process(folder: &Folder, init: i32) -> Result<OwnedFd, Error> {
    if controllers(&folder.path, "cgroup.subtree_control").is_empty() {
        return open_folder(&folder.path);
    }
    let table = read(Path::new("/proc"), &format!("{init}/cgroup")).unwrap_or_default();
    let inner = table.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let inner = folder.mount.join(inner);
    open_folder(if inner.starts_with(&folder.path) { &inner } else { &folder.path })
}

/// Sets limits.
pub(crate) fn apply(folder: &Folder, resources: &LinuxResources) -> Result<(), Error> {
    let path = &folder.path;
    if resources.network().as_ref().is_some_and(|network| {
        network.class_id().is_some_and(|class| class != 0)
            || !network.priorities().as_deref().unwrap_or_default().is_empty()
    }) {
        return Err(missing::only_v1("network"));
    }
    if let Some(memory) = resources.memory() {
        apply_memory(path, memory)?;
    }
    if let Some(cpu) = resources.cpu() {
        apply_cpu(path, cpu)?;
    }
    if let Some(limit) =
        resources.pids().as_ref().map(oci_spec::runtime::LinuxPids::limit).filter(|l| *l != 0)
    {
        write(path, "pids.max", &limit_text(limit.max(-1)))?;
    }
    if let Some(io) = resources.block_io() {
        apply_io(path, io)?;
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        let value = limit.limit().to_string();
        write(path, &format!("hugetlb.{}.max", limit.page_size()), &value)?;
        // reservations count as well, where the kernel knows them
        let reserved = format!("hugetlb.{}.rsvd.max", limit.page_size());
        if exists(path, &reserved) {
            write(path, &reserved, &value)?;
        }
    }
    for (device, limit) in resources.rdma().iter().flatten() {
        write(path, "rdma.max", &rdma_line(device, limit))?;
    }
    for (name, value) in resources.unified().iter().flatten() {
        apply_unified(path, name, value)?;
    }
    Ok(())
}

/// A file by its name.
fn apply_unified(path: &Path, name: &str, value: &str) -> Result<(), Error> {
    let invalid = |reason: &str| {
        Err(Error::spec("linux.resources.unified", format!("unified resource {name:?} {reason}")))
    };
    let Some((controller, _)) = name.split_once('.') else {
        return invalid("must be in the form CONTROLLER.PARAMETER");
    };
    if controller != "cgroup" && !controllers(path, "cgroup.controllers").contains(controller) {
        return invalid(&format!("can't be set: controller {controller:?} not available"));
    }
    // files like io.max take one line with each write
    value.lines().try_for_each(|line| write(path, name, line))
}

/// A line of `rdma.max`.
pub(crate) fn rdma_line(device: &str, limit: &LinuxRdma) -> String {
    let mut line = device.to_owned();
    for (name, value) in [("hca_handle", limit.hca_handles()), ("hca_object", limit.hca_objects())] {
        if let Some(value) = value {
            line.push_str(&format!(" {name}={value}"));
        }
    }
    line
}

/// -1 is no limit; what else is below 0, the kernel refuses.
fn limit_text(limit: i64) -> String {
    if limit == -1 { "max".to_owned() } else { limit.to_string() }
}

/// What the kernel itself would do without a word: kill what does not fit under a lower limit.
fn check_usage(path: &Path, memory: &LinuxMemory) -> Result<(), Error> {
    if memory.check_before_update() != Some(true) {
        return Ok(());
    }
    let Some(usage) = read_number(path, "memory.current") else { return Ok(()) };
    for (name, limit) in [("memory+swap", memory.swap()), ("memory", memory.limit())] {
        if let Some(limit) = limit.and_then(|limit| u64::try_from(limit).ok()).filter(|limit| *limit != 0)
            && limit <= usage
        {
            let reason = format!("rejecting {name} limit {limit} <= usage {usage}");
            return Err(Error::Limit {
                field: "linux.resources.memory.checkBeforeUpdate".to_owned(),
                reason,
            });
        }
    }
    Ok(())
}

/// The swap limit alone, from the specification's limit of memory and swap together.
pub(crate) fn swap_limit(memory: Option<i64>, together: Option<i64>) -> Result<Option<String>, Error> {
    let invalid = |reason: &str| Err(Error::spec("linux.resources.memory.swap", reason));
    match (memory.filter(|v| *v != 0), together.filter(|v| *v != 0)) {
        (Some(-1), None) => Ok(Some("max".to_owned())),
        (_, None) => Ok(None),
        (_, Some(-1)) => Ok(Some("max".to_owned())),
        (None | Some(-1), Some(_)) => invalid("a limit of memory and swap needs a limit of memory"),
        (Some(memory), Some(together)) if together < memory => {
            invalid("memory+swap limit is below the memory limit")
        }
        (Some(memory), Some(together)) => Ok(Some((together - memory).to_string())),
    }
}

fn apply_memory(path: &Path, memory: &LinuxMemory) -> Result<(), Error> {
    // swappiness is the whole host's, and who is killed for want of memory is a matter of memory.oom.group
    if memory.swappiness().is_some() {
        return Err(missing::only_v1("memory.swappiness"));
    }
    if memory.disable_oom_killer() == Some(true) {
        return Err(missing::only_v1("memory.disableOOMKiller"));
    }
    check_usage(path, memory)?;
    if let Some(swap) = swap_limit(memory.limit(), memory.swap())? {
        // "no limit" and "no swap at all" hold by themselves where the kernel has no swap accounting
        if exists(path, "memory.swap.max") || (swap != "max" && swap != "0") {
            write(path, "memory.swap.max", &swap)?;
        }
    }
    if let Some(limit) = memory.limit().filter(|v| *v != 0) {
        write(path, "memory.max", &limit_text(limit))?;
    }
    if let Some(reservation) = memory.reservation().filter(|v| *v != 0) {
        write(path, "memory.low", &limit_text(reservation))?;
    }
    Ok(())
}

/// `cpu.weight` (1 to 10000) from `cpu.shares` (2 to 262144), so that the smallest, the default (1024: 100)
/// and the largest value meet: `10^((l² + 125 l) / 612 − 7/34)` with `l = log2(shares)`, as runc ≥ 1.3.2 and crun ≥ 1.23 do it.
pub(crate) fn weight(shares: u64) -> u64 {
    match shares {
        0 => 0,
        1 | 2 => 1,
        262_144.. => 10_000,
        _ => {
            let l = log2(shares);
            let exponent = (l * l + 125.0 * l) / 612.0 - 7.0 / 34.0;
            let weight = (power_of_ten(exponent) - 1e-9).ceil() as u64;
            weight.clamp(1, 10_000)
        }
    }
}

/// The logarithm of a number below 2^18. The standard library's would load the C library for
/// mathematics into each monitor's memory.
fn log2(number: u64) -> f64 {
    let whole = number.ilog2();
    let fraction = number as f64 / (1_u64 << whole) as f64; // 1 to 2
    // ln x = 2 artanh((x - 1) / (x + 1)), a series that converges fast in this range
    let z = (fraction - 1.0) / (fraction + 1.0);
    let mut power = z;
    let mut sum = 0.0;
    for odd in (1..40).step_by(2) {
        sum += power / f64::from(odd);
        power *= z * z;
    }
    f64::from(whole) + 2.0 * sum / std::f64::consts::LN_2
}

/// `10^exponent`, for 0 to 4: the exponential series of an eighth, three times squared.
fn power_of_ten(exponent: f64) -> f64 {
    let x = exponent * std::f64::consts::LN_10 / 8.0;
    let (mut term, mut sum) = (1.0, 1.0);
    for n in 1..30 {
        term *= x / f64::from(n);
        sum += term;
    }
    let squared = sum * sum;
    let fourth = squared * squared;
    fourth * fourth
}

fn apply_cpu(path: &Path, cpu: &LinuxCpu) -> Result<(), Error> {
    if let Some(idle) = cpu.idle() {
        write(path, "cpu.idle", &idle.to_string())?;
    }
    // an idle group has no weight
    if let Some(shares) = cpu.shares().filter(|s| *s != 0 && cpu.idle() != Some(1)) {
        write(path, "cpu.weight", &weight(shares).to_string())?;
    }
    if cpu.realtime_runtime().is_some_and(|v| v != 0) || cpu.realtime_period().is_some_and(|v| v != 0) {
        return Err(missing::only_v1("cpu.realtimeRuntime"));
    }
    let quota = cpu.quota().filter(|q| *q != 0);
    let period = cpu.period().filter(|p| *p != 0);
    // a burst is never above the quota: a lower one is set before the quota, a higher one after it
    let mut late_burst = cpu.burst().map(|burst| burst.to_string());
    if let Some(burst) = &late_burst {
        match write(path, "cpu.max.burst", burst) {
            Ok(()) => late_burst = None,
            Err(error) if error.errno() == Some(libc::EINVAL) && quota.is_some() => {}
            Err(error) => return Err(error),
        }
    }
    if quota.is_some() || period.is_some() {
        let quota = match quota {
            Some(quota) => limit_text(quota.max(-1)),
            // a period alone keeps the quota
            None => read(path, "cpu.max")
                .and_then(|text| text.split(' ').next().map(str::to_owned))
                .unwrap_or_else(|| "max".to_owned()),
        };
        let value = period.map_or(quota.clone(), |period| format!("{quota} {period}"));
        write(path, "cpu.max", &value)?;
    }
    if let Some(burst) = late_burst {
        write(path, "cpu.max.burst", &burst)?;
    }
    for (name, value) in [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())] {
        if let Some(value) = value.as_deref().filter(|v| !v.is_empty()) {
            write(path, name, value)?;
        }
    }
    Ok(())
}

fn apply_io(path: &Path, io: &LinuxBlockIo) -> Result<(), Error> {
    if io.leaf_weight().is_some_and(|weight| weight != 0) {
        return Err(missing::only_v1("blockIO.leafWeight"));
    }
    // the BFQ scheduler has version 1's range of 10 to 1000; io.weight has 1 to 10000
    let bfq = exists(path, "io.bfq.weight");
    let file = if bfq { "io.bfq.weight" } else { "io.weight" };
    let scaled =
        |weight: u16| if bfq { u64::from(weight) } else { 1 + (u64::from(weight).max(10) - 10) * 9999 / 990 };
    if let Some(weight) = io.weight().filter(|w| *w != 0) {
        write(path, file, &scaled(weight).to_string())?;
    }
    for device in io.weight_device().iter().flatten() {
        if let Some(weight) = device.weight() {
            write(path, file, &format!("{}:{} {}", device.major(), device.minor(), scaled(weight)))?;
        }
        if device.leaf_weight().is_some_and(|weight| weight != 0) {
            return Err(missing::only_v1("blockIO.weightDevice.leafWeight"));
        }
    }
    for (key, devices) in [
        ("rbps", io.throttle_read_bps_device()),
        ("wbps", io.throttle_write_bps_device()),
        ("riops", io.throttle_read_iops_device()),
        ("wiops", io.throttle_write_iops_device()),
    ] {
        for device in devices.iter().flatten() {
            // none is 0 in version 1
            let rate = if device.rate() == 0 { "max".to_owned() } else { device.rate().to_string() };
            write(path, "io.max", &format!("{}:{} {key}={rate}", device.major(), device.minor()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_meet_at_both_ends_and_at_the_default() {
        for (shares, expect) in [(0, 0), (1, 1), (2, 1), (1024, 100), (262_144, 10_000), (u64::MAX, 10_000)] {
            assert_eq!(weight(shares), expect, "shares {shares}");
        }
        for shares in 3..262_144_u32 {
            let l = f64::from(shares).log2();
            let exact = 10_f64.powf((l * l + 125.0 * l) / 612.0 - 7.0 / 34.0);
            let ours = f64::from(u32::try_from(weight(shares.into())).unwrap());
            assert!(ours >= exact - 1e-6 && ours < exact + 1.0 + 1e-6, "shares {shares}: {ours} {exact}");
        }
    }

    #[test]
    fn swap_is_what_is_above_memory() {
        let check = |memory, together, expect: Option<&str>| {
            assert_eq!(swap_limit(memory, together).unwrap().as_deref(), expect, "{memory:?} {together:?}");
        };
        check(Some(100), Some(300), Some("200"));
        check(Some(100), Some(100), Some("0"));
        check(Some(100), Some(-1), Some("max"));
        check(Some(-1), None, Some("max"));
        check(Some(100), None, None);
        check(None, None, None);
        assert!(swap_limit(Some(100), Some(50)).is_err());
        assert!(swap_limit(None, Some(50)).is_err());
    }
}
