//! CVE-2024-21626: descriptors of the host that the caller has leaked.

use serde_json::json;

use crate::stage::{Stage, text};
use crate::support::Bundle;

/// A caller with the host's folders open and not marked close-on-exec.
const LEAKY: [&str; 3] = [
    "sh",
    "-c",
    r#"exec 3</ 4</etc 5</proc 6</sys/fs/cgroup 7</proc/self/ns/mnt 8</ 9</root; exec "$0" "$@""#,
];

const LAST: u32 = 16;

#[test]
fn run_enters_no_leaked_folder() {
    let mut stage = Stage::new(Bundle::new().sh("pwd; ls"));
    std::os::unix::fs::symlink("/proc/self/fd", stage.bundle.rootfs_path().join("link")).unwrap();
    let plain = (3..=LAST).map(|fd| format!("/proc/self/fd/{fd}"));
    let up = (3..=9).map(|fd| format!("/proc/self/fd/{fd}/../../.."));
    let linked = (3..=9).map(|fd| format!("/link/{fd}"));
    for cwd in plain.chain(up).chain(linked) {
        stage.bundle.spec["process"]["cwd"] = json!(cwd);
        std::fs::write(stage.bundle.path().join("config.json"), stage.bundle.spec.to_string()).unwrap();
        let args = ["run", "-b", stage.path(), stage.id()];
        let output = stage.command_through(&LEAKY, &args).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{cwd}: {}", text(&output));
        assert!(text(&output).contains("chdir to cwd"), "{cwd}: {}", text(&output));
    }
}

#[test]
fn exec_enters_no_leaked_folder_and_passes_none_on() {
    let stage = Stage::new(Bundle::new().args(&["sleep", "1000"]));
    stage.start();
    for fd in 3..=LAST {
        let cwd = format!("/proc/self/fd/{fd}");
        let args = ["exec", "--cwd", &cwd, stage.id(), "ls"];
        let output = stage.command_through(&LEAKY, &args).output().unwrap();
        assert_eq!(output.status.code(), Some(255), "{cwd}: {}", text(&output));
        assert!(text(&output).contains("chdir to cwd"), "{cwd}: {}", text(&output));
    }
    // 0, 1, 2, and the folder that ls reads
    let output =
        stage.command_through(&LEAKY, &["exec", stage.id(), "ls", "/proc/self/fd"]).output().unwrap();
    assert_eq!(text(&output), "0\n1\n2\n3\n");
    // what is asked for is handed on, and nothing beyond it
    let args = ["exec", "--preserve-fds", "2", stage.id(), "ls", "/proc/self/fd"];
    let output = stage.command_through(&LEAKY, &args).output().unwrap();
    assert_eq!(text(&output), "0\n1\n2\n3\n4\n5\n");
    stage.delete();
}

/// Init and the runtime's own processes have nothing of the host open while the container can look.
#[test]
fn created_container_holds_nothing_of_the_host() {
    let stage = Stage::new(Bundle::new().args(&["sleep", "1000"]));
    let args = ["create", "-b", stage.path(), stage.id()];
    let mut create = stage.command_through(&LEAKY, &args);
    let null = std::process::Stdio::null;
    assert!(create.stdout(null()).stderr(null()).status().unwrap().success());
    let state = stage.command(&["state", stage.id()]).output().unwrap();
    let state: serde_json::Value = serde_json::from_slice(&state.stdout).unwrap();
    for entry in std::fs::read_dir(format!("/proc/{}/fd", state["pid"])).unwrap().flatten() {
        let target = std::fs::read_link(entry.path()).unwrap();
        let target = target.to_str().unwrap();
        let own = ["/dev/null", "socket:", "pipe:", "anon_inode:"];
        assert!(own.iter().any(|kind| target.starts_with(kind)), "{} -> {target}", entry.path().display());
    }
    stage.delete();
}
