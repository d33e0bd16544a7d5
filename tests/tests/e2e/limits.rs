//! Limits and how they look from inside and in the cgroup.

use wherry_tests::Host;

/// A file of the container's own cgroup, seen from its inside; `v1` or, where the host has that, `v2`.
fn cgroup(host: &Host, options: &str, v1: &str, v2: &str) -> String {
    let script = format!("cat /sys/fs/cgroup/{v1} 2>/dev/null || cat /sys/fs/cgroup/{v2}");
    let mut line: Vec<&str> = vec!["run", "--rm"];
    line.extend(options.split_whitespace());
    line.extend(["busybox", "sh", "-c", &script]);
    host.docker(line.as_slice()).ok().out().to_owned()
}

#[test]
fn memory() {
    let host = Host::new();
    for (options, v1, v2, value) in [
        ("-m 64m", "memory/memory.limit_in_bytes", "memory.max", "67108864"),
        ("-m 64m --memory-reservation 32m", "memory/memory.soft_limit_in_bytes", "memory.low", "33554432"),
    ] {
        assert_eq!(cgroup(&host, options, v1, v2), value, "{options}");
    }
    assert_ne!(cgroup(&host, "", "memory/memory.limit_in_bytes", "memory.max"), "67108864");
    host.docker("run --rm -m 64m --memory-swap 32m busybox true")
        .fails(125, "Minimum memoryswap limit should be larger than memory limit");
    host.docker("run --rm --memory-swap 64m busybox true")
        .fails(125, "You should always set the Memory limit when using Memoryswap limit");
}

#[test]
fn processors() {
    let host = Host::new();
    for (options, v1, v2, value) in [
        ("--cpus 0.5", "cpu/cpu.cfs_quota_us", "cpu.max", &["50000", "50000 100000"]),
        ("--cpus 1.5", "cpu/cpu.cfs_quota_us", "cpu.max", &["150000", "150000 100000"]),
        ("--cpu-shares 512", "cpu/cpu.shares", "cpu.weight", &["512", "20"]),
        (
            "--cpu-period 20000 --cpu-quota 10000",
            "cpu/cpu.cfs_quota_us",
            "cpu.max",
            &["10000", "10000 20000"],
        ),
        ("--cpuset-cpus 0", "cpuset/cpuset.cpus", "cpuset.cpus", &["0", "0"]),
    ] {
        let got = cgroup(&host, options, v1, v2);
        assert!(value.contains(&got.as_str()), "{options}: {got}");
    }
    host.docker("run --rm --cpuset-cpus 0 busybox nproc").prints("1");
    host.docker("run --rm --cpus 999 busybox true").fails(125, "range of CPUs is from 0.01 to");
    host.docker("run --rm --cpuset-cpus 77 busybox true").fails(125, "Requested CPUs are not available");
    host.docker("run --rm --cpus 1 --cpu-quota 1000 busybox true").fails(125, "Conflicting options");
}

#[test]
fn processes_and_files() {
    let host = Host::new();
    assert_eq!(cgroup(&host, "--pids-limit 12", "pids/pids.max", "pids.max"), "12");
    let forks = "for i in 1 2 3 4 5 6 7 8 9; do sleep 1 & done; wait";
    let output = host.docker(&["run", "--rm", "--pids-limit", "5", "busybox", "sh", "-c", forks]);
    assert!(output.code != 0 && output.stderr.contains("can't fork"), "{output}");
    host.docker("run --rm --ulimit nofile=123:456 busybox sh -c 'ulimit -Sn; ulimit -Hn'").prints("123\n456");
    host.docker("run --rm --ulimit core=0 busybox sh -c 'ulimit -c'").prints("0");
    host.docker("run --rm --ulimit nosuch=1 busybox true").fails(125, "invalid ulimit type: nosuch");
    host.docker("run --rm --shm-size 1m busybox sh -c 'df -k /dev/shm | tail -1'").contains("1024");
    host.docker("run --rm --sysctl net.ipv4.ip_forward=0 busybox cat /proc/sys/net/ipv4/ip_forward")
        .prints("0");
    host.docker("run --rm --oom-score-adj 500 busybox cat /proc/self/oom_score_adj").prints("500");
}

#[test]
fn they_are_told_by_inspect() {
    let host = Host::new();
    host.docker("create --name box -m 64m --cpus 1.5 --pids-limit 7 --cpu-shares 3 --cpuset-cpus 0 busybox")
        .ok();
    let config = host.inspect("box")["HostConfig"].take();
    for (key, value) in [
        ("Memory", 64 << 20),
        ("MemorySwap", 128 << 20),
        ("NanoCpus", 1_500_000_000),
        ("PidsLimit", 7),
        ("CpuShares", 3),
    ] {
        assert_eq!(config[key], value, "{key}");
    }
    assert_eq!(config["CpusetCpus"], "0");
}

#[test]
fn on_the_unified_hierarchy() {
    let host = Host::with_unified_cgroups();
    host.docker("info --format '{{.CgroupVersion}}'").prints("2");
    let shared = host.folder().join("shared");
    std::fs::create_dir(&shared).unwrap();
    let volume = format!("{}:/shared", shared.display());
    let count = "i=0; while :; do i=$((i+1)); echo $i >/shared/count; done";
    host.docker(&["run", "-d", "--name", "box", "-v", &volume, "busybox", "sh", "-c", count]).ok();
    host.docker("inspect -f '{{.HostConfig.CgroupnsMode}}' box").prints("private");
    host.docker("exec box cat /proc/self/cgroup").contains("0::/\n");
    host.docker("exec box mkdir /sys/fs/cgroup/x").fails(1, "Read-only file system");
    host.docker("pause box").ok();
    let count = || std::fs::read_to_string(shared.join("count")).unwrap();
    let before = count();
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert_eq!(count(), before, "it stands still");
    host.docker("unpause box").ok();
    host.docker("exec box true").ok();
    host.docker("run --rm --device /dev/null:/dev/mine busybox sh -c 'echo >/dev/mine'").ok();
    host.docker("run --rm busybox sh -c 'mknod /dev/sda b 8 0 && head -c 1 /dev/sda'")
        .fails(1, "Operation not permitted");
    host.docker("rm -f box").ok();
    host.docker("run --rm --cgroupns host busybox cat /proc/self/cgroup").contains("0::/docker/");
}
