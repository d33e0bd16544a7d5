//! Attaching on the wire: what comes when, what refusals look like, and WebSockets.

use std::io::Read;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wherry_tests::Host;

const UPGRADE: [(&str, &str); 2] = [("Connection", "Upgrade"), ("Upgrade", "tcp")];
/// Less than the time for which a monitor keeps the first output for those who attach.
const AT_ONCE: Duration = Duration::from_millis(80);
const WEBSOCKET: [(&str, &str); 4] = [
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

/// A frame as clients send it, with a mask of zeros.
fn frame(opcode: u8, text: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode, 0x80 | u8::try_from(text.len()).unwrap(), 0, 0, 0, 0];
    frame.extend_from_slice(text);
    frame
}

/// Reads until `end`, and gives everything.
fn read_until(stream: &mut impl Read, end: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut piece = [0; 256];
    while !bytes.ends_with(end) {
        let read = stream.read(&mut piece).unwrap_or_else(|e| panic!("{e} after {bytes:?}"));
        assert!(read > 0, "the end after {bytes:?}");
        bytes.extend_from_slice(&piece[..read]);
    }
    bytes
}

/// docker-py reads the head through a buffer, and what follows past it.
#[test]
fn the_body_does_not_come_with_the_head() {
    let host = Host::new();
    host.docker("run -d --name box busybox sleep 600").ok();
    for round in 0..10 {
        let body = json!({ "Cmd": ["echo", "hi"], "AttachStdout": true });
        let made = host.api("POST", "/v1.51/containers/box/exec", &body).expect(201).json();
        let path = format!("/v1.51/exec/{}/start", made["Id"].as_str().unwrap());
        let mut connection = host.connect();
        let headers = [UPGRADE[0], UPGRADE[1], ("Content-Type", "application/json")];
        let head = connection.open("POST", &path, &headers, b"{}");
        assert_eq!((head.status, head.header("api-version")), (101, "1.51"), "{head:?}");
        assert_eq!(connection.stream().buffer(), b"", "round {round}");
        assert_eq!(connection.frame(), Some((1, b"hi\n".to_vec())));
    }
}

/// Compose 1 attaches to what it has just started; with dockerd it misses the first output, if that comes at once.
#[test]
fn who_attaches_at_once_sees_it_all() {
    let host = Host::new();
    if wherry_tests::engine::Binary::from_environment().is_reference() {
        return;
    }
    let path = "/v1.51/containers/box/attach?stdout=1&stream=1";
    let mut attaching = (0..40).find_map(|_| {
        host.docker("create --name box --network none busybox sh -c 'echo first; sleep 600'").ok();
        let (mut starting, mut attaching) = (host.connect(), host.connect());
        let begun = Instant::now();
        starting.json("POST", "/v1.51/containers/box/start", &Value::Null).expect(204);
        assert_eq!(attaching.open("POST", path, &UPGRADE, b"").status, 101);
        if begun.elapsed() < AT_ONCE {
            return Some(attaching);
        }
        host.docker("rm -f box").ok();
        None
    });
    let attaching = attaching.as_mut().expect("to be as fast as that once");
    assert_eq!(attaching.frame(), Some((1, b"first\n".to_vec())));
    // Later it is what comes from then on, as ever.
    std::thread::sleep(Duration::from_millis(200));
    let mut later = host.connect();
    assert_eq!(later.open("POST", path, &UPGRADE, b"").status, 101);
    host.docker("kill box").ok();
    assert_eq!(later.frame(), None);
}

/// Compose 1 again: it starts once more what has ended when it had attached. Whenever that was, one run's output comes.
#[test]
fn who_attaches_while_it_ends_sees_the_next_run() {
    let host = Host::new();
    if wherry_tests::engine::Binary::from_environment().is_reference() {
        return;
    }
    // A machine that is too busy to be in time does fewer rounds.
    let (mut round, deadline) = (0_u64, Instant::now() + Duration::from_secs(30));
    while round < 40 && (round == 0 || Instant::now() < deadline) {
        host.api(
            "POST",
            "/v1.51/containers/create?name=box",
            &json!({
                "Image": "busybox", "Cmd": ["echo", "said"], "HostConfig": { "NetworkMode": "none" }
            }),
        )
        .expect(201);
        let begun = Instant::now();
        host.api("POST", "/v1.51/containers/box/start", &Value::Null).expect(204);
        // Another moment of its end each time.
        std::thread::sleep(Duration::from_micros(round * 300));
        let mut attached = host.connect();
        let path = "/v1.51/containers/box/attach?stdout=1&stream=1";
        assert_eq!(attached.open("POST", path, &UPGRADE, b"").status, 101);
        if begun.elapsed() < AT_ONCE {
            if host.inspect("box")["State"]["Running"] != json!(true) {
                host.api("POST", "/v1.51/containers/box/start", &Value::Null).expect(204);
            }
            assert_eq!(attached.frame(), Some((1, b"said\n".to_vec())), "round {round}");
            round += 1;
        }
        host.docker("rm -f box").ok();
    }
}

#[test]
fn the_log_of_one_that_has_ended() {
    let host = Host::new();
    for driver in ["json-file", "local"] {
        host.docker(&format!(
            "run --name {driver} --log-driver {driver} busybox sh -c 'echo out; echo err >&2'"
        ))
        .ok();
        let path = format!("/v1.51/containers/{driver}/attach?logs=1&stdout=1&stderr=1&stream=0");
        let mut connection = host.connect();
        let head = connection.open("POST", &path, &UPGRADE, b"");
        assert_eq!((head.status, head.reason.as_str()), (101, "UPGRADED"));
        let mut frames = vec![connection.frame().unwrap(), connection.frame().unwrap()];
        frames.sort();
        assert_eq!(frames, [(1, b"out\n".to_vec()), (2, b"err\n".to_vec())]);
        assert_eq!(connection.frame(), None);
    }
}

/// A monitor stays until its clients have taken what there is. By then another may have the container.
#[test]
fn the_end_of_an_old_monitor_is_no_end_of_a_new_run() {
    let host = Host::new();
    host.docker("create --name box --network none busybox sh -c 'yes | head -c 4000000; sleep 600'").ok();
    let mut slow = host.connect();
    let path = "/v1.51/containers/box/attach?stdout=1&stream=1";
    assert_eq!(slow.open("POST", path, &UPGRADE, b"").status, 101);
    host.docker("start box").ok();
    let monitors = || host.processes().iter().filter(|(_, line)| line.starts_with("wherry-monitor")).count();
    wherry_tests::poll("output", 10, || !host.docker("logs --tail 1 box").stdout.is_empty());
    host.docker("kill box").ok();
    host.docker("wait box").prints("137");
    host.docker("start box").ok();
    let before = host.inspect("box")["State"].take();
    drop(slow);
    wherry_tests::poll("the end of the old monitor", 10, || monitors() <= 1);
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(host.inspect("box")["State"], before);
}

#[test]
fn refusals_are_plain_text() {
    let host = Host::new();
    host.docker("run -dit --name box busybox sh").ok();
    host.docker("pause box").ok();
    for (path, status, text) in [
        ("nope/attach?stream=1", 404, "No such container: nope\r\n"),
        ("box/attach?stream=1&detachKeys=bogus!", 400, "Invalid detach keys (bogus!) provided\r\n"),
        ("box/attach?stream=1", 409, "container box is paused, unpause the container before attach\r\n"),
    ] {
        for headers in [&UPGRADE[..], &[]] {
            let path = format!("/v1.51/containers/{path}");
            let answer = host.connect().request("POST", &path, headers, b"").expect(status);
            assert_eq!(answer.header("content-type"), "application/vnd.docker.raw-stream");
            assert_eq!((answer.text().as_str(), answer.headers.len()), (text, 1));
        }
    }
    host.docker("unpause box").ok();
}

#[test]
fn a_websocket_is_a_terminals_other_end() {
    let host = Host::new();
    host.docker("run -dit --name box busybox cat").ok();
    for (version, data) in [("1.51", 0x82), ("1.27", 0x81)] {
        let path = format!("/v{version}/containers/box/attach/ws?stream=1&stdin=1&stdout=1");
        let mut connection = host.connect();
        let head = connection.open("GET", &path, &WEBSOCKET, b"");
        assert_eq!((head.status, head.reason.as_str()), (101, "Switching Protocols"));
        assert_eq!(head.header("sec-websocket-accept"), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let stream = connection.stream();
        std::io::Write::write_all(stream.get_mut(), &frame(9, b"there?")).unwrap();
        assert_eq!(read_until(stream, b"there?")[..2], [0x8a, 6]);
        // The first half of a message, and the second.
        let mut half = frame(2, b"he");
        half[0] &= 0x7f;
        std::io::Write::write_all(stream.get_mut(), &[half, frame(0, b"y\n")].concat()).unwrap();
        let echo = read_until(stream, b"hey\r\n");
        assert_eq!(echo[0], data, "{echo:?}");
        std::io::Write::write_all(stream.get_mut(), &frame(8, b"")).unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        assert!(rest.ends_with(&[0x88, 2, 0x03, 0xe8]), "{rest:?}");
    }
    assert_eq!(host.inspect("box")["State"]["Running"], json!(true));
}

#[test]
fn a_websocket_ends_with_the_log_or_with_the_container() {
    let host = Host::new();
    host.docker("run -d --name box busybox sh -c 'echo one; sleep 600'").ok();
    wherry_tests::poll("the log", 10, || host.docker("logs box").stdout == "one\n");
    let mut connection = host.connect();
    connection.open("GET", "/v1.51/containers/box/attach/ws?logs=1&stdout=1", &WEBSOCKET, b"");
    let mut all = Vec::new();
    connection.stream().read_to_end(&mut all).unwrap();
    assert_eq!(all, b"\x82\x04one\n\x88\x02\x03\xe8");

    let mut connection = host.connect();
    connection.open("GET", "/v1.51/containers/box/attach/ws?stream=1&stdout=1", &WEBSOCKET, b"");
    host.docker("kill box").ok();
    let mut all = Vec::new();
    connection.stream().read_to_end(&mut all).unwrap();
    assert_eq!(all, b"\x88\x02\x03\xe8");
}

#[test]
fn handshakes_that_are_none_and_frames_that_must_not_be() {
    let host = Host::new();
    host.docker("run -dit --name box busybox cat").ok();
    let path = "/v1.51/containers/box/attach/ws?stream=1&stdin=1&stdout=1";
    for (headers, text) in [
        (&WEBSOCKET[..0], "not websocket protocol"),
        (&WEBSOCKET[..2], "mismatch challenge/response"),
        (&[WEBSOCKET[0], WEBSOCKET[1], WEBSOCKET[3]][..], "missing or bad WebSocket Version"),
    ] {
        let answer = host.connect().request("GET", path, headers, b"").expect(400);
        assert_eq!(answer.text(), text);
    }
    let missing =
        host.connect().request("GET", "/v1.51/containers/no/attach/ws", &WEBSOCKET, b"").expect(404);
    assert_eq!(missing.message(), "No such container: no");
    let mut connection = host.connect();
    connection.open("GET", path, &WEBSOCKET, b"");
    std::io::Write::write_all(connection.stream().get_mut(), b"\x81\x01x").unwrap();
    let mut all = Vec::new();
    connection.stream().read_to_end(&mut all).unwrap();
    assert_eq!(all, b"\x88\x02\x03\xea\x88\x02\x03\xe8", "a protocol error, and the end");
}

/// A wait ends with the run, whatever the restart policy does next; docker-py waits so.
#[test]
fn a_wait_ends_with_the_run() {
    let host = Host::new();
    host.docker("run -d --name again --restart always busybox sh -c 'sleep 1; exit 3'").ok();
    let answer = host.api("POST", "/v1.51/containers/again/wait", &Value::Null).expect(200);
    assert_eq!(answer.json(), json!({ "StatusCode": 3 }));
}
