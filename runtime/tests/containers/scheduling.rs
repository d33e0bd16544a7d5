//! Where and when programs run.

use crate::support::{Bundle, exec};
use serde_json::json;

#[test]
fn cpu_affinity_of_a_further_process() {
    let bundle = Bundle::new().args(&["sleep", "100"]);
    let container = bundle.start();
    let allowed = |affinity: serde_json::Value| {
        let process = json!({ "user": { "uid": 0, "gid": 0 }, "cwd": "/", "execCPUAffinity": affinity,
            "args": ["/bin/grep", "Cpus_allowed_list", "/proc/self/status"] });
        exec(&container, process).map(|(_, output)| output.split_whitespace().nth(1).unwrap().to_owned())
    };
    let both = allowed(json!({ "initial": "0", "final": "1" }));
    let one = allowed(json!({ "final": "0" }));
    let wrong = allowed(json!({ "final": "3-1" }));
    container.delete(true).unwrap();
    assert_eq!(both.unwrap(), "1");
    assert_eq!(one.unwrap(), "0");
    assert!(wrong.unwrap_err().to_string().contains("process.execCPUAffinity.final"));
}

#[test]
fn memory_policy() {
    let shown = |policy: serde_json::Value| {
        let bundle = Bundle::new().sh("head -n 1 /proc/self/numa_maps").set("/linux/memoryPolicy", policy);
        bundle.try_run().map(|outcome| outcome.stdout.split(' ').nth(1).unwrap_or_default().to_owned())
    };
    assert_eq!(shown(json!({ "mode": "MPOL_DEFAULT" })).unwrap(), "default");
    assert_eq!(shown(json!({ "mode": "MPOL_INTERLEAVE", "nodes": "0" })).unwrap(), "interleave:0");
    let flags = json!(["MPOL_F_STATIC_NODES"]);
    let bound = json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": flags });
    assert_eq!(shown(bound.clone()).unwrap(), "bind=static:0");
    let error = shown(json!({ "mode": "MPOL_BIND" })).unwrap_err();
    assert!(error.to_string().starts_with("set memory policy"), "{error}");

    let bundle = Bundle::new().args(&["sleep", "100"]).set("/linux/memoryPolicy", bound);
    let container = bundle.start();
    let process = json!({ "user": { "uid": 0, "gid": 0 }, "cwd": "/", "args": ["cat", "/proc/self/numa_maps"],
        "env": ["PATH=/bin"] });
    let result = exec(&container, process);
    container.delete(true).unwrap();
    assert!(result.unwrap().1.contains(" bind=static:0 "), "a further process has it, too");
}

/// Seen from outside: util-linux's ionice asks the kernel.
#[test]
fn io_priority() {
    for (class, priority, expect) in [
        ("IOPRIO_CLASS_BE", 6, "best-effort: prio 6"),
        ("IOPRIO_CLASS_IDLE", 0, "idle"),
        ("IOPRIO_CLASS_RT", 2, "realtime: prio 2"),
    ] {
        let bundle = Bundle::new()
            .args(&["sleep", "100"])
            .set("/process/ioPriority", json!({ "class": class, "priority": priority }));
        let container = bundle.start();
        let output = std::process::Command::new("ionice").args(["-p", &container.pid().to_string()]).output();
        container.delete(true).unwrap();
        assert_eq!(crate::support::text_of(&output.unwrap().stdout).trim(), expect, "{class}");
    }
}

#[test]
fn scheduler_priority_and_personality() {
    let outcome = Bundle::new()
        .sh("grep -E '^policy|^prio' /proc/self/sched; cat /proc/self/personality")
        .set("/process/scheduler", json!({ "policy": "SCHED_BATCH", "nice": 5 }))
        .set("/linux/personality", json!({ "domain": "LINUX32" }))
        .run();
    let words: Vec<&str> = outcome.stdout.split_whitespace().collect();
    assert_eq!(words, ["policy", ":", "3", "prio", ":", "125", "00000008"], "{}", outcome.stderr);
}
