//! `docker events`: what happens, in which order.

use wherry_tests::Host;

/// All events so far, in this format. The client knows whole seconds only: it waits for the next one.
pub(crate) fn events(host: &Host, format: &str, filters: &[&str]) -> String {
    let now = std::time::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_secs());
    let until = (now + 1).to_string();
    let mut line = vec!["events", "--since", "2020-01-01", "--until", &until, "--format", format];
    for filter in filters {
        line.extend(["--filter", filter]);
    }
    host.docker(line.as_slice()).ok().out().to_owned()
}

/// The actions of one container since the beginning.
fn actions(host: &Host, name: &str) -> Vec<String> {
    let filter = format!("container={name}");
    events(host, "{{.Action}}", &["type=container", &filter]).lines().map(str::to_owned).collect()
}

#[test]
fn sequences() {
    let host = Host::new();
    let cases: &[(&str, &[&str], &[&str])] = &[
        ("plain", &["run --name plain busybox true"], &["create", "attach", "start", "die"]),
        ("auto", &["run --rm --name auto busybox true"], &["create", "attach", "start", "die", "destroy"]),
        (
            "detached",
            &["run -d --name detached busybox sleep 9", "rm -f detached"],
            &["create", "start", "kill", "die", "destroy"],
        ),
        (
            "stopped",
            &[
                "run -d --name stopped busybox sleep 600",
                "stop -t 0 stopped",
                "start stopped",
                "restart -t 0 stopped",
            ],
            // (SIGTERM, and SIGKILL when its time is over)
            &[
                "create", "start", "kill", "kill", "die", "stop", "start", "kill", "kill", "die", "stop",
                "start", "restart",
            ],
        ),
        (
            "killed",
            &["run -d --name killed busybox sleep 600", "kill killed"],
            &["create", "start", "kill", "die"],
        ),
        (
            "paused",
            &["run -d --name paused busybox sleep 600", "pause paused", "unpause paused"],
            &["create", "start", "pause", "unpause"],
        ),
        (
            "execd",
            &["run -d --name execd busybox sleep 600", "exec execd true"],
            &["create", "start", "exec_create: true ", "exec_start: true ", "exec_die"],
        ),
    ];
    for (name, commands, expected) in cases {
        for command in *commands {
            host.docker(*command).ok();
        }
        let got = actions(&host, name);
        // dockerd's two last events of a stop come in either order.
        let sorted = |list: &[String]| {
            let mut list = list.to_vec();
            for i in 1..list.len() {
                if list[i - 1] == "stop" && list[i] == "die" {
                    list.swap(i - 1, i);
                }
            }
            list
        };
        assert_eq!(sorted(&got), *expected, "{name}");
    }
}

#[test]
fn attributes_and_formats() {
    let host = Host::new();
    host.docker("run --name box --label color=red busybox sh -c 'exit 3'").exits(3);
    let line = |format: &str, filters: &[&str]| events(&host, format, filters);
    let attributes = "{{.Actor.Attributes.name}} {{.Actor.Attributes.image}} {{.Actor.Attributes.exitCode}} {{.Actor.Attributes.color}}";
    assert_eq!(line(attributes, &["event=die"]), "box busybox 3 red");
    assert_eq!(line("{{.Action}}", &["label=color=red", "event=start"]), "start");
    assert_eq!(line("{{.Action}}", &["label=color=blue"]), "");
    assert_eq!(line("{{.Type}} {{.Action}}", &["type=image"]), "image load");
    let networks = line("{{.Action}} {{.Actor.Attributes.name}}", &["type=network", "network=bridge"]);
    assert_eq!(networks, "connect bridge\ndisconnect bridge");
    let record: serde_json::Value =
        serde_json::from_str(&line("{{json .}}", &["event=create", "type=container"])).unwrap();
    assert!(
        record["timeNano"].is_i64() && record["scope"] == "local" && record["id"] == record["Actor"]["ID"],
        "{record}"
    );
}

#[test]
fn followers_see_events_as_they_come() {
    let host = Host::new();
    let mut follower =
        host.docker_session(&["events", "--filter", "type=container", "--format", "<{{.Action}}>"]);
    // It is not told when it is ready: make events until one is seen.
    wherry_tests::poll("an event", 20, || {
        host.docker("run --rm busybox true").ok();
        follower.text().contains("<destroy>")
    });
    host.docker("create --name late busybox true").ok();
    host.docker("rm late").ok();
    follower.expect("<destroy>");
}

#[test]
fn networks_volumes_and_images_have_events() {
    let host = Host::new();
    host.docker("network create nn").ok();
    host.docker("volume create vv").ok();
    host.docker("tag busybox other").ok();
    host.docker("rmi other").ok();
    host.docker("run --rm -v vv:/v --network nn busybox true").ok();
    host.docker("volume rm vv").ok();
    host.docker("network rm nn").ok();
    for (kind, expected) in [
        ("network", "create connect disconnect destroy"),
        ("volume", "create mount unmount destroy"),
        ("image", "load tag untag"),
    ] {
        let got = events(&host, "{{.Action}}", &[&format!("type={kind}")]).replace('\n', " ");
        assert_eq!(got, expected, "{kind}");
    }
}
