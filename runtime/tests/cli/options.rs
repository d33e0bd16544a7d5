//! What the command line says and refuses, and what the options of single commands do.

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};

use serde_json::json;

use crate::bundle::Cli;
use crate::support::{Bundle, eventually};

fn program(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_wherry-runtime")).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn help_and_misuse() {
    for args in [&["--help"][..], &["-h"], &["help"], &[]] {
        let output = program(args);
        assert!(output.status.success(), "{args:?}");
        assert!(text(&output.stdout).contains("USAGE:\n   wherry-runtime [global options] command"));
    }
    for command in ["create", "exec", "checkpoint", "update"] {
        let output = program(&[command, "--help"]);
        assert!(output.status.success());
        assert!(text(&output.stdout).contains(&format!("NAME:\n   wherry-runtime {command} - ")));
    }
    for (args, code, message, heading) in [
        (&["foo"][..], 3, "No help topic for 'foo'", ""),
        (&["state"], 1, "requires exactly 1 argument(s)", "Incorrect Usage.\n\nNAME:"),
        (&["kill", "a", "b", "c"], 1, "requires a maximum of 2 argument(s)", "Incorrect Usage.\n\nNAME:"),
        (&["run", "--nope", "x"], 1, "flag provided but not defined: -nope", "Incorrect Usage: flag"),
        (&["--nope"], 1, "flag provided but not defined: -nope", "Incorrect Usage. flag"),
        (&["--log-format", "xml", "list"], 1, "invalid log-format: xml", ""),
        (&["--log", "/nosuch/folder/log", "list"], 1, "/nosuch/folder/log", ""),
        (&["--root", "/", "list"], 1, "--root argument should not be set to /", ""),
        (
            &["events", "--interval", "5", "x"],
            1,
            "for flag -interval: parse error",
            "Incorrect Usage: invalid",
        ),
        (&["create", "--preserve-fds", "2", "x"], 1, "unable to stat preserved-fd 0 (of 2)", ""),
        (&["update", "--l3-cache-schema", "x", "y"], 1, "Intel RDT is not supported", ""),
    ] {
        let output = program(args);
        assert_eq!(output.status.code(), Some(code), "{args:?}");
        // in the log, quotes are escaped
        assert!(text(&output.stderr).contains(message), "{args:?}: {}", text(&output.stderr));
        assert!(text(&output.stdout).starts_with(heading), "{args:?}: {}", text(&output.stdout));
    }
}

#[test]
fn by_another_name() {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("runc");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_wherry-runtime"), &link).unwrap();
    let version = text(&Command::new(&link).arg("--version").output().unwrap().stdout);
    assert!(
        version.starts_with("runc version ") && version.contains("\nimplementation: wherry-runtime\n"),
        "{version}"
    );
    let lines: Vec<&str> = version.lines().collect();
    assert!(lines[1].starts_with("commit: ") && lines[2].starts_with("spec: 1."), "{version}");
}

#[test]
fn unknown_capabilities_and_processes_without_user() {
    let mut bundle = Bundle::new().args(&["sleep", "1000"]);
    bundle.spec["process"]["capabilities"]["bounding"] = json!(["CAP_KILL", "CAP_FUTURE"]);
    let cli = Cli::new(bundle);
    cli.ok(&["spec", "--bundle", tempfile::tempdir().unwrap().path().to_str().unwrap()]);
    let mut run = cli.command(&["run", "-d", "-b", cli.path(), cli.id()]);
    let warnings = cli.bundle.path().join("warnings");
    let status =
        run.stdout(Stdio::null()).stderr(std::fs::File::create(&warnings).unwrap()).status().unwrap();
    assert!(status.success());
    let warnings = std::fs::read_to_string(warnings).unwrap();
    assert!(warnings.contains("level=warning") && warnings.contains("[CAP_FUTURE]"), "{warnings}");
    let process = cli.bundle.path().join("process.json");
    std::fs::write(&process, r#"{ "args": ["/bin/echo", "no user"], "cwd": "/" }"#).unwrap();
    assert_eq!(cli.ok(&["exec", "-p", process.to_str().unwrap(), cli.id()]), "no user\n");
    std::fs::write(&process, r#"{ "args": ["/bin/echo"] }"#).unwrap();
    let (code, error) = cli.fails(&["exec", "-p", process.to_str().unwrap(), cli.id()]);
    assert!(code == 255 && error.contains("Cwd property must not be empty"), "{error}");
    cli.ok(&["delete", "-f", cli.id()]);
}

#[test]
fn exec_in_a_group_below() {
    let cli = Cli::new(Bundle::new().args(&["sleep", "1000"]));
    cli.create();
    cli.ok(&["start", cli.id()]);
    let pid = cli.state()["pid"].to_string();
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    // version 1, or version 2 alone
    let of = |name: &str| groups.lines().find_map(|line| Some(line.split_once(name)?.1.to_owned()));
    let (name, mount, below, own) = match of(":pids:") {
        Some(own) => (":pids:", "/sys/fs/cgroup/pids", "pids:below", own),
        None => ("0::", "/sys/fs/cgroup", "below", of("0::").unwrap()),
    };
    let folder = format!("{mount}{own}/below");
    std::fs::create_dir(&folder).unwrap();
    let exec = |group: &str| cli.output(&["exec", "--cgroup", group, cli.id(), "cat", "/proc/self/cgroup"]);
    assert!(text(&exec(below).stdout).contains(&format!("{name}{own}/below\n")));
    assert!(text(&exec("/").stdout).contains(&format!("{name}{own}\n")));
    for (group, message) in [
        ("..", "bad sub cgroup path"),
        ("nope", "adding pid"),
        ("nope:/", "unknown controller nope"),
        (":x", "empty <controller> prefix"),
    ] {
        let output = exec(group);
        assert_eq!(output.status.code(), Some(255), "{group}");
        assert!(text(&output.stderr).contains(message), "{group}: {}", text(&output.stderr));
    }
    cli.ok(&["delete", "-f", cli.id()]);
    assert!(!std::path::Path::new(&folder).exists());
}

/// A descriptor of socket activation is number 3, and the program is told so.
#[test]
fn socket_activation() {
    let cli = Cli::new(Bundle::new().sh("echo $LISTEN_FDS $LISTEN_PID; cat <&3"));
    let (ours, theirs) = std::io::pipe().map(|(read, write)| (OwnedFd::from(read), write)).unwrap();
    std::io::Write::write_all(&mut &theirs, b"through 3\n").unwrap();
    drop(theirs);
    let script = format!(
        "exec 3<&{}; export LISTEN_FDS=1 LISTEN_PID=$$; exec {} --root {} run -b {} {}",
        ours.as_raw_fd(),
        env!("CARGO_BIN_EXE_wherry-runtime"),
        cli.bundle.path().join("state").display(),
        cli.path(),
        cli.id()
    );
    let mut command = Command::new("bash");
    command.args(["-c", &script]);
    rustix::io::fcntl_setfd(&ours, rustix::io::FdFlags::empty()).unwrap();
    let output = command.output().unwrap();
    assert_eq!(text(&output.stdout), "1 1\nthrough 3\n", "{}", text(&output.stderr));
}

/// `READY=1` of the container reaches the caller's socket, with the main process's id.
#[test]
fn readiness() {
    let cli = Cli::new(Bundle::new().args(&["sleep", "1000"]));
    let host = cli.bundle.path().join("host.sock");
    let socket = UnixDatagram::bind(&host).unwrap();
    let command = |args: &[&str]| {
        let mut command = cli.command(args);
        command.env("NOTIFY_SOCKET", &host).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    assert!(command(&["create", "-b", cli.path(), cli.id()]).status().unwrap().success());
    let mut start = command(&["start", cli.id()]).process_group(0).spawn().unwrap();
    let inside = cli.bundle.path().join("state").join(cli.id()).join("notify/notify.sock");
    eventually("the container's socket is there", || inside.exists());
    let env = cli.ok(&["exec", cli.id(), "sh", "-c", "ls /run/notify"]);
    assert_eq!(env, "notify.sock\n");
    let container = UnixDatagram::unbound().unwrap();
    container.send_to(b"STATUS=busy", &inside).unwrap();
    container.send_to(b"STATUS=done\nREADY=1", &inside).unwrap();
    let mut buffer = [0; 200];
    let length = socket.recv(&mut buffer).unwrap();
    assert_eq!(text(&buffer[..length]), format!("READY=1\nMAINPID={}\n", cli.state()["pid"]));
    assert!(start.wait().unwrap().success());
    cli.ok(&["delete", "-f", cli.id()]);
}
