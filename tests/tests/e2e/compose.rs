//! Compose v2, the docker client's plugin, with projects of prebuilt images.

use std::fs;

use serde_json::{Value, json};
use wherry_tests::{Host, poll};

use crate::project::{FILE, Project};

#[test]
fn a_project_goes_up_and_down() {
    let host = Host::new();
    let project = Project::new(
        &host,
        "basic",
        r#"
services:
  web:
    image: busybox
    command: sh -c 'mkdir /www; echo page >/www/index.html; echo started; exec httpd -f -h /www'
    ports: ["18080:80", "80"]
    environment: {MODE: test}
    volumes: ["data:/data", "/anonymous"]
    stop_grace_period: 0s
  client:
    image: busybox
    command: sleep 600
    depends_on: [web]
    stop_grace_period: 0s
volumes:
  data:
    labels: {keep: "yes"}
"#,
    );
    let up = project.compose("up -d").ok();
    for text in [
        "Network basic_default  Creating",
        "Network basic_default  Created",
        "Volume basic_data  Created",
        "Container basic-web-1  Started",
        "Container basic-client-1  Started",
    ] {
        assert!(up.stderr.contains(text), "{text}: {up}");
    }
    project.compose("up -d").ok().stderr.contains("Container basic-web-1  Running").then_some(()).unwrap();
    let rows = project.compose("ps --format json").ok();
    let rows: Vec<Value> = rows.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let web = rows.iter().find(|row| row["Service"] == "web").unwrap();
    assert_eq!(
        (&web["Name"], &web["State"], &web["Image"]),
        (&"basic-web-1".into(), &"running".into(), &"busybox".into())
    );
    assert!(
        web["Publishers"]
            .as_array()
            .unwrap()
            .iter()
            .any(|p| p["PublishedPort"] == 18080 && p["TargetPort"] == 80),
        "{web}"
    );
    project.compose("port web 80").contains("0.0.0.0:18080");
    project.compose("exec -T client wget -qO- http://web").prints("page");
    project
        .compose("exec -T -e X=1 -u 7:8 -w /tmp client sh -c 'echo $X $(id -u):$(id -g) $(pwd)'")
        .prints("1 7:8 /tmp");
    project.compose("exec -T client sh -c 'exit 7'").exits(7);
    poll("the log", 10, || project.compose("logs --no-log-prefix web").ok().out() == "started");
    project.compose("logs web").contains("web-1  | started");
    project.compose("top client").contains("sleep 600");
    project.compose("images").contains("basic-web-1");
    project.compose("ls").contains("basic").contains("running(2)");
    project.compose("config --services").contains("web").contains("client");
    project.compose("config --hash web").contains("web ");
    project.compose("volumes").contains("basic_data");
    project.compose("pause client").ok();
    project.compose("ps").contains("(Paused)");
    project.compose("unpause client").ok();
    project.compose("run --rm --no-deps -T client echo one-off").prints("one-off");
    project.compose("run --rm -T -e A=b --entrypoint sh client -c 'echo $A'").prints("b");
    project.write("file", "copied\n");
    project.compose(&["cp", &project.folder.join("file").display().to_string(), "client:/tmp/file"]).ok();
    project.compose("cp client:/tmp/file -").contains("copied");
    project.compose("restart -t 0 client").ok();
    project.compose("stop -t 0").ok();
    project.compose("ps -a --format {{.State}}").contains("exited");
    project.compose("start").ok();
    project.compose("kill client").ok();
    project.compose("ps -a --format {{.ExitCode}} client").prints("137");
    project.compose("rm -sf client").ok();
    project.compose("ps -aq client").prints("");
    let down = project.compose("down -v").ok();
    for text in
        ["Container basic-web-1  Removed", "Volume basic_data  Removed", "Network basic_default  Removed"]
    {
        assert!(down.stderr.contains(text), "{text}: {down}");
    }
    host.docker("volume ls -q").prints("");
}

#[test]
fn only_what_changed_is_made_again() {
    let host = Host::new();
    let yaml = |value: &str| {
        format!(
            "services:
  one: {{image: busybox, command: sleep 600, stop_grace_period: 0s, environment: {{V: {value}}}}}
  two: {{image: busybox, command: sleep 600, stop_grace_period: 0s, volumes: [/kept], networks: [side]}}
networks: {{side: {{labels: {{a: b}}}}}}
"
        )
    };
    let project = Project::new(&host, "change", &yaml("first"));
    project.compose("up -d").ok();
    let before = (project.id("one"), project.id("two"));
    project.compose("up -d").ok();
    assert_eq!((project.id("one"), project.id("two")), before, "nothing changed");
    project.write(FILE, &yaml("second"));
    project.compose("up -d").ok();
    let after = (project.id("one"), project.id("two"));
    assert_ne!(after.0, before.0, "its environment changed");
    assert_eq!(after.1, before.1, "it did not change");
    project.compose("exec -T one sh -c 'echo $V'").prints("second");
    // An anonymous volume moves to the new container.
    project.compose("exec -T two touch /kept/file").ok();
    project.compose("up -d --force-recreate two").ok();
    assert_ne!(project.id("two"), after.1);
    project.compose("exec -T two ls /kept").prints("file");
    project.compose("up -d -V --force-recreate two").ok();
    project.compose("exec -T two ls /kept").prints("");
    project.down();
}

#[test]
fn scale_and_what_a_service_may_take() {
    let host = Host::new();
    let project = Project::new(
        &host,
        "many",
        "services:
  one:
    image: busybox
    command: sleep 600
    stop_grace_period: 0s
    deploy: {replicas: 2, resources: {limits: {cpus: '0.5', memory: 64M, pids: 50}, reservations: {memory: 32M}}}
",
    );
    project.compose("up -d").ok();
    let limits = host.inspect("many-one-1")["HostConfig"].clone();
    assert_eq!(
        json!([limits["NanoCpus"], limits["Memory"], limits["PidsLimit"], limits["MemoryReservation"]]),
        json!([500_000_000, 67_108_864, 50, 33_554_432])
    );
    project.compose("scale one=3").ok();
    assert_eq!(project.compose("ps -q one").ok().stdout.lines().count(), 3);
    project.compose("exec -T --index 3 one hostname").ok();
    project.compose("up -d --scale one=1").ok();
    project.compose("ps --format {{.Name}}").prints("many-one-1");
    project.down();
}

#[test]
fn a_service_waits_for_those_it_depends_on() {
    let host = Host::new();
    let project = Project::new(
        &host,
        "order",
        r#"
services:
  slow:
    image: busybox
    command: sh -c 'sleep 1; touch /ready; exec sleep 600'
    healthcheck: {test: [CMD, test, -e, /ready], interval: 200ms, retries: 100}
    stop_grace_period: 0s
  setup:
    image: busybox
    command: touch /shared/done
    volumes: ["shared:/shared"]
    depends_on: {slow: {condition: service_healthy}}
  main:
    image: busybox
    command: sh -c 'ls /shared; exec sleep 600'
    volumes: ["shared:/shared"]
    stop_grace_period: 0s
    depends_on:
      slow: {condition: service_healthy}
      setup: {condition: service_completed_successfully}
  fails:
    image: busybox
    command: "false"
    profiles: [broken]
  never:
    image: busybox
    profiles: [broken]
    depends_on: {fails: {condition: service_completed_successfully}}
volumes: {shared: {}}
"#,
    );
    let up = project.compose("up -d").ok();
    assert!(up.stderr.contains("Container order-slow-1  Healthy"), "{up}");
    assert!(up.stderr.contains("Container order-setup-1  Exited"), "{up}");
    poll("the log", 10, || project.compose("logs --no-log-prefix main").ok().out() == "done");
    // A profile's services are made when it is asked for.
    project.compose("ps -aq never").prints("");
    let refused = project.compose("--profile broken up -d never");
    let refused = refused.fails(1, "service \"fails\" didn't complete successfully: exit 1");
    drop(refused);
    project.compose("--profile broken wait fails").exits(1);
    project.compose("--profile broken down -v -t 0").ok();
    host.docker("ps -aq").prints("");
}

#[test]
fn the_front_ends_on_its_first_end_and_takes_the_rest_along() {
    let host = Host::new();
    let project = Project::new(
        &host,
        "front",
        "services:
  job: {image: busybox, command: sh -c 'echo working; exit 5'}
  helper: {image: busybox, command: sleep 600, stop_grace_period: 0s}
",
    );
    let ended = project.compose("up --exit-code-from job").exits(5);
    assert!(ended.stdout.contains("job-1  | working"), "{ended}");
    assert!(ended.stdout.contains("job-1 exited with code 5"), "{ended}");
    project.compose("ps -a --format {{.State}}").prints("exited\nexited");
    project.down();
}

#[test]
fn secrets_configs_and_extends() {
    let host = Host::new();
    let project = Project::new(
        &host,
        "files",
        r#"
services:
  base:
    image: busybox
    command: sleep 600
    environment: [FROM=base]
    labels: {origin: base}
    stop_grace_period: 0s
    profiles: [none]
  derived:
    extends: {service: base}
    profiles: !reset []
    environment: [OWN=1]
    secrets:
      - token
      - {source: token, target: /etc/other}
    configs:
      - {source: settings, target: /etc/settings}
      - {source: written, target: /written}
    tmpfs: ["/scratch:size=1m"]
    sysctls: {net.ipv4.ip_unprivileged_port_start: 0}
    ulimits: {nofile: {soft: 100, hard: 200}}
    extra_hosts: ["somewhere:10.1.2.3"]
    dns: 192.0.2.1
    hostname: named
    init: true
    user: "5"
    cap_drop: [ALL]
    security_opt: ["no-new-privileges:true"]
secrets: {token: {file: ./token}}
configs:
  settings: {file: ./settings}
  written: {content: "by ${COMPOSE_PROJECT_NAME}"}
"#,
    );
    project.write("token", "s3cret");
    project.write("settings", "a=1");
    project.compose("up -d").ok();
    project
        .compose("exec -T derived cat /run/secrets/token /etc/other /etc/settings")
        .prints("s3crets3creta=1");
    project.compose("exec -T derived cat /written").prints("by files");
    project
        .compose("exec -T derived sh -c 'echo $FROM $OWN $(hostname) $(id -u) $(ulimit -n)'")
        .prints("base 1 named 5 100");
    project.compose("exec -T derived grep somewhere /etc/hosts").contains("10.1.2.3");
    project.compose("exec -T derived touch /x").fails(1, "Permission denied");
    project.compose("exec -T derived touch /scratch/x").ok();
    project.compose("exec -T derived cat /proc/1/comm").ok();
    assert_eq!(host.inspect("files-derived-1")["Config"]["Labels"]["origin"], "base");
    project.down();
}

#[test]
fn networks_with_names_and_addresses() {
    let host = Host::new();
    let project = Project::new(
        &host,
        "nets",
        r#"
services:
  a:
    image: busybox
    command: sleep 600
    stop_grace_period: 0s
    networks:
      front: {aliases: [first, uno], ipv4_address: 10.77.0.10}
      back: {}
  b:
    image: busybox
    command: sleep 600
    stop_grace_period: 0s
    networks: [front]
  c:
    image: busybox
    command: sleep 600
    stop_grace_period: 0s
    networks: [back]
  shares:
    image: busybox
    command: sleep 600
    stop_grace_period: 0s
    network_mode: service:a
networks:
  front:
    ipam: {config: [{subnet: 10.77.0.0/24, gateway: 10.77.0.254}]}
    labels: {made: by-test}
  back: {internal: true, name: own-name}
"#,
    );
    project.compose("up -d").ok();
    project.compose("exec -T b ping -c 1 -W 5 uno").contains("10.77.0.10");
    project.compose("exec -T b ping -c 1 -W 5 first").contains("10.77.0.10");
    project.compose("exec -T c ping -c 1 -W 5 a").contains("1 packets received");
    project.compose("exec -T c ping -c 1 -W 1 b").exits(1);
    project.compose("exec -T shares ip -o -4 addr").contains("10.77.0.10");
    let front = host.inspect("nets_front");
    assert_eq!(front["IPAM"]["Config"][0]["Gateway"], "10.77.0.254");
    assert_eq!(front["Labels"]["made"], "by-test");
    assert_eq!(host.inspect("own-name")["Internal"], true);
    // Nothing is made again.
    let before = project.id("a");
    project.compose("up -d").ok();
    assert_eq!(project.id("a"), before);
    project.down();
    host.docker("network ls -q --filter name=nets_front --filter name=own-name").prints("");
}

#[test]
fn events_tell_of_the_project() {
    let host = Host::new();
    let project = Project::new(
        &host,
        "told",
        "services: {one: {image: busybox, command: sleep 600, stop_grace_period: 0s}}\n",
    );
    let words = project.line("events --json");
    let events = host.docker_session(words.iter().map(String::as_str).collect::<Vec<_>>().as_slice());
    // Nothing says when it listens.
    poll("an event", 30, || {
        project.compose("up -d --force-recreate").ok();
        events.text().contains("\"action\":\"start\"")
    });
    project.compose("kill").ok();
    poll("the end", 10, || events.text().contains("\"action\":\"die\""));
    assert!(events.text().contains("\"service\":\"one\""), "{}", events.text());
    drop(events);
    project.down();
}

#[test]
fn watch_brings_changed_files_into_the_container() {
    let host = Host::new();
    let project = Project::new(
        &host,
        "watched",
        r#"
services:
  app:
    image: busybox
    build: {context: ., dockerfile_inline: "FROM busybox"}
    command: sleep 600
    stop_grace_period: 0s
    develop:
      watch:
        - {action: sync, path: ./src, target: /src}
        - {action: sync+restart, path: ./settings, target: /settings}
"#,
    );
    fs::create_dir_all(project.folder.join("src")).unwrap();
    project.write("src/one", "before\n");
    project.write("settings", "1\n");
    project.compose("up -d --no-build").ok();
    let words = project.line("watch --no-up");
    let mut watch = host.docker_session(words.iter().map(String::as_str).collect::<Vec<_>>().as_slice());
    watch.expect("Watch enabled");
    project.write("src/one", "after\n");
    poll("the first file", 30, || host.docker("exec watched-app-1 cat /src/one").out() == "after");
    fs::create_dir_all(project.folder.join("src/deep")).unwrap();
    project.write("src/deep/two", "nested\n");
    poll("a new folder's file", 30, || host.docker("exec watched-app-1 cat /src/deep/two").out() == "nested");
    fs::remove_file(project.folder.join("src/one")).unwrap();
    poll("the file's removal", 30, || host.docker("exec watched-app-1 test -e /src/one").code == 1);
    let started = host.inspect("watched-app-1")["State"]["StartedAt"].clone();
    project.write("settings", "2\n");
    poll("the restart", 60, || host.inspect("watched-app-1")["State"]["StartedAt"] != started);
    host.docker("exec watched-app-1 cat /settings").prints("2");
    drop(watch);
    project.down();
}
