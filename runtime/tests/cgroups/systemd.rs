//! The systemd driver: needs a systemd that runs, which `make test-vm` has.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use wherry_runtime::{CgroupManager, Container};

use crate::support::{Bundle, eventually, exec, unified, wait};
use crate::{create, resources, value};

const MIB: i64 = 1 << 20;

fn show(unit: &str, property: &str) -> String {
    let output = Command::new("systemctl").args(["show", "--value", "-p", property, unit]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A bundle whose unit is `wt-ID.scope` in `wherry-vm.slice`, the unit's name, and its cgroup.
fn bundle(limits: Value) -> (Bundle, String, String) {
    let bundle = Bundle::new();
    let path = format!("wherry-vm.slice:wt:{}", bundle.id);
    let unit = format!("wt-{}.scope", bundle.id);
    let cgroup = format!("wherry.slice/wherry-vm.slice/{unit}");
    let mut bundle = bundle.set("/linux/cgroupsPath", json!(path)).args(&["sleep", "1000"]);
    for (name, value) in limits.as_object().unwrap() {
        bundle.spec["linux"]["resources"][name] = value.clone();
    }
    (bundle, unit, cgroup)
}

fn gone(unit: &str, cgroup: &str) {
    assert_eq!(show(unit, "LoadState"), "not-found");
    for controller in ["memory", "cpu", "pids", "devices", "systemd", "hugetlb"] {
        assert!(!crate::folder(cgroup, controller).exists(), "{controller}");
    }
}

#[test]
#[ignore = "needs systemd: make test-vm"]
fn a_scope_with_all_limits() {
    let (bundle, unit, cgroup) = bundle(json!({
        "memory": { "limit": 64 * MIB },
        "cpu": { "shares": 512, "quota": 50_000, "period": 100_000, "cpus": "0" },
        "pids": { "limit": 50 },
    }));
    let bundle = bundle.set(
        "/annotations",
        json!({
            "org.systemd.property.TimeoutStopSec": "uint64 7",
            "org.systemd.property.CollectMode": "'inactive-or-failed'",
            "org.systemd.property.After": "['basic.target']",
        }),
    );
    let mut container = create(&bundle, CgroupManager::Systemd).unwrap();
    container.start().unwrap();
    assert_eq!(show(&unit, "ActiveState"), "active");
    assert_eq!(show(&unit, "Slice"), "wherry-vm.slice");
    assert_eq!(show(&unit, "ControlGroup"), format!("/{cgroup}"));
    assert_eq!(show(&unit, "Delegate"), "yes");
    assert_eq!(show(&unit, "TimeoutStopUSec"), "7s");
    assert_eq!(show(&unit, "CollectMode"), "inactive-or-failed");
    assert!(show(&unit, "After").contains("basic.target"));
    assert_eq!(show(&unit, if unified() { "MemoryMax" } else { "MemoryLimit" }), (64 * MIB).to_string());
    assert_eq!(show(&unit, "TasksMax"), "50");
    assert_eq!(show(&unit, "CPUQuotaPerSecUSec"), "500ms");
    assert_eq!(value(&cgroup, "memory.limit_in_bytes", "memory.max"), (64 * MIB).to_string());
    assert_eq!(value(&cgroup, "cpu.shares", "cpu.weight"), if unified() { "59" } else { "512" });
    assert_eq!(value(&cgroup, "pids.max", "pids.max"), "50");
    assert_eq!(value(&cgroup, "cpuset.cpus", "cpuset.cpus"), "0");

    container
        .update(&resources(
            json!({ "memory": { "limit": 128 * MIB }, "pids": { "limit": 60 }, "cpu": { "quota": 20_000 } }),
        ))
        .unwrap();
    assert_eq!(show(&unit, "TasksMax"), "60");
    assert_eq!(show(&unit, "CPUQuotaPerSecUSec"), "200ms");
    // what was told to systemd stays when it looks at everything again
    assert!(Command::new("systemctl").arg("daemon-reload").status().unwrap().success());
    assert_eq!(value(&cgroup, "memory.limit_in_bytes", "memory.max"), (128 * MIB).to_string());
    assert_eq!(value(&cgroup, "pids.max", "pids.max"), "60");
    assert_eq!(container.processes().unwrap(), [container.pid()]);
    assert_eq!(container.stats().unwrap().pids.current, 1);
    container.delete(true).unwrap();
    gone(&unit, &cgroup);
}

#[test]
#[ignore = "needs systemd: make test-vm"]
fn processes_enter_freeze_and_die() {
    let (bundle, unit, cgroup) = bundle(json!({}));
    let mut container = create(&bundle, CgroupManager::Systemd).unwrap();
    container.start().unwrap();
    let process = json!({ "args": ["cat", "/proc/self/cgroup"], "cwd": "/", "env": ["PATH=/bin"], "user": { "uid": 0, "gid": 0 } });
    let (code, text) = exec(&container, process.clone()).unwrap();
    assert!(code == 0 && text.contains(&cgroup), "{text}");
    container.pause().unwrap();
    assert!(exec(&container, process).is_err());
    container.resume().unwrap();
    // another process opens it by what was saved
    let saved = serde_json::to_string(&container.save().unwrap()).unwrap();
    let saved: wherry_runtime::SavedState = serde_json::from_str(&saved).unwrap();
    let again: Container = saved.open().unwrap().unwrap();
    again.pause().unwrap();
    again.delete(true).unwrap();
    gone(&unit, &cgroup);
}

#[test]
#[ignore = "needs systemd: make test-vm"]
fn one_process_is_a_limit_too() {
    let (bundle, unit, cgroup) = bundle(json!({ "pids": { "limit": 1 } }));
    let mut container = create(&bundle, CgroupManager::Systemd).unwrap();
    container.start().unwrap();
    assert_eq!(value(&cgroup, "pids.max", "pids.max"), "1");
    assert_eq!(show(&unit, "TasksMax"), "1");
    container.delete(true).unwrap();
    gone(&unit, &cgroup);
}

#[test]
#[ignore = "needs systemd: make test-vm"]
fn the_end_of_the_last_process_ends_the_scope() {
    let (bundle, unit, cgroup) = bundle(json!({}));
    let bundle = bundle.args(&["true"]);
    let mut container = create(&bundle, CgroupManager::Systemd).unwrap();
    container.start().unwrap();
    assert_eq!(wait(&container), 0);
    eventually("the scope has ended", || show(&unit, "ActiveState") != "active");
    container.delete(false).unwrap();
    gone(&unit, &cgroup);
}

#[test]
#[ignore = "needs systemd: make test-vm"]
fn a_failure_leaves_no_unit() {
    let (bundle, unit, cgroup) = bundle(json!({}));
    let bundle = bundle.args(&["/no/such/program"]);
    assert!(create(&bundle, CgroupManager::Systemd).is_err());
    gone(&unit, &cgroup);
    // and what systemd refuses is said in one line
    let bundle = bundle.set("/annotations", json!({ "org.systemd.property.NoSuchThing": "true" }));
    let error = create(&bundle, CgroupManager::Systemd).unwrap_err().to_string();
    assert!(error.starts_with(&format!("start {unit}: ")) && !error.contains('\n'), "{error}");
    gone(&unit, &cgroup);
}

#[test]
#[ignore = "needs systemd: make test-vm"]
fn a_name_in_use_is_refused_and_left_alone() {
    let (bundle, unit, _) = bundle(json!({}));
    let container = create(&bundle, CgroupManager::Systemd).unwrap();
    let error = create(&bundle, CgroupManager::Systemd).unwrap_err().to_string();
    assert!(error.contains("container's cgroup is not empty"), "{error}");
    assert_eq!(show(&unit, "ActiveState"), "active");
    container.delete(true).unwrap();
}

#[test]
fn a_path_that_is_no_unit_is_refused() {
    let bundle = Bundle::new();
    let error = create(&bundle, CgroupManager::Systemd).unwrap_err().to_string();
    assert!(
        error.contains("linux.cgroupsPath: expected cgroupsPath to be of format \"slice:prefix:name\""),
        "{error}"
    );
}

#[test]
fn without_systemd_the_error_is_one_line() {
    if Path::new("/run/systemd/system").exists() {
        return; // it is there: the other tests are about it
    }
    let bundle = Bundle::new().set("/linux/cgroupsPath", json!(":wt:x"));
    let error = create(&bundle, CgroupManager::Systemd).unwrap_err().to_string();
    assert!(error.starts_with("connect to systemd for wt-x.scope: unix:path="), "{error}");
    assert!(!error.contains('\n'));
}
