//! Every limit of the specification that this machine has a controller for, and what is said of the others.

use serde_json::json;
use wherry_runtime::CgroupManager;

use crate::support::{Bundle, unified};
use crate::{create, folder, refused, value};

const MIB: i64 = 1 << 20;

#[test]
fn memory_processor_and_processes() {
    let bundle = Bundle::new().args(&["sleep", "1000"]).set(
        "/linux/resources",
        json!({
            "memory": { "limit": 64 * MIB, "reservation": 32 * MIB, "kernel": 5 },
            "cpu": { "shares": 2048, "quota": 50_000, "period": 100_000, "burst": 20_000, "cpus": "0", "mems": "0" },
            "pids": { "limit": 20 },
        }),
    );
    let container = create(&bundle, CgroupManager::Cgroupfs).unwrap();
    let id = &bundle.id;
    assert_eq!(value(id, "memory.limit_in_bytes", "memory.max"), (64 * MIB).to_string());
    assert_eq!(value(id, "memory.soft_limit_in_bytes", "memory.low"), (32 * MIB).to_string());
    assert_eq!(value(id, "cpu.shares", "cpu.weight"), if unified() { "174" } else { "2048" });
    if unified() {
        assert_eq!(value(id, "", "cpu.max"), "50000 100000");
    } else {
        assert_eq!(value(id, "cpu.cfs_quota_us", ""), "50000");
        assert_eq!(value(id, "cpu.cfs_period_us", ""), "100000");
    }
    assert_eq!(value(id, "cpu.cfs_burst_us", "cpu.max.burst"), "20000");
    assert_eq!(value(id, "cpuset.cpus", "cpuset.cpus"), "0");
    assert_eq!(value(id, "cpuset.mems", "cpuset.mems"), "0");
    assert_eq!(value(id, "pids.max", "pids.max"), "20");
    let stats = container.stats().unwrap();
    assert_eq!(stats.memory.limit_bytes, 64 << 20);
    assert_eq!(stats.pids.limit, Some(20));
    assert_eq!(stats.pids.current, 1);
    container.delete(true).unwrap();
}

#[test]
fn an_idle_group() {
    let bundle = Bundle::new()
        .args(&["sleep", "1000"])
        .set("/linux/resources", json!({ "cpu": { "idle": 1, "shares": 512 } }));
    let container = create(&bundle, CgroupManager::Cgroupfs).unwrap();
    assert_eq!(value(&bundle.id, "cpu.idle", "cpu.idle"), "1");
    container.update(&crate::resources(json!({ "cpu": { "idle": 0, "shares": 512 } }))).unwrap();
    assert_eq!(value(&bundle.id, "cpu.idle", "cpu.idle"), "0");
    assert_eq!(value(&bundle.id, "cpu.shares", "cpu.weight"), if unified() { "59" } else { "512" });
    container.delete(true).unwrap();
}

#[test]
fn huge_pages_and_reservations_of_them() {
    if !folder("", "hugetlb").join(if unified() { "cgroup.controllers" } else { "cgroup.procs" }).exists() {
        let error = refused(json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": 4 * MIB }] }));
        assert!(error.contains("linux.resources.hugepageLimits: the cgroup controller hugetlb"), "{error}");
        return;
    }
    let bundle = Bundle::new()
        .args(&["sleep", "1000"])
        .set("/linux/resources", json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": 4 * MIB }] }));
    let container = create(&bundle, CgroupManager::Cgroupfs).unwrap();
    for (v1, v2) in [
        ("hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.max"),
        ("hugetlb.2MB.rsvd.limit_in_bytes", "hugetlb.2MB.rsvd.max"),
    ] {
        assert_eq!(value(&bundle.id, v1, v2), (4 * MIB).to_string());
    }
    assert!(container.stats().unwrap().hugetlb.contains_key("2MB"));
    container.delete(true).unwrap();
    let error = refused(json!({ "hugepageLimits": [{ "pageSize": "3MB", "limit": 4 * MIB }] }));
    assert!(error.contains("linux.resources.hugepageLimits: the kernel has no hugetlb.3MB."), "{error}");
}

#[test]
fn files_by_name() {
    if !unified() {
        let error = refused(json!({ "unified": { "memory.high": "1" } }));
        assert!(error.contains("linux.resources.unified: cannot be set with cgroup version 1"), "{error}");
        return;
    }
    let bundle = Bundle::new().args(&["sleep", "1000"]).set(
        "/linux/resources",
        json!({ "unified": { "memory.high": "50331648", "cgroup.max.depth": "3", "memory.oom.group": "1" } }),
    );
    let container = create(&bundle, CgroupManager::Cgroupfs).unwrap();
    assert_eq!(value(&bundle.id, "", "memory.high"), "50331648");
    assert_eq!(value(&bundle.id, "", "memory.oom.group"), "1");
    assert_eq!(value(&bundle.id, "", "cgroup.max.depth"), "3");
    container.delete(true).unwrap();
    for (file, expect) in [
        ("../x.y", "\"../x.y\" is not the name of a cgroup's file"),
        ("memory", "\"memory\" is not the name of a cgroup's file"),
        ("nothing.max", "controller \"nothing\" not available"),
        ("memory.nothing", "the kernel has no memory.nothing"),
    ] {
        let error = refused(json!({ "unified": { file: "1" } }));
        assert!(error.contains(expect), "{error}");
    }
}

#[test]
fn what_cannot_be_set_is_named() {
    let check = |resources: serde_json::Value, v1: Option<&str>, v2: Option<&str>| {
        let Some(expect) = (if unified() { v2 } else { v1 }) else { return };
        let error = refused(resources);
        assert!(error.contains(expect), "{error}");
    };
    let only_v1 = "cgroup version 2 has no such limit";
    check(json!({ "memory": { "swappiness": 10 } }), None, Some(only_v1));
    let range = Some("linux.resources.memory.swappiness: 101 is not in 0 to 100");
    check(json!({ "memory": { "swappiness": 101 } }), range, range);
    check(json!({ "memory": { "disableOOMKiller": true } }), None, Some(only_v1));
    check(json!({ "cpu": { "realtimeRuntime": 5000 } }), None, Some(only_v1));
    check(json!({ "network": { "classID": 5 } }), None, Some(only_v1));
    check(json!({ "blockIO": { "leafWeight": 100 } }), None, Some(only_v1));
    check(json!({ "cpu": { "shares": 1 } }), Some("the minimum allowed cpu-shares is 2"), None);
    check(json!({ "cpu": { "shares": 262_145 } }), Some("the maximum allowed cpu-shares is 262144"), None);
    let rdma = json!({ "rdma": { "mlx5_1": { "hcaHandles": 3 } } });
    check(rdma, Some("rdma"), Some("rdma.max"));
    let both = "cpuset.cpus";
    check(json!({ "cpu": { "cpus": "4000" } }), Some(both), Some(both));
    check(json!({ "memory": { "limit": 100 * MIB, "swap": 50 * MIB } }), Some("memory"), Some("memory"));
}

/// What only version 1 has, where the kernel has it; the rest is named.
#[test]
fn limits_of_version_1() {
    if unified() {
        return; // what_cannot_be_set_is_named
    }
    let bundle = Bundle::new()
        .args(&["sleep", "1000"])
        .set("/linux/resources", json!({ "memory": { "swappiness": 10, "disableOOMKiller": true } }));
    let container = create(&bundle, CgroupManager::Cgroupfs).unwrap();
    assert_eq!(value(&bundle.id, "memory.swappiness", ""), "10");
    assert!(value(&bundle.id, "memory.oom_control", "").starts_with("oom_kill_disable 1"));
    container.delete(true).unwrap();
    for (controller, file, limits, field) in [
        (
            "cpu",
            "cpu.rt_runtime_us",
            json!({ "cpu": { "realtimeRuntime": 0, "realtimePeriod": 500_000 } }),
            "cpu.realtime",
        ),
        ("net_cls", "net_cls.classid", json!({ "network": { "classID": 7 } }), "network.classID"),
        (
            "net_prio",
            "net_prio.ifpriomap",
            json!({ "network": { "priorities": [{ "name": "lo", "priority": 3 }] } }),
            "network.priorities",
        ),
        ("blkio", "blkio.weight", json!({ "blockIO": { "weight": 300 } }), "blockIO.weight"),
    ] {
        let root = std::path::Path::new("/sys/fs/cgroup").join(controller);
        let file = if controller == "blkio" && !root.join(file).exists() { "blkio.bfq.weight" } else { file };
        // a group of its own: the root has not all files
        let probe = root.join(format!("wherry-test-probe-{}", std::process::id()));
        let made = root.exists() && std::fs::create_dir(&probe).is_ok();
        let there = probe.join(file).exists();
        if made {
            std::fs::remove_dir(&probe).unwrap();
        }
        if !there {
            let error = refused(limits);
            assert!(error.contains(&format!("linux.resources.{field}")), "{error}");
            continue;
        }
        let bundle = Bundle::new().args(&["sleep", "1000"]).set("/linux/resources", limits);
        let container = create(&bundle, CgroupManager::Cgroupfs).unwrap();
        let expect = match file {
            "cpu.rt_runtime_us" => "0",
            "net_cls.classid" => "7",
            "blkio.weight" | "blkio.bfq.weight" => "300",
            _ => "lo 3",
        };
        assert!(value(&bundle.id, file, "").contains(expect), "{file}");
        container.delete(true).unwrap();
    }
}

/// All four, of a disk that the machine has.
#[test]
fn throttles_of_a_block_device() {
    let disk = std::fs::read_dir("/sys/block").unwrap().flatten();
    let disk = disk.map(|entry| entry.path()).find(|path| path.join("device").exists()).expect("a disk");
    let number = std::fs::read_to_string(disk.join("dev")).unwrap().trim().to_owned();
    let (major, minor) = number.split_once(':').unwrap();
    let (major, minor): (i64, i64) = (major.parse().unwrap(), minor.parse().unwrap());
    let rate = |rate: u64| json!([{ "major": major, "minor": minor, "rate": rate }]);
    let bundle = Bundle::new().args(&["sleep", "1000"]).set(
        "/linux/resources",
        json!({ "blockIO": { "throttleReadBpsDevice": rate(1 << 20), "throttleWriteBpsDevice": rate(2 << 20),
            "throttleReadIOPSDevice": rate(100), "throttleWriteIOPSDevice": rate(200) } }),
    );
    let container = create(&bundle, CgroupManager::Cgroupfs).unwrap();
    if unified() {
        let expect = format!("{number} rbps=1048576 wbps=2097152 riops=100 wiops=200");
        assert_eq!(value(&bundle.id, "", "io.max"), expect);
    } else {
        for (file, limit) in
            [("read_bps", 1 << 20), ("write_bps", 2 << 20), ("read_iops", 100), ("write_iops", 200)]
        {
            let file = format!("blkio.throttle.{file}_device");
            assert_eq!(value(&bundle.id, &file, ""), format!("{number} {limit}"), "{file}");
        }
    }
    container.delete(true).unwrap();
}

#[test]
fn a_group_in_use_is_refused() {
    let bundle = Bundle::new().args(&["sleep", "1000"]);
    let container = create(&bundle, CgroupManager::Cgroupfs).unwrap();
    let other = Bundle::new().set("/linux/cgroupsPath", bundle.spec["linux"]["cgroupsPath"].clone());
    let error = create(&other, CgroupManager::Cgroupfs).unwrap_err().to_string();
    assert!(error.contains("container's cgroup is not empty: 1 process(es) found"), "{error}");
    assert!(folder(&bundle.id, "memory").exists(), "the other container's group is still there");
    container.delete(true).unwrap();
}

#[test]
fn a_frozen_group_is_refused() {
    let bundle = Bundle::new();
    let path = folder(&bundle.id, "freezer");
    std::fs::create_dir(&path).unwrap();
    let (file, frozen) = if unified() { ("cgroup.freeze", "1") } else { ("freezer.state", "FROZEN") };
    std::fs::write(path.join(file), frozen).unwrap();
    if !unified() {
        std::fs::create_dir(folder(&bundle.id, "memory")).unwrap();
    }
    let error = create(&bundle, CgroupManager::Cgroupfs).unwrap_err().to_string();
    assert!(error.contains("container's cgroup unexpectedly frozen"), "{error}");
    assert!(path.exists(), "it is not ours to remove");
}
