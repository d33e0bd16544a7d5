//! Resources as properties of a unit (systemd.resource-control(5)).
//!
//! systemd owns the unit's files: what it is not told, it may set back when it reloads. So everything that it has a
//! property for is told as a property, and is then written to the files as well, like everything else.

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType, LinuxMemory, LinuxResources};

use super::super::{cpu_weight, swap_limit};
use super::bus::Value;
use crate::Error;

/// Properties, in the order in which they are set.
pub(super) type Properties = Vec<(String, Value)>;

/// systemd's word for "no limit".
const INFINITY: u64 = u64::MAX;
const DEFAULT_PERIOD_US: u64 = 100_000;

/// What limits become. `idle_is_known`: whether this systemd can set `cpu.idle` (since version 252).
pub(super) fn of_resources(
    resources: &LinuxResources,
    unified: bool,
    idle_is_known: bool,
) -> Result<Properties, Error> {
    let mut out = Vec::new();
    let mut set = |name: &str, value: Value| out.push((name.to_owned(), value));
    if let Some(memory) = resources.memory() {
        memory_properties(memory, unified, &mut set)?;
    }
    if let Some(cpu) = resources.cpu() {
        let idle = unified && cpu.idle() == Some(1);
        match cpu.shares().filter(|shares| *shares != 0) {
            _ if idle && idle_is_known => set("CPUWeight", Value::Uint64(0)),
            Some(shares) if unified && !idle => set("CPUWeight", Value::Uint64(cpu_weight(shares))),
            Some(shares) if !unified => set("CPUShares", Value::Uint64(shares)),
            _ => {}
        }
        quota_properties(cpu.quota(), cpu.period(), &mut set);
        if unified {
            for (name, list) in [("AllowedCPUs", cpu.cpus()), ("AllowedMemoryNodes", cpu.mems())] {
                if let Some(list) = list.as_deref().filter(|list| !list.is_empty()) {
                    set(name, Value::bytes(&mask(list)?));
                }
            }
        }
    }
    if let Some(limit) =
        resources.pids().as_ref().map(oci_spec::runtime::LinuxPids::limit).filter(|l| *l != 0)
    {
        set("TasksMax", limit_value(limit));
    }
    if let Some(weight) = resources.block_io().as_ref().and_then(|io| io.weight()).filter(|w| *w != 0)
        && !unified
    {
        set("BlockIOWeight", Value::Uint64(weight.into()));
    }
    if unified {
        for (file, value) in resources.unified().iter().flatten() {
            unified_property(file, value.trim(), idle_is_known, &mut set)?;
        }
    } else if let Some(rules) = resources.devices().as_deref().filter(|rules| !rules.is_empty()) {
        device_properties(rules, &mut set);
    }
    Ok(out)
}

fn limit_value(limit: i64) -> Value {
    Value::Uint64(u64::try_from(limit).unwrap_or(INFINITY))
}

fn memory_properties(
    memory: &LinuxMemory,
    unified: bool,
    set: &mut impl FnMut(&str, Value),
) -> Result<(), Error> {
    let limit = memory.limit().filter(|limit| *limit != 0);
    if let Some(limit) = limit {
        set(if unified { "MemoryMax" } else { "MemoryLimit" }, limit_value(limit));
    }
    if !unified {
        return Ok(()); // version 1's other limits have no properties
    }
    if let Some(reservation) = memory.reservation().filter(|limit| *limit != 0) {
        set("MemoryLow", limit_value(reservation));
    }
    match swap_limit(memory.limit(), memory.swap())?.as_deref() {
        Some("max") => set("MemorySwapMax", Value::Uint64(INFINITY)),
        Some(swap) => set("MemorySwapMax", Value::Uint64(swap.parse().unwrap_or(INFINITY))),
        None => {}
    }
    Ok(())
}

/// systemd keeps a quota per second, in whole percents of a processor: rounded up, so that what the file gets
/// afterwards is not above it.
fn quota_properties(quota: Option<i64>, period: Option<u64>, set: &mut impl FnMut(&str, Value)) {
    let (quota, period) = (quota.filter(|q| *q != 0), period.filter(|p| *p != 0));
    if let Some(period) = period {
        set("CPUQuotaPeriodUSec", Value::Uint64(period));
    }
    match quota.map(u64::try_from) {
        Some(Ok(quota)) => {
            let period = period.unwrap_or(DEFAULT_PERIOD_US);
            let per_second = quota.saturating_mul(1_000_000) / period;
            set("CPUQuotaPerSecUSec", Value::Uint64(per_second.next_multiple_of(10_000)));
        }
        Some(Err(_)) => set("CPUQuotaPerSecUSec", Value::Uint64(INFINITY)),
        None => {}
    }
}

/// A list of processors or nodes (`0-2,7`) as a bit mask, the lowest first.
fn mask(list: &str) -> Result<Vec<u8>, Error> {
    const HIGHEST: usize = 8191;
    let invalid =
        || Error::spec("linux.resources.cpu.cpus", format!("{list:?} is not a list of numbers and ranges"));
    let mut bits = Vec::new();
    for range in list.split(',').map(str::trim).filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let number =
            |text: &str| text.trim().parse::<usize>().ok().filter(|n| *n <= HIGHEST).ok_or_else(invalid);
        let (first, last) = (number(first)?, number(last)?);
        if last < first {
            return Err(invalid());
        }
        for bit in first..=last {
            if bits.len() <= bit / 8 {
                bits.resize(bit / 8 + 1, 0);
            }
            if let Some(byte) = bits.get_mut(bit / 8) {
                *byte |= 1 << (bit % 8);
            }
        }
    }
    if bits.is_empty() { Err(invalid()) } else { Ok(bits) }
}

/// A file of `unified`, if systemd has a property for it.
fn unified_property(
    file: &str,
    value: &str,
    idle_is_known: bool,
    set: &mut impl FnMut(&str, Value),
) -> Result<(), Error> {
    let invalid = || {
        Error::spec("linux.resources.unified", format!("{file}: {value:?} is neither a number nor \"max\""))
    };
    let number = |text: &str| match text {
        "max" => Ok(INFINITY),
        text => text.parse::<u64>().map_err(|_| invalid()),
    };
    match file {
        "cpu.idle" if value == "1" && idle_is_known => set("CPUWeight", Value::Uint64(0)),
        "cpu.weight" => set("CPUWeight", Value::Uint64(number(value)?)),
        "cpu.max" => {
            let (quota, period) = value.split_once(' ').unwrap_or((value, ""));
            let period = if period.is_empty() { None } else { Some(number(period)?) };
            let quota = number(quota)?;
            quota_properties(Some(i64::try_from(quota).unwrap_or(-1)), period, set);
        }
        "cpuset.cpus" => set("AllowedCPUs", Value::bytes(&mask(value)?)),
        "cpuset.mems" => set("AllowedMemoryNodes", Value::bytes(&mask(value)?)),
        "memory.high" => set("MemoryHigh", Value::Uint64(number(value)?)),
        "memory.low" => set("MemoryLow", Value::Uint64(number(value)?)),
        "memory.min" => set("MemoryMin", Value::Uint64(number(value)?)),
        "memory.max" => set("MemoryMax", Value::Uint64(number(value)?)),
        "memory.swap.max" => set("MemorySwapMax", Value::Uint64(number(value)?)),
        "pids.max" => set("TasksMax", Value::Uint64(number(value)?)),
        _ => {} // only the file
    }
    Ok(())
}

/// With version 1 systemd writes the device files itself when it reloads, from what it was told. With version 2 its
/// program and ours would both have to agree, and ours knows all rules: systemd is told nothing there.
///
/// systemd can only allow. Where a rule is more than it can say (one minor number of any major one) it is told more, and
/// the files say it exactly.
fn device_properties(rules: &[LinuxDeviceCgroup], set: &mut impl FnMut(&str, Value)) {
    let everything = |rule: &LinuxDeviceCgroup| {
        rule.major().is_none_or(|n| n < 0)
            && rule.minor().is_none_or(|n| n < 0)
            && matches!(rule.typ(), None | Some(LinuxDeviceType::A))
    };
    let last = rules.iter().rposition(everything);
    if last.and_then(|at| rules.get(at)).is_none_or(LinuxDeviceCgroup::allow) {
        set("DevicePolicy", Value::text("auto"));
        set("DeviceAllow", Value::Array("(ss)".into(), Vec::new()));
        return;
    }
    let after = rules.get(last.map_or(0, |at| at + 1)..).unwrap_or_default();
    let list = super::super::devices::with_defaults(after);
    let mut allowed = Vec::new();
    for rule in list.iter().filter(|rule| rule.allow()) {
        let access = super::super::devices::access(rule);
        let kinds: &[&str] = match rule.typ() {
            Some(LinuxDeviceType::B) => &["block"],
            Some(LinuxDeviceType::C | LinuxDeviceType::U) => &["char"],
            _ => &["block", "char"],
        };
        for kind in kinds {
            let name = match (rule.major().filter(|n| *n >= 0), rule.minor().filter(|n| *n >= 0)) {
                (Some(major), Some(minor)) => format!("/dev/{kind}/{major}:{minor}"),
                (Some(major), None) => match driver(kind, major) {
                    Some(name) => format!("{kind}-{name}"),
                    None => continue, // no driver has that number: there is no such device
                },
                (None, _) => format!("{kind}-*"),
            };
            allowed.push(Value::Struct(vec![Value::text(name), Value::text(access.clone())]));
        }
    }
    set("DevicePolicy", Value::text("strict"));
    // an empty list first takes back what an earlier call allowed
    set("DeviceAllow", Value::Array("(ss)".into(), Vec::new()));
    set("DeviceAllow", Value::Array("(ss)".into(), allowed));
}

/// The name that `/proc/devices` has for a major number.
fn driver(kind: &str, major: i64) -> Option<String> {
    let table = std::fs::read_to_string("/proc/devices").ok()?;
    let section = if kind == "block" { "Block devices:" } else { "Character devices:" };
    table.lines().skip_while(|line| *line != section).skip(1).take_while(|line| !line.is_empty()).find_map(
        |line| {
            let (number, name) = line.trim().split_once(' ')?;
            (number.parse() == Ok(major)).then(|| name.to_owned())
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: serde_json::Value, unified: bool, expect: &[(&str, Value)]) {
        let resources: LinuxResources = serde_json::from_value(json.clone()).unwrap();
        let properties = of_resources(&resources, unified, true).unwrap();
        let expect: Properties = expect.iter().map(|(n, v)| ((*n).to_owned(), v.clone())).collect();
        assert_eq!(properties, expect, "{json}");
    }

    #[test]
    fn resources_become_properties() {
        let all = serde_json::json!({
            "memory": { "limit": 1000, "swap": 3000, "reservation": 500 },
            "cpu": { "shares": 1024, "quota": 15001, "period": 100000, "cpus": "0-1,9", "mems": "0" },
            "pids": { "limit": -1 },
            "unified": { "memory.high": "max", "cgroup.max.depth": "3" },
        });
        check(
            all,
            true,
            &[
                ("MemoryMax", Value::Uint64(1000)),
                ("MemoryLow", Value::Uint64(500)),
                ("MemorySwapMax", Value::Uint64(2000)),
                ("CPUWeight", Value::Uint64(100)),
                ("CPUQuotaPeriodUSec", Value::Uint64(100_000)),
                ("CPUQuotaPerSecUSec", Value::Uint64(160_000)),
                ("AllowedCPUs", Value::bytes(&[3, 2])),
                ("AllowedMemoryNodes", Value::bytes(&[1])),
                ("TasksMax", Value::Uint64(u64::MAX)),
                ("MemoryHigh", Value::Uint64(u64::MAX)),
            ],
        );
        check(
            serde_json::json!({ "memory": { "limit": 1000, "swap": 3000 }, "cpu": { "shares": 512, "quota": -1 } }),
            false,
            &[
                ("MemoryLimit", Value::Uint64(1000)),
                ("CPUShares", Value::Uint64(512)),
                ("CPUQuotaPerSecUSec", Value::Uint64(u64::MAX)),
            ],
        );
        check(
            serde_json::json!({ "cpu": { "idle": 1, "shares": 5 } }),
            true,
            &[("CPUWeight", Value::Uint64(0))],
        );
        check(
            serde_json::json!({ "unified": { "cpu.max": "50000 100000" } }),
            true,
            &[("CPUQuotaPeriodUSec", Value::Uint64(100_000)), ("CPUQuotaPerSecUSec", Value::Uint64(500_000))],
        );
    }

    #[test]
    fn lists_that_are_none() {
        for list in ["", ",", "3-1", "x", "99999", "1-"] {
            assert!(mask(list).is_err(), "{list:?}");
        }
    }

    #[test]
    fn devices_of_version_1() {
        let rules: Vec<LinuxDeviceCgroup> = serde_json::from_value(serde_json::json!([
            { "allow": true, "type": "b", "major": 1, "minor": 1, "access": "r" },
            { "allow": false, "access": "rwm" },
            { "allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw" },
        ]))
        .unwrap();
        let mut properties = Vec::new();
        device_properties(&rules, &mut |name: &str, value| properties.push((name.to_owned(), value)));
        assert_eq!(properties[0].1, Value::text("strict"));
        let Value::Array(_, list) = &properties[2].1 else { panic!() };
        let entry = |name: &str, access: &str| Value::Struct(vec![Value::text(name), Value::text(access)]);
        assert!(list.contains(&entry("/dev/char/10:229", "rw")), "{list:?}");
        assert!(list.contains(&entry("/dev/char/1:3", "rwm")) && list.contains(&entry("char-*", "m")));
        assert!(!list.iter().any(|value| *value == entry("/dev/block/1:1", "r")));
    }
}
