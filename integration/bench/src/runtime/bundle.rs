//! Bundles: busybox on a plain folder, and specifications as `runc spec` and dockerd make them.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// A name and the specification for it.
pub(crate) type Layer = (&'static str, fn() -> Value);

/// Docker's default profile for a container with the default capabilities.
const SECCOMP: &str = include_str!("../../../../engine/src/containers/spec/golden/seccomp.json");

/// From next to nothing to all of Docker's settings, one step after the other.
pub(crate) const LAYERS: [Layer; 6] = [
    ("`run`, new pid, mount, ipc and uts namespaces, cgroups, nothing mounted but /proc", bare),
    ("and a network namespace", with_network),
    ("and the other default mounts, `/dev` with its nodes and links", with_mounts),
    ("and 12 masked and 5 read-only paths", with_masks),
    ("and capabilities, device rules: `run` without seccomp", || docker(false)),
    ("and Docker's seccomp profile", || docker(true)),
];

/// A bundle's folder.
#[derive(Debug)]
pub(crate) struct Bundle(String);

impl Bundle {
    /// Writes it below `place`.
    pub(crate) fn make(place: &Path, name: &str, rootfs: &Path, spec: &Value) -> Bundle {
        let name: String = name.chars().filter(char::is_ascii_alphabetic).collect();
        let folder = place.join("bundles").join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let mut spec = spec.clone();
        spec["root"] = json!({ "path": rootfs });
        std::fs::write(folder.join("config.json"), serde_json::to_vec_pretty(&spec).unwrap()).unwrap();
        Bundle(folder.to_str().unwrap().to_owned())
    }

    /// Its folder.
    pub(crate) fn path(&self) -> &str {
        &self.0
    }
}

/// A root file system of a static busybox.
pub(crate) fn make_rootfs(place: &Path) -> PathBuf {
    let rootfs = place.join("rootfs");
    for folder in ["bin", "etc", "tmp", "proc", "sys", "dev", "root"] {
        std::fs::create_dir_all(rootfs.join(folder)).unwrap();
    }
    std::fs::copy("/bin/busybox", rootfs.join("bin/busybox")).expect("/bin/busybox of busybox-static");
    for applet in ["sh", "true", "sleep"] {
        std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(applet)).unwrap();
    }
    rootfs
}

/// `/bin/true` with dockerd's default settings, in the layout of `runc spec`.
pub(crate) fn docker(seccomp: bool) -> Value {
    let mut spec = with_masks();
    let capabilities = [
        "CHOWN",
        "DAC_OVERRIDE",
        "FSETID",
        "FOWNER",
        "MKNOD",
        "NET_RAW",
        "SETGID",
        "SETUID",
        "SETFCAP",
        "SETPCAP",
        "NET_BIND_SERVICE",
        "SYS_CHROOT",
        "KILL",
        "AUDIT_WRITE",
    ]
    .map(|name| format!("CAP_{name}"));
    spec["process"]["capabilities"] =
        json!({ "bounding": capabilities, "effective": capabilities, "permitted": capabilities });
    spec["process"]["oomScoreAdj"] = json!(0);
    let allowed = [(1, 5), (1, 3), (1, 9), (1, 8), (5, 0), (5, 1)];
    let mut rules = vec![json!({ "allow": false, "access": "rwm" })];
    rules.extend(
        allowed.map(|(major, minor)| json!({ "allow": true, "type": "c", "major": major, "minor": minor, "access": "rwm" })),
    );
    spec["linux"]["resources"] = json!({ "devices": rules });
    if seccomp {
        spec["linux"]["seccomp"] = serde_json::from_str(SECCOMP).unwrap();
    }
    spec
}

/// The same, but it sleeps.
pub(crate) fn sleeper() -> Value {
    let mut spec = docker(true);
    spec["process"]["args"] = json!(["/bin/sleep", "1000000"]);
    spec
}

fn with_masks() -> Value {
    let mut spec = with_mounts();
    spec["linux"]["maskedPaths"] = json!([
        "/proc/asound",
        "/proc/acpi",
        "/proc/interrupts",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/sys/firmware",
        "/sys/devices/virtual/powercap",
    ]);
    spec["linux"]["readonlyPaths"] =
        json!(["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]);
    spec
}

fn with_mounts() -> Value {
    let mut spec = with_network();
    let mount = |destination: &str, fstype: &str, source: &str, options: &[&str]| json!({ "destination": destination, "type": fstype, "source": source, "options": options });
    spec["mounts"] = json!([
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]
        ),
        mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
    ]);
    spec
}

fn with_network() -> Value {
    let mut spec = bare();
    spec["linux"]["namespaces"] = json!([
        { "type": "mount" }, { "type": "network" }, { "type": "uts" }, { "type": "pid" }, { "type": "ipc" },
    ]);
    spec
}

fn bare() -> Value {
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": ["/bin/true"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm", "HOME=/root"],
            "cwd": "/",
        },
        "hostname": "bench",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"] },
        ],
        "linux": { "namespaces": [{ "type": "mount" }, { "type": "uts" }, { "type": "pid" }, { "type": "ipc" }] },
    })
}
