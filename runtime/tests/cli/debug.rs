//! `--debug`: the steps that are done, in runc's words where it has some, and none of them without it.

use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::bundle::Cli;
use crate::support::{Bundle, text_of};

/// A command by runc's name, as tools call it that look for its words: its exit code, what it printed, and its messages.
fn runc(cli: &Cli, args: &[&str]) -> (Option<i32>, String, Vec<String>) {
    let program = cli.bundle.path().join("runc");
    if !program.exists() {
        symlink(env!("CARGO_BIN_EXE_wherry-runtime"), &program).unwrap();
    }
    let mut command = Command::new(program);
    command.arg("--root").arg(cli.bundle.path().join("state")).args(args).stdin(Stdio::null());
    let output = command.output().unwrap();
    let messages = text_of(&output.stderr).lines().filter_map(message).collect();
    (output.status.code(), text_of(&output.stdout), messages)
}

/// The message of a line of the log, if it is one of what is done.
fn message(line: &str) -> Option<String> {
    let (_, message) = line.split_once("level=debug msg=\"")?;
    Some(message.strip_suffix('"').unwrap().to_owned())
}

/// Where the first message is that has these words.
fn place(messages: &[String], words: &str) -> usize {
    messages.iter().position(|m| m.contains(words)).unwrap_or_else(|| panic!("no {words:?} in {messages:#?}"))
}

/// Each of these is told, one after the other.
fn in_order(messages: &[String], words: &[&str]) {
    let places: Vec<usize> = words.iter().map(|words| place(messages, words)).collect();
    assert!(places.is_sorted(), "{words:?} are at {places:?} of {messages:#?}");
}

fn run<'a>(cli: &'a Cli, before: &[&'a str]) -> Vec<&'a str> {
    [before, &["run", "-b", cli.path(), cli.id()]].concat()
}

#[test]
fn steps_of_a_start() {
    let hook = |word: &str| json!([{ "path": "/bin/busybox", "args": ["echo", word] }]);
    let bundle = Bundle::new()
        .sh("echo out")
        .set("/process/oomScoreAdj", json!(7))
        .set("/hooks", json!({ "createContainer": hook("a"), "startContainer": hook("b") }));
    let cli = Cli::new(bundle);
    let (code, out, messages) = runc(&cli, &run(&cli, &["--debug"]));
    assert_eq!((code, out.as_str()), (Some(0), "out\n"));
    in_order(
        &messages,
        &[
            "runc exeseal: using /proc/self/exe clone: a read-only mount",
            "nsexec[1]: => nsexec container setup: new namespaces 0x",
            "nsexec[1]: <= nsexec container setup",
            "child process in init()",
            "mounted /proc",
            "mounted /dev/shm",
            "running hook createContainer 0",
            "the root is ",
            "user 0, group 0",
            "running hook startContainer 0",
            "init: closing the pipe to signal completion: executing /bin/sh",
            "has ended with code 0",
        ],
    );
    in_order(
        &messages,
        &["the container's init is process ", "the cgroup's limits are set", "has ended with code 0"],
    );
    let (code, out, messages) = runc(&cli, &run(&cli, &[]));
    assert_eq!((code, out.as_str(), messages.len()), (Some(0), "out\n", 0));
}

/// What failed is the last that is told, after the steps before it and without those after it.
#[test]
fn steps_up_to_a_failure() {
    let cli = Cli::new(Bundle::new().args(&["/nosuch"]));
    let (code, _, messages) = runc(&cli, &run(&cli, &["--debug"]));
    assert_eq!(code, Some(1));
    in_order(&messages, &["child process in init()", "mounted /proc", "user 0, group 0"]);
    assert!(!messages.iter().any(|m| m.contains("closing the pipe")), "{messages:#?}");
}

#[test]
fn steps_of_namespaces() {
    let mappings = json!([{ "containerID": 0, "hostID": 200_000, "size": 65536 }]);
    let mut bundle = Bundle::new()
        .args(&["/bin/true"])
        .set("/linux/uidMappings", mappings.clone())
        .set("/linux/gidMappings", mappings)
        .set("/linux/timeOffsets", json!({ "monotonic": { "secs": 1000 } }));
    std::fs::set_permissions(bundle.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let namespaces = bundle.spec["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "network");
    namespaces.extend(["user", "cgroup", "time"].map(|kind| json!({ "type": kind })));
    namespaces.push(json!({ "type": "network", "path": "/proc/self/ns/net" }));
    let cli = Cli::new(bundle);
    let (code, _, messages) = runc(&cli, &run(&cli, &["--debug"]));
    assert_eq!(code, Some(0), "{messages:#?}");
    in_order(&messages, &["=> nsexec container setup", "unshare time namespace", "child process in init()"]);
    in_order(
        &messages,
        &["/uid_map to '0 200000 65536'", "/gid_map to '0 200000 65536'", "child process in init()"],
    );
    in_order(&messages, &["unshare cgroup namespace", "<= nsexec container setup"]);
    assert!(messages.iter().any(|m| m.contains("setns(0x40000000) into /proc/self/ns/net")), "{messages:#?}");
}

/// The number that the kernel is given: TSYNC is not, there is one thread only.
#[test]
fn flags_of_the_filter() {
    for (flags, number) in [
        (Value::Null, 4),
        (json!([]), 0),
        (json!(["SECCOMP_FILTER_FLAG_LOG"]), 2),
        (
            json!(["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_LOG"]),
            6,
        ),
    ] {
        for no_new_privileges in [true, false] {
            let mut filter = json!({ "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{ "names": ["mkdir", "mkdirat", "sendmsg"], "action": "SCMP_ACT_ERRNO" }] });
            if !flags.is_null() {
                filter["flags"] = flags.clone();
            }
            let bundle = Bundle::new()
                .args(&["mkdir", "/x"])
                .set("/process/noNewPrivileges", json!(no_new_privileges))
                .set("/linux/seccomp", filter);
            let cli = Cli::new(bundle);
            let (code, _, messages) = runc(&cli, &run(&cli, &["--debug"]));
            assert_eq!(code, Some(1), "{messages:#?}");
            let line = format!("seccomp filter flags: {number}");
            assert!(messages.contains(&line), "{line}: {messages:#?}");
        }
    }
    let cli = Cli::new(Bundle::new().args(&["/bin/true"]));
    let (_, _, messages) = runc(&cli, &run(&cli, &["--debug"]));
    assert!(!messages.iter().any(|m| m.contains("seccomp")), "there is no filter: {messages:#?}");
}

#[test]
fn steps_of_an_exec() {
    let cli = Cli::new(Bundle::new().args(&["sleep", "1000"]));
    cli.create();
    cli.ok(&["start", cli.id()]);
    let process = cli.bundle.path().join("process.json");
    let exec = |affinity: Value, debug: &[&str]| {
        let allowed = ["grep", "Cpus_allowed_list", "/proc/self/status"];
        let text = json!({ "cwd": "/", "args": allowed, "execCPUAffinity": affinity });
        std::fs::write(&process, text.to_string()).unwrap();
        let (code, out, messages) =
            runc(&cli, &[debug, &["exec", "-p", process.to_str().unwrap(), cli.id()]].concat());
        assert_eq!(code, Some(0), "{messages:#?}");
        (out.split_whitespace().nth(1).unwrap().to_owned(), messages)
    };
    let (seen, messages) = exec(json!({ "initial": "0", "final": "1" }), &["--debug"]);
    assert_eq!(seen, "1");
    in_order(
        &messages,
        &[
            "runc exeseal: using /proc/self/exe clone",
            "=> nsexec container setup",
            "affinity: 0x1",
            "setns(0x",
            "child process in init()",
            "affinity: 0x2",
            "user 0, group 0",
            "setns_init: about to exec /bin/grep",
        ],
    );
    let first = &messages[place(&messages, "affinity: 0x1")];
    assert!(first.starts_with("nsexec["), "{first}");
    let (seen, messages) = exec(json!({ "initial": "1" }), &["--debug"]);
    assert_eq!(seen, "1");
    assert_eq!(messages.iter().filter(|m| m.contains("affinity: 0x2")).count(), 1, "{messages:#?}");
    let (_, messages) = exec(json!({}), &["--debug"]);
    assert!(!messages.iter().any(|m| m.contains("affinity")), "none was set: {messages:#?}");
    assert_eq!(exec(json!({ "initial": "1" }), &[]), ("1".to_owned(), Vec::new()));
    cli.ok(&["delete", "-f", cli.id()]);
}

/// A container that another process starts is told of up to where it waits, and starts as without `--debug`.
#[test]
fn steps_of_a_create() {
    let cli = Cli::new(Bundle::new().sh("echo out"));
    let log = cli.bundle.path().join("log");
    let path = log.to_str().unwrap();
    let mut create = cli.command(&[
        "--debug",
        "--log",
        path,
        "--log-format",
        "json",
        "create",
        "-b",
        cli.path(),
        cli.id(),
    ]);
    assert!(create.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
    let entries: Vec<Value> = std::fs::read_to_string(&log)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(entries.iter().all(|entry| entry["level"] == "debug"));
    let messages: Vec<String> =
        entries.iter().map(|entry| entry["msg"].as_str().unwrap().to_owned()).collect();
    in_order(&messages, &["child process in init()", "init: everything is made, waiting for the start"]);
    assert!(!messages.iter().any(|m| m.contains("closing the pipe")), "{messages:#?}");
    cli.ok(&["--debug", "start", cli.id()]);
    cli.ok(&["delete", "-f", cli.id()]);
}
