//! A root file system of busybox, a specification as Docker makes it, and containers of both.
//!
//! The tests run as root and need Debian's package `busybox-static`; without either they fail.

#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{PipeReader, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use serde_json::{Value, json};
use wherry_runtime::{Container, Error, Launch, RootfsSource, Stdio};

const APPLETS: &[&str] = &[
    "sh", "true", "false", "cat", "ls", "id", "mount", "ps", "sleep", "echo", "touch", "mkdir", "stat",
    "hostname", "env", "dd", "readlink", "kill", "tty", "stty", "ip", "mknod", "chown", "grep", "head",
    "tail", "ln", "rm", "cp", "wc", "test", "pwd", "seq", "yes", "nproc", "date", "umount", "unshare", "nc",
    "mkfifo",
];

/// A bundle in a temporary folder.
pub struct Bundle {
    pub folder: tempfile::TempDir,
    pub id: String,
    pub spec: Value,
    pub rootfs: RootfsSource,
}

/// What came of a container.
#[derive(Debug)]
pub struct Outcome {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Bundle {
    /// A bundle with its own copy of busybox.
    pub fn new() -> Self {
        assert!(rustix::process::geteuid().is_root(), "these tests make containers: run them as root");
        let folder = tempfile::tempdir().unwrap();
        let rootfs = folder.path().join("rootfs");
        make_rootfs(&rootfs);
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = format!("wherry-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let spec = default_spec(&id);
        Bundle { folder, id, spec, rootfs: RootfsSource::Bundle }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn rootfs_path(&self) -> PathBuf {
        self.path().join("rootfs")
    }

    /// Sets a field by its JSON pointer.
    pub fn set(mut self, pointer: &str, value: Value) -> Self {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let parent = self.spec.pointer_mut(parent).unwrap_or_else(|| panic!("no {parent}"));
        parent[key] = value;
        self
    }

    /// The program and its arguments.
    pub fn args(self, args: &[&str]) -> Self {
        self.set("/process/args", json!(args))
    }

    /// A shell's script.
    pub fn sh(self, script: &str) -> Self {
        self.args(&["/bin/sh", "-c", script])
    }

    /// A further mount.
    pub fn mount(mut self, mount: Value) -> Self {
        self.spec["mounts"].as_array_mut().unwrap().push(mount);
        self
    }

    pub fn parsed(&self) -> oci_spec::runtime::Spec {
        serde_json::from_value(self.spec.clone()).unwrap()
    }

    /// Runs it to its end, and removes it.
    pub fn run(&self) -> Outcome {
        self.try_run().unwrap()
    }

    pub fn try_run(&self) -> Result<Outcome, Error> {
        let spec = self.parsed();
        let (out, out_end) = std::io::pipe().unwrap();
        let (err, err_end) = std::io::pipe().unwrap();
        let null = fs::File::open("/dev/null").unwrap();
        let mut launch = Launch::new(&self.id, self.path(), &spec, &self.rootfs);
        launch.stdio = Stdio::Fds { stdin: null.as_fd(), stdout: out_end.as_fd(), stderr: err_end.as_fd() };
        let result = Container::run(&launch);
        drop((out_end, err_end));
        let (container, terminal) = result?;
        assert!(terminal.is_none());
        let err = std::thread::spawn(move || text(err));
        let stdout = text(out);
        let stderr = err.join().unwrap();
        let code = wait(&container);
        container.delete(false)?;
        assert_no_cgroup(&self.id);
        Ok(Outcome { code, stdout, stderr })
    }

    /// Runs it in the background, without any standard I/O.
    pub fn start(&self) -> Container {
        let spec = self.parsed();
        let null = fs::OpenOptions::new().read(true).write(true).open("/dev/null").unwrap();
        let mut launch = Launch::new(&self.id, self.path(), &spec, &self.rootfs);
        launch.stdio = Stdio::Fds { stdin: null.as_fd(), stdout: null.as_fd(), stderr: null.as_fd() };
        Container::run(&launch).unwrap().0
    }
}

/// A test that failed leaves no process and no cgroup behind either.
impl Drop for Bundle {
    fn drop(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let mut left = cgroup_folders(&self.id);
            left.retain(|folder| fs::remove_dir(folder).is_err());
            if left.is_empty() || Instant::now() > deadline {
                return;
            }
            for folder in left {
                let _ = fs::write(folder.join("freezer.state"), "THAWED");
                let list = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
                for pid in list.lines().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)) {
                    let _ = kill_process(pid, Signal::KILL);
                }
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

pub fn make_rootfs(rootfs: &Path) {
    for folder in ["bin", "etc", "tmp", "proc", "sys", "dev", "root"] {
        fs::create_dir_all(rootfs.join(folder)).unwrap();
    }
    // by a process of its own: one that another thread makes meanwhile would inherit the descriptor that writes, and the
    // kernel executes nothing that somebody writes
    let copied = Command::new("cp").arg("/bin/busybox").arg(rootfs.join("bin/busybox")).status().unwrap();
    assert!(copied.success(), "there must be /bin/busybox of Debian's busybox-static");
    for applet in APPLETS {
        std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(applet)).unwrap();
    }
    fs::write(
        rootfs.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh",
    )
    .unwrap();
    fs::write(rootfs.join("etc/group"), "root:x:0:\n").unwrap();
}

/// What a container wrote.
pub fn text(mut pipe: PipeReader) -> String {
    let mut text = String::new();
    pipe.read_to_string(&mut text).unwrap();
    text
}

/// Bytes as text.
pub fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Reaps; 128 + signal for one that was killed.
pub fn wait(container: &Container) -> i32 {
    wait_pidfd(container.pidfd())
}

pub fn wait_pidfd(pidfd: std::os::fd::BorrowedFd<'_>) -> i32 {
    let status = waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED).unwrap().unwrap();
    status.exit_status().or_else(|| status.terminating_signal().map(|s| 128 + s)).unwrap()
}

/// Polls until it holds.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "timed out: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// No hierarchy has a folder of that name.
pub fn assert_no_cgroup(id: &str) {
    let left = cgroup_folders(id);
    assert!(left.is_empty(), "left behind: {left:?}");
}

pub fn cgroup_folders(id: &str) -> Vec<PathBuf> {
    let base = Path::new("/sys/fs/cgroup");
    let mut roots = vec![base.to_path_buf()];
    roots.extend(fs::read_dir(base).unwrap().flatten().map(|e| e.path()).filter(|p| p.is_dir()));
    roots.into_iter().map(|root| root.join(id)).filter(|path| path.exists()).collect()
}

/// Whether this machine has version 2 cgroups alone.
pub fn unified() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// Runs a further process to its end; gives its exit code and its output.
pub fn exec(container: &Container, process: Value) -> Result<(i32, String), Error> {
    let process: oci_spec::runtime::Process = serde_json::from_value(process).unwrap();
    let (out, out_end) = std::io::pipe().unwrap();
    let null = fs::File::open("/dev/null").unwrap();
    let stdio = Stdio::Fds { stdin: null.as_fd(), stdout: out_end.as_fd(), stderr: out_end.as_fd() };
    let result = container.exec(&process, stdio, &wherry_runtime::ExecOptions::default());
    drop(out_end);
    let process = result?;
    let output = text(out);
    Ok((wait_pidfd(process.pidfd.as_fd()), output))
}

/// As dockerd makes it, in essence.
pub fn default_spec(id: &str) -> Value {
    let caps = json!([
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_FSETID",
        "CAP_FOWNER",
        "CAP_MKNOD",
        "CAP_NET_RAW",
        "CAP_SETGID",
        "CAP_SETUID",
        "CAP_SETFCAP",
        "CAP_SETPCAP",
        "CAP_NET_BIND_SERVICE",
        "CAP_SYS_CHROOT",
        "CAP_KILL",
        "CAP_AUDIT_WRITE"
    ]);
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "user": { "uid": 0, "gid": 0, "additionalGids": [0, 10] },
            "args": ["/bin/true"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOSTNAME=test"],
            "cwd": "/",
            "capabilities": { "bounding": caps, "effective": caps, "permitted": caps },
            "noNewPrivileges": false,
            "oomScoreAdj": 0
        },
        "root": { "path": "rootfs" },
        "hostname": "wherry-test",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"] },
            { "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro", "nosuid", "noexec", "nodev"] },
            { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=67108864"] }
        ],
        "linux": {
            "cgroupsPath": format!("/{id}"),
            "resources": { "devices": [
                { "allow": false, "access": "rwm" },
                { "allow": true, "type": "c", "major": 1, "minor": 5, "access": "rwm" },
                { "allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm" },
                { "allow": true, "type": "c", "major": 1, "minor": 9, "access": "rwm" },
                { "allow": true, "type": "c", "major": 1, "minor": 8, "access": "rwm" },
                { "allow": true, "type": "c", "major": 5, "minor": 0, "access": "rwm" },
                { "allow": true, "type": "c", "major": 136, "access": "rwm" },
                { "allow": true, "type": "c", "major": 5, "minor": 2, "access": "rwm" },
                { "allow": true, "type": "c", "access": "m" },
                { "allow": true, "type": "b", "access": "m" }
            ] },
            "namespaces": [
                { "type": "mount" }, { "type": "network" }, { "type": "uts" }, { "type": "pid" }, { "type": "ipc" }
            ],
            "maskedPaths": ["/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
                "/sys/devices/virtual/powercap"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    })
}
