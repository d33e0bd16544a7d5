//! Checkpoints, which dockerd has as an experiment: `docker checkpoint` and `docker start --checkpoint`.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use wherry_tests::engine::Binary;
use wherry_tests::{Host, poll};

/// Counts, as a shell that remembers where it was.
const COUNTER: &str = "sh -c 'n=0; while :; do n=$((n + 1)); echo $n; sleep 0.1; done'";

/// The numbers that a container has printed.
fn printed(host: &Host, name: &str) -> Vec<u64> {
    let text = host.docker(&["logs", name]).ok().stdout;
    text.lines().filter_map(|line| line.trim().parse().ok()).collect()
}

fn last(host: &Host, name: &str) -> u64 {
    printed(host, name).last().copied().unwrap_or(0)
}

fn has_ended(host: &Host, name: &str) -> bool {
    host.inspect(name)["State"]["Status"] == "exited"
}

/// Actions of the containers' events so far.
fn actions(host: &Host) -> Vec<String> {
    let line = [
        "events",
        "--since",
        "2020-01-01",
        "--until",
        "0s",
        "--filter",
        "type=container",
        "--format",
        "{{.Action}}",
    ];
    host.docker(&line).ok().stdout.lines().map(str::to_owned).collect()
}

#[test]
#[ignore = "needs a criu that knows this kernel: make test-checkpoints"]
fn names_and_refusals() {
    let host = Host::with_criu(&["--experimental"]);
    host.docker(&["version", "-f", "{{.Server.Experimental}}"]).prints("true");
    host.docker(&["info", "-f", "{{.ExperimentalBuild}}"]).prints("true");
    host.docker("create --name idle busybox true").ok();
    host.docker("run -d --name box busybox sleep 600").ok();
    let id = |name: &str| host.inspect(name)["Id"].as_str().unwrap_or_default().to_owned();
    let null = Value::Null;
    let invalid =
        |name: &str| format!("Invalid checkpoint ID ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed");
    let nowhere = "/containers/box/checkpoints?dir=/nosuch";
    let cases = [
        ("GET", "/containers/box/checkpoints", null.clone(), 200, String::new()),
        ("GET", "/containers/no/checkpoints", null.clone(), 404, "No such container: no".into()),
        ("GET", nowhere, null.clone(), 500, "checkpoint  does not exist for container box".into()),
        (
            "POST",
            "/containers/idle/checkpoints",
            json!({ "CheckpointID": "ab" }),
            409,
            format!("container {} is not running", id("idle")),
        ),
        (
            "POST",
            "/containers/no/checkpoints",
            json!({ "CheckpointID": "ab" }),
            404,
            "No such container: no".into(),
        ),
        ("POST", "/containers/box/checkpoints", json!({ "CheckpointID": "a" }), 500, invalid("a")),
        ("POST", "/containers/box/checkpoints", json!({ "CheckpointID": "../a" }), 500, invalid("../a")),
        (
            "DELETE",
            "/containers/box/checkpoints/no",
            null.clone(),
            500,
            "checkpoint no does not exist for container box".into(),
        ),
        ("POST", "/containers/box/start?checkpoint=no", null.clone(), 304, String::new()),
        (
            "POST",
            "/containers/idle/start?checkpoint=no",
            null,
            500,
            "checkpoint no does not exist for container /idle".into(),
        ),
    ];
    for (method, path, body, status, message) in &cases {
        let answer = host.api(method, &format!("/v1.51{path}"), body);
        assert_eq!((answer.status, answer.message()), (*status, message.clone()), "{method} {path} {body}");
    }
    let state = host.inspect("idle")["State"].take();
    assert_eq!((&state["Status"], &state["ExitCode"]), (&json!("created"), &json!(128)));
    assert_eq!(host.api("GET", "/v1.51/containers/box/checkpoints", &Value::Null).json(), json!([]));
}

#[test]
#[ignore = "needs a criu that knows this kernel: make test-checkpoints"]
fn it_is_written_and_removed() {
    let host = Host::with_criu(&["--experimental"]);
    host.docker(&format!("run -d --name box busybox {COUNTER}")).ok();
    poll("it counts", 20, || last(&host, "box") > 3);
    host.docker("checkpoint create --leave-running box one").prints("one");
    assert_eq!(host.inspect("box")["State"]["Status"], "running");
    let then = last(&host, "box");
    poll("it goes on", 20, || last(&host, "box") > then + 3);
    host.docker("checkpoint create box one").fails(
        1,
        "cannot checkpoint container box: checkpoint with name one already exists for container box",
    );
    host.docker("pause box").ok();
    host.docker("checkpoint create --leave-running box paused").prints("paused");
    assert_eq!(host.inspect("box")["State"]["Status"], "paused");
    host.docker("unpause box").ok();
    host.docker("checkpoint ls box").prints("CHECKPOINT NAME\none\npaused");
    let elsewhere = host.folder().join("elsewhere");
    host.docker(&[
        "checkpoint",
        "create",
        "--checkpoint-dir",
        &elsewhere.display().to_string(),
        "box",
        "two",
    ])
    .prints("two");
    poll("it has ended", 20, || has_ended(&host, "box"));
    let state = host.inspect("box")["State"].take();
    assert_eq!((&state["ExitCode"], &state["Error"]), (&json!(137), &json!("")));
    assert!(elsewhere.join("two").is_dir());
    host.docker(&["checkpoint", "ls", "--checkpoint-dir", &elsewhere.display().to_string(), "box"])
        .prints("CHECKPOINT NAME\ntwo");
    host.docker("checkpoint rm box one").prints("");
    host.docker("checkpoint rm box one").fails(1, "checkpoint one does not exist for container box");
    host.docker("checkpoint ls box").prints("CHECKPOINT NAME\npaused");
    poll("all events", 10, || actions(&host).contains(&"die".to_owned()));
    assert_eq!(
        actions(&host),
        [
            "create",
            "start",
            "pause",
            "unpause",
            "checkpoint",
            "pause",
            "checkpoint",
            "unpause",
            "pause",
            "checkpoint",
            "die"
        ]
    );
}

/// The reference dockerd (28.5) cannot start from any checkpoint: it looks for the network of a process that is not there yet.
#[test]
#[ignore = "needs a criu that knows this kernel: make test-checkpoints"]
fn a_container_goes_on_where_it_was() {
    if Binary::from_environment().is_reference() {
        return;
    }
    let host = Host::with_criu(&["--experimental"]);
    let options = "-m 64m -p 8080:80 -v data:/data --init --tmpfs /scratch --add-host other:192.0.2.1";
    host.docker(&format!("run -d --name box {options} busybox {COUNTER}")).ok();
    host.docker("exec box sh -c 'echo kept >/scratch/file; echo kept >/file'").ok();
    poll("it counts", 20, || last(&host, "box") > 3);
    let before_one = last(&host, "box");
    host.docker("checkpoint create --leave-running box one").prints("one");
    let after_one = last(&host, "box");
    host.docker("checkpoint create box two").prints("two");
    poll("it has ended", 20, || has_ended(&host, "box"));
    let at_two = last(&host, "box");
    host.docker("start --checkpoint two box").ok();
    poll("it goes on", 20, || last(&host, "box") > at_two + 3);
    let state = host.inspect("box")["State"].take();
    assert_eq!((&state["Status"], &state["ExitCode"]), (&json!("running"), &json!(0)));
    // Each number once: nothing was lost, nothing came twice.
    let all = printed(&host, "box");
    assert!(all.windows(2).all(|pair| pair[1] == pair[0] + 1), "{all:?}");
    let script = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /scratch/file /file; grep other /etc/hosts; hostname -i";
    host.docker(&["exec", "box", "sh", "-c", script])
        .contains("67108864\nkept\nkept\n192.0.2.1\tother\n172.17.");
    host.docker("stop -t 0 box").ok();
    // An older one, and then none.
    let mark = printed(&host, "box").len();
    host.docker("start --checkpoint one box").ok();
    poll("it goes on from there", 20, || {
        let first = printed(&host, "box").get(mark).copied();
        first.is_some_and(|first| first > before_one && first <= after_one + 1)
    });
    host.docker("stop -t 0 box").ok();
    let mark = printed(&host, "box").len();
    host.docker("start box").ok();
    poll("it begins again", 20, || printed(&host, "box").get(mark) == Some(&1));
}

#[test]
#[ignore = "needs a criu that knows this kernel: make test-checkpoints"]
fn terminals_policies_and_the_engines_end() {
    if Binary::from_environment().is_reference() {
        return;
    }
    let host = Host::with_criu(&["--experimental"]);
    let health = "--health-cmd 'test -e /ok' --health-interval 200ms";
    host.docker(&format!("run -dit --name tty --restart always {health} busybox sh")).ok();
    let elsewhere = host.folder().join("elsewhere").display().to_string();
    let mut terminal = host.docker_terminal("attach tty");
    terminal.send("answer=42\r").expect("answer=42").send("echo ready$((1 + 1))\r").expect("ready2");
    host.docker(&["checkpoint", "create", "--leave-running", "--checkpoint-dir", &elsewhere, "tty", "one"])
        .ok();
    host.docker("stop -t 0 tty").ok();
    host.docker(&["start", "--checkpoint", "one", "--checkpoint-dir", &elsewhere, "tty"]).ok();
    let before = host.inspect("tty")["State"]["Pid"].take();
    host.kill();
    let mut terminal = host.docker_terminal("attach tty");
    host.start();
    drop(terminal);
    terminal = host.docker_terminal("attach tty");
    terminal.send("echo the $answer\r").expect("the 42");
    host.docker("exec -u 0 tty touch /ok").ok();
    poll("healthy", 20, || host.inspect("tty")["State"]["Health"]["Status"] == "healthy");
    // Its end is followed by a restart, from the beginning.
    terminal.send("exit 3\r");
    terminal.wait();
    poll("the restart", 20, || {
        let state = host.inspect("tty")["State"].take();
        state["Status"] == "running" && state["Pid"] != before
    });
    assert_eq!(host.inspect("tty")["RestartCount"], 1);
    let mut terminal = host.docker_terminal("attach tty");
    terminal.send("echo the ${answer:-none}\r").expect("the none");
}

#[test]
#[ignore = "needs a criu that knows this kernel: make test-checkpoints"]
fn what_cannot_be_is_told_and_the_container_goes_on() {
    let host = Host::with_criu(&["--experimental"]);
    // An open file that has lost its name but has another: criu wants to be told to give it one.
    let script = "echo kept >/a; ln /a /b; exec 3</a; rm /a; touch /ready; while :; do sleep 1; done";
    host.docker(&["run", "-d", "--name", "box", "busybox", "sh", "-c", script]).ok();
    poll("it is ready", 20, || host.docker("exec box test -e /ready").code == 0);
    let failed = host.docker("checkpoint create box one");
    assert!(failed.stderr.contains("Cannot checkpoint container box: "), "{failed}");
    assert!(failed.stderr.contains("criu failed: type DUMP errno"), "{failed}");
    host.docker("checkpoint ls box").prints("CHECKPOINT NAME");
    host.docker("exec box true").ok();
    if Binary::from_environment().is_reference() {
        return;
    }
    // Images that are none.
    host.docker("stop -t 0 box").ok();
    let elsewhere = host.folder().join("elsewhere");
    std::fs::create_dir_all(elsewhere.join("bad")).unwrap();
    host.docker(&[
        "start",
        "--checkpoint",
        "bad",
        "--checkpoint-dir",
        &elsewhere.display().to_string(),
        "box",
    ])
    .fails(1, "OCI runtime restore failed: criu failed: type RESTORE errno");
    host.docker("start box").ok();
    host.docker("exec box true").ok();
}

/// Links to all programs but criu.
struct Programs(PathBuf);

impl Programs {
    fn but_criu() -> Programs {
        let folder = PathBuf::from(format!("/var/tmp/wherry-programs-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        for from in ["/usr/sbin", "/usr/bin"].map(Path::new) {
            for entry in from.read_dir().unwrap().flatten().filter(|entry| entry.file_name() != "criu") {
                // The first of a name counts.
                let _ = std::os::unix::fs::symlink(entry.path(), folder.join(entry.file_name()));
            }
        }
        Programs(folder)
    }
}

impl Drop for Programs {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn without_criu() {
    if Binary::from_environment().is_reference() {
        return; // it has a search path of its own
    }
    let programs = Programs::but_criu();
    let host = Host::with_search_path(&programs.0.display().to_string(), &["--experimental"]);
    host.docker("run -d --name box busybox sleep 600").ok();
    host.docker("checkpoint create box one")
        .fails(1, "Cannot checkpoint container box: CRIU version check failed: exec: \"criu\": executable file not found in $PATH");
    host.docker("checkpoint ls box").prints("CHECKPOINT NAME");
    host.docker("exec box true").ok();
}
