//! What limits do to those who live under them.

use std::time::{Duration, Instant};

use serde_json::json;
use wherry_runtime::{CgroupManager, Status};

use crate::create;
use crate::support::{Bundle, eventually, exec, unified};

#[test]
fn a_quota_throttles() {
    let bundle = Bundle::new()
        .sh("while :; do :; done")
        .set("/linux/resources", json!({ "cpu": { "quota": 2_000, "period": 20_000 } }));
    let mut container = create(&bundle, CgroupManager::Cgroupfs).unwrap();
    container.start().unwrap();
    eventually("it is throttled", || container.stats().unwrap().cpu.throttling.throttled_periods > 3);
    container.delete(true).unwrap();
}

#[test]
fn a_limit_of_processes_and_of_processors() {
    let bundle = Bundle::new()
        .sh("sleep 1000 & sleep 1000 & wait")
        .set("/linux/resources", json!({ "pids": { "limit": 3 }, "cpu": { "cpus": "0" } }));
    let mut container = create(&bundle, CgroupManager::Cgroupfs).unwrap();
    container.start().unwrap();
    let has_three = || container.processes().unwrap().len() == 3;
    eventually("three processes", has_three);
    let fourth =
        json!({ "args": ["true"], "cwd": "/", "env": ["PATH=/bin"], "user": { "uid": 0, "gid": 0 } });
    assert_eq!(exec(&container, fourth).unwrap_err().errno(), Some(libc::EAGAIN));
    let status = std::fs::read_to_string(format!("/proc/{}/status", container.pid())).unwrap();
    assert!(status.contains("Cpus_allowed_list:\t0\n"), "{status}");
    container.delete(true).unwrap();
}

#[test]
fn freezing_killing_and_counting() {
    let bundle = Bundle::new().sh("sleep 1000 & while :; do :; done");
    let mut container = create(&bundle, CgroupManager::Cgroupfs).unwrap();
    container.start().unwrap();
    eventually("both run", || container.processes().unwrap().len() == 2);
    container.pause().unwrap();
    assert_eq!(container.status(), Status::Paused);
    let before = container.stats().unwrap().cpu.usage_ns;
    std::thread::sleep(Duration::from_millis(100));
    let after = container.stats().unwrap().cpu.usage_ns;
    assert!(after - before < 20_000_000, "a frozen container used {} ns", after - before);
    container.resume().unwrap();
    eventually("it goes on", || container.stats().unwrap().cpu.usage_ns > after + 10_000_000);
    container.kill_all(libc::SIGKILL).unwrap();
    eventually("it ends", || container.status() == Status::Stopped);
    crate::support::wait(&container);
    container.delete(false).unwrap();
}

/// A device that holds back: only where the root file system is on a block device and version 2 counts its writes.
#[test]
#[ignore = "needs cgroup version 2 and a disk of its own: make test-vm"]
fn a_throttle_holds_writes_back() {
    assert!(unified());
    let device = rustix::fs::stat("/").unwrap().st_dev;
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let bundle = Bundle::new().sh("dd if=/dev/zero of=/tmp/file bs=64k count=48 conv=fsync 2>/dev/null").set(
        "/linux/resources",
        json!({ "blockIO": { "weight": 500,
                "throttleWriteBpsDevice": [{ "major": major, "minor": minor, "rate": 1_048_576 }] } }),
    );
    let mut container = create(&bundle, CgroupManager::Cgroupfs).unwrap();
    assert_eq!(
        crate::value(&bundle.id, "", "io.max"),
        format!("{major}:{minor} rbps=max wbps=1048576 riops=max wiops=max")
    );
    let start = Instant::now();
    container.start().unwrap();
    crate::support::wait(&container);
    assert!(start.elapsed() > Duration::from_secs(2), "3 MiB in {:?}", start.elapsed());
    let written: u64 = container
        .stats()
        .unwrap()
        .block_io
        .service_bytes
        .iter()
        .filter(|entry| entry.operation == "Write")
        .map(|entry| entry.value)
        .sum();
    assert!(written >= 3 << 20, "{written}");
    container.delete(false).unwrap();
}

/// A container that manages groups below its own, as systemd does, has no processes in its own: an exec joins init.
#[test]
#[ignore = "needs cgroup version 2: make test-vm"]
fn exec_where_the_container_manages_groups() {
    assert!(unified());
    let mut bundle = Bundle::new()
        .sh("mkdir /sys/fs/cgroup/init && echo 1 >/sys/fs/cgroup/init/cgroup.procs && \
         echo +memory >/sys/fs/cgroup/cgroup.subtree_control && touch /tmp/ready; sleep 1000");
    let mounts = bundle.spec["mounts"].as_array_mut().unwrap();
    mounts.iter_mut().find(|m| m["type"] == "cgroup").unwrap()["options"] = json!(["rw", "nosuid"]);
    bundle.spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "cgroup" }));
    let mut container = create(&bundle, CgroupManager::Cgroupfs).unwrap();
    container.start().unwrap();
    eventually("it manages", || bundle.rootfs_path().join("tmp/ready").exists());
    let process = json!({ "args": ["cat", "/proc/self/cgroup"], "cwd": "/", "env": ["PATH=/bin"], "user": { "uid": 0, "gid": 0 } });
    assert_eq!(exec(&container, process).unwrap(), (0, "0::/init\n".to_owned()));
    container.delete(true).unwrap();
}

/// Options of version 2 are the whole hierarchy's: a container that mounts it must not take `nsdelegate` away. With that, a
/// process enters only from outside of the container's cgroup namespace.
#[test]
fn the_hosts_hierarchy_keeps_its_options() {
    let options = || {
        let table = std::fs::read_to_string("/proc/self/mounts").unwrap();
        table.lines().filter(|line| line.contains(" cgroup2 ")).map(str::to_owned).collect::<Vec<_>>()
    };
    let before = options();
    assert_eq!(Bundle::new().args(&["ls", "/sys/fs/cgroup"]).run().code, 0);
    assert_eq!(options(), before);
    let mut bundle = Bundle::new().args(&["sleep", "1000"]);
    bundle.spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "cgroup" }));
    let mut container = create(&bundle, CgroupManager::Cgroupfs).unwrap();
    container.start().unwrap();
    let process =
        json!({ "args": ["true"], "cwd": "/", "env": ["PATH=/bin"], "user": { "uid": 0, "gid": 0 } });
    assert_eq!(exec(&container, process).unwrap().0, 0);
    assert_eq!(options(), before);
    container.delete(true).unwrap();
}
