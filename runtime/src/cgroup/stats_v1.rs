//! Counters of cgroup version 1.

use std::path::Path;

use super::Folder;
use super::file::{pairs, read as read_file, read_number};
use crate::{BlockIo, BlockIoEntry, Cpu, Error, Hugetlb, Memory, Pids, Stats, Throttling};

/// USER_HZ, which `cpuacct.stat` counts in; the same on all architectures that we run on.
const NS_PER_TICK: u64 = 10_000_000;

/// A sample of all counters that there are.
pub(crate) fn read(folders: &[Folder]) -> Result<Stats, Error> {
    let find = |controller: &str| folders.iter().find(|f| f.has(controller)).map(|f| f.path.as_path());
    Ok(Stats {
        cgroup_version: 1,
        cpu: cpu(find("cpuacct"), find("cpu")),
        memory: find("memory").map(memory).unwrap_or_default(),
        pids: find("pids").map(pids).unwrap_or_default(),
        block_io: find("blkio").map(block_io).unwrap_or_default(),
        hugetlb: find("hugetlb").map(hugetlb).unwrap_or_default(),
    })
}

fn cpu(accounting: Option<&Path>, control: Option<&Path>) -> Cpu {
    let mut cpu = Cpu::default();
    if let Some(path) = accounting {
        cpu.usage_ns = read_number(path, "cpuacct.usage").unwrap_or(0);
        for (key, ticks) in pairs(&read_file(path, "cpuacct.stat").unwrap_or_default()) {
            match key {
                "user" => cpu.user_ns = ticks * NS_PER_TICK,
                "system" => cpu.system_ns = ticks * NS_PER_TICK,
                _ => {}
            }
        }
        cpu.per_cpu_ns = read_file(path, "cpuacct.usage_percpu")
            .unwrap_or_default()
            .split_whitespace()
            .filter_map(|n| n.parse().ok())
            .collect();
    }
    if let Some(path) = control {
        cpu.throttling = throttling(&read_file(path, "cpu.stat").unwrap_or_default());
    }
    cpu
}

fn throttling(text: &str) -> Throttling {
    let mut throttling = Throttling::default();
    for (key, value) in pairs(text) {
        match key {
            "nr_periods" => throttling.periods = value,
            "nr_throttled" => throttling.throttled_periods = value,
            "throttled_time" => throttling.throttled_ns = value,
            _ => {}
        }
    }
    throttling
}

fn memory(path: &Path) -> Memory {
    let number = |name: &str| read_number(path, name).unwrap_or(0);
    Memory {
        usage_bytes: number("memory.usage_in_bytes"),
        max_usage_bytes: number("memory.max_usage_in_bytes"),
        limit_bytes: number("memory.limit_in_bytes"),
        failures: number("memory.failcnt"),
        swap_usage_bytes: number("memory.memsw.usage_in_bytes"),
        swap_limit_bytes: number("memory.memsw.limit_in_bytes"),
        kernel_usage_bytes: number("memory.kmem.usage_in_bytes"),
        kernel_tcp_usage_bytes: number("memory.kmem.tcp.usage_in_bytes"),
        detail: pairs(&read_file(path, "memory.stat").unwrap_or_default())
            .map(|(key, value)| (key.to_owned(), value))
            .collect(),
        pressure: None,
    }
}

/// `pids.current` and `pids.max`, the same in both versions.
pub(crate) fn pids(path: &Path) -> Pids {
    Pids {
        current: read_number(path, "pids.current").unwrap_or(0),
        limit: read_number(path, "pids.max").filter(|limit| *limit != u64::MAX),
    }
}

fn block_io(path: &Path) -> BlockIo {
    let table = |name: &str| entries(&read_file(path, name).unwrap_or_default());
    // with CFQ or BFQ the recursive counters count; without, only the throttle layer does
    let with_scheduler = table("blkio.io_serviced_recursive");
    if with_scheduler.is_empty() {
        let bfq = table("blkio.bfq.io_serviced_recursive");
        if !bfq.is_empty() {
            return BlockIo {
                service_bytes: table("blkio.bfq.io_service_bytes_recursive"),
                serviced: bfq,
                ..BlockIo::default()
            };
        }
        return BlockIo {
            service_bytes: table("blkio.throttle.io_service_bytes"),
            serviced: table("blkio.throttle.io_serviced"),
            ..BlockIo::default()
        };
    }
    BlockIo {
        service_bytes: table("blkio.io_service_bytes_recursive"),
        serviced: with_scheduler,
        queued: table("blkio.io_queued_recursive"),
        service_time: table("blkio.io_service_time_recursive"),
        wait_time: table("blkio.io_wait_time_recursive"),
        merged: table("blkio.io_merged_recursive"),
        time: table("blkio.time_recursive"),
        sectors: table("blkio.sectors_recursive"),
    }
}

/// Lines `8:0 Read 4096` or `8:0 4096`; the total of all devices has no device and is left out.
fn entries(text: &str) -> Vec<BlockIoEntry> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (major, minor) = words.next()?.split_once(':')?;
            let (first, second) = (words.next()?, words.next());
            Some(BlockIoEntry {
                major: major.parse().ok()?,
                minor: minor.parse().ok()?,
                operation: second.map(|_| first.to_owned()).unwrap_or_default(),
                value: second.unwrap_or(first).parse().ok()?,
            })
        })
        .collect()
}

fn hugetlb(path: &Path) -> std::collections::BTreeMap<String, Hugetlb> {
    sizes(path, ".usage_in_bytes")
        .into_iter()
        .map(|size| {
            let number = |name: &str| read_number(path, &format!("hugetlb.{size}.{name}")).unwrap_or(0);
            let counters = Hugetlb {
                usage_bytes: number("usage_in_bytes"),
                max_usage_bytes: number("max_usage_in_bytes"),
                failures: number("failcnt"),
            };
            (size, counters)
        })
        .collect()
}

/// The page sizes for which there is a file `hugetlb.SIZE` + `suffix`.
pub(crate) fn sizes(path: &Path, suffix: &str) -> Vec<String> {
    let Ok(folder) = std::fs::read_dir(path) else { return Vec::new() };
    folder
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let size = name.strip_prefix("hugetlb.")?.strip_suffix(suffix)?;
            (!size.contains('.')).then(|| size.to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_io_tables() {
        let table = entries("8:0 Read 4096\n8:0 Total 4096\n253:16 12\nTotal 4096\n");
        assert_eq!(table.len(), 3);
        assert_eq!((table[0].operation.as_str(), table[0].value), ("Read", 4096));
        assert_eq!((table[2].major, table[2].operation.as_str(), table[2].value), (253, "", 12));
    }
}
