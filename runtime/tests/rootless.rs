//! Containers of a caller who is not root: `newuidmap` and `newgidmap` (package uidmap) map what /etc/subuid grants them.
//!
//! The test runs as root, to become somebody else.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "support/mod.rs"]
mod support;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::Command;

use serde_json::{Value, json};
use support::Bundle;

/// `nobody`, who is in every /etc/passwd.
const NOBODY: u32 = 65534;

fn run(mappings: &Value, script: &str) -> (Option<i32>, String) {
    let mut bundle = Bundle::new().sh(script);
    bundle.spec["linux"]["namespaces"] = json!([{ "type": "mount" }, { "type": "user" }, { "type": "pid" }, { "type": "uts" }, { "type": "ipc" }, { "type": "network" }]);
    let mounts = bundle.spec["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| mount["type"] != "cgroup");
    mounts.iter_mut().filter(|m| m["type"] == "devpts").for_each(|m| {
        m["options"] = json!(["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]);
    });
    bundle.spec["linux"].as_object_mut().unwrap().remove("resources");
    bundle.spec["linux"].as_object_mut().unwrap().remove("cgroupsPath");
    bundle.spec["process"]["user"] = json!({ "uid": 0, "gid": 0 });
    bundle.spec["process"].as_object_mut().unwrap().remove("oomScoreAdj");
    let bundle =
        bundle.set("/linux/uidMappings", mappings.clone()).set("/linux/gidMappings", mappings.clone());
    let path = bundle.path();
    fs::write(path.join("config.json"), bundle.spec.to_string()).unwrap();
    fs::write(path.join("subids"), "nobody:100000:65536\n").unwrap();
    fs::create_dir(path.join("state")).unwrap();
    for owned in [path.to_path_buf(), path.join("state"), path.join("rootfs"), path.join("rootfs/tmp")] {
        chown(&owned, Some(NOBODY), Some(NOBODY)).unwrap();
        fs::set_permissions(&owned, fs::Permissions::from_mode(0o755)).unwrap();
    }
    // where the build is, nobody may not look
    let runtime = path.join("wherry-runtime");
    fs::copy(env!("CARGO_BIN_EXE_wherry-runtime"), &runtime).unwrap();
    let become_nobody = "touch /etc/subuid /etc/subgid && mount --bind subids /etc/subuid && mount --bind subids /etc/subgid && \
        exec setpriv --reuid 65534 --regid 65534 --clear-groups ./wherry-runtime --root state run rootless";
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", become_nobody])
        .current_dir(path)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    (output.status.code(), text.concat())
}

#[test]
fn granted_ranges() {
    let mappings = json!([{ "containerID": 0, "hostID": NOBODY, "size": 1 }, { "containerID": 1, "hostID": 100_000, "size": 65536 }]);
    let (code, text) = run(
        &mappings,
        "cat /proc/self/uid_map /proc/self/gid_map; touch /tmp/x && chown 5:6 /tmp/x && stat -c %u:%g /tmp/x",
    );
    let words: Vec<&str> = text.split_whitespace().collect();
    let one = ["0", "65534", "1", "1", "100000", "65536"];
    assert_eq!(words, [&one[..], &one[..], &["5:6"]].concat(), "{text}");
    assert_eq!(code, Some(0));
}

#[test]
fn ranges_that_are_not_granted() {
    let mappings = json!([{ "containerID": 0, "hostID": NOBODY, "size": 1 }, { "containerID": 1, "hostID": 500_000, "size": 10 }]);
    let (code, text) = run(&mappings, "id");
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("run newuidmap: ") && text.contains("not allowed"), "{text}");
}

#[test]
fn only_ones_own_id() {
    let (code, text) =
        run(&json!([{ "containerID": 0, "hostID": NOBODY, "size": 1 }]), "id -u; cat /proc/self/setgroups");
    assert_eq!((code, text.as_str()), (Some(0), "0\ndeny\n"));
}
