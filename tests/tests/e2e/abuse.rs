//! Bad input, clients that vanish, and crowds: the engine answers with the right status or forgets the client, and nothing
//! stays: no descriptor, process, mount, memory. `make test-abuse` does the same for longer (ABUSE=n).

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use wherry_tests::{Host, poll};

/// How much longer than in the suite.
fn factor() -> usize {
    std::env::var("ABUSE").ok().and_then(|n| n.parse().ok()).unwrap_or(1)
}

/// Descriptors and memory (KiB) of the servants, by program; and how many mounts the engine sees.
fn holdings(host: &Host) -> (BTreeMap<String, usize>, u64, usize) {
    let (mut descriptors, mut memory, mut mounts) = (BTreeMap::new(), 0, 0);
    for (pid, line) in host.servants() {
        let program =
            line.split(' ').next().unwrap_or_default().rsplit('/').next().unwrap_or_default().to_owned();
        *descriptors.entry(program.clone()).or_insert(0) +=
            std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |d| d.count());
        if program == "wherryd" || program == "dockerd" {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let rss = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap_or("0");
            memory = rss.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0);
            mounts =
                std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).map_or(0, |m| m.lines().count());
        }
    }
    (descriptors, memory, mounts)
}

/// Waits until nothing is held that was not before. Memory may grow by caches, but not with the work.
fn settles(host: &Host, before: &(BTreeMap<String, usize>, u64, usize)) {
    let mut last = holdings(host);
    let fits = |now: &(BTreeMap<String, usize>, u64, usize)| {
        now.0.iter().all(|(program, count)| *count <= before.0.get(program).copied().unwrap_or(0) + 2)
            && now.2 <= before.2
            && now.1 <= before.1 + 24 * 1024
    };
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while !fits(&last) && std::time::Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(100));
        last = holdings(host);
    }
    assert!(fits(&last), "before {before:?}, now {last:?}");
}

#[test]
fn malformed_bodies_and_unknown_ids() {
    let host = Host::new();
    host.docker("run -d --name box busybox sleep 600").ok();
    let made = host.api("POST", "/v1.51/containers/box/exec", &json!({ "Cmd": ["true"] })).expect(201).json();
    let exec = format!("/exec/{}/start", made["Id"].as_str().unwrap());
    let huge = format!("{{\"Image\":\"{}\"}}", "x".repeat(6 << 20));
    let bodies: [&[u8]; 8] = [
        b"{",
        b"[1]",
        b"\"x\"",
        b"{\"Name\":1,\"Cmd\":{},\"Tty\":[],\"Container\":[],\"Memory\":{}}",
        b"{}{}",
        b"\xff\xfe",
        b"[[[[[[[[",
        huge.as_bytes(),
    ];
    let paths = [
        "/containers/create",
        "/containers/box/exec",
        "/containers/box/update",
        exec.as_str(),
        "/volumes/create",
        "/networks/create",
        "/networks/bridge/connect",
        "/networks/bridge/disconnect",
        "/commit?container=box",
        "/auth",
    ];
    for path in paths {
        for body in bodies {
            for kind in ["application/json", "text/plain"] {
                let mut connection = host.connect();
                let headers = [("Content-Type", kind)];
                let Some(answer) = connection.try_request("POST", &format!("/v1.51{path}"), &headers, body)
                else {
                    panic!("no answer to {path} {:?}", String::from_utf8_lossy(&body[..body.len().min(40)]));
                };
                // dockerd decodes this one by itself, and calls what it finds its own failure.
                let expected = if path == "/auth" { 400..501 } else { 400..500 };
                assert!(
                    expected.contains(&answer.status),
                    "{path} {kind}: {} {}",
                    answer.status,
                    answer.text()
                );
            }
        }
    }
    for (method, path) in [
        ("GET", "/containers/nope/json"),
        ("GET", "/containers/nope/top"),
        ("GET", "/containers/nope/logs?stdout=1"),
        ("GET", "/containers/nope/stats"),
        ("GET", "/containers/nope/changes"),
        ("GET", "/containers/nope/export"),
        ("POST", "/containers/nope/start"),
        ("POST", "/containers/nope/stop"),
        ("POST", "/containers/nope/restart"),
        ("POST", "/containers/nope/kill"),
        ("POST", "/containers/nope/pause"),
        ("POST", "/containers/nope/unpause"),
        ("POST", "/containers/nope/rename?name=xx"),
        ("POST", "/containers/nope/wait"),
        ("POST", "/containers/nope/attach"),
        ("POST", "/containers/nope/resize?h=1&w=1"),
        ("DELETE", "/containers/nope"),
        ("GET", "/containers/nope/archive?path=/"),
        ("POST", "/containers/%00%ff%2e%2e/start"),
        ("GET", "/containers/..%2f..%2fetc/json"),
        ("GET", "/exec/nope/json"),
        ("POST", "/exec/nope/resize?h=1&w=1"),
        ("GET", "/volumes/nope"),
        ("DELETE", "/volumes/nope"),
        ("GET", "/networks/nope"),
        ("DELETE", "/networks/nope"),
        ("GET", "/images/nope/json"),
        ("DELETE", "/images/nope"),
        ("GET", "/images/nope/history"),
    ] {
        host.connect().request(method, &format!("/v1.51{path}"), &[], b"").expect(404);
    }
    host.api("GET", "/_ping", &Value::Null).expect(200);
}

/// A request, cut off somewhere.
fn vanish(host: &Host, request: &[u8], at: usize, linger: bool) {
    let mut stream = UnixStream::connect(host.root().join("socket")).expect("connect to the engine");
    // The other side may be quicker to close.
    let _ = stream.write_all(&request[..at.min(request.len())]);
    if linger {
        let _ = stream.set_read_timeout(Some(Duration::from_millis(20)));
        let _ = stream.read(&mut [0; 200]);
        let _ = stream.shutdown(Shutdown::Write);
        let _ = stream.read(&mut [0; 200]);
    }
}

#[test]
fn clients_that_vanish_at_every_phase() {
    let host = Host::new();
    host.docker("run -dit --name box busybox sh -c 'while :; do echo x; sleep .05; done'").ok();
    let exec = json!({ "Cmd": ["sh", "-c", "echo a; sleep .1"], "AttachStdout": true, "AttachStdin": true })
        .to_string();
    let post = |path: &str, body: &str| {
        format!(
            "POST /v1.51{path} HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let get = |path: &str| format!("GET /v1.51{path} HTTP/1.1\r\nHost: d\r\n\r\n");
    let upgrade = |path: &str| {
        format!(
            "POST /v1.51{path} HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n"
        )
    };
    let ws = "GET /v1.51/containers/box/attach/ws?stream=1&stdout=1&stdin=1 HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\n\
              Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let requests = [
        get("/events"),
        get("/containers/box/logs?follow=1&stdout=1"),
        get("/containers/box/stats"),
        get("/containers/box/export"),
        get("/images/busybox/get"),
        get("/containers/box/archive?path=/bin"),
        upgrade("/containers/box/attach?stream=1&stdin=1&stdout=1"),
        upgrade("/containers/box/wait?condition=next-exit"),
        post("/containers/box/exec", &exec),
        post("/containers/create", "{\"Image\":\"nope\"}"),
        post("/images/load", &"x".repeat(5000)),
        post("/images/create?fromSrc=-", &"y".repeat(5000)),
        ws.to_owned(),
        get("/containers/json?all=1&size=1"),
        get("/system/df"),
    ];
    let round = |n: usize| {
        for request in &requests {
            let bytes = request.as_bytes();
            let body = request.find("\r\n\r\n").map_or(bytes.len(), |at| at + 4);
            for (i, at) in [0, 1, 20, body - 2, body, body + 1, bytes.len()].into_iter().enumerate() {
                vanish(&host, bytes, at, (i + n).is_multiple_of(3));
            }
        }
        // Execs, left in the middle.
        let made = host
            .api("POST", "/v1.51/containers/box/exec", &serde_json::from_str(&exec).unwrap())
            .expect(201)
            .json();
        let start = post(&format!("/exec/{}/start", made["Id"].as_str().unwrap()), "{}");
        vanish(&host, start.as_bytes(), start.len(), n.is_multiple_of(2));
    };
    // The first rounds fill what is kept for good: pools, buffers.
    (0..2).for_each(round);
    poll("the execs' ends", 20, || host.inspect("box")["ExecIDs"].is_null());
    let before = holdings(&host);
    (0..5 * factor()).for_each(round);
    poll("the execs' ends", 20, || host.inspect("box")["ExecIDs"].is_null());
    settles(&host, &before);
    assert_eq!(host.inspect("box")["State"]["Running"], json!(true));
}

#[test]
fn two_hundred_clients_with_the_same_names() {
    let host = Host::new();
    // The first crowd fills what is kept for good: connections to netd, pools.
    crowd(&host, 1);
    let before = holdings(&host);
    let (made, clashes) = crowd(&host, factor());
    assert!(made >= 10 && clashes > 0, "{made} made, {clashes} clashes");
    settles(&host, &before);
}

/// 200 clients make, start and remove containers of ten names; how many were made, and how many names were taken.
fn crowd(host: &Host, rounds: usize) -> (usize, usize) {
    let (made, clashes) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for n in 0..200usize {
            let (made, clashes) = (&made, &clashes);
            scope.spawn(move || {
                for round in 0..rounds {
                    let name = format!("crowd{}", (n + round) % 10);
                    let limits = json!({ "NetworkMode": "none" });
                    let body = json!({ "Image": "busybox", "Cmd": ["sleep", "600"], "HostConfig": limits });
                    let answer = host.api("POST", &format!("/v1.51/containers/create?name={name}"), &body);
                    match answer.status {
                        201 => made.fetch_add(1, Ordering::Relaxed),
                        409 => clashes.fetch_add(1, Ordering::Relaxed),
                        other => panic!("create: {other} {}", answer.text()),
                    };
                    let answer = host.api("POST", &format!("/v1.51/containers/{name}/start"), &Value::Null);
                    let text = answer.text();
                    assert!([204, 304, 404, 409].contains(&answer.status), "start: {} {text}", answer.status);
                    let path = format!("/v1.51/containers/{name}?force=1");
                    let answer = host.api("DELETE", &path, &Value::Null);
                    let text = answer.text();
                    assert!([204, 404, 409].contains(&answer.status), "rm: {} {text}", answer.status);
                }
            });
        }
    });
    host.clean();
    (made.into_inner(), clashes.into_inner())
}
