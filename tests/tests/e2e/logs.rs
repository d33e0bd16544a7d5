//! `docker logs` with all of its options.

use serde_json::Value;
use wherry_tests::Host;

#[test]
fn streams_stay_apart_and_whole() {
    let host = Host::new();
    host.docker("run --name box busybox sh -c 'echo one; echo two >&2; printf three'").ok();
    let logs = host.docker("logs box").ok();
    assert_eq!((logs.stdout.as_str(), logs.stderr.as_str()), ("one\nthree", "two\n"));
    host.docker("run --name tty -t busybox echo on a terminal").ok();
    assert_eq!(host.docker("logs tty").ok().stdout, "on a terminal\r\n");
    // A line that is longer than any buffer stays one line.
    host.docker("run --name long busybox sh -c 'head -c 100000 /dev/zero | tr \\\\0 x; echo; echo end'").ok();
    let long = host.docker("logs long").ok();
    assert_eq!(long.stdout.lines().map(str::len).collect::<Vec<_>>(), [100_000, 3]);
    let stamped = host.docker("logs -t long").ok();
    assert_eq!(stamped.stdout.lines().count(), 2, "one time stamp for one line");
    host.docker("run --name binary busybox sh -c 'printf \"\\\\377\\\\000\\\\n\"'").ok();
    host.docker("run --name nothing busybox true").ok();
    host.docker("logs nothing").prints("");
}

#[test]
fn tail_and_times_choose_lines() {
    let host = Host::new();
    host.docker("run --name box busybox sh -c 'for i in 1 2 3; do echo $i; done; sleep 2; for i in 4 5; do echo $i; done'").ok();
    for (command, lines) in [
        ("logs box", "1\n2\n3\n4\n5"),
        ("logs --tail all box", "1\n2\n3\n4\n5"),
        ("logs --tail 2 box", "4\n5"),
        ("logs -n 0 box", ""),
        ("logs --tail 99 box", "1\n2\n3\n4\n5"),
        ("logs --since 1h box", "1\n2\n3\n4\n5"),
        ("logs --until 1h box", ""),
        ("logs --since 2030-01-01T00:00:00Z box", ""),
    ] {
        host.docker(command).prints(lines);
    }
    let stamped = host.docker("logs -t box").ok();
    let stamps: Vec<&str> = stamped.stdout.lines().filter_map(|l| l.split(' ').next()).collect();
    assert!(stamps.len() == 5 && stamps.iter().all(|s| s.len() == 30 && s.ends_with('Z')), "{stamped}");
    let (third, fourth) = (stamps[2], stamps[3]);
    host.docker(&["logs", "--since", fourth, "box"]).prints("4\n5");
    host.docker(&["logs", "--until", third, "box"]).prints("1\n2\n3");
    host.docker(&["logs", "--since", third, "--tail", "2", "box"]).prints("4\n5");
    host.docker("logs --tail nonsense box").ok();
    host.docker("logs --since nonsense box").fails(1, "invalid value for \"since\"");
}

#[test]
fn who_asks_after_the_start_hears_a_short_program() {
    let host = Host::new();
    for round in 0..10 {
        let name = format!("box{round}");
        host.docker(&["create", "--network", "none", "--name", &name, "busybox", "echo", "hello"]).ok();
        host.api("POST", &format!("/containers/{name}/start"), &Value::Null).expect(204);
        let logs = host.api("GET", &format!("/containers/{name}/logs?stdout=1"), &Value::Null).expect(200);
        assert_eq!(logs.body, b"\x01\0\0\0\0\0\0\x06hello\n", "round {round}");
    }
}

#[test]
fn follow_ends_with_the_container() {
    let host = Host::new();
    host.docker("run -d -i --name box busybox sh -c 'echo first; while read x; do echo $x; done; exit 3'")
        .ok();
    let mut follower = host.docker_session("logs -f box");
    follower.expect("first");
    let mut late = host.docker_session("logs -f --tail 0 box");
    let mut attached = host.docker_session("attach box");
    attached.send("second\n");
    follower.expect("second");
    attached.send("third\n");
    follower.expect("third");
    late.expect("third");
    host.docker("kill box").ok();
    let (code, text) = follower.wait();
    assert_eq!((code, text.as_str()), (0, "first\nsecond\nthird\n"));
    assert_eq!(late.wait().0, 0);
    attached.wait();
    // What was logged before is there after a restart, and a follower gets both.
    host.docker("start box").ok();
    host.docker("kill box").ok();
    host.docker("logs -f box").prints("first\nsecond\nthird\nfirst");
    host.docker("logs -f --until 1s box").ok();
}

#[test]
fn a_thousand_lines_a_follower_and_a_tail() {
    let host = Host::new();
    host.docker(
        "run -d --name box busybox sh -c 'i=0; while [ $i -lt 5000 ]; do echo line $i; i=$((i+1)); done'",
    )
    .ok();
    let followed = host.docker("logs -f box").ok();
    let expected: String = (0..5000).map(|i| format!("line {i}\n")).collect();
    assert!(followed.stdout == expected, "{} lines", followed.stdout.lines().count());
    host.docker("logs --tail 3 box").prints("line 4997\nline 4998\nline 4999");
}

#[test]
fn options_of_the_driver() {
    let host = Host::new();
    host.docker("run --name none --log-driver none busybox echo lost").prints("lost");
    host.docker("logs none").fails(1, "configured logging driver does not support reading");
    host.docker("run --rm --log-driver nosuch busybox true").fails(125, "nosuch");
    host.docker("run --rm --log-opt nosuch=1 busybox true")
        .fails(125, "unknown log opt 'nosuch' for json-file log driver");
    let small = "--log-opt max-size=4k --log-opt max-file=2";
    host.docker(&format!(
        "run --name rotated {small} busybox sh -c 'i=0; while [ $i -lt 1000 ]; do echo line $i; i=$((i+1)); done'"
    ))
    .ok();
    let logs = host.docker("logs rotated").ok();
    let lines: Vec<&str> = logs.stdout.lines().collect();
    assert!(
        lines.last() == Some(&"line 999") && lines.len() < 200,
        "two files of 4 kB: {} lines",
        lines.len()
    );
    let file = host.inspect("rotated")["LogPath"].as_str().unwrap_or_default().to_owned();
    assert!(file.ends_with("-json.log"), "{file}");
    let first = std::fs::read_to_string(&file).unwrap().lines().next().map(str::to_owned).unwrap();
    let record: Value = serde_json::from_str(&first).unwrap();
    assert!(
        record["log"].as_str().is_some_and(|l| l.ends_with('\n')) && record["stream"] == "stdout",
        "{first}"
    );
    assert!(record["time"].as_str().is_some_and(|t| t.ends_with('Z')), "{first}");
}

#[test]
fn logs_of_the_api() {
    let host = Host::new();
    host.docker("run --name box busybox sh -c 'echo out; echo err >&2'").ok();
    host.docker("run --name tty -t busybox echo out").ok();
    let get = |path: &str| host.api("GET", path, &Value::Null);
    let both = get("/v1.51/containers/box/logs?stdout=1&stderr=1").expect(200);
    assert_eq!(both.header("content-type"), "application/vnd.docker.multiplexed-stream");
    assert_eq!(both.body.len(), 2 * 8 + 8);
    let out = get("/v1.51/containers/box/logs?stdout=1").expect(200);
    assert_eq!(out.body, b"\x01\0\0\0\0\0\0\x04out\n");
    let err = get("/v1.51/containers/box/logs?stderr=1").expect(200);
    assert_eq!(err.body, b"\x02\0\0\0\0\0\0\x04err\n");
    let old = get("/v1.41/containers/box/logs?stdout=1").expect(200);
    assert_eq!(old.header("content-type"), "application/vnd.docker.raw-stream");
    let terminal = get("/v1.51/containers/tty/logs?stdout=1").expect(200);
    assert_eq!(
        (terminal.header("content-type"), terminal.text().as_str()),
        ("application/vnd.docker.raw-stream", "out\r\n")
    );
    let neither = get("/v1.51/containers/box/logs").expect(400);
    assert_eq!(neither.message(), "Bad parameters: you must choose at least one stream");
}
