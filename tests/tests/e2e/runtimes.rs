//! Named runtimes: another program makes the containers.

use std::path::PathBuf;

use wherry_tests::engine::Binary;
use wherry_tests::{Host, poll};

/// Our own runtime's command line, which stands for any other.
pub(crate) fn runtime() -> PathBuf {
    Binary::from_environment().path().with_file_name("wherry-runtime")
}

/// Where a program is, if it is installed.
fn installed(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|program| program.is_file())
}

#[test]
fn containers_of_another_runtime() {
    if Binary::from_environment().is_reference() {
        return;
    }
    let host = Host::with_arguments(&["--add-runtime", &format!("other={}", runtime().display())]);
    lives(&host);
    host.docker("run --rm --runtime other busybox nosuchprogram").exits(127);
}

/// With the path looked up by the engine, and an argument.
#[test]
fn containers_of_crun() {
    if installed("crun").is_none() {
        return;
    }
    let host = Host::with_plain_cgroups(&["--add-runtime", "other=crun"]);
    lives(&host);
    survives(&host);
    // The client takes crun's words for no missing program: with dockerd it ends with 125, too.
    host.docker("run --rm --runtime other busybox nosuchprogram").fails(
        125,
        "OCI runtime create failed: executable file `nosuchprogram` not found in $PATH: No such file or directory",
    );
}

#[test]
fn containers_of_runc() {
    let Some(program) = installed("runc") else { return };
    let host = Host::with_plain_cgroups(&["--add-runtime", &format!("other={}", program.display())]);
    lives(&host);
    survives(&host);
    // Between the two, later versions say where they were.
    let failed = host
        .docker("run --rm --runtime other busybox nosuchprogram")
        .fails(127, "OCI runtime create failed: runc create failed: unable to start container process: ");
    assert!(
        failed.stderr.contains("exec: \"nosuchprogram\": executable file not found in $PATH"),
        "{failed}"
    );
}

/// What a container does, with the runtime `other`.
fn lives(host: &Host) {
    host.docker("run --rm --runtime other busybox sh -c 'echo out; echo err >&2; exit 7'").fails(7, "err");
    host.docker(
        "run --rm --runtime other busybox sh -c 'echo $HOSTNAME; ls /proc/1/root | grep -c bin; hostname -i'",
    )
    .contains("172.17.");
    host.docker("run -d --name box --runtime other -m 64m --restart on-failure:1 busybox sh -c 'cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max; sleep 60; exit 3'").ok();
    poll("the limit", 10, || host.docker("logs box").ok().out() == "67108864");
    poll("its processes", 10, || host.docker("exec box ps").ok().stdout.contains("sleep 60"));
    assert_eq!(host.inspect("box")["HostConfig"]["Runtime"], "other");
    host.docker("pause box").ok();
    host.docker("unpause box").ok();
    host.docker("update --memory 32m --memory-swap 32m box").ok();
    host.docker("exec box cat /sys/fs/cgroup/memory/memory.limit_in_bytes").prints("33554432");
    host.docker("top box").contains("sleep 60");
    host.docker(&["stats", "--no-stream", "--format", "{{.PIDs}} {{.MemUsage}}", "box"]).contains("/ 32MiB");
    // Its end is followed by a restart, made by the same runtime.
    let before = host.inspect("box")["State"]["Pid"].take();
    host.exec(&["kill", "-9", &before.to_string()]).ok();
    poll("the restart", 20, || {
        let state = host.inspect("box");
        state["RestartCount"] == 1 && state["State"]["Status"] == "running" && state["State"]["Pid"] != before
    });
    host.docker("stop -t 0 box").ok();
    host.docker("start box").ok();
    host.docker("rm -f box").ok();
    let mut terminal = host.docker_terminal("run --rm -it --runtime other busybox sh");
    terminal.send("stty size\r").expect("40 120").send("exit 5\r");
    assert_eq!(terminal.wait().0, 5);
    let failed = host.docker("run --rm --runtime other busybox nosuchprogram");
    assert!(failed.code != 0 && failed.stderr.contains("nosuchprogram"), "{failed}");
    host.docker("run --rm --runtime nosuch busybox true")
        .fails(125, "unknown or invalid runtime name: nosuch");
    host.docker("info --format '{{json .Runtimes}}'").contains("\"other\"");
}

/// What options do, and an engine's end.
fn survives(host: &Host) {
    let options = "--init --read-only --tmpfs /scratch -v data:/data --user 1000:1000 -w /made --cap-drop ALL --ulimit nofile=99 \
                   --pids-limit 20 --shm-size 1m --sysctl net.ipv4.ip_forward=0 --device /dev/null:/dev/mine -e A=b";
    let script = "id -u; pwd; ulimit -n; echo $A; grep CapEff /proc/self/status; ls /dev/mine; touch /scratch/x && ! touch /x";
    let output = host.docker(&format!("run --rm --runtime other {options} busybox sh -c '{script}'")).ok();
    let lines: Vec<&str> = output.stdout.lines().map(str::trim).collect();
    assert_eq!(lines, ["1000", "/made", "99", "b", "CapEff:\t0000000000000000", "/dev/mine"]);
    let health = "--health-cmd 'test -e /ok' --health-interval 200ms";
    host.docker(&format!(
        "run -dit --name kept --runtime other --restart always {health} -p 8080:80 busybox sh"
    ))
    .ok();
    let before = host.inspect("kept")["State"]["Pid"].take();
    if !Binary::from_environment().is_reference() {
        host.kill();
        host.start();
        assert_eq!(host.inspect("kept")["State"]["Pid"], before, "it is the same process");
    }
    host.docker("exec kept touch /ok").ok();
    poll("healthy", 20, || host.inspect("kept")["State"]["Health"]["Status"] == "healthy");
    let mut terminal = host.docker_terminal("exec -it kept sh");
    terminal.send("echo in $((40 + 2))\r").expect("in 42").send("exit 3\r");
    assert_eq!(terminal.wait().0, 3);
    host.exec(&["kill", "-9", &before.to_string()]).ok();
    poll("the restart", 20, || {
        let state = host.inspect("kept")["State"].take();
        state["Status"] == "running" && state["Pid"] != before
    });
    host.docker("exec kept true").ok();
    host.docker("rm -f kept").ok();
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
