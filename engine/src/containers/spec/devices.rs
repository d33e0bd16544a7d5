//! Devices: nodes in `/dev`, and what the device cgroup allows.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::super::config::{DeviceMapping, HostConfig};
use crate::error::Error;
use crate::text::{go_error, go_quote};

/// Device numbers that every container may use: null, zero, full's neighbours random and urandom, tty, console.
const ALLOWED: [(u32, u32); 6] = [(1, 5), (1, 3), (1, 9), (1, 8), (5, 0), (5, 1)];
/// What privileged containers do not get from the host's /dev: these have their own file systems.
const SKIPPED: [&str; 5] = ["/dev/pts", "/dev/shm", "/dev/fd", "/dev/mqueue", "/dev/console"];
/// So deep does a search for devices go.
const MAX_DEPTH: usize = 8;

/// Nodes and rules of a container.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Devices {
    /// `linux.devices`.
    pub(super) nodes: Vec<Value>,
    /// `linux.resources.devices`.
    pub(super) rules: Vec<Value>,
}

/// Gathers the devices that the container's settings ask for.
///
/// # Errors
/// With dockerd's texts for devices that are not there, and rules that cannot be read.
pub(super) fn gather(host: &HostConfig) -> Result<Devices, Error> {
    let mut devices = Devices::default();
    let mappings = host.devices.as_deref().unwrap_or_default();
    if host.privileged {
        devices.rules.push(json!({ "allow": true, "access": "rwm" }));
        collect(Path::new("/dev"), Path::new("/dev"), MAX_DEPTH, &mut |_, node| devices.nodes.push(node));
        let renamed = mappings.iter().filter(|m| m.path_on_host != m.path_in_container);
        for mapping in renamed {
            map(mapping, &mut devices)?;
        }
    } else {
        devices.rules.push(json!({ "allow": false, "access": "rwm" }));
        for (major, minor) in ALLOWED {
            devices.rules.push(rule(true, "c", major.into(), minor.into(), "rwm"));
        }
        for mapping in mappings {
            map(mapping, &mut devices)?;
        }
        for text in host.device_cgroup_rules.as_deref().unwrap_or_default() {
            devices.rules.push(parse_rule(text)?);
        }
    }
    if let Some(request) = host.device_requests.iter().flatten().find(|request| !is_cdi(request)) {
        return Err(no_driver(request));
    }
    Ok(devices)
}

fn rule(allow: bool, kind: &str, major: i64, minor: i64, access: &str) -> Value {
    json!({ "allow": allow, "type": kind, "major": major, "minor": minor, "access": access })
}

/// Reads `c 7:* rwm`; -1 stands for all.
fn parse_rule(text: &str) -> Result<Value, Error> {
    let read = || {
        let mut words = text.split(' ');
        let (kind, numbers, access) = (words.next()?, words.next()?, words.next()?);
        let (major, minor) = numbers.split_once(':')?;
        let number = |part: &str| if part == "*" { Some(-1) } else { digits(part) };
        let known = matches!(kind, "a" | "b" | "c")
            && (1..=3).contains(&access.len())
            && access.bytes().all(|b| b"rwm".contains(&b));
        (known && words.next().is_none()).then_some(rule(true, kind, number(major)?, number(minor)?, access))
    };
    read().ok_or_else(|| Error::server(format!("invalid device cgroup rule format: '{text}'")))
}

fn digits(text: &str) -> Option<i64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// Adds a device, or all below a folder, under another name.
fn map(mapping: &DeviceMapping, devices: &mut Devices) -> Result<(), Error> {
    let path = Path::new(&mapping.path_on_host);
    let target =
        if mapping.path_in_container.is_empty() { &mapping.path_on_host } else { &mapping.path_in_container };
    let refuse = |reason: &str| {
        let name = go_quote(&mapping.path_on_host);
        Error::server(format!(
            "error gathering device information while adding custom device {name}: {reason}"
        ))
    };
    let resolved = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let metadata = fs::metadata(&resolved).map_err(|e| refuse(&go_error(&e)))?;
    let access = if mapping.cgroup_permissions.is_empty() { "rwm" } else { &mapping.cgroup_permissions };
    let before = devices.nodes.len();
    let mut add = |metadata: &fs::Metadata, node: Value| {
        let (major, minor) = numbers(metadata);
        devices.rules.push(rule(true, kind(metadata), major.into(), minor.into(), access));
        devices.nodes.push(node);
    };
    if metadata.is_dir() {
        collect(&resolved, Path::new(target), MAX_DEPTH, &mut add);
    } else if is_device(&metadata) {
        add(&metadata, node(Path::new(target), &metadata));
    }
    if devices.nodes.len() == before { Err(refuse("not a device node")) } else { Ok(()) }
}

/// Calls `add` for each device below `folder`, as it would be below `target`, in the order of names. Symbolic links are
/// not followed, and what cannot be read is left out.
fn collect(folder: &Path, target: &Path, depth: usize, add: &mut impl FnMut(&fs::Metadata, Value)) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort_unstable();
    for path in paths {
        let hidden = path
            .to_str()
            .is_none_or(|p| SKIPPED.contains(&p) || p.starts_with("/dev/.lx") || p == "/dev/.udev");
        let (false, Some(name), Ok(metadata)) = (hidden, path.file_name(), fs::symlink_metadata(&path))
        else {
            continue;
        };
        let target = target.join(name);
        if is_device(&metadata) {
            add(&metadata, node(&target, &metadata));
        } else if metadata.is_dir() && depth > 0 {
            collect(&path, &target, depth - 1, add);
        }
    }
}

fn node(path: &Path, metadata: &fs::Metadata) -> Value {
    let (major, minor) = numbers(metadata);
    json!({
        "path": path,
        "type": kind(metadata),
        "major": major,
        "minor": minor,
        "fileMode": metadata.mode() & 0o7777,
        "uid": metadata.uid(),
        "gid": metadata.gid(),
    })
}

fn is_device(metadata: &fs::Metadata) -> bool {
    metadata.file_type().is_char_device() || metadata.file_type().is_block_device()
}

fn kind(metadata: &fs::Metadata) -> &'static str {
    if metadata.file_type().is_block_device() { "b" } else { "c" }
}

fn numbers(metadata: &fs::Metadata) -> (u32, u32) {
    (rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev()))
}

fn is_cdi(request: &Value) -> bool {
    request.get("Driver").and_then(Value::as_str) == Some("cdi")
}

/// The devices that are asked for by the names of CDI.
pub(super) fn cdi_names(host: &HostConfig) -> Vec<String> {
    let requests = host.device_requests.iter().flatten().filter(|request| is_cdi(request));
    let ids = requests.filter_map(|request| request.get("DeviceIDs")?.as_array());
    ids.flatten().filter_map(|id| Some(id.as_str()?.to_owned())).collect()
}

/// dockerd's text for a device request without a driver. There are none here: GPUs come through CDI or vendors' runtimes.
fn no_driver(request: &Value) -> Error {
    let text = |name: &str| request.get(name).and_then(Value::as_str).unwrap_or("").to_owned();
    let words = |list: &Value| {
        let words: Vec<&str> = list.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        format!("[{}]", words.join(" "))
    };
    let capabilities = request.get("Capabilities").and_then(Value::as_array);
    let capabilities: Vec<String> = capabilities.into_iter().flatten().map(words).collect();
    Error::server(format!(
        "could not select device driver {} with capabilities: [{}]",
        go_quote(&text("Driver")),
        capabilities.join(" ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(host: &str, container: &str) -> HostConfig {
        let device = DeviceMapping {
            path_on_host: host.into(),
            path_in_container: container.into(),
            cgroup_permissions: "rw".into(),
        };
        HostConfig { devices: Some(vec![device]), ..HostConfig::default() }
    }

    #[test]
    fn a_device_gets_a_node_and_a_rule() {
        let devices = gather(&mapping("/dev/null", "/dev/x")).unwrap();
        assert_eq!(devices.rules.last().unwrap(), &rule(true, "c", 1, 3, "rw"));
        assert_eq!(devices.nodes[0]["path"], "/dev/x");
        assert_eq!(devices.nodes[0]["fileMode"], 0o666);
    }

    #[test]
    fn what_is_no_device_is_refused_in_dockerds_words() {
        for (path, reason) in
            [("/dev/nope", "no such file or directory"), ("/etc/passwd", "not a device node")]
        {
            let error = gather(&mapping(path, "/dev/x")).unwrap_err().to_string();
            let start = "error gathering device information while adding custom device";
            assert_eq!(error, format!("{start} \"{path}\": {reason}"));
        }
    }

    #[test]
    fn cgroup_rules_are_read_strictly() {
        assert_eq!(parse_rule("c 7:* rwm").unwrap(), rule(true, "c", 7, -1, "rwm"));
        assert_eq!(parse_rule("b *:* r").unwrap(), rule(true, "b", -1, -1, "r"));
        for text in
            ["", "foo", "c 7 rwm", "c 7:1 x", "c 7:1 rwmm", "c -1:1 r", "d 1:1 r", "c 1:1 r ", "c +1:1 r"]
        {
            let error = parse_rule(text).unwrap_err().to_string();
            assert_eq!(error, format!("invalid device cgroup rule format: '{text}'"));
        }
    }

    #[test]
    fn privileged_containers_see_the_hosts_devices() {
        let devices = gather(&HostConfig { privileged: true, ..HostConfig::default() }).unwrap();
        assert!(devices.nodes.iter().any(|n| n["path"] == "/dev/full"));
        assert!(!devices.nodes.iter().any(|n| n["path"].as_str().unwrap().starts_with("/dev/pts/")));
        assert_eq!(devices.rules, [json!({ "allow": true, "access": "rwm" })]);
    }

    #[test]
    fn a_request_without_driver_is_refused() {
        let gpu = json!({ "Driver": "", "Count": -1, "Capabilities": [["gpu"], ["a", "b"]] });
        let host = HostConfig { device_requests: Some(vec![gpu]), ..HostConfig::default() };
        let error = gather(&host).unwrap_err().to_string();
        assert_eq!(error, "could not select device driver \"\" with capabilities: [[gpu] [a b]]");
    }
}
