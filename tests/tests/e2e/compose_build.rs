//! Compose, both programs, with projects that build their images, and with a registry.

use std::fs;
use std::path::Path;

use wherry_tests::distribution::Distribution;
use wherry_tests::{Host, Output, poll};

/// Runs `docker compose LINE` in a folder.
fn compose(host: &Host, folder: &Path, line: &str) -> Output {
    let mut command = host.docker_command(&format!("compose --ansi never --progress plain {line}"));
    command.current_dir(folder);
    Output::of(command)
}

/// Runs `docker-compose LINE` in a folder, with the builder of old.
fn old_compose(host: &Host, folder: &Path, line: &str) -> Output {
    let mut command = host.client_command("docker-compose", line);
    command.current_dir(folder);
    command
        .env("DOCKER_BUILDKIT", "0")
        .env("COMPOSE_DOCKER_CLI_BUILD", "0")
        .env("COMPOSE_INTERACTIVE_NO_CLI", "1");
    Output::of(command)
}

const DOCKERFILE: &str = "FROM busybox AS base
ARG WHO=nobody
ENV WHO=$WHO
COPY page /page
FROM base AS dev
RUN echo dev >/stage
FROM base AS final
RUN echo final >/stage
CMD [\"sh\", \"-c\", \"echo $WHO $(cat /stage) $(cat /page); exec sleep 600\"]
";

#[test]
fn images_are_built_and_built_again_where_files_changed() {
    let host = Host::new();
    let folder = host.folder_with(
        "made",
        &[
            ("app/Dockerfile", DOCKERFILE),
            ("app/page", "one\n"),
            (
                "compose.yaml",
                r#"
services:
  app:
    build: {context: ./app, args: {WHO: compose}, labels: {made: here}}
    stop_grace_period: 0s
  dev:
    image: named/dev:1
    build: {context: ./app, target: dev}
    command: cat /stage
  inline:
    build:
      context: ./app
      dockerfile_inline: |
        FROM busybox
        COPY page /inline
        CMD cat /inline
"#,
            ),
        ],
    );
    compose(&host, &folder, "build").ok();
    let image = host.inspect("made-app");
    assert_eq!(image["Config"]["Labels"]["made"], "here", "{image}");
    let up = compose(&host, &folder, "up -d").ok();
    assert!(!up.stderr.contains("Built"), "they are there: {up}");
    let says = |service: &str, text: &str| {
        let line = format!("logs --no-log-prefix {service}");
        poll(text, 20, || compose(&host, &folder, &line).ok().out() == text);
    };
    says("app", "compose final one");
    says("dev", "dev");
    says("inline", "one");
    let before = compose(&host, &folder, "ps -q app").ok().stdout;
    fs::write(folder.join("app/page"), "two\n").unwrap();
    compose(&host, &folder, "up -d --build app").ok();
    assert_ne!(compose(&host, &folder, "ps -q app").ok().stdout, before, "its image is another");
    says("app", "compose final two");
    // Nothing changed: nothing is made again.
    let before = compose(&host, &folder, "ps -q app").ok().stdout;
    compose(&host, &folder, "up -d --build app").ok();
    assert_eq!(compose(&host, &folder, "ps -q app").ok().stdout, before);
    compose(&host, &folder, "build --build-arg WHO=argument --no-cache app").ok();
    compose(&host, &folder, "run --rm -T app sh -c 'echo $WHO'").prints("argument");
    compose(&host, &folder, "down --rmi local -t 0").ok();
    host.docker("image inspect made-app").fails(1, "No such image");
}

#[test]
fn a_build_that_fails_fails_the_project() {
    let host = Host::new();
    let folder = host.folder_with(
        "broken",
        &[
            ("Dockerfile", "FROM busybox\nRUN echo before && exit 9\n"),
            ("compose.yaml", "services: {app: {build: .}}\n"),
        ],
    );
    let failed = compose(&host, &folder, "up -d");
    assert!(failed.code != 0 && failed.stderr.contains("exit code: 9"), "{failed}");
    host.docker("ps -aq").prints("");
}

#[test]
fn watch_builds_again() {
    let host = Host::new();
    let folder = host.folder_with("rebuilt",
        &[
            ("Dockerfile", "FROM busybox\nCOPY page /page\nCMD sleep 600\n"),
            ("page", "one\n"),
            (
                "compose.yaml",
                "services: {app: {build: ., stop_grace_period: 0s, develop: {watch: [{action: rebuild, path: ./page}]}}}\n",
            ),
        ],
    );
    compose(&host, &folder, "up -d --build").ok();
    let mut command = host.docker_command("compose --ansi never --progress plain watch --no-up");
    command.current_dir(&folder);
    let mut watch = wherry_tests::Session::on_pipes(command);
    watch.expect("Watch enabled");
    fs::write(folder.join("page"), "two\n").unwrap();
    poll("the new container", 60, || host.docker("exec rebuilt-app-1 cat /page").out() == "two");
    drop(watch);
    compose(&host, &folder, "down -t 0").ok();
}

#[test]
fn images_go_to_a_registry_and_come_back() {
    let host = Host::new();
    let registry = Distribution::start(&host, 5000);
    let yaml = format!(
        "services: {{app: {{image: '{}/team/app:1', build: ., command: echo ran}}}}",
        registry.address()
    );
    let files = [("compose.yaml", yaml.as_str()), ("Dockerfile", "FROM busybox\nLABEL a=b\n")];
    let folder = host.folder_with("pushed", &files);
    compose(&host, &folder, "build").ok();
    compose(&host, &folder, "push").ok();
    host.docker(&format!("rmi {}/team/app:1", registry.address())).ok();
    compose(&host, &folder, "pull").ok();
    assert_eq!(host.inspect(&format!("{}/team/app:1", registry.address()))["Config"]["Labels"]["a"], "b");
    compose(&host, &folder, "up --no-build").contains("app-1  | ran");
    compose(&host, &folder, "down -t 0").ok();
}

#[test]
fn the_old_program_builds_too() {
    let host = Host::new();
    let folder = host.folder_with("elder",
        &[
            ("app/Dockerfile", DOCKERFILE),
            ("app/page", "one\n"),
            (
                "docker-compose.yml",
                "version: '3.8'\nservices:\n  app:\n    build: {context: ./app, args: {WHO: compose}}\n  dev:\n    build: {context: ./app, target: dev}\n    command: cat /stage\n",
            ),
        ],
    );
    let built = old_compose(&host, &folder, "build").ok();
    assert!(built.stdout.contains("Successfully tagged elder_app:latest"), "{built}");
    let again = old_compose(&host, &folder, "build").ok();
    assert!(again.stdout.contains(" ---> Using cache"), "{again}");
    old_compose(&host, &folder, "up -d").ok();
    poll("the log", 20, || {
        old_compose(&host, &folder, "logs --no-color app").ok().stdout.contains("| compose final one")
    });
    fs::write(folder.join("app/page"), "two\n").unwrap();
    old_compose(&host, &folder, "build app").ok();
    old_compose(&host, &folder, "run --rm --no-deps app sh -c 'sleep 1; cat /page'").contains("two");
    old_compose(&host, &folder, "down --rmi all -t 0").ok();
}
