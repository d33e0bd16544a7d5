//! `update`.

use std::io::Read;
use std::path::Path;

use oci_spec::runtime::LinuxResources;
use serde_json::{Map, Value, json};

use crate::failure::Failure;
use crate::log::Log;
use crate::store::Store;

/// Sets new limits, from a file and from options.
pub(crate) fn update(
    log: &Log,
    store: &Store,
    file: Option<&Path>,
    limits: &[(&'static str, String)],
) -> Result<(), Failure> {
    let container = store.open_running()?;
    let mut resources = match file {
        Some(path) => read(path)?,
        None => json!({}),
    };
    for (option, value) in limits {
        set(&mut resources, option, value)?;
    }
    let parsed: LinuxResources = serde_json::from_value(resources)
        .map_err(Failure::file("parse", file.unwrap_or(Path::new("options"))))?;
    log.warnings(&container.update(&parsed)?);
    Ok(())
}

fn read(path: &Path) -> Result<Value, Failure> {
    let text = if path == Path::new("-") {
        let mut text = Vec::new();
        std::io::stdin().read_to_end(&mut text).map(|_| text)
    } else {
        std::fs::read(path)
    };
    let text = text.map_err(Failure::file("read", path))?;
    wherry_runtime::parse_resources(&text).map_err(Failure::malformed(path))?; // names the field
    serde_json::from_slice(&text).map_err(Failure::file("parse", path))
}

fn set(resources: &mut Value, option: &'static str, value: &str) -> Result<(), Failure> {
    let invalid = || Failure::InvalidValue { option, value: value.to_owned() };
    let number = || value.parse::<i64>().map(Value::from).map_err(|_| invalid());
    let bytes = || parse_bytes(value).map(Value::from).ok_or_else(invalid);
    let (group, key, value) = match option {
        "blkio-weight" => ("blockIO", "weight", number()?),
        "cpu-burst" => ("cpu", "burst", number()?),
        "cpu-idle" => ("cpu", "idle", number()?),
        "cpu-period" => ("cpu", "period", number()?),
        "cpu-quota" => ("cpu", "quota", number()?),
        "cpu-rt-period" => ("cpu", "realtimePeriod", number()?),
        "cpu-rt-runtime" => ("cpu", "realtimeRuntime", number()?),
        "cpu-share" => ("cpu", "shares", number()?),
        "cpuset-cpus" => ("cpu", "cpus", Value::from(value)),
        "cpuset-mems" => ("cpu", "mems", Value::from(value)),
        "memory" => ("memory", "limit", bytes()?),
        "memory-reservation" => ("memory", "reservation", bytes()?),
        "memory-swap" => ("memory", "swap", bytes()?),
        _ => ("pids", "limit", number()?),
    };
    if let Some(all) = resources.as_object_mut() {
        let group = all.entry(group).or_insert_with(|| Value::Object(Map::new()));
        if let Some(group) = group.as_object_mut() {
            group.insert(key.to_owned(), value);
        }
    }
    Ok(())
}

/// `-1`, `1048576`, `64m`, `1.5GiB`.
fn parse_bytes(text: &str) -> Option<i64> {
    if text == "-1" {
        return Some(-1);
    }
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let shift = match unit.to_ascii_lowercase().trim_end_matches('b').trim_end_matches('i') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return None,
    };
    if let Ok(whole) = number.parse::<i64>() {
        return whole.checked_mul(1 << shift);
    }
    let bytes = (number.parse::<f64>().ok()? * (1_i64 << shift) as f64) as i64;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes() {
        for (text, expect) in [
            ("-1", Some(-1)),
            ("0", Some(0)),
            ("64m", Some(64 << 20)),
            ("1.5GiB", Some(3 << 29)),
            ("1KB", Some(1024)),
            ("", None),
            ("x", None),
            ("-2", None),
            ("9999999999p", None),
        ] {
            assert_eq!(parse_bytes(text), expect, "{text}");
        }
    }
}
