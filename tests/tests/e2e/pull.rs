//! `docker pull`, from a registry on the loopback address.

use serde_json::Value;
use wherry_tests::registry::{Mood, Registry};
use wherry_tests::{Host, poll};

/// A host with no image, and a registry on port 5000.
fn host_with_registry() -> (Host, Registry) {
    let host = Host::new();
    // The images of the tests have the same layer, which would not be fetched.
    host.docker("rmi busybox").ok();
    let registry = Registry::start(&host, 5000);
    (host, registry)
}

#[test]
fn pull_and_run() {
    let (host, registry) = host_with_registry();
    let digest = registry.add(&host, "team/app", "1", r#"{"Cmd":["echo","from the registry"]}"#);
    let name = "127.0.0.1:5000/team/app:1";
    let output = host.docker(&["pull", name]).ok();
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert_eq!(lines[0], "1: Pulling from team/app");
    assert!(lines[1].len() > 14 && lines[1].contains(": Pulling fs layer"), "{output}");
    assert!(lines.iter().any(|l| l.ends_with(": Pull complete")), "{output}");
    let end =
        [format!("Digest: {digest}"), format!("Status: Downloaded newer image for {name}"), name.to_owned()];
    assert_eq!(lines[lines.len() - 3..], end);
    let again = host.docker(&["pull", name]).ok();
    assert!(again.stdout.contains(&format!("Status: Image is up to date for {name}")), "{again}");
    host.docker(&["pull", "-q", name]).prints(name);
    host.docker(&["run", "--rm", name]).prints("from the registry");
    let image = host.inspect(name);
    assert_eq!(image["RepoDigests"], serde_json::json!([format!("127.0.0.1:5000/team/app@{digest}")]));

    let by_digest = format!("127.0.0.1:5000/team/app@{digest}");
    host.docker(&["rmi", name]).ok();
    host.docker(&["pull", "-q", &by_digest]).prints(&by_digest);
    host.docker(&["run", "--rm", &by_digest]).prints("from the registry");
    // What is not there is fetched by `run`.
    registry.add(&host, "other", "latest", r#"{"Cmd":["echo","fetched"]}"#);
    let run = host.docker("run --rm 127.0.0.1:5000/other").ok();
    assert!(
        run.out() == "fetched"
            && run.stderr.contains("Unable to find image '127.0.0.1:5000/other:latest' locally"),
        "{run}"
    );
    host.docker("run --rm --pull always 127.0.0.1:5000/other").prints("fetched");
}

#[test]
fn a_mirror_serves_short_names() {
    let host = Host::with_arguments(&["--registry-mirror", "http://127.0.0.1:5555"]);
    let registry = Registry::start(&host, 5555);
    registry.add(&host, "library/app", "latest", r#"{"Cmd":["echo","mirrored"]}"#);
    host.docker("pull -q app").prints("docker.io/library/app:latest");
    host.docker("run --rm app").prints("mirrored");
    assert!(registry.requests().iter().any(|r| r.contains("/v2/library/app/manifests/latest")));
    host.docker(&["images", "--format", "{{.Repository}}:{{.Tag}}", "app"]).prints("app:latest");
}

#[test]
fn what_is_not_there_is_named() {
    let (host, registry) = host_with_registry();
    registry.add(&host, "team/app", "1", "");
    host.docker("pull 127.0.0.1:5000/team/app:2")
        .fails(1, "manifest for 127.0.0.1:5000/team/app:2 not found: manifest unknown: manifest unknown");
    host.docker("pull 127.0.0.1:5001/team/app").fails(1, "connection refused");
    host.docker("pull UPPER").fails(1, "invalid reference format");
    // Nothing was sent yet, so the status is the error's.
    let answer = host
        .api("POST", "/v1.51/images/create?fromImage=127.0.0.1:5000/nosuch&tag=1", &Value::Null)
        .expect(404);
    assert!(answer.message().contains("not found: manifest unknown"), "{}", answer.text());
}

#[test]
fn progress_is_a_stream_of_objects() {
    let (host, registry) = host_with_registry();
    registry.add(&host, "team/app", "1", "");
    let answer = host
        .api("POST", "/v1.51/images/create?fromImage=127.0.0.1:5000/team/app&tag=1", &Value::Null)
        .expect(200);
    assert_eq!(answer.header("content-type"), "application/json");
    let text = answer.text();
    let records: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let of =
        |status: &str| records.iter().find(|r| r["status"].as_str().is_some_and(|s| s.starts_with(status)));
    assert_eq!(of("Pulling from team/app").unwrap()["id"], "1");
    assert_eq!(of("Pulling fs layer").unwrap()["id"].as_str().map(str::len), Some(12));
    let downloading = of("Downloading").unwrap();
    assert!(
        downloading["progressDetail"]["total"].as_i64() > Some(100_000)
            && downloading["progress"].is_string(),
        "{downloading}"
    );
    for status in [
        "Verifying Checksum",
        "Download complete",
        "Extracting",
        "Pull complete",
        "Digest: sha256:",
        "Status: Downloaded newer image",
    ] {
        assert!(of(status).is_some(), "{status}: {text}");
    }
}

#[test]
fn bad_layers_are_refused() {
    let (host, registry) = host_with_registry();
    registry.add(&host, "team/app", "1", "");
    registry.set_mood(Mood::Corrupt);
    host.docker("pull 127.0.0.1:5000/team/app:1")
        .fails(1, "filesystem layer verification failed for digest sha256:");
    host.docker("image inspect 127.0.0.1:5000/team/app:1").fails(1, "No such image");
    registry.set_mood(Mood::Honest);
    host.docker("pull -q 127.0.0.1:5000/team/app:1").ok();
}

#[test]
fn an_interrupted_pull_can_be_tried_again() {
    let (host, registry) = host_with_registry();
    registry.add(&host, "team/app", "1", r#"{"Cmd":["echo","whole"]}"#);
    registry.set_mood(Mood::Stuck);
    let client = host.docker_session("pull 127.0.0.1:5000/team/app:1");
    poll("the layer's request", 20, || {
        registry.requests().iter().filter(|r| r.starts_with("GET") && r.contains("/blobs/")).count() >= 2
    });
    drop(client);
    registry.set_mood(Mood::Honest);
    // A client that went away takes its pull along: nothing waits for the stuck one.
    host.docker("pull -q 127.0.0.1:5000/team/app:1").ok();
    host.docker("run --rm 127.0.0.1:5000/team/app:1").prints("whole");
}

#[test]
fn a_broken_connection_is_resumed() {
    let (host, registry) = host_with_registry();
    registry.add(&host, "team/app", "1", r#"{"Cmd":["echo","whole"]}"#);
    registry.set_mood(Mood::Broken);
    host.docker("pull -q 127.0.0.1:5000/team/app:1").ok();
    host.docker("run --rm 127.0.0.1:5000/team/app:1").prints("whole");
}
