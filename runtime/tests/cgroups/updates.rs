//! Limits of a container that runs, in an order that the kernel accepts.

use serde_json::json;
use wherry_runtime::CgroupManager;

use crate::support::{Bundle, eventually, exec, unified};
use crate::{create, resources, value};

const MIB: i64 = 1 << 20;

#[test]
fn quota_period_and_burst_up_and_down() {
    let bundle = Bundle::new()
        .args(&["sleep", "1000"])
        .set("/linux/resources", json!({ "cpu": { "quota": 10_000, "period": 100_000, "burst": 10_000 } }));
    let container = create(&bundle, CgroupManager::Cgroupfs).unwrap();
    for (quota, period, burst) in [
        (800_000, 100_000, 700_000),
        (5_000, 50_000, 5_000),
        (900_000, 1_000_000, 900_000),
        (1_000, 10_000, 0),
    ] {
        let new = json!({ "cpu": { "quota": quota, "period": period, "burst": burst } });
        container.update(&resources(new)).unwrap();
        if unified() {
            assert_eq!(value(&bundle.id, "", "cpu.max"), format!("{quota} {period}"));
        } else {
            assert_eq!(value(&bundle.id, "cpu.cfs_quota_us", ""), quota.to_string());
            assert_eq!(value(&bundle.id, "cpu.cfs_period_us", ""), period.to_string());
        }
        assert_eq!(value(&bundle.id, "cpu.cfs_burst_us", "cpu.max.burst"), burst.to_string());
    }
    // a period alone keeps the quota, and a quota below none is none
    container.update(&resources(json!({ "cpu": { "period": 20_000 } }))).unwrap();
    container.update(&resources(json!({ "cpu": { "quota": -1 } }))).unwrap();
    let expect = if unified() { "max 20000" } else { "-1" };
    assert_eq!(value(&bundle.id, "cpu.cfs_quota_us", "cpu.max"), expect);
    container.delete(true).unwrap();
}

#[test]
fn memory_up_and_down() {
    let bundle = Bundle::new()
        .args(&["sleep", "1000"])
        .set("/linux/resources", json!({ "memory": { "limit": 64 * MIB } }));
    let container = create(&bundle, CgroupManager::Cgroupfs).unwrap();
    let swap_counts = if unified() {
        crate::folder(&bundle.id, "").join("memory.swap.max").exists()
    } else {
        crate::folder(&bundle.id, "memory").join("memory.memsw.limit_in_bytes").exists()
    };
    for (limit, swap) in [(64, 128), (200, 300), (32, 40), (100, 100)] {
        let new = if swap_counts {
            json!({ "memory": { "limit": limit * MIB, "swap": swap * MIB } })
        } else {
            json!({ "memory": { "limit": limit * MIB } })
        };
        container.update(&resources(new)).unwrap();
        assert_eq!(value(&bundle.id, "memory.limit_in_bytes", "memory.max"), (limit * MIB).to_string());
        if swap_counts {
            let expect = if unified() { swap - limit } else { swap } * MIB;
            assert_eq!(
                value(&bundle.id, "memory.memsw.limit_in_bytes", "memory.swap.max"),
                expect.to_string()
            );
        }
    }
    container.update(&resources(json!({ "memory": { "limit": -1 } }))).unwrap();
    let limit = value(&bundle.id, "memory.limit_in_bytes", "memory.max");
    assert!(limit == "max" || limit.len() > 15, "{limit}");
    if unified() {
        let error =
            container.update(&resources(json!({ "memory": { "limit": 1, "checkBeforeUpdate": true } })));
        let error = error.unwrap_err().to_string();
        assert!(error.contains("rejecting memory limit 1 <= usage"), "{error}");
    }
    container.delete(true).unwrap();
}

#[test]
fn device_rules_are_replaced() {
    let bundle = Bundle::new().sh("mknod /tmp/kmsg c 1 11; touch /tmp/ready; sleep 1000");
    let mut container = create(&bundle, CgroupManager::Cgroupfs).unwrap();
    container.start().unwrap();
    eventually("the node is there", || bundle.rootfs_path().join("tmp/ready").exists());
    let opens = || {
        let process = json!({ "args": ["sh", "-c", ": >/tmp/kmsg && : >/dev/null"], "cwd": "/",
            "env": ["PATH=/bin"], "user": { "uid": 0, "gid": 0 } });
        exec(&container, process).unwrap().0 == 0
    };
    let rules = |last: bool| {
        resources(json!({ "devices": [
            { "allow": false, "access": "rwm" },
            { "allow": last, "type": "c", "major": 1, "minor": 11, "access": "rw" }
        ] }))
    };
    assert!(!opens());
    for allowed in [true, false, true] {
        container.update(&rules(allowed)).unwrap();
        assert_eq!(opens(), allowed);
    }
    container.delete(true).unwrap();
}
