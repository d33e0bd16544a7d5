//! Commands in the order of a container's life.

use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::bundle::Cli;
use crate::support::{self, Bundle, assert_no_cgroup, eventually};

#[test]
fn run_in_the_foreground() {
    let cli = Cli::new(Bundle::new().sh("echo out; exit 5"));
    let output = cli.output(&["run", "-b", cli.path(), cli.id()]);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(5), b"out\n".as_slice()));
    assert_eq!(cli.ok(&["list", "-q"]), "");
    assert_no_cgroup(cli.id());
}

#[test]
fn run_forwards_signals() {
    let cli = Cli::new(Bundle::new().sh("trap 'exit 9' TERM; echo ready; while true; do sleep 0.05; done"));
    let mut command = cli.command(&["run", "-b", cli.path(), cli.id()]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut ready = [0; 6];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut ready).unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(9));
}

#[test]
fn life_of_a_container() {
    let cli = Cli::new(Bundle::new().args(&["sleep", "1000"]));
    let pid_file = cli.bundle.path().join("pid");
    let mut create =
        cli.command(&["create", "--bundle", cli.path(), "--pid-file", pid_file.to_str().unwrap(), cli.id()]);
    assert!(create.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
    let state = cli.state();
    assert_eq!(state["status"], "created");
    assert_eq!(state["bundle"], json!(cli.path()));
    assert_eq!(state["rootfs"], json!(cli.bundle.rootfs_path()));
    assert_eq!(state["pid"].to_string(), std::fs::read_to_string(&pid_file).unwrap());
    assert_eq!(state["ociVersion"], "1.2.0");
    let (code, error) = cli.fails(&["create", "--bundle", cli.path(), cli.id()]);
    assert_eq!(code, 1);
    assert!(error.contains("container with given ID already exists"), "{error}");

    cli.ok(&["start", cli.id()]);
    assert_eq!(cli.state()["status"], "running");
    let (code, error) = cli.fails(&["start", cli.id()]);
    assert!(code == 1 && error.contains("cannot start an already running container"), "{error}");
    let list = cli.ok(&["list"]);
    assert!(list.starts_with("ID ") && list.contains("running     ") && list.contains("root\n"), "{list}");
    let list: Value = serde_json::from_str(&cli.ok(&["list", "-f", "json"])).unwrap();
    assert_eq!(list[0]["id"], json!(cli.id()));
    assert_eq!(cli.ok(&["ps", "-f", "json", cli.id()]), format!("[{}]", state["pid"]));
    let events: Value = serde_json::from_str(&cli.ok(&["events", "--stats", cli.id()])).unwrap();
    assert_eq!(events["type"], "stats");
    assert_eq!(events["data"]["pids"]["current"], 1);

    cli.ok(&["pause", cli.id()]);
    assert_eq!(cli.state()["status"], "paused");
    let (code, error) = cli.fails(&["exec", cli.id(), "true"]);
    assert!(code == 255 && error.contains("paused"), "{error}");
    cli.ok(&["resume", cli.id()]);
    let (_, error) = cli.fails(&["resume", cli.id()]);
    assert!(error.contains("container not paused"), "{error}");

    let (code, error) = cli.fails(&["delete", cli.id()]);
    assert!(code == 1 && error.contains("that is not stopped: running"), "{error}");
    cli.ok(&["kill", cli.id(), "KILL"]);
    eventually("it stops", || cli.state()["status"] == "stopped");
    assert_eq!(cli.state()["pid"], 0);
    let (_, error) = cli.fails(&["kill", cli.id(), "KILL"]);
    assert!(error.contains("container not running"), "{error}");
    let (_, error) = cli.fails(&["start", cli.id()]);
    assert!(error.contains("cannot start a container that has stopped"), "{error}");
    cli.ok(&["delete", cli.id()]);
    for args in [["state", cli.id()], ["delete", cli.id()], ["start", cli.id()]] {
        let (code, error) = cli.fails(&args);
        assert!(code == 1 && error.contains("container does not exist"), "{error}");
    }
    cli.ok(&["delete", "--force", cli.id()]);
    assert_no_cgroup(cli.id());
}

#[test]
fn exec_in_a_container() {
    let cli = Cli::new(Bundle::new().args(&["sleep", "1000"]));
    cli.create();
    cli.ok(&["start", cli.id()]);
    let output = cli.output(&[
        "exec",
        "-e",
        "A=1",
        "--cwd",
        "/tmp",
        "-u",
        "1000:5",
        cli.id(),
        "sh",
        "-c",
        "echo $A $PWD $(id -u):$(id -g); exit 9",
    ]);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(9), b"1 /tmp 1000:5\n".as_slice()));
    let (code, error) = cli.fails(&["exec", cli.id(), "nosuch"]);
    assert_eq!(code, 255);
    assert!(error.contains(r#"exec failed: unable to start container process: exec: \"nosuch\": executable file not found in $PATH"#), "{error}");
    let process = cli.bundle.path().join("process.json");
    std::fs::write(
        &process,
        json!({ "user": { "uid": 7, "gid": 7 }, "cwd": "/", "args": ["/bin/id", "-u"] }).to_string(),
    )
    .unwrap();
    assert_eq!(cli.ok(&["exec", "-p", process.to_str().unwrap(), cli.id()]), "7\n");
    let pid_file = cli.bundle.path().join("pid");
    let mut detached =
        cli.command(&["exec", "-d", "--pid-file", pid_file.to_str().unwrap(), cli.id(), "sleep", "999"]);
    assert!(detached.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
    let pid = std::fs::read_to_string(&pid_file).unwrap();
    assert!(cli.ok(&["ps", "-f", "json", cli.id()]).contains(&pid));
    cli.ok(&["update", "--pids-limit", "33", "--memory", "64m", "--memory-swap", "64m", cli.id()]);
    let events: Value = serde_json::from_str(&cli.ok(&["events", "--stats", cli.id()])).unwrap();
    assert_eq!(
        (&events["data"]["pids"]["limit"], &events["data"]["memory"]["usage"]["limit"]),
        (&json!(33), &json!(64 << 20))
    );
    cli.ok(&["delete", "-f", cli.id()]);
    assert_no_cgroup(cli.id());
}

#[test]
fn a_program_that_is_missing() {
    let cli = Cli::new(Bundle::new().args(&["nosuch"]));
    let log = cli.bundle.path().join("log.json");
    for command in ["run", "create"] {
        let output = cli.output(&[
            "--log",
            log.to_str().unwrap(),
            "--log-format",
            "json",
            command,
            "-b",
            cli.path(),
            cli.id(),
        ]);
        assert_eq!(output.status.code(), Some(1));
        let log = std::fs::read_to_string(&log).unwrap();
        let entry: Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
        assert_eq!(entry["level"], "error");
        let expect = format!(
            "wherry-runtime {command} failed: unable to start container process: exec: \"nosuch\": executable file not found in $PATH"
        );
        assert_eq!(entry["msg"], json!(expect));
        assert_eq!(cli.ok(&["list", "-q"]), "");
    }
    assert_no_cgroup(cli.id());
}

#[test]
fn terminal_by_console_socket() {
    let cli =
        Cli::new(Bundle::new().sh("test -t 0 && echo hello terminal").set("/process/terminal", json!(true)));
    let (code, error) = cli.fails(&["create", "-b", cli.path(), cli.id()]);
    assert!(code == 1 && error.contains("without setting console socket"), "{error}");
    let path = cli.bundle.path().join("console.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    cli.ok(&["create", "-b", cli.path(), "--console-socket", path.to_str().unwrap(), cli.id()]);
    let (stream, _) = listener.accept().unwrap();
    let master = receive_fd(stream.as_fd());
    cli.ok(&["start", cli.id()]);
    let mut output = Vec::new();
    let mut buffer = [0; 64];
    while let Ok(length @ 1..) = rustix::io::read(&master, &mut buffer) {
        output.extend_from_slice(&buffer[..length]);
    }
    assert_eq!(output, b"hello terminal\r\n");
    eventually("it stops", || cli.state()["status"] == "stopped");
    cli.ok(&["delete", cli.id()]);
}

pub(crate) fn receive_fd(socket: std::os::fd::BorrowedFd<'_>) -> std::os::fd::OwnedFd {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut name = [0; 64];
    recvmsg(socket, &mut [std::io::IoSliceMut::new(&mut name)], &mut control, RecvFlags::CMSG_CLOEXEC)
        .unwrap();
    let fd = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    fd.expect("a descriptor")
}

/// In a mount namespace where `/sys/fs/cgroup` is version 2 alone. It has few controllers here, where
/// version 1 has the others, but membership, freezing, killing and device rules are version 2's own.
#[test]
fn cgroup_version_2() {
    let bundle = Bundle::new()
        .sh("cat /proc/self/cgroup | grep ^0; ls /sys/fs/cgroup/cgroup.procs; mknod /dev/mem1 c 1 1; cat /dev/mem1; cat /dev/null && echo null; sleep 1000")
        .set("/linux/resources/unified", json!({ "cgroup.max.descendants": "5" }));
    let mut bundle = bundle;
    bundle.spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "cgroup" }));
    let cli = Cli::new(bundle);
    let script = r#"
        set -e
        umount -R /sys/fs/cgroup; mount -t cgroup2 cgroup2 /sys/fs/cgroup
        W="$1 --root $2/state" ID=$3
        $W run -d -b $2 $ID > $2/out 2>&1
        cat /sys/fs/cgroup/$ID/cgroup.max.descendants
        while ! grep -q null $2/out; do sleep 0.01; done
        $W exec $ID sh -c 'cat /proc/self/cgroup | grep ^0'
        $W exec $ID sh -c 'cat /dev/mem1' 2>&1 | grep -o 'not permitted'
        $W pause $ID; grep frozen /sys/fs/cgroup/$ID/cgroup.events; $W state $ID | grep -o paused
        $W resume $ID; grep frozen /sys/fs/cgroup/$ID/cgroup.events
        $W events --stats $ID | grep -o '"type":"stats"'
        $W pause $ID
        $W delete -f $ID
        ls /sys/fs/cgroup/$ID 2>&1 | grep -o 'No such file'
        cat $2/out
    "#;
    let program = env!("CARGO_BIN_EXE_wherry-runtime");
    let mut command = Command::new("unshare");
    command.args([
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        script,
        "sh",
        program,
        cli.path(),
        cli.id(),
    ]);
    let output = command.output().unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        text,
        "5\n0::/\nnot permitted\nfrozen 1\npaused\nfrozen 0\n\"type\":\"stats\"\nNo such file\n\
         0::/\n/sys/fs/cgroup/cgroup.procs\ncat: can't open '/dev/mem1': Operation not permitted\nnull\n"
    );
}

/// CVE-2019-5736: the file that processes of the container could get hold of is not writable.
#[test]
fn own_file_cannot_be_written() {
    let cli = Cli::new(Bundle::new().args(&["sleep", "1000"]));
    let mut run = cli.command(&["run", "-b", cli.path(), cli.id()]);
    let mut child = run.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let ready = || cli.output(&["state", cli.id()]).status.success();
    eventually("it runs", ready);
    let exe = format!("/proc/{}/exe", child.id());
    let flags = rustix::fs::statvfs(&exe).unwrap().f_flag;
    assert!(flags.contains(rustix::fs::StatVfsMountFlags::RDONLY), "{exe} is on a mount that can be written");
    assert!(std::fs::OpenOptions::new().write(true).open(&exe).is_err());
    cli.ok(&["kill", cli.id(), "9"]);
    assert_eq!(child.wait().unwrap().code(), Some(137));
}

#[test]
fn spec_and_features() {
    let folder = tempfile::tempdir().unwrap();
    let program = env!("CARGO_BIN_EXE_wherry-runtime");
    let run = |args: &[&str]| Command::new(program).args(args).current_dir(&folder).output().unwrap();
    assert!(run(&["spec"]).status.success());
    assert!(!run(&["spec"]).status.success(), "it does not overwrite");
    support::make_rootfs(&folder.path().join("rootfs"));
    let path = folder.path().join("config.json");
    let mut spec: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    spec["process"]["terminal"] = json!(false);
    spec["process"]["args"] = json!(["sh", "-c", "echo it works"]);
    spec["linux"]["cgroupsPath"] = json!(format!("/wherry-test-spec-{}", std::process::id()));
    std::fs::write(&path, spec.to_string()).unwrap();
    let root = folder.path().join("state");
    let output = run(&["--root", root.to_str().unwrap(), "run", "spec"]);
    assert_eq!(output.stdout, b"it works\n", "{}", String::from_utf8_lossy(&output.stderr));
    let features: Value = serde_json::from_slice(&run(&["features"]).stdout).unwrap();
    assert_eq!(features["linux"]["cgroup"]["v2"], true);
    assert!(String::from_utf8_lossy(&run(&["--version"]).stdout).starts_with("wherry-runtime version "));
    assert!(!Path::new("/run/wherry-runtime/spec").exists());
}
