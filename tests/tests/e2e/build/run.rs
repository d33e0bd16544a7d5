//! RUN by the classic builder.

use serde_json::{Value, json};
use wherry_tests::engine::Binary;
use wherry_tests::{Host, poll};

use super::{build, context, failure, messages, output, text};

#[test]
fn a_program_that_fails_ends_the_build() {
    let host = Host::new();
    let answer = build(&host, "", "FROM busybox\nRUN echo a; exit 3\nRUN true\n").expect(200);
    let message = "The command '/bin/sh -c echo a; exit 3' returned a non-zero code: 3";
    assert_eq!(failure(&answer), (message.to_owned(), json!(3)));
    assert!(text(&answer).ends_with(" ---> Running in ID\na\n"), "{}", text(&answer));
    assert_eq!(host.docker("ps -aq").ok().out().lines().count(), 1, "its container stays");
    let answer = build(&host, "forcerm=1", "FROM busybox\nRUN echo a; exit 3\n").expect(200);
    assert!(messages(&answer).iter().any(|m| m.contains("Removed intermediate container ID")));
    assert_eq!(host.docker("ps -aq").ok().out().lines().count(), 1);
    let answer = build(&host, "", "FROM busybox\nRUN [\"nosuchcommand\"]\n").expect(200);
    let (error, code) = failure(&answer);
    assert!(error.ends_with("exec: \"nosuchcommand\": executable file not found in $PATH"), "{error}");
    assert_eq!(code, Value::Null);
    let answer = build(&host, "", "FROM busybox\nUSER nosuch\nRUN true\n").expect(200);
    assert_eq!(failure(&answer).0, "unable to find user nosuch: no matching entries in passwd file");
    let answer = build(&host, "networkmode=nosuch", "FROM busybox\nRUN true\n").expect(200);
    assert_eq!(failure(&answer).0, "failed to set up container networking: network nosuch not found");
}

#[test]
fn a_program_has_what_the_build_gives_it() {
    let host = Host::new();
    let dockerfile = "FROM busybox\nARG A=a\nENV E=e\nUSER 5:6\nWORKDIR /tmp/w\nRUN echo $A$E $(id -u):$(id -g) $(pwd)\n\
                      USER 0\nRUN df /dev/shm | tail -n1 | awk '{print $2}'; ulimit -n; grep name /etc/hosts; cat /sys/class/net/*/type\n\
                      ENTRYPOINT [\"nothing\"]\nRUN [\"echo\", \"exec $A\"]\n";
    let query = "shmsize=8388608&ulimits=%5B%7B%22Name%22:%22nofile%22,%22Soft%22:1000,%22Hard%22:2000%7D%5D\
                 &extrahosts=name:1.2.3.4&networkmode=none&memory=50000000";
    let all = text(&build(&host, query, dockerfile).expect(200));
    assert!(all.contains("\nae 5:6 /tmp/w\n"), "{all}");
    assert!(all.contains("\n8192\n1000\n1.2.3.4\tname\n772\n"), "{all}");
    assert!(all.contains("\nexec $A\n"), "{all}");
}

#[test]
fn files_are_changed_and_deleted_in_layers() {
    let host = Host::new();
    let dockerfile = "FROM busybox\nRUN mkdir -p /d/e; echo 1 >/d/f; ln /d/f /d/g; ln -s f /d/l; chown 3:4 /d/f; chmod 4711 /d/f\n\
                      RUN rm -r /d/e /bin/ls; echo 2 >>/d/f; mkfifo /p\nRUN rm -r /d; mkdir /d; touch /d/new\nVOLUME /v\nRUN echo lost >/v/f\n";
    build(&host, "t=made", dockerfile).expect(200);
    assert_eq!(
        output(&host, "made", "cd /; echo $(echo /d/* /v/* /bin/l[rs]); [ -p /p ] && echo pipe"),
        "/d/new /v/* /bin/l[rs]\npipe"
    );
    let layers = host.inspect("made")["RootFS"]["Layers"].as_array().map(Vec::len);
    assert_eq!(layers, Some(5), "of what is written into a volume only the mount point is in a layer");
    // What the engine wrote is what others read.
    let archive = host.folder().join("layers.tar").display().to_string();
    host.docker(&["save", "-o", &archive, "made"]).ok();
    host.docker("rmi made").ok();
    host.docker(&["load", "-i", &archive]).ok();
    assert_eq!(output(&host, "made", "ls /d"), "new");
}

#[test]
fn a_client_that_goes_stops_the_step() {
    let host = Host::new();
    let body = context(&[("Dockerfile", 0o644, "FROM busybox\nRUN echo begun; sleep 1000\n")]);
    let mut connection = host.connect();
    let head = connection.open("POST", "/v1.51/build", &[("Content-Type", "application/x-tar")], &body);
    assert_eq!(head.status, 200);
    poll("the step runs", 20, || host.docker("ps -q").ok().out().lines().count() == 1);
    drop(connection);
    poll("the step is over and nothing is left of it", 20, || host.docker("ps -aq").ok().out().is_empty());
}

/// A client that does not read slows the program down; nothing piles up in the engine.
#[test]
fn a_program_waits_for_a_client_that_does_not_read() {
    let host = Host::new();
    let dockerfile = "FROM busybox\nRUN yes | head -c 50000000; echo ended\n";
    let body = context(&[("Dockerfile", 0o644, dockerfile)]);
    let mut connection = host.connect();
    let head = connection.open("POST", "/v1.51/build", &[("Content-Type", "application/x-tar")], &body);
    assert_eq!(head.status, 200);
    poll("the step runs", 20, || host.docker("ps -q").ok().out().lines().count() == 1);
    let id = host.docker("ps -q").ok().out().to_owned();
    // dockerd keeps no log of a step: the kernel knows what the program has written.
    let wrote = |(pid, command): (u32, String)| -> Option<usize> {
        let counts = std::fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
        let count = || counts.lines().find_map(|line| line.strip_prefix("wchar: ")?.parse().ok());
        command.contains("head -c 50000000").then(count).flatten()
    };
    let wrote = || host.processes().into_iter().filter_map(wrote).sum::<usize>();
    let mut written = 0;
    poll("the program to write no more", 20, || {
        let before = std::mem::replace(&mut written, wrote());
        written > 0 && written == before
    });
    assert!(written < 50_000_000, "it has written all");
    assert_eq!(host.docker("ps -q").ok().out(), id, "it waits");
    drop(connection);
    poll("the step is over", 20, || host.docker("ps -aq").ok().out().is_empty());
}

#[test]
fn a_killed_engine_leaves_nothing_half_made() {
    // The reference forgets what it had built, and leaves processes behind.
    if Binary::from_environment().is_reference() {
        return;
    }
    let host = Host::new();
    let body = context(&[("Dockerfile", 0o644, "FROM busybox\nRUN echo kept >/kept\nRUN sleep 1000\n")]);
    let mut connection = host.connect();
    connection.open("POST", "/v1.51/build?t=made", &[("Content-Type", "application/x-tar")], &body);
    let second = ["ps", "--no-trunc", "--format", "{{.Command}}"];
    poll("the second step runs", 20, || host.docker(&second).ok().out().contains("sleep"));
    host.kill();
    host.start();
    let ids = host.docker("ps -aq").ok().out().to_owned();
    assert_eq!(ids.lines().count(), 1, "the step is a container like others");
    host.docker(&["rm", "-f", &ids]).ok();
    assert!(host.docker("images -q made").ok().out().is_empty());
    let answer = build(&host, "t=made", "FROM busybox\nRUN echo kept >/kept\n").expect(200);
    assert!(text(&answer).contains("Using cache"), "what was done before is there");
    assert_eq!(output(&host, "made", "cat /kept"), "kept");
}
