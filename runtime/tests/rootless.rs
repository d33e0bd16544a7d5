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
use support::{Bundle, eventually};

/// `nobody`, who is in every /etc/passwd.
const NOBODY: u32 = 65534;

/// A bundle of a user who is not root, with the runtime beside it: where the build is, they may not look.
fn bundle(owner: u32, mappings: &Value, script: &str) -> Bundle {
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
    fs::create_dir(path.join("state")).unwrap();
    for owned in [path.to_path_buf(), path.join("state"), path.join("rootfs"), path.join("rootfs/tmp")] {
        chown(&owned, Some(owner), Some(owner)).unwrap();
        fs::set_permissions(&owned, fs::Permissions::from_mode(0o755)).unwrap();
    }
    fs::copy(env!("CARGO_BIN_EXE_wherry-runtime"), path.join("wherry-runtime")).unwrap();
    bundle
}

fn write_spec(bundle: &Bundle) {
    fs::write(bundle.path().join("config.json"), bundle.spec.to_string()).unwrap();
}

fn run(mappings: &Value, script: &str) -> (Option<i32>, String) {
    let bundle = bundle(NOBODY, mappings, script);
    write_spec(&bundle);
    let path = bundle.path();
    fs::write(path.join("subids"), "nobody:100000:65536\n").unwrap();
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

/// The systemd of a user's session makes the scope, with limits and delegation, and is told new ones.
#[test]
#[ignore = "needs systemd with a session of the user 1000: make test-vm"]
fn a_scope_of_the_users_own_systemd() {
    const USER: u32 = 1000;
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap();
    if !groups.starts_with("0::") {
        return; // version 1 is not delegated to users
    }
    let mappings = json!([{ "containerID": 0, "hostID": USER, "size": 1 }]);
    let mut bundle = bundle(USER, &mappings, "while :; do sleep 1; done");
    let unit = format!("wt-{}.scope", bundle.id);
    bundle.spec["linux"]["cgroupsPath"] = json!(format!(":wt:{}", bundle.id));
    bundle.spec["linux"]["resources"] = json!({ "memory": { "limit": 64 << 20 }, "pids": { "limit": 30 } });
    write_spec(&bundle);
    // as in a session: who comes from elsewhere in the tree may not move processes there
    let session = std::path::Path::new("/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service");
    let session = session.join(format!("session-{}", bundle.id));
    fs::create_dir(&session).unwrap();
    let command = |args: &[&str]| {
        let mut command = Command::new("sh");
        command.args([
            "-c",
            "echo $$ >$0/cgroup.procs && exec setpriv --reuid 1000 --regid 1000 --clear-groups \"$@\"",
        ]);
        command.arg(&session);
        command.args([
            "env",
            "XDG_RUNTIME_DIR=/run/user/1000",
            "./wherry-runtime",
            "--root",
            "state",
            "--systemd-cgroup",
        ]);
        command.args(args).current_dir(bundle.path()).stdin(std::process::Stdio::null());
        command
    };
    let runtime = |args: &[&str]| {
        let output = command(args).output().unwrap();
        let text = [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat();
        assert!(output.status.success(), "{args:?}: {text}");
        text
    };
    // not into a pipe, which the container would keep open
    let out = fs::File::create(bundle.path().join("out")).unwrap();
    let mut run = command(&["run", "-d", "x"]);
    let started = run.stdout(out.try_clone().unwrap()).stderr(out).status().unwrap();
    assert!(started.success(), "{}", fs::read_to_string(bundle.path().join("out")).unwrap());
    let cgroup = format!("/user.slice/user-1000.slice/user@1000.service/user.slice/{unit}");
    let folder = std::path::PathBuf::from(format!("/sys/fs/cgroup{cgroup}"));
    let value = |file: &str| fs::read_to_string(folder.join(file)).unwrap().trim().to_owned();
    let limits = (value("pids.max"), value("memory.max"));
    let inside = runtime(&["exec", "x", "cat", "/proc/self/cgroup"]);
    runtime(&["update", "--pids-limit", "40", "x"]);
    let updated = value("pids.max");
    runtime(&["pause", "x"]);
    let state = runtime(&["state", "x"]);
    runtime(&["resume", "x"]);
    runtime(&["delete", "--force", "x"]);
    assert_eq!(limits, ("30".to_owned(), (64 << 20).to_string()));
    assert!(inside.trim().ends_with(&cgroup), "{inside}");
    assert_eq!(updated, "40");
    assert!(state.contains("\"paused\""), "{state}");
    eventually("the scope is gone", || !folder.exists());
    eventually("the session is empty", || fs::remove_dir(&session).is_ok());
}
