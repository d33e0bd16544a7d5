//! Named runtimes: another program makes the containers.

use std::path::PathBuf;

use wherry_tests::engine::Binary;
use wherry_tests::{Host, poll};

/// Our own runtime's command line, which stands for any other.
fn runtime() -> PathBuf {
    Binary::from_environment().path().with_file_name("wherry-runtime")
}

#[test]
fn containers_of_another_runtime() {
    if Binary::from_environment().is_reference() {
        return;
    }
    let host = Host::with_arguments(&["--add-runtime", &format!("other={}", runtime().display())]);
    host.docker("run --rm --runtime other busybox sh -c 'echo out; echo err >&2; exit 7'").fails(7, "err");
    host.docker(
        "run --rm --runtime other busybox sh -c 'echo $HOSTNAME; ls /proc/1/root | grep -c bin; hostname -i'",
    )
    .contains("172.17.");
    host.docker("run -d --name box --runtime other -m 64m --restart on-failure:1 busybox sh -c 'cat /sys/fs/cgroup/memory/memory.limit_in_bytes; sleep 60; exit 3'").ok();
    host.docker("exec box sh -c 'ps | grep -c sleep; echo in'").contains("in");
    host.docker("logs box").prints("67108864");
    assert_eq!(host.inspect("box")["HostConfig"]["Runtime"], "other");
    host.docker("pause box").ok();
    host.docker("unpause box").ok();
    host.docker("update --memory 32m --memory-swap 32m box").ok();
    // Its end is followed by a restart, made by the same runtime.
    let before = host.inspect("box")["State"]["Pid"].take();
    host.exec(&["kill", "-9", &before.to_string()]).ok();
    poll("the restart", 20, || {
        let state = host.inspect("box");
        state["RestartCount"] == 1 && state["State"]["Running"] == true && state["State"]["Pid"] != before
    });
    host.docker("stop -t 0 box").ok();
    host.docker("start box").ok();
    host.docker("rm -f box").ok();
    let mut terminal = host.docker_terminal("run --rm -it --runtime other busybox sh");
    terminal.send("stty size\r").expect("40 120").send("exit 5\r");
    assert_eq!(terminal.wait().0, 5);
    let failed = host.docker("run --rm --runtime other busybox nosuchprogram");
    assert!(failed.code == 127 && failed.stderr.contains("nosuchprogram"), "{failed}");
    host.docker("run --rm --runtime nosuch busybox true")
        .fails(125, "unknown or invalid runtime name: nosuch");
    host.docker("info").contains("other");
}

#[test]
fn a_runtime_that_is_not_there() {
    if Binary::from_environment().is_reference() {
        return;
    }
    let host = Host::with_arguments(&["--add-runtime", "gone=/nosuch/runtime", "--default-runtime", "gone"]);
    host.docker("run --rm busybox true").fails(125, "/nosuch/runtime");
    host.docker("run --rm --runtime runc busybox true").ok();
}
