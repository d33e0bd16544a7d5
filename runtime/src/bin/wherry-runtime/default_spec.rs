//! `spec`: a specification to begin with.

use std::path::Path;

use serde_json::{Value, json};

use crate::failure::Failure;
use crate::query::OCI_VERSION;

/// Writes `config.json`, unless there is one.
pub(crate) fn write(bundle: Option<&Path>, rootless: bool) -> Result<(), Failure> {
    let path = bundle.unwrap_or(Path::new(".")).join("config.json");
    if path.symlink_metadata().is_ok() {
        return Err(Failure::Arguments("File config.json exists. Remove it first"));
    }
    let mut text = serde_json::to_string_pretty(&spec(rootless)).map_err(Failure::file("write", &path))?;
    text.push('\n');
    crate::store::write_by_rename(&path, text.as_bytes(), 0o644)
}

fn spec(rootless: bool) -> Value {
    let capabilities = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    let mut spec = json!({
        "ociVersion": OCI_VERSION,
        "process": {
            "terminal": true,
            "user": { "uid": 0, "gid": 0 },
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
            "noNewPrivileges": true
        },
        "root": { "path": "rootfs", "readonly": true },
        "hostname": "wherry",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
              "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
            { "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
              "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"] },
            { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"] },
            { "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
              "options": ["nosuid", "noexec", "nodev", "relatime", "ro"] }
        ],
        "linux": {
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "namespaces": [{ "type": "pid" }, { "type": "network" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" }],
            "maskedPaths": ["/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
                "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    });
    // on a host with version 2 only, the container's view of it is its own
    if rustix::fs::statfs("/sys/fs/cgroup").is_ok_and(|fs| u64::try_from(fs.f_type) == Ok(0x6367_7270))
        && let Some(namespaces) = spec.pointer_mut("/linux/namespaces").and_then(Value::as_array_mut)
    {
        namespaces.push(json!({ "type": "cgroup" }));
    }
    if rootless {
        make_rootless(&mut spec);
    }
    spec
}

/// The caller becomes root of a user namespace.
fn make_rootless(spec: &mut Value) {
    let linux = &mut spec["linux"];
    linux["uidMappings"] =
        json!([{ "containerID": 0, "hostID": rustix::process::geteuid().as_raw(), "size": 1 }]);
    linux["gidMappings"] =
        json!([{ "containerID": 0, "hostID": rustix::process::getegid().as_raw(), "size": 1 }]);
    if let Some(object) = linux.as_object_mut() {
        object.remove("resources");
    }
    // as with runc: who may not make network devices has the caller's network, and so no sysfs of its own
    if let Some(namespaces) = linux["namespaces"].as_array_mut() {
        namespaces.retain(|namespace| namespace["type"] != "network");
        namespaces.push(json!({ "type": "user" }));
    }
    for mount in spec["mounts"].as_array_mut().into_iter().flatten() {
        if mount["destination"] == "/sys" {
            *mount = json!({ "destination": "/sys", "type": "none", "source": "/sys",
                "options": ["rbind", "nosuid", "noexec", "nodev", "ro"] });
        }
        if let Some(options) = mount["options"].as_array_mut() {
            options.retain(|option| option != "gid=5");
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_is_a_specification() {
        for rootless in [false, true] {
            let spec: oci_spec::runtime::Spec = serde_json::from_value(super::spec(rootless)).unwrap();
            assert_eq!(spec.mounts().as_ref().unwrap().len(), 7);
        }
    }
}
