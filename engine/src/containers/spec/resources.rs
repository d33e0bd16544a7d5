//! `linux.resources`: limits of memory, processors, processes and block devices. Also used by `docker update`.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::super::config::{HostConfig, ThrottleDevice};
use crate::error::Error;
use crate::text::go_error;

/// The period that goes with `NanoCpus`, in microseconds.
const CPU_PERIOD_US: i64 = 100_000;

/// The limits, without the rules for devices.
///
/// # Errors
/// 500 `stat /dev/x: no such file or directory` for block devices that are not there.
pub(crate) fn limits(host: &HostConfig) -> Result<Map<String, Value>, Error> {
    let mut resources = Map::new();
    resources.insert("memory".into(), memory(host));
    let cpu = cpu(host);
    if !cpu.is_empty() {
        resources.insert("cpu".into(), cpu.into());
    }
    if let Some(limit) = host.pids_limit {
        resources.insert("pids".into(), json!({ "limit": limit }));
    }
    let block_io = block_io(host)?;
    if !block_io.is_empty() {
        resources.insert("blockIO".into(), block_io.into());
    }
    Ok(resources)
}

fn memory(host: &HostConfig) -> Value {
    let mut memory = Map::new();
    let sizes =
        [("limit", host.memory), ("reservation", host.memory_reservation), ("swap", host.memory_swap)];
    for (name, bytes) in sizes {
        if bytes > 0 {
            memory.insert(name.into(), bytes.into());
        }
    }
    if let Some(swappiness) = host.memory_swappiness.filter(|s| *s >= 0) {
        memory.insert("swappiness".into(), swappiness.into());
    }
    if let Some(disable) = host.oom_kill_disable {
        memory.insert("disableOOMKiller".into(), disable.into());
    }
    memory.into()
}

fn cpu(host: &HostConfig) -> Map<String, Value> {
    let mut cpu = Map::new();
    let (quota, period) = match host.nano_cpus {
        1.. => (host.nano_cpus / (1_000_000_000 / CPU_PERIOD_US), CPU_PERIOD_US),
        _ => (host.cpu_quota, host.cpu_period),
    };
    let numbers = [
        ("shares", host.cpu_shares),
        ("quota", quota),
        ("period", period),
        ("realtimePeriod", host.cpu_realtime_period),
        ("realtimeRuntime", host.cpu_realtime_runtime),
    ];
    for (name, value) in numbers {
        if value != 0 {
            cpu.insert(name.into(), value.into());
        }
    }
    for (name, list) in [("cpus", &host.cpuset_cpus), ("mems", &host.cpuset_mems)] {
        if !list.is_empty() {
            cpu.insert(name.into(), list.as_str().into());
        }
    }
    cpu
}

fn block_io(host: &HostConfig) -> Result<Map<String, Value>, Error> {
    let mut block_io = Map::new();
    if host.blkio_weight > 0 {
        block_io.insert("weight".into(), host.blkio_weight.into());
    }
    let mut weights = Vec::new();
    for device in host.blkio_weight_device.as_deref().unwrap_or_default() {
        let (major, minor) = device_numbers(&device.path)?;
        weights.push(json!({ "major": major, "minor": minor, "weight": device.weight }));
    }
    if !weights.is_empty() {
        block_io.insert("weightDevice".into(), weights.into());
    }
    let throttles = [
        ("throttleReadBpsDevice", &host.blkio_device_read_bps),
        ("throttleWriteBpsDevice", &host.blkio_device_write_bps),
        ("throttleReadIOPSDevice", &host.blkio_device_read_iops),
        ("throttleWriteIOPSDevice", &host.blkio_device_write_iops),
    ];
    for (name, devices) in throttles {
        let rates: Result<Vec<Value>, Error> =
            devices.as_deref().unwrap_or_default().iter().map(throttle).collect();
        let rates = rates?;
        if !rates.is_empty() {
            block_io.insert(name.into(), rates.into());
        }
    }
    Ok(block_io)
}

fn throttle(device: &ThrottleDevice) -> Result<Value, Error> {
    let (major, minor) = device_numbers(&device.path)?;
    Ok(json!({ "major": major, "minor": minor, "rate": device.rate }))
}

fn device_numbers(path: &str) -> Result<(u32, u32), Error> {
    let stat = rustix::fs::stat(Path::new(path))
        .map_err(|errno| Error::server(format!("stat {path}: {}", go_error(&errno.into()))))?;
    Ok((rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_limited_is_left_out() {
        let none = limits(&HostConfig { oom_kill_disable: Some(false), ..HostConfig::default() }).unwrap();
        assert_eq!(Value::from(none), json!({ "memory": { "disableOOMKiller": false } }));
        let host = HostConfig {
            memory: 20_000_000,
            memory_swap: 40_000_000,
            nano_cpus: 1_500_000_000,
            cpu_shares: 5,
            cpuset_cpus: "0".into(),
            pids_limit: Some(77),
            ..HostConfig::default()
        };
        let expected = json!({
            "memory": { "limit": 20_000_000, "swap": 40_000_000 },
            "cpu": { "shares": 5, "quota": 150_000, "period": 100_000, "cpus": "0" },
            "pids": { "limit": 77 },
        });
        assert_eq!(Value::from(limits(&host).unwrap()), expected);
        let throttled = HostConfig {
            blkio_device_read_bps: Some(vec![ThrottleDevice { path: "/dev/null".into(), rate: 9 }]),
            ..HostConfig::default()
        };
        let rate = json!([{ "major": 1, "minor": 3, "rate": 9 }]);
        assert_eq!(limits(&throttled).unwrap()["blockIO"]["throttleReadBpsDevice"], rate);
        let missing = HostConfig {
            blkio_device_read_bps: Some(vec![ThrottleDevice { path: "/dev/nope".into(), rate: 9 }]),
            ..HostConfig::default()
        };
        assert_eq!(limits(&missing).unwrap_err().to_string(), "stat /dev/nope: no such file or directory");
    }
}
