//! The API below the docker client: headers, versions, errors, hijacked connections.

use std::io::{Read, Write};
use std::net::Shutdown;

use serde_json::{Value, json};
use wherry_tests::Host;

#[test]
fn ping() {
    let host = Host::new();
    for (method, path) in
        [("GET", "/_ping"), ("HEAD", "/_ping"), ("GET", "/v1.51/_ping"), ("HEAD", "/v1.24/_ping")]
    {
        let answer = host.api(method, path, &Value::Null).expect(200);
        assert_eq!(answer.text(), if method == "GET" { "OK" } else { "" });
        for (name, value) in [
            ("Api-Version", "1.51"),
            ("Ostype", "linux"),
            ("Docker-Experimental", "false"),
            ("Swarm", "inactive"),
            ("Cache-Control", "no-cache, no-store, must-revalidate"),
            ("Pragma", "no-cache"),
            ("Content-Type", "text/plain; charset=utf-8"),
        ] {
            assert_eq!(answer.header(name), value, "{method} {path} {name}");
        }
        assert!(["1", "2"].contains(&answer.header("Builder-Version")), "{answer:?}");
        let server = answer.header("Server");
        assert!(server.starts_with("Docker/") && server.ends_with(" (linux)"), "{server}");
    }
}

#[test]
fn versions() {
    let host = Host::new();
    for (path, status, message) in [
        ("/version", 200, ""),
        ("/v1.24/version", 200, ""),
        ("/v1.51/version", 200, ""),
        (
            "/v1.23/version",
            400,
            "client version 1.23 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version",
        ),
        ("/v1.99/version", 400, "client version 1.99 is too new. Maximum supported API version is 1.51"),
        ("/vnonsense/version", 404, "page not found"),
        ("/nosuch", 404, "page not found"),
        ("/v1.51/nosuch", 404, "page not found"),
        ("/", 404, "page not found"),
    ] {
        let answer = host.api("GET", path, &Value::Null).expect(status);
        if path.starts_with("/v1.23") {
            // What is so old knows no JSON in errors.
            assert_eq!(
                (answer.text().trim(), answer.header("Content-Type")),
                (message, "text/plain; charset=utf-8")
            );
            continue;
        }
        assert_eq!(answer.message(), message, "{path}");
        assert_eq!(answer.header("Content-Type"), "application/json", "{path}");
    }
    let version = host.api("GET", "/version", &Value::Null).json();
    for key in [
        "Platform",
        "Components",
        "Version",
        "ApiVersion",
        "MinAPIVersion",
        "GitCommit",
        "GoVersion",
        "Os",
        "Arch",
        "KernelVersion",
        "BuildTime",
    ] {
        assert!(!version[key].is_null(), "{key}");
    }
    // The method belongs to the path.
    host.api("PUT", "/v1.51/containers/json", &Value::Null).expect(404);
}

#[test]
fn errors_of_the_body() {
    let host = Host::new();
    let json_type = ("Content-Type", "application/json");
    let post = |body: &str, headers: &[(&str, &str)]| {
        host.connect().request("POST", "/v1.51/containers/create", headers, body.as_bytes())
    };
    for (body, message) in [
        ("{", "invalid JSON: unexpected EOF"),
        ("nonsense", "invalid JSON: invalid character 'o' in literal null (expecting 'u')"),
        ("{} {}", "unexpected content after JSON"),
        ("", "invalid JSON: got EOF while reading request body"),
        (r#"{"Image": 3}"#, "invalid JSON: json: cannot unmarshal number into Go struct field"),
    ] {
        let answer = post(body, &[json_type]).expect(400);
        assert!(answer.message().starts_with(message), "{body:?}: {}", answer.message());
    }
    let untyped = post(r#"{"Image":"busybox"}"#, &[]).expect(400);
    assert_eq!(untyped.message(), "malformed Content-Type header (): mime: no media type");
    let text = post(r#"{"Image":"busybox"}"#, &[("Content-Type", "text/plain")]).expect(400);
    assert_eq!(text.message(), "unsupported Content-Type header (text/plain): must be 'application/json'");
    let missing = post(r#"{"Image":"nosuch:tag"}"#, &[json_type]).expect(404);
    assert_eq!(missing.message(), "No such image: nosuch:tag");
    let empty = post("{}", &[json_type]).expect(400);
    assert_eq!(empty.message(), "config cannot be empty in order to create a container");
}

#[test]
fn one_connection_serves_many_requests() {
    let host = Host::new();
    let mut connection = host.connect();
    for _ in 0..50 {
        assert_eq!(connection.json("GET", "/_ping", &Value::Null).text(), "OK");
    }
    let id = connection
        .json("POST", "/v1.51/containers/create", &json!({"Image": "busybox", "Cmd": ["true"]}))
        .expect(201)
        .json();
    let id = id["Id"].as_str().unwrap().to_owned();
    connection.json("POST", &format!("/v1.51/containers/{id}/start"), &Value::Null).expect(204);
    let end = connection.json("POST", &format!("/v1.51/containers/{id}/wait"), &Value::Null).expect(200);
    assert_eq!(end.json(), json!({"StatusCode": 0}));
    if end.header("connection") == "close" {
        // An engine may hand a waiting client's socket to another process, if it says that this was the last answer.
        connection = host.connect();
    }
    connection.json("DELETE", &format!("/v1.51/containers/{id}"), &Value::Null).expect(204);
    // Not HTTP at all.
    let mut raw = host.connect();
    raw.stream().get_mut().write_all(b"nonsense\r\n\r\n").unwrap();
    let mut answer = String::new();
    raw.stream().read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 Bad Request"), "{answer}");
}

/// A container that waits for a line on its standard input and answers on both outputs.
#[test]
fn a_connection_may_wait_between_requests() {
    let host = Host::new();
    let mut connection = host.connect();
    connection.request("GET", "/_ping", &[], b"").expect(200);
    // hyper's own limit is 30 seconds; dockerd has none. Pools of clients count on that.
    std::thread::sleep(std::time::Duration::from_secs(31));
    connection.request("GET", "/_ping", &[], b"").expect(200);
}

fn create_echo(host: &Host, name: &str, terminal: bool) {
    let body = json!({
        "Image": "busybox", "Cmd": ["sh", "-c", "read x; echo out $x; echo err $x >&2; exit 5"], "Tty": terminal,
        "OpenStdin": true, "StdinOnce": true, "AttachStdin": true, "AttachStdout": true, "AttachStderr": true,
    });
    host.api("POST", &format!("/v1.51/containers/create?name={name}"), &body).expect(201);
}

#[test]
fn attach_with_and_without_upgrade() {
    let host = Host::new();
    let query = "stream=1&stdin=1&stdout=1&stderr=1";
    let upgrade: &[(&str, &str)] = &[("Connection", "Upgrade"), ("Upgrade", "tcp")];
    for (name, headers, version, status, kind) in [
        ("new", upgrade, "1.51", 101, "application/vnd.docker.multiplexed-stream"),
        ("old", upgrade, "1.41", 101, "application/vnd.docker.raw-stream"),
        ("plain", &[], "1.51", 200, "application/vnd.docker.raw-stream"),
    ] {
        create_echo(&host, name, false);
        let mut client = host.connect();
        let head =
            client.open("POST", &format!("/v{version}/containers/{name}/attach?{query}"), headers, b"");
        assert_eq!((head.status, head.header("content-type")), (status, kind), "{name}");
        if status == 101 {
            assert_eq!(
                (head.reason.as_str(), head.header("upgrade"), head.header("connection")),
                ("UPGRADED", "tcp", "Upgrade")
            );
        }
        host.api("POST", &format!("/v1.51/containers/{name}/start"), &Value::Null).expect(204);
        client.stream().get_mut().write_all(b"hello\n").unwrap();
        client.stream().get_mut().shutdown(Shutdown::Write).unwrap();
        let mut frames = Vec::new();
        while let Some(frame) = client.frame() {
            frames.push(frame);
        }
        frames.sort();
        assert_eq!(frames, [(1, b"out hello\n".to_vec()), (2, b"err hello\n".to_vec())], "{name}");
        host.docker(&["wait", name]).prints("5");
    }
}

#[test]
fn attach_to_a_terminal_is_raw() {
    let host = Host::new();
    create_echo(&host, "box", true);
    let mut client = host.connect();
    let headers = [("Connection", "Upgrade"), ("Upgrade", "tcp")];
    let head =
        client.open("POST", "/v1.51/containers/box/attach?stream=1&stdin=1&stdout=1&stderr=1", &headers, b"");
    assert_eq!((head.status, head.header("content-type")), (101, "application/vnd.docker.raw-stream"));
    host.api("POST", "/v1.51/containers/box/start", &Value::Null).expect(204);
    host.api("POST", "/v1.51/containers/box/resize?h=11&w=22", &Value::Null).expect(200);
    client.stream().get_mut().write_all(b"hello\n").unwrap();
    let mut text = String::new();
    client.stream().read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello\r\nout hello\r\nerr hello\r\n");
    host.api("POST", "/v1.51/containers/nosuch/attach?stream=1", &Value::Null).expect(404);
}

#[test]
fn attach_can_give_the_logs_first() {
    let host = Host::new();
    host.docker("run -d --name box busybox sh -c 'echo early; sleep 600'").ok();
    wherry_tests::poll("the line", 10, || host.docker("logs box").stdout == "early\n");
    let mut client = host.connect();
    client.open("POST", "/v1.51/containers/box/attach?logs=1&stdout=1", &[], b"");
    assert_eq!(client.frame(), Some((1, b"early\n".to_vec())));
    assert_eq!(client.frame(), None, "without stream=1 that is all");
}

#[test]
fn filters_are_checked_before_anything_is_done() {
    let host = Host::new();
    host.docker("create --name box busybox").ok();
    for path in ["containers/prune", "images/prune", "networks/prune", "volumes/prune"] {
        let bad = host
            .api("POST", &format!("/v1.51/{path}?filters=%7B%22nosuch%22%3A%5B%22x%22%5D%7D"), &Value::Null)
            .expect(400);
        assert!(bad.message().contains("invalid filter 'nosuch'"), "{path}: {}", bad.message());
    }
    host.docker("inspect box").ok();
    let pruned = host.api("POST", "/v1.51/containers/prune", &Value::Null).expect(200).json();
    assert_eq!(pruned["ContainersDeleted"].as_array().map(Vec::len), Some(1));
    let nothing = host.api("POST", "/v1.51/containers/prune", &Value::Null).expect(200);
    assert_eq!(nothing.text().trim(), r#"{"ContainersDeleted":null,"SpaceReclaimed":0}"#);
}

#[test]
fn clients_that_go_away_take_nothing_with_them() {
    let host = Host::new();
    host.docker("run -d --name box busybox sleep 600").ok();
    for path in [
        ("GET", "/v1.51/events"),
        ("GET", "/v1.51/containers/box/logs?follow=1&stdout=1"),
        ("POST", "/v1.51/containers/box/wait"),
        ("POST", "/v1.51/containers/box/attach?stream=1&stdout=1"),
        ("GET", "/v1.51/containers/box/stats"),
    ] {
        for _ in 0..20 {
            let mut client = host.connect();
            client.open(path.0, path.1, &[], b"");
        }
    }
    host.docker(&["ps", "--format", "{{.Names}}"]).prints("box");
    host.docker("exec box true").ok();
}
