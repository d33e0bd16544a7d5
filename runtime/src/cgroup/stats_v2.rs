//! Counters of cgroup version 2.

use std::path::Path;

use super::Folder;
use super::file::{pairs, read as read_file, read_number};
use super::stats_v1::{pids, sizes};
use crate::{BlockIo, BlockIoEntry, Cpu, Error, Hugetlb, Memory, Pressure, Stats, Throttling};

/// A sample of all counters that there are.
pub(crate) fn read(folder: &Folder) -> Result<Stats, Error> {
    let path = &folder.path;
    Ok(Stats {
        cgroup_version: 2,
        cpu: cpu(path),
        memory: memory(path),
        pids: pids(path),
        block_io: block_io(&read_file(path, "io.stat").unwrap_or_default()),
        hugetlb: hugetlb(path),
    })
}

fn cpu(path: &Path) -> Cpu {
    let mut cpu = Cpu { pressure: pressure(path, "cpu.pressure"), ..Cpu::default() };
    let mut throttling = Throttling::default();
    for (key, value) in pairs(&read_file(path, "cpu.stat").unwrap_or_default()) {
        match key {
            "usage_usec" => cpu.usage_ns = value * 1000,
            "user_usec" => cpu.user_ns = value * 1000,
            "system_usec" => cpu.system_ns = value * 1000,
            "nr_periods" => throttling.periods = value,
            "nr_throttled" => throttling.throttled_periods = value,
            "throttled_usec" => throttling.throttled_ns = value * 1000,
            _ => {}
        }
    }
    cpu.throttling = throttling;
    cpu
}

fn memory(path: &Path) -> Memory {
    let number = |name: &str| read_number(path, name).unwrap_or(0);
    let usage_bytes = number("memory.current");
    let failures = pairs(&read_file(path, "memory.events").unwrap_or_default())
        .find(|(key, _)| *key == "max")
        .map_or(0, |(_, value)| value);
    Memory {
        usage_bytes,
        max_usage_bytes: number("memory.peak"),
        limit_bytes: read_number(path, "memory.max").unwrap_or(u64::MAX),
        failures,
        swap_usage_bytes: number("memory.swap.current"),
        swap_limit_bytes: read_number(path, "memory.swap.max").unwrap_or(u64::MAX),
        kernel_usage_bytes: 0,
        kernel_tcp_usage_bytes: 0,
        detail: pairs(&read_file(path, "memory.stat").unwrap_or_default())
            .map(|(key, value)| (key.to_owned(), value))
            .collect(),
        pressure: pressure(path, "memory.pressure"),
    }
}

/// The totals of `some avg10=0.00 avg60=0.00 avg300=0.00 total=0` and the line `full`.
fn pressure(path: &Path, file: &str) -> Option<Pressure> {
    let text = read_file(path, file)?;
    let total = |kind: &str| {
        text.lines()
            .find(|line| line.starts_with(kind))
            .and_then(|line| line.rsplit_once("total="))
            .and_then(|(_, total)| total.parse().ok())
    };
    Some(Pressure { some_us: total("some")?, full_us: total("full").unwrap_or(0) })
}

/// Lines `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0`.
fn block_io(text: &str) -> BlockIo {
    let mut io = BlockIo::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let Some((major, minor)) = words.next().and_then(|device| device.split_once(':')) else { continue };
        let (Ok(major), Ok(minor)) = (major.parse(), minor.parse()) else { continue };
        for word in words {
            let Some((key, value)) = word.split_once('=') else { continue };
            let Ok(value) = value.parse() else { continue };
            let (list, operation) = match key {
                "rbytes" => (&mut io.service_bytes, "Read"),
                "wbytes" => (&mut io.service_bytes, "Write"),
                "dbytes" => (&mut io.service_bytes, "Discard"),
                "rios" => (&mut io.serviced, "Read"),
                "wios" => (&mut io.serviced, "Write"),
                "dios" => (&mut io.serviced, "Discard"),
                _ => continue,
            };
            list.push(BlockIoEntry { major, minor, operation: operation.to_owned(), value });
        }
    }
    io
}

fn hugetlb(path: &Path) -> std::collections::BTreeMap<String, Hugetlb> {
    sizes(path, ".current")
        .into_iter()
        .map(|size| {
            let failures = pairs(&read_file(path, &format!("hugetlb.{size}.events")).unwrap_or_default())
                .find(|(key, _)| *key == "max")
                .map_or(0, |(_, value)| value);
            let usage_bytes = read_number(path, &format!("hugetlb.{size}.current")).unwrap_or(0);
            (size, Hugetlb { usage_bytes, max_usage_bytes: 0, failures })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_stat() {
        let io = block_io("8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n(unknown) x\n");
        assert_eq!(io.service_bytes.len(), 3);
        assert_eq!(io.serviced[1].value, 4);
        assert_eq!(io.serviced[1].operation, "Write");
    }
}
