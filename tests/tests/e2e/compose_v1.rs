//! docker-compose 1.29, the program in Python, with projects of prebuilt images. It looks at the API in its own way:
//! long polls, `attach` for logs, configuration hashes in labels, links.

use wherry_tests::{Host, poll};

use crate::project::Project;

#[test]
fn the_first_format_with_links_and_one_bridge() {
    let host = Host::new();
    let project = Project::new(
        &host,
        "old",
        "store:
  image: busybox
  command: sleep 600
  environment: {PASSWORD: secret}
  expose: ['6379']
web:
  image: busybox
  command: sleep 600
  links: ['store:db']
  ports: ['18081:80']
  volumes: ['/kept']
",
    );
    let up = project.old_compose("up -d").ok();
    for text in ["Creating old_store_1 ...", "Creating old_web_1   ...", "done"] {
        assert!(up.stderr.contains(text), "{text}: {up}");
    }
    project
        .old_compose("exec -T web sh -c 'echo $DB_ENV_PASSWORD $DB_PORT_6379_TCP_PORT'")
        .prints("secret 6379");
    project.old_compose("exec -T web grep -c db /etc/hosts").ok();
    project.old_compose("port web 80").prints("0.0.0.0:18081");
    project.old_compose("up -d").ok().stderr.contains("old_web_1 is up-to-date").then_some(()).unwrap();
    project.old_compose("scale store=2").ok();
    host.docker("ps --filter name=old_store_2 --format {{.Names}}").prints("old_store_2");
    project.old_compose("ps").contains("old_web_1").contains("0.0.0.0:18081->80/tcp");
    // It attaches after the start.
    project.old_compose("run --rm --no-deps web sh -c 'sleep 1; echo one-off'").contains("one-off");
    // Not both at once: who is linked must run when the other starts.
    project.old_compose("restart -t 0 web").ok();
    project.old_compose("kill").ok();
    project.old_compose("ps").contains("Exit 137");
    project.old_compose("start").ok();
    project.old_compose("down -t 0 -v").ok();
    host.docker("ps -aq").prints("");
}

#[test]
fn a_project_with_its_own_network() {
    let host = Host::new();
    let project = Project::new(
        &host,
        "new",
        r#"version: "3.8"
services:
  one:
    image: busybox
    command: sh -c 'echo said; exec sleep 600'
    volumes: ["data:/data", "/kept"]
    networks: {default: {aliases: [uno]}}
    healthcheck: {test: ["CMD", "true"], interval: 200ms}
    logging: {driver: json-file, options: {max-size: 1m}}
  two:
    image: busybox
    command: sleep 600
    depends_on: [one]
volumes: {data: {}}
"#,
    );
    let up = project.old_compose("up -d").ok();
    for text in [
        "Creating network \"new_default\" with the default driver",
        "Creating volume \"new_data\" with default driver",
    ] {
        assert!(up.stderr.contains(text), "{text}: {up}");
    }
    project.old_compose("exec -T two ping -c 1 -W 5 uno").contains("1 packets received");
    poll("the log", 10, || project.old_compose("logs --no-color one").ok().stdout.contains("| said"));
    poll("health", 20, || project.old_compose("ps one").ok().stdout.contains("Up (healthy)"));
    // Nothing changed. (What did change this program cannot make again, with dockerd 28 as with us: it wants
    // a field of images, ContainerConfig, that the API has no more.)
    let before = (project.id("one"), project.id("two"));
    project.old_compose("up -d").ok();
    assert_eq!((project.id("one"), project.id("two")), before);
    project.old_compose("top two").contains("sleep 600");
    project.old_compose("images").contains("new_one_1");
    project.old_compose("pause two").ok();
    project.old_compose("ps two").contains("Paused");
    project.old_compose("unpause two").ok();
    project.old_compose("config --services").contains("two");
    project.old_compose("exec -T two sh -c 'exit 3'").exits(3);
    project.old_compose("stop -t 0").ok();
    project.old_compose("rm -f two").ok();
    let down = project.old_compose("down -v -t 0").ok();
    for text in ["Removing new_one_1 ...", "Removing network new_default", "Removing volume new_data"] {
        assert!(down.stderr.contains(text), "{text}: {down}");
    }
    host.docker("volume ls -q").prints("");
}

#[test]
fn in_the_front_until_one_ends() {
    let host = Host::new();
    let project = Project::new(
        &host,
        "front",
        "version: '2.4'
services:
  job: {image: busybox, command: sh -c 'sleep 1; echo working; exit 4'}
  helper: {image: busybox, command: sleep 600, stop_grace_period: 0s, mem_limit: 32m, cpus: 0.5}
",
    );
    let ended = project.old_compose("--no-ansi up --exit-code-from job").exits(4);
    assert!(ended.stdout.contains("working"), "{ended}");
    assert!(ended.stdout.contains("front_job_1 exited with code 4"), "{ended}");
    assert_eq!(host.inspect("front_helper_1")["HostConfig"]["Memory"], 33_554_432);
    project.old_compose("down -t 0").ok();
}
