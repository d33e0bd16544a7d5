//! Options of builds, each for what it does.

use std::fs;

use serde_json::Value;
use wherry_tests::distribution::Distribution;
use wherry_tests::{Host, Output, Session};

use super::{build, classic, dockerfile, has_not};
use crate::buildkit::has;

#[test]
fn names_ids_and_files() {
    let host = Host::new();
    let folder = host.folder_with(
        "n",
        &[("Dockerfile", "FROM nosuch\n"), ("other/File", "FROM busybox\nRUN echo x >/x\n")],
    );
    let at = folder.display();
    let file = host.folder().join("id");
    let line =
        format!("buildx build -q -f {at}/other/File -t one -t two:b --iidfile {} {at}", file.display());
    let printed = host.docker(&line).ok().out().to_owned();
    let id = host.inspect("one")["Id"].as_str().unwrap().to_owned();
    assert_eq!(printed, id);
    assert_eq!(fs::read_to_string(&file).unwrap().trim(), id);
    assert_eq!(host.inspect("two:b")["Id"], id.as_str());
    let line = format!("-q -f {at}/other/File -t three -t four:b --iidfile {}", file.display());
    let printed = classic(&host, &line, &folder, b"").ok().out().to_owned();
    let id = host.inspect("three")["Id"].as_str().unwrap().to_owned();
    assert_eq!((printed.as_str(), fs::read_to_string(&file).unwrap().trim()), (id.as_str(), id.as_str()));
    assert_eq!(host.inspect("four:b")["Id"], id.as_str());
}

#[test]
fn images_are_asked_for_again() {
    const NAME: &str = "127.0.0.1:5000/base";
    let host = Host::new();
    let registry = Distribution::start(&host, 5000);
    for version in ["old", "new"] {
        let text = format!("FROM busybox\nLABEL version={version}\n");
        dockerfile(&host, version, &format!("-t {version}"), &text).ok();
    }
    // The registry has another one than is here.
    for line in [
        format!("tag new {NAME}"),
        format!("push -q {NAME}"),
        format!("rmi {NAME} new"),
        format!("tag old {NAME}"),
    ] {
        host.docker(&line).ok();
    }
    let folder = host.folder_with("p", &[("Dockerfile", &format!("FROM {NAME}\nRUN true\n"))]);
    let version = || host.inspect("made")["Config"]["Labels"]["version"].clone();
    build(&host, "-t made", &folder).ok();
    assert_eq!(version(), "old");
    classic(&host, "-t made", &folder, b"").ok();
    assert_eq!(version(), "old");
    build(&host, "-t made --pull", &folder).ok();
    assert_eq!(version(), "new");
    host.docker(&format!("tag old {NAME}")).ok();
    classic(&host, "-t made --pull", &folder, b"").ok();
    assert_eq!(version(), "new");
    drop(registry);
}

/// BuildKit's clients have no such options.
#[test]
fn limits_of_the_classic_builder() {
    let host = Host::new();
    let text = "FROM busybox\nRUN cd /sys/fs/cgroup; echo has $(cat memory/memory.limit_in_bytes memory/memory.memsw.limit_in_bytes \
                cpu/cpu.shares cpu/cpu.cfs_period_us cpu/cpu.cfs_quota_us cpuset/cpuset.cpus cpuset/cpuset.mems)\n";
    let folder = host.folder_with("l", &[("Dockerfile", text)]);
    let options = "--no-cache --memory 64m --memory-swap 128m --cpu-shares 512 --cpu-period 50000 --cpu-quota 25000 \
                   --cpuset-cpus 0 --cpuset-mems 0";
    let told = classic(&host, options, &folder, b"").ok().stdout;
    has(&told, &["has 67108864 134217728 512 50000 25000 0 0"]);
}

#[test]
fn squash_is_for_experiments() {
    let host = Host::new();
    let folder = host.folder_with("s", &[("Dockerfile", "FROM busybox\nRUN true\n")]);
    // The client takes it away with a warning.
    let told = build(&host, "--squash", &folder).ok().stderr;
    has(&told, &["experimental flag squash is removed with BuildKit."]);
    let told = classic(&host, "--squash", &folder, b"");
    assert_ne!(told.code, 0, "{told}");
    assert!(told.stderr.contains("experimental"), "{told}");
}

#[test]
fn options_without_effect_are_taken() {
    let host = Host::new();
    let folder = host.folder_with("o", &[("Dockerfile", "FROM busybox\nRUN echo done\n")]);
    let told = classic(&host, "--no-cache --compress --rm=false --isolation default", &folder, b"").ok();
    assert!(told.stdout.contains("\ndone\n"), "{told}");
    assert_eq!(host.docker("ps -aq").ok().out().lines().count(), 1, "its container stays");
    has(&build(&host, "--no-cache --isolation default --compress --rm", &folder).ok().stderr, &[" done"]);
}

#[test]
fn progress_on_a_terminal() {
    let host = Host::new();
    let folder = host.folder_with("t", &[("Dockerfile", "FROM busybox\nRUN echo shown\n")]);
    let line = format!("buildx build --no-cache --progress tty {}", folder.display());
    let mut session: Session = host.docker_terminal(&line);
    session.expect("FINISHED");
    assert_eq!(session.wait_for_end(), 0);
}

#[test]
fn the_cache_is_in_system_df() {
    let host = Host::new();
    let cache = || {
        let all: Value = host.api("GET", "/system/df", &Value::Null).expect(200).json();
        all["BuildCache"].as_array().cloned().unwrap_or_default()
    };
    dockerfile(&host, "c", "", "FROM busybox\nRUN head -c 100000 /dev/zero >/large\n").ok();
    let found = cache();
    let of_step =
        found.iter().find(|record| record["Description"].as_str().unwrap_or_default().contains("/large"));
    let of_step = of_step.unwrap_or_else(|| panic!("{found:#?}"));
    assert_eq!(of_step["Type"], "regular");
    assert!(of_step["Size"].as_i64() >= Some(100_000), "{of_step:#}");
    host.docker("system df").contains("Build Cache");
    host.docker("builder prune -af").contains("Total");
    assert!(cache().is_empty());
}

#[test]
fn front_ends_are_built_in_or_refused() {
    let host = Host::new();
    if wherry_tests::engine::Binary::from_environment().is_reference() {
        // It would fetch them.
        return;
    }
    for name in ["docker/dockerfile:1", "docker/dockerfile:1.7-labs", "docker.io/docker/dockerfile:latest"] {
        let text = format!("# syntax={name}\nFROM busybox\nRUN echo built\n");
        has(&dockerfile(&host, "known", "", &text).ok().stderr, &[" built"]);
    }
    let text = "# syntax=example.com/other/frontend:2\nFROM busybox\nRUN echo built\n";
    let told = dockerfile(&host, "other", "", text).exits(1).stderr;
    has(
        &told,
        &[
            ">>> # syntax=example.com/other/frontend:2",
            "front end \"example.com/other/frontend:2\" is not supported by this engine: it has docker/dockerfile:1 built in",
        ],
    );
    has_not(&told, "[2/2] RUN");
    let told: Output =
        dockerfile(&host, "argument", "--build-arg BUILDKIT_SYNTAX=other/frontend", "FROM busybox\n");
    has(&told.exits(1).stderr, &["front end \"other/frontend\" is not supported by this engine"]);
}
