//! From created to gone: start, stop, kill, restart, pause, rename, wait, rm, prune, restart policies.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wherry_tests::engine::Binary;
use wherry_tests::{Host, poll};

fn status(host: &Host, name: &str) -> String {
    host.inspect(name)["State"]["Status"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn states_follow_the_commands() {
    let host = Host::new();
    host.docker("create --name one busybox sleep 600").ok();
    let steps = [
        ("start one", "running"),
        ("pause one", "paused"),
        ("unpause one", "running"),
        ("restart -t 0 one", "running"),
        ("stop -t 0 one", "exited"),
        ("start one", "running"),
        ("kill one", "exited"),
    ];
    assert_eq!(status(&host, "one"), "created");
    for (command, state) in steps {
        host.docker(command).prints("one");
        assert_eq!(status(&host, "one"), state, "after {command}");
    }
    host.docker("rename one two").ok();
    assert_eq!(host.inspect("two")["Name"], "/two");
    host.docker("rm two").prints("two");
    host.docker("inspect two").fails(1, "No such object: two");
}

#[test]
fn commands_that_do_not_fit_the_state_are_refused() {
    let host = Host::new();
    host.docker("run -d --name on busybox sleep 600").ok();
    host.docker("create --name off busybox true").ok();
    for (command, text) in [
        ("rm on", "container is running: stop the container before removing or force remove"),
        ("kill off", "is not running"),
        ("pause off", "is not running"),
        ("unpause on", "is not paused"),
        ("exec off true", "is not running"),
        ("rename off on", r#"Conflict. The container name "/on" is already in use by container"#),
        ("rename off o", "Invalid container name (/o)"),
        ("start nosuch", "No such container: nosuch"),
        ("stop nosuch", "No such container: nosuch"),
        ("kill -s NOSUCH on", "invalid signal: NOSUCH"),
        ("top off", "is not running"),
        ("logs nosuch", "No such container: nosuch"),
        ("wait nosuch", "No such container: nosuch"),
        ("rm nosuch", "No such container: nosuch"),
    ] {
        host.docker(command).fails(1, text);
    }
    host.docker("create --name off busybox true").fails(1, "to be able to reuse that name");
    host.docker("pause on").ok();
    host.docker("exec on true").fails(1, "is paused, unpause the container before exec");
    host.docker("pause on").fails(1, "is already paused");
    // Nothing to do is no error.
    host.docker("unpause on").ok();
    host.docker("start on").ok();
    host.docker("stop off").ok();
    host.docker("rm -f nosuch").fails(0, "No such container: nosuch");
}

#[test]
fn stop_asks_before_it_kills() {
    let host = Host::new();
    let polite = "trap \"exit 33\" TERM; while :; do sleep .05; done";
    let own_signal = "trap \"exit 34\" USR1; while :; do sleep .05; done";
    host.docker(&["run", "-d", "--name", "polite", "busybox", "sh", "-c", polite]).ok();
    host.docker(&["run", "-d", "--name", "own", "--stop-signal", "USR1", "busybox", "sh", "-c", own_signal])
        .ok();
    host.docker("run -d --name deaf busybox sleep 600").ok();
    host.docker("run -d --name short --stop-timeout 1 busybox sleep 600").ok();
    // A shell takes its time to set its trap.
    std::thread::sleep(Duration::from_millis(300));
    host.docker("stop polite own").ok();
    let started = Instant::now();
    host.docker("stop -t 1 deaf").ok();
    host.docker("stop short").ok();
    let took = started.elapsed().as_secs_f32();
    assert!((1.9..6.0).contains(&took), "one second each: {took}");
    for (name, code) in [("polite", 33), ("own", 34), ("deaf", 137), ("short", 137)] {
        assert_eq!(host.inspect(name)["State"]["ExitCode"], code, "{name}");
    }
    host.docker("start deaf").ok();
    let started = Instant::now();
    host.docker("restart -t 0 deaf").ok();
    assert!(started.elapsed().as_secs() < 5);
    host.docker("stop -t 0 -s INT deaf").ok();
    assert_eq!(host.inspect("deaf")["State"]["ExitCode"], 137);
}

#[test]
fn wait_tells_the_exit_status() {
    let host = Host::new();
    host.docker("run -d --name slow busybox sh -c 'sleep 1; exit 17'").ok();
    host.docker("wait slow").prints("17");
    host.docker("wait slow").prints("17");
    host.docker("run -d --name aa busybox sh -c 'exit 1'").ok();
    host.docker("run -d --name bb busybox sh -c 'sleep .5; exit 2'").ok();
    host.docker("wait aa bb").prints("1\n2");
}

#[test]
fn wait_conditions_of_the_api() {
    let host = Host::new();
    let create = |name: &str, command: &str| {
        let body = json!({"Image": "busybox", "Cmd": ["sh", "-c", command]});
        host.api("POST", &format!("/v1.51/containers/create?name={name}"), &body).expect(201);
    };
    let post = |path: &str| host.api("POST", &format!("/v1.51/containers/{path}"), &Value::Null);
    create("made", "exit 3");
    // Not running: a container that was never started is not, so the answer is there at once.
    assert_eq!(post("made/wait").expect(200).json(), json!({"StatusCode": 0}));

    // The next exit, and the removal: the head comes before the end.
    for (condition, name) in [("next-exit", "next"), ("removed", "gone")] {
        create(name, "sleep .3; exit 3");
        let mut waiting = host.connect();
        let head =
            waiting.open("POST", &format!("/v1.51/containers/{name}/wait?condition={condition}"), &[], b"");
        assert_eq!((head.status, head.header("content-type")), (200, "application/json"));
        post(&format!("{name}/start")).expect(204);
        if condition == "removed" {
            host.docker("wait gone").prints("3");
            host.api("DELETE", "/v1.51/containers/gone", &Value::Null).expect(204);
        }
        let mut text = String::new();
        while let Some(Some(chunk)) = waiting.chunk() {
            text += &String::from_utf8_lossy(&chunk);
        }
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), json!({"StatusCode": 3}), "{condition}");
    }
    post("made/wait?condition=nonsense").expect(400);
    post("nosuch/wait").expect(404);
}

#[test]
fn statuses_of_what_changes_nothing() {
    let host = Host::new();
    host.docker("run -d --name on busybox sleep 600").ok();
    host.docker("create --name off busybox true").ok();
    for (method, path, status) in [
        ("POST", "on/start", 304),
        ("POST", "off/stop", 304),
        ("POST", "off/kill", 409),
        ("POST", "nosuch/start", 404),
        ("POST", "nosuch/stop", 404),
        ("DELETE", "on", 409),
        ("DELETE", "nosuch", 404),
        ("POST", "off/pause", 409),
        ("POST", "on/rename", 400),
        ("POST", "on/rename?name=off", 409),
        ("POST", "on/stop?t=0", 204),
        ("POST", "on/stop?t=0", 304),
    ] {
        host.api(method, &format!("/v1.51/containers/{path}"), &Value::Null).expect(status);
    }
}

#[test]
fn removal_takes_anonymous_volumes_only_when_asked() {
    let host = Host::new();
    host.docker("run --name box -v /anonymous -v named:/named busybox sh -c 'touch /anonymous/x /named/x'")
        .ok();
    assert_eq!(host.docker("volume ls -q").stdout.lines().count(), 2);
    host.docker("rm box").ok();
    assert_eq!(host.docker("volume ls -q").stdout.lines().count(), 2);
    host.docker("run --name box -v /anonymous -v named:/named busybox true").ok();
    host.docker("rm -v box").ok();
    assert_eq!(host.docker("volume ls -q").stdout.lines().count(), 2, "the second anonymous one is gone");
    host.docker("run --rm -v /anonymous -v named:/named busybox ls /named").prints("x");
    assert_eq!(host.docker("volume ls -q").stdout.lines().count(), 2, "--rm takes it along");
    host.docker("run -d --name dead -v /anonymous busybox sleep 600").ok();
    host.docker("rm -fv dead").ok();
    assert_eq!(host.docker("volume ls -q").stdout.lines().count(), 2);
    host.docker("volume prune -f").ok();
    host.docker("volume ls -q").prints("named");
    host.docker("volume rm named").prints("named");
}

#[test]
fn prune_takes_what_has_stopped() {
    let host = Host::new();
    host.docker("run -d --name on busybox sleep 600").ok();
    host.docker("run --name off busybox true").ok();
    host.docker("create --name kept --label keep=yes busybox true").ok();
    host.docker("container prune -f --filter nosuch=1").fails(1, "invalid filter 'nosuch'");
    let output = host.docker("container prune -f --filter label!=keep=yes").contains("Total reclaimed space");
    assert!(output.stdout.contains("Deleted Containers"), "{output}");
    let names = host.docker(&["ps", "-a", "--format", "{{.Names}}"]).ok();
    assert_eq!(names.stdout.split_whitespace().collect::<Vec<_>>(), ["kept", "on"]);
}

#[test]
fn restart_policies() {
    let host = Host::new();
    host.docker("run -d --name never busybox sh -c 'exit 1'").ok();
    host.docker("run -d --name twice --restart on-failure:2 busybox sh -c 'exit 3'").ok();
    host.docker("run -d --name fine --restart on-failure busybox true").ok();
    host.docker("run -d --name always --restart always busybox sh -c 'sleep .2'").ok();
    poll("two restarts of on-failure:2", 20, || {
        let twice = host.inspect("twice");
        twice["RestartCount"] == 2 && twice["State"]["Status"] == "exited" && twice["State"]["ExitCode"] == 3
    });
    poll("two restarts of always", 20, || host.inspect("always")["RestartCount"].as_i64() >= Some(2));
    for name in ["never", "fine"] {
        assert_eq!(host.inspect(name)["RestartCount"], 0, "{name}");
        assert_eq!(status(&host, name), "exited");
    }
    host.docker("stop -t 0 always").ok();
    let stopped = host.inspect("always");
    assert_eq!(stopped["State"]["Status"], "exited");
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(host.inspect("always")["State"], stopped["State"], "a stopped one stays so");
    host.docker("run --rm --restart always busybox true")
        .fails(125, "conflicting options: cannot specify both --restart and --rm");
}

#[test]
fn a_killed_program_is_restarted_by_its_policy() {
    let host = Host::new();
    host.docker("run -d --name always --restart always busybox sleep 600").ok();
    let before = host.inspect("always")["State"]["Pid"].clone();
    let pid = before.to_string();
    // As an operator would, from the host; `docker kill` is a wish to stop.
    host.exec(&["kill", "-9", &pid]).ok();
    poll("another process", 20, || {
        let now = host.inspect("always");
        now["State"]["Status"] == "running" && now["State"]["Pid"] != before && now["RestartCount"] == 1
    });
    host.docker("kill always").ok();
    assert_eq!(status(&host, "always"), "exited");
    host.docker("update --restart no always").ok();
    assert_eq!(host.inspect("always")["HostConfig"]["RestartPolicy"]["Name"], "no");
}

#[test]
fn out_of_memory_is_told() {
    let host = Host::new();
    host.docker(
        "run -d --name oom -m 8m busybox sh -c 'x=; while :; do x=$x$x.xxxxxxxxxxxxxxxxxxxxxxxxxxxx; done'",
    )
    .ok();
    host.docker("wait oom").prints("137");
    assert_eq!(host.inspect("oom")["State"]["OOMKilled"], true);
}

#[test]
fn top_and_stats_and_update() {
    let host = Host::new();
    host.docker("run -d --name box busybox sh -c 'sleep 600 & sleep 601'").ok();
    let top = host.docker("top box").contains("sleep 601");
    assert!(top.stdout.starts_with("UID") && top.stdout.contains("sleep 600"), "{top}");
    host.docker("top box -o pid,comm").contains("COMMAND");
    let stats =
        host.docker(&["stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}} {{.MemUsage}}", "box"]).ok();
    assert!(stats.stdout.starts_with("box 2 "), "{stats}");
    host.docker("update --memory 64m --memory-swap 64m box").prints("box");
    assert_eq!(host.inspect("box")["HostConfig"]["Memory"], 64 << 20);
}

#[test]
fn what_statistics_tell() {
    let host = Host::new();
    host.docker("run -d --name box --network none busybox sleep 600").ok();
    let get = |path: &str| host.api("GET", &format!("/{path}"), &serde_json::Value::Null);
    let shot = get("v1.51/containers/box/stats?stream=0&one-shot=1").expect(200).json();
    assert_eq!(
        (&shot["name"], shot["preread"].as_str()),
        (&serde_json::Value::Null, Some("0001-01-01T00:00:00Z"))
    );
    assert!(shot["blkio_stats"]["io_merged_recursive"].is_array(), "{shot}");
    // Versions before 1.41 know no such thing.
    let pair = get("v1.40/containers/box/stats?stream=0&one-shot=1").expect(200).json();
    assert!(pair["name"] == "/box" && pair["preread"] != shot["preread"], "{pair}");
    assert_eq!(
        get("v1.51/containers/box/stats?one-shot=1").expect(400).message(),
        "cannot have stream=true and one-shot=true"
    );
    host.docker("kill box").ok();
    host.docker("wait box").ok();
    let ended = get("v1.51/containers/box/stats?stream=0&one-shot=1").expect(200).json();
    assert!(ended["name"] == "/box" && ended["blkio_stats"]["io_merged_recursive"].is_null(), "{ended}");
}

#[test]
fn a_start_that_fails_after_a_boot_is_tried_again() {
    // Beyond dockerd, which leaves it.
    if Binary::from_environment().is_reference() {
        return;
    }
    let host = Host::new();
    let (there, away) = (host.folder().join("disk"), host.folder().join("elsewhere"));
    std::fs::create_dir(&there).expect("make a folder");
    let mount = format!("type=bind,source={},target=/disk", there.display());
    for name in ["box", "other"] {
        let line = format!("run -d --name {name} --restart always --mount {mount} busybox sleep 600");
        host.docker(&line).ok();
    }
    assert_eq!(host.stop(), 0);
    std::fs::rename(&there, &away).expect("take it away");
    host.start();
    let fails =
        |name: &str| host.inspect(name)["State"]["Error"].as_str().is_some_and(|e| e.contains("disk"));
    poll("the failed starts", 20, || fails("box") && fails("other"));
    assert_eq!(host.inspect("box")["State"]["Running"], false);
    std::fs::rename(&away, &there).expect("bring it back");
    // Whoever has started it and stopped it again has the last word.
    host.docker("start other").ok();
    host.docker("stop -t 0 other").ok();
    poll("the container to run after all", 30, || host.inspect("box")["State"]["Running"] == true);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(host.inspect("other")["State"]["Running"], false);
}
