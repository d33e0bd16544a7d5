//! Health checks.

use wherry_tests::engine::Binary;
use wherry_tests::{Host, poll};

fn health(host: &Host, name: &str) -> String {
    host.inspect(name)["State"]["Health"]["Status"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_probe_decides() {
    let host = Host::new();
    let options = "--health-cmd 'echo probing; test -e /ok' --health-interval 300ms --health-retries 2 --health-start-period 0s";
    host.docker(&format!("run -d --name box {options} busybox sleep 600")).ok();
    assert_eq!(health(&host, "box"), "starting");
    poll("unhealthy", 20, || health(&host, "box") == "unhealthy");
    host.docker("exec box touch /ok").ok();
    poll("healthy", 20, || health(&host, "box") == "healthy");
    host.docker(&["ps", "--format", "{{.Status}}"]).contains("(healthy)");
    host.docker(&["ps", "--format", "{{.Names}}", "--filter", "health=healthy"]).prints("box");
    let state = host.inspect("box")["State"]["Health"].take();
    assert_eq!(state["FailingStreak"], 0);
    let last = state["Log"].as_array().and_then(|log| log.last().cloned()).unwrap();
    assert_eq!((&last["ExitCode"], &last["Output"]), (&0.into(), &"probing\n".into()));
    let since =
        ["events", "--since", "2020-01-01", "--filter", "event=health_status", "--format", "{{.Action}}"];
    let mut events = host.docker_session(&since);
    events.expect("health_status: unhealthy").expect("health_status: healthy");
}

#[test]
fn a_probe_that_hangs_is_ended() {
    let host = Host::new();
    let options = "--health-cmd 'sleep 77' --health-interval 200ms --health-timeout 300ms --health-retries 1";
    host.docker(&format!("run -d --name box {options} busybox sleep 600")).ok();
    poll("unhealthy", 20, || health(&host, "box") == "unhealthy");
    let log = host.inspect("box")["State"]["Health"]["Log"].take();
    assert_eq!(log[0]["ExitCode"], -1);
    assert!(
        log[0]["Output"].as_str().is_some_and(|o| o.contains("Health check exceeded timeout (300ms)")),
        "{log}"
    );
    host.docker("stop -t 0 box").ok();
    assert_eq!(health(&host, "box"), "unhealthy");
}

#[test]
fn the_images_probe_can_be_refused() {
    let host = Host::new();
    host.load_image("probed:1", r#"{"Cmd":["sleep","600"],"Healthcheck":{"Test":["CMD","test","-e","/with space"],"Interval":200000000}}"#);
    host.docker("run -d --name on probed:1").ok();
    host.docker("run -d --name off --no-healthcheck probed:1").ok();
    host.docker("run -d --name plain busybox sleep 600").ok();
    host.docker("exec on touch '/with space'").ok();
    poll("healthy", 20, || health(&host, "on") == "healthy");
    for name in ["off", "plain"] {
        assert!(host.inspect(name)["State"]["Health"].is_null(), "{name}");
    }
}

#[test]
fn an_unhealthy_container_is_restarted_if_it_asks_for_that() {
    // Beyond dockerd.
    if Binary::from_environment().is_reference() {
        return;
    }
    let host = Host::new();
    host.load_image("asks:1", r#"{"Cmd":["sleep","600"],"Labels":{"io.wherry.restart-unhealthy":"true"}}"#);
    let options =
        "--health-cmd 'test ! -e /sick' --health-interval 200ms --health-retries 1 --stop-timeout 0";
    host.docker(&format!(
        "run -d --name asks --annotation io.wherry.restart-unhealthy=true {options} busybox sleep 600"
    ))
    .ok();
    host.docker(&format!("run -d --name stays {options} asks:1")).ok();
    for name in ["asks", "stays"] {
        poll("healthy", 20, || health(&host, name) == "healthy");
        host.docker(&["exec", name, "touch", "/sick"]).ok();
    }
    // Also while no engine is there.
    host.kill();
    host.start();
    poll("a restart", 20, || host.inspect("asks")["RestartCount"].as_u64() >= Some(1));
    assert_eq!(host.inspect("stays")["RestartCount"], 0, "an image cannot ask for it");
    poll("unhealthy", 20, || health(&host, "stays") == "unhealthy");
    // The user's wish comes first.
    host.docker("stop asks").ok();
    assert_eq!(host.inspect("asks")["State"]["Status"], "exited");
}
