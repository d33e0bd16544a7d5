//! Requests that are refused, or that ask for little: status and text as dockerd gives them, request for request.

use serde_json::{Value, json};
use wherry_tests::Host;

/// Method, path below `/v1.51`, body; status and message. `{idle}` in a message is the id of that container.
type Case = (&'static str, &'static str, Value, u16, &'static str);

fn check(host: &Host, cases: &[Case]) {
    let id = |name: &str| {
        host.api("GET", &format!("/v1.51/containers/{name}/json"), &Value::Null).json()["Id"]
            .as_str()
            .unwrap_or("-")
            .to_owned()
    };
    let (running, idle) = (id("box"), id("idle"));
    for (method, path, body, status, message) in cases {
        let answer = host.api(method, &format!("/v1.51{path}"), body);
        let found = answer.message().replace(&running, "{box}").replace(&idle, "{idle}");
        assert_eq!((answer.status, found.as_str()), (*status, *message), "{method} {path} {body}");
    }
}

#[test]
fn of_a_running_container() {
    let host = Host::new();
    host.docker("run -d --name box busybox sleep 600").ok();
    host.docker("create --name idle busybox true").ok();
    let null = Value::Null;
    check(
        &host,
        &[
            ("POST", "/containers/box/resize?h=10&w=20", null.clone(), 200, ""),
            (
                "POST",
                "/containers/box/resize?h=x&w=1",
                null.clone(),
                400,
                "invalid resize height \"x\": invalid syntax",
            ),
            (
                "POST",
                "/containers/box/resize?h=1&w=-1",
                null.clone(),
                400,
                "invalid resize width \"-1\": value out of range",
            ),
            (
                "POST",
                "/containers/no/resize?h=x&w=1",
                null.clone(),
                400,
                "invalid resize height \"x\": invalid syntax",
            ),
            (
                "POST",
                "/containers/idle/resize?h=99999999&w=2",
                null.clone(),
                409,
                "container {idle} is not running",
            ),
            (
                "POST",
                "/containers/no/kill",
                null.clone(),
                404,
                "cannot kill container: no: No such container: no",
            ),
            (
                "POST",
                "/containers/box/kill?signal=99",
                null.clone(),
                400,
                "cannot kill container: box: the linux daemon does not support signal 99",
            ),
            (
                "POST",
                "/containers/box/kill?signal=BOGUS",
                null.clone(),
                400,
                "cannot kill container: box: invalid signal: BOGUS",
            ),
            (
                "POST",
                "/containers/box/stop?t=x",
                null.clone(),
                500,
                "strconv.Atoi: parsing \"x\": invalid syntax",
            ),
            (
                "POST",
                "/containers/box/stop?signal=BOGUS",
                null.clone(),
                500,
                "cannot stop container: box: invalid signal: BOGUS",
            ),
            (
                "GET",
                "/containers/box/top?ps_args=-o+comm",
                null.clone(),
                500,
                "Couldn't find PID field in ps output",
            ),
            (
                "GET",
                "/containers/box/top?ps_args=zzz",
                null.clone(),
                500,
                "ps: error: unsupported option (BSD syntax)",
            ),
            (
                "GET",
                "/containers/box/logs?stdout=1&since=x",
                null.clone(),
                500,
                "strconv.ParseInt: parsing \"x\": invalid syntax",
            ),
            (
                "GET",
                "/containers/box/logs?stdout=1&until=1.x",
                null.clone(),
                500,
                "strconv.ParseInt: parsing \"x\": invalid syntax",
            ),
            ("GET", "/containers/box/logs?stdout=1&since=99999999999", null.clone(), 200, ""),
            ("HEAD", "/containers/box/logs?stdout=1", null.clone(), 404, ""),
            ("DELETE", "/containers/", null.clone(), 400, "invalid name or ID supplied: \"\""),
            (
                "DELETE",
                "/containers/idle?link=1",
                null.clone(),
                500,
                "Conflict, cannot remove the default link name of the container",
            ),
            ("GET", "/containers//json", null.clone(), 301, ""),
            (
                "POST",
                "/containers/prune?filters={%22until%22:[%22x%22]}",
                null.clone(),
                400,
                "failed to parse value as time or duration: \"x\"",
            ),
            (
                "POST",
                "/containers/prune?filters={%22until%22:[%221h%22,%222h%22]}",
                null.clone(),
                400,
                "more than one until filter specified",
            ),
            (
                "GET",
                "/containers/json?filters={%22publish%22:[%2270000%22]}",
                null,
                500,
                "error while looking up for publish 70000: strconv.ParseUint: parsing \"70000\": value out of range",
            ),
        ],
    );
}

#[test]
fn of_execs_and_volumes() {
    let host = Host::new();
    host.docker("run -d --name box busybox sleep 600").ok();
    check(
        &host,
        &[
            ("POST", "/containers/box/exec", json!({}), 400, "No exec command specified"),
            (
                "POST",
                "/containers/box/exec",
                json!([1]),
                400,
                "invalid JSON: json: cannot unmarshal array into Go value of type container.ExecOptions",
            ),
            (
                "POST",
                "/containers/box/exec",
                json!({ "Cmd": "true" }),
                400,
                "invalid JSON: json: cannot unmarshal string into Go struct field ExecOptions.Cmd of type []string",
            ),
            (
                "POST",
                "/containers/box/exec",
                json!({ "Cmd": ["true"], "User": "nosuch" }),
                400,
                "unable to find user nosuch: no matching entries in passwd file",
            ),
            (
                "POST",
                "/containers/box/exec",
                json!({ "Cmd": ["true"], "detachkeys": "bogus!!" }),
                500,
                "Invalid escape keys (bogus!!) provided",
            ),
            ("POST", "/containers/box/exec", json!({ "Cmd": ["true"], "ConsoleSize": [1] }), 201, ""),
            (
                "POST",
                "/exec/no/resize?h=x&w=1",
                json!({}),
                400,
                "invalid resize height \"x\": invalid syntax",
            ),
            (
                "POST",
                "/containers/box/update",
                json!([1]),
                400,
                "invalid JSON: json: cannot unmarshal array into Go value of type container.UpdateConfig",
            ),
            (
                "POST",
                "/containers/box/update",
                json!({ "Memory": "x" }),
                400,
                "invalid JSON: json: cannot unmarshal string into Go struct field UpdateConfig.Memory of type int64",
            ),
            (
                "POST",
                "/volumes/create",
                json!({ "Name": 1 }),
                400,
                "invalid JSON: json: cannot unmarshal number into Go struct field CreateOptions.Name of type string",
            ),
            (
                "POST",
                "/volumes/create",
                json!([1]),
                400,
                "invalid JSON: json: cannot unmarshal array into Go value of type volume.CreateOptions",
            ),
            (
                "POST",
                "/volumes/create",
                json!({ "Name": "v8", "ClusterVolumeSpec": {} }),
                503,
                "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.",
            ),
            (
                "PUT",
                "/volumes/v1?version=1",
                json!({}),
                503,
                "volume update only valid for cluster volumes, but swarm is unavailable",
            ),
        ],
    );
    let plain = host.connect().request("POST", "/v1.51/volumes/create", &[], b"{}").expect(400);
    assert_eq!(plain.message(), "malformed Content-Type header (): mime: no media type");
}

/// An exec that has run says so on the connection that it was given, unless nobody is there to read it.
#[test]
fn an_exec_runs_once() {
    let host = Host::new();
    host.docker("run -d --name box busybox sleep 600").ok();
    let made = host.api("POST", "/v1.51/containers/box/exec", &json!({ "Cmd": ["true"] })).expect(201).json();
    let path = format!("/v1.51/exec/{}/start", made["Id"].as_str().unwrap());
    host.connect().request("POST", &path, &[], b"").expect(200);
    let again = host.connect().request("POST", &path, &[], b"").expect(200);
    assert!(again.text().ends_with(" has already run\r\n"), "{}", again.text());
    host.api("POST", &path, &json!({ "Detach": true })).expect(409);
    // Nor twice at the same time.
    let write = json!({ "Cmd": ["sh", "-c", "echo run >>/count"], "AttachStdout": true });
    let made = host.api("POST", "/v1.51/containers/box/exec", &write).expect(201).json();
    let path = format!("/v1.51/exec/{}/start", made["Id"].as_str().unwrap());
    let refused = std::thread::scope(|scope| {
        let start = || {
            let answer = host.connect().request("POST", &path, &[], b"").expect(200).text();
            answer.contains(" is already running") || answer.contains(" has already run")
        };
        let starts: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
        starts.into_iter().filter_map(|start| start.join().ok()).filter(|refused| *refused).count()
    });
    host.docker("exec box cat /count").prints("run");
    assert_eq!(refused, 7);
}

/// A link has a name like a path, by which it can be removed and its source be found.
#[test]
fn links_have_names() {
    let host = Host::new();
    host.docker("run -d --name db busybox sleep 600").ok();
    host.docker("run -d --name web --link db:sql busybox sleep 600").ok();
    let source = host.api("GET", "/v1.51/containers/web/sql/json", &Value::Null).expect(200).json();
    assert_eq!(source["Name"], json!("/db"));
    host.docker("rm --link web/sql").prints("web/sql");
    host.docker("rm --link web/sql").exits(1);
    assert_eq!(host.inspect("web")["HostConfig"]["Links"], Value::Null);
    host.api("GET", "/v1.51/containers/web/sql/json", &Value::Null).expect(404);
}

#[test]
fn checkpoints_are_experimental() {
    let host = Host::new();
    host.docker("create --name idle busybox true").ok();
    let off = "This experimental feature is disabled by default. Start the Docker daemon in experimental mode in order to \
               enable it.";
    let null = Value::Null;
    check(
        &host,
        &[
            ("GET", "/containers/idle/checkpoints", null.clone(), 501, off),
            ("POST", "/containers/idle/checkpoints", json!({ "CheckpointID": "a" }), 501, off),
            ("DELETE", "/containers/idle/checkpoints/a", null.clone(), 501, off),
            (
                "POST",
                "/containers/idle/start?checkpoint=a",
                null,
                400,
                "checkpoint is only supported in experimental mode",
            ),
        ],
    );
}
