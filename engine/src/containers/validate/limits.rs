//! Limits of memory, processors and block devices.

use std::path::Path;

use super::super::config::HostConfig;
use super::invalid;
use crate::error::Error;

const MIN_MEMORY_BYTES: i64 = 6 << 20;
const NANO_CPUS: i64 = 1_000_000_000;

/// Checks all limits.
///
/// # Errors
/// 400 with dockerd's texts.
pub(super) fn check(host: &HostConfig) -> Result<(), Error> {
    check_memory(host)?;
    check_cpu(host)?;
    if host.blkio_weight > 0 && !(10..=1000).contains(&host.blkio_weight) && kernel_has_block_weight(false) {
        return Err(invalid("Range of blkio weight is from 10 to 1000"));
    }
    if !(-1000..=1000).contains(&host.oom_score_adj) {
        return Err(invalid(format!(
            "Invalid value {}, range for oom score adj is [-1000, 1000]",
            host.oom_score_adj
        )));
    }
    for (wanted, what) in [(host.io_maximum_bandwidth, "bandwidth"), (host.io_maximum_iops, "IOPs")] {
        if wanted != 0 {
            return Err(invalid(format!(
                "invalid option: QoS maximum {what} configuration is not supported on linux"
            )));
        }
    }
    if host.shm_size < 0 {
        return Err(invalid("SHM size can not be less than 0"));
    }
    Ok(())
}

fn check_memory(host: &HostConfig) -> Result<(), Error> {
    let (memory, swap, reservation) = (host.memory, host.memory_swap, host.memory_reservation);
    let swappiness = host.memory_swappiness.unwrap_or(-1);
    if memory != 0 && memory < MIN_MEMORY_BYTES {
        return Err(invalid("Minimum memory limit allowed is 6MB"));
    }
    if memory > 0 && swap > 0 && swap < memory {
        return Err(invalid("Minimum memoryswap limit should be larger than memory limit, see usage"));
    }
    if memory == 0 && swap > 0 {
        return Err(invalid("You should always set the Memory limit when using Memoryswap limit, see usage"));
    }
    if !(-1..=100).contains(&swappiness) {
        return Err(invalid(format!("Invalid value: {swappiness}, valid memory swappiness range is 0-100")));
    }
    if reservation > 0 && reservation < MIN_MEMORY_BYTES {
        return Err(invalid("Minimum memory reservation allowed is 6MB"));
    }
    if memory > 0 && reservation > 0 && memory < reservation {
        return Err(invalid("Minimum memory limit can not be less than memory reservation limit, see usage"));
    }
    Ok(())
}

fn check_cpu(host: &HostConfig) -> Result<(), Error> {
    if host.nano_cpus > 0 && host.cpu_period > 0 {
        return Err(invalid("Conflicting options: Nano CPUs and CPU Period cannot both be set"));
    }
    if host.nano_cpus > 0 && host.cpu_quota > 0 {
        return Err(invalid("Conflicting options: Nano CPUs and CPU Quota cannot both be set"));
    }
    let cpus = available_cpus();
    if host.nano_cpus < 0 || host.nano_cpus > cpus.saturating_mul(NANO_CPUS) {
        return Err(invalid(format!(
            "range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available"
        )));
    }
    if host.cpu_shares < 0 {
        return Err(invalid(format!(
            "invalid CPU shares ({}): value must be a positive integer",
            host.cpu_shares
        )));
    }
    if host.cpu_period != 0 && !(1000..=1_000_000).contains(&host.cpu_period) {
        return Err(invalid(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        ));
    }
    if host.cpu_quota > 0 && host.cpu_quota < 1000 {
        return Err(invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)"));
    }
    let (period, runtime) = (host.cpu_realtime_period, host.cpu_realtime_runtime);
    if period != 0 && runtime != 0 && runtime > period {
        return Err(invalid("cpu real-time runtime cannot be higher than cpu real-time period"));
    }
    check_set(&host.cpuset_cpus, "cpuset cpus", "CPUs", "/sys/devices/system/cpu/online")?;
    check_set(&host.cpuset_mems, "cpuset mems", "memory nodes", "/sys/devices/system/node/online")
}

fn available_cpus() -> i64 {
    std::thread::available_parallelism().map_or(1, |n| i64::try_from(n.get()).unwrap_or(i64::MAX))
}

/// A list like `0-2,5` must be one, and name only what is there.
fn check_set(list: &str, field: &str, noun: &str, available: &str) -> Result<(), Error> {
    if list.is_empty() {
        return Ok(());
    }
    let wanted = parse_set(list)
        .map_err(|part| invalid(format!("Invalid value {list} for {field}: invalid format: {part}")))?;
    // Where the kernel does not tell, it will judge itself.
    let Ok(online) = std::fs::read_to_string(available) else { return Ok(()) };
    let Ok(ranges) = parse_set(online.trim()) else { return Ok(()) };
    let is_there = |n: u32| ranges.iter().any(|(first, last)| (*first..=*last).contains(&n));
    if wanted.iter().all(|(first, last)| (*first..=*last).take(8193).all(is_there)) {
        return Ok(());
    }
    Err(invalid(format!(
        "Requested {noun} are not available - requested {list}, available: {}",
        online.trim()
    )))
}

/// The ranges of a list; the part that cannot be read when it is none.
fn parse_set(list: &str) -> Result<Vec<(u32, u32)>, &str> {
    list.split(',')
        .filter(|part| !part.is_empty())
        .map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            match (first.parse::<u32>(), last.parse::<u32>()) {
                (Ok(first), Ok(last)) if first <= last => Ok((first, last)),
                _ => Err(part),
            }
        })
        .collect()
}

/// Whether block devices can be shared by weight.
pub(super) fn kernel_has_block_weight(cgroup_v2: bool) -> bool {
    let exists = |path: &str| Path::new(path).exists();
    if cgroup_v2 {
        let controllers = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
        return controllers.split_whitespace().any(|c| c == "io");
    }
    exists("/sys/fs/cgroup/blkio/blkio.weight") || exists("/sys/fs/cgroup/blkio/blkio.bfq.weight")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_read_strictly() {
        assert_eq!(parse_set("0-2,5"), Ok(vec![(0, 2), (5, 5)]));
        for (list, part) in [("x", "x"), ("0,1-0", "1-0"), ("-1", "-1"), ("1-", "1-"), ("0-1-2", "0-1-2")] {
            assert_eq!(parse_set(list), Err(part), "{list}");
        }
        let missing = check_set("0-4000", "cpuset cpus", "CPUs", "/sys/devices/system/cpu/online");
        assert!(
            missing
                .unwrap_err()
                .to_string()
                .starts_with("Requested CPUs are not available - requested 0-4000,")
        );
    }
}
