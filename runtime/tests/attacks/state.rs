//! What the runtime keeps on disk, and what it talks through.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::stage::{Stage, text};
use crate::support::{Bundle, assert_no_cgroup, eventually};

/// Folders and files that nobody else can enter, read or connect to, whatever the caller's umask.
#[test]
fn modes_of_the_state() {
    let stage = Stage::new(Bundle::new().args(&["sleep", "1000"]));
    let args = ["create", "-b", stage.path(), stage.id()];
    let mut create = stage.command_through(&["sh", "-c", r#"umask 0; exec "$0" "$@""#], &args);
    assert!(create.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
    let mode = |path: &std::path::Path| fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777;
    let folder = stage.root().join(stage.id());
    assert_eq!(mode(&stage.root()), 0o700);
    assert_eq!(mode(&folder) & !0o711, 0);
    for entry in fs::read_dir(&folder).unwrap().flatten() {
        assert_eq!(mode(&entry.path()) & 0o077, 0, "{} can be used by others", entry.path().display());
    }
    let sockets: Vec<_> =
        fs::read_dir(&folder).unwrap().flatten().filter(|e| e.file_type().unwrap().is_socket()).collect();
    assert_eq!(sockets.len(), 1, "the socket through which it is started");
    // no name that a container in the host's network namespace could connect to (CVE-2020-15257)
    let table = fs::read_to_string("/proc/net/unix").unwrap();
    let abstract_names =
        table.lines().filter_map(|line| line.split_whitespace().nth(7)).filter(|name| name.starts_with('@'));
    for name in abstract_names {
        assert!(!name.contains(stage.id()) && !name.contains("start") && !name.contains("wherry"), "{name}");
    }
    stage.delete();
    assert_no_cgroup(stage.id());
}

/// A pid that now belongs to somebody else is not signalled.
#[test]
fn reused_pid() {
    let stage = Stage::new(Bundle::new().args(&["sleep", "1000"]));
    stage.start();
    let path = stage.root().join(stage.id()).join("state.json");
    let honest = fs::read(&path).unwrap();
    let mut state: Value = serde_json::from_slice(&honest).unwrap();
    // The kernel counts start times in hundredths of a second: one of the same hundredth would be taken for init.
    let init_started = find(&mut state, "pid_start_time").as_u64().unwrap();
    let mut victim = loop {
        let mut process = Command::new("sleep").arg("1000").spawn().unwrap();
        if started(process.id()) != init_started {
            break process;
        }
        process.kill().unwrap();
        process.wait().unwrap();
    };
    let pid = find(&mut state, "pid");
    *pid = json!(victim.id());
    fs::write(&path, state.to_string()).unwrap();
    let output = stage.command(&["kill", stage.id(), "KILL"]).output().unwrap();
    assert!(text(&output).contains("container not running"), "{}", text(&output));
    let output = stage.command(&["exec", stage.id(), "true"]).output().unwrap();
    assert!(text(&output).contains("cannot exec in a stopped container"), "{}", text(&output));
    for command in ["pause", "resume"] {
        assert!(!stage.command(&[command, stage.id()]).output().unwrap().status.success());
    }
    let shown = stage.command(&["state", stage.id()]).output().unwrap();
    assert!(text(&shown).contains("stopped"), "{}", text(&shown));
    assert_eq!(victim.try_wait().unwrap(), None, "somebody else's process was killed");
    fs::write(&path, honest).unwrap();
    stage.delete();
    assert_eq!(victim.try_wait().unwrap(), None, "somebody else's process was killed");
    victim.kill().unwrap();
    victim.wait().unwrap();
}

/// Field 22 of proc_pid_stat(5).
fn started(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit(") ").next().unwrap().split(' ').nth(19).unwrap().parse().unwrap()
}

/// A field, however deep.
fn find<'a>(value: &'a mut Value, key: &str) -> &'a mut Value {
    fn look<'a>(value: &'a mut Value, key: &str) -> Option<&'a mut Value> {
        let Value::Object(object) = value else { return None };
        if object.contains_key(key) {
            return object.get_mut(key);
        }
        object.values_mut().find_map(|value| look(value, key))
    }
    look(value, key).unwrap()
}

/// A console socket that is none, or whose owner does not listen: an error, and no container.
#[test]
fn console_sockets_that_are_none() {
    let bundle = Bundle::new().set("/process/terminal", json!(true)).args(&["sleep", "1000"]);
    let stage = Stage::new(bundle);
    let folder = stage.bundle.path().to_owned();
    fs::write(folder.join("file"), "").unwrap();
    drop(std::os::unix::net::UnixListener::bind(folder.join("deaf")).unwrap());
    std::os::unix::fs::symlink("/nosuch", folder.join("link")).unwrap();
    let long = format!("{}/{}", folder.display(), "x".repeat(200));
    for name in ["file", "deaf", "link", "missing", "state", long.as_str()] {
        let path = folder.join(name);
        let args = ["create", "-b", stage.path(), "--console-socket", path.to_str().unwrap(), stage.id()];
        let output = stage.command(&args).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{name}: {}", text(&output));
        assert!(!stage.root().join(stage.id()).exists(), "{name}: state was left");
        assert_no_cgroup(stage.id());
    }
    // one that hangs up at once keeps nobody waiting
    let listener = std::os::unix::net::UnixListener::bind(folder.join("rude")).unwrap();
    let rude = std::thread::spawn(move || drop(listener.accept()));
    let socket = folder.join("rude");
    let args = ["create", "-b", stage.path(), "--console-socket", socket.to_str().unwrap(), stage.id()];
    let _ = stage.command(&args).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    rude.join().unwrap();
    stage.delete();
    assert_no_cgroup(stage.id());
}

/// A hook's program is the host's or the container's as the specification says, and a container's cannot reach the host.
#[test]
fn hooks_run_where_they_belong() {
    let bundle = Bundle::new();
    let rootfs = bundle.rootfs_path();
    let mark = |name: &str| bundle.path().join(name);
    let script = |text: String| json!([{ "path": "/bin/sh", "args": ["sh", "-c", text] }]);
    let host = mark("host-mark");
    fs::write(&host, "").unwrap();
    let leaked = format!(
        "ls -l /proc/self/fd > /hook-fds; echo container > {}; ls /proc/1/root/{} >> /hook-fds; true",
        host.display(),
        host.display()
    );
    let hooks = json!({ "startContainer": script(leaked) });
    let bundle = bundle.sh("true").set("/hooks", hooks);
    let outcome = bundle.run();
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert_eq!(fs::read_to_string(&host).unwrap(), "", "a hook of the container wrote to the host");
    let fds = fs::read_to_string(rootfs.join("hook-fds")).unwrap();
    assert!(!fds.contains(host.to_str().unwrap()), "{fds}");
}

/// A crowd that does not want to go is gone.
#[test]
fn stubborn_crowd_is_removed() {
    let crowd = "trap '' TERM INT HUP; for i in $(seq 40); do sh -c 'sleep 1000; sleep 1000' & done; wait";
    let stage = Stage::new(Bundle::new().sh(crowd).set("/linux/resources/pids", json!({ "limit": 100 })));
    stage.start();
    eventually("it forks", || {
        let ps = stage.command(&["ps", "-f", "json", stage.id()]).output().unwrap();
        text(&ps).matches(',').count() > 60
    });
    stage.delete();
    assert_no_cgroup(stage.id());
}
