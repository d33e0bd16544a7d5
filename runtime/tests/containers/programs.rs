//! Programs: what they are told, what comes back.

use std::fs;
use std::os::fd::AsFd;

use crate::support::{Bundle, assert_no_cgroup, exec, text, wait, wait_pidfd};
use serde_json::json;
use wherry_runtime::{Container, ErrorKind, ExecOptions, Launch, RootfsSource, Stdio, Warning, parse_spec};

#[test]
fn output_and_exit_code() {
    let outcome = Bundle::new().sh("echo out; echo err >&2; exit 42").run();
    assert_eq!((outcome.code, outcome.stdout.as_str(), outcome.stderr.as_str()), (42, "out\n", "err\n"));
}

#[test]
fn a_signal_ends_it() {
    let outcome = Bundle::new().sh("kill -9 $$; echo survived").run();
    // init of a pid namespace ignores its own signals
    assert_eq!(outcome.stdout, "survived\n");
    let bundle = Bundle::new().args(&["sleep", "100"]);
    let container = bundle.start();
    container.kill(9).unwrap();
    assert_eq!(wait(&container), 137);
    container.delete(false).unwrap();
    assert_no_cgroup(&bundle.id);
}

/// The texts are runc's: Docker's users see them.
#[test]
fn programs_that_cannot_be_run() {
    let bundle = Bundle::new();
    fs::write(bundle.rootfs_path().join("plain"), "text").unwrap();
    let mut bundle = bundle;
    for (program, message, kind) in [
        ("nosuchcmd", "exec: \"nosuchcmd\": executable file not found in $PATH", ErrorKind::NotFound),
        ("", "exec: \"\": executable file not found in $PATH", ErrorKind::NotFound),
        ("/x", "exec: \"/x\": stat /x: no such file or directory", ErrorKind::NotFound),
        ("/bin/sh/x", "exec: \"/bin/sh/x\": stat /bin/sh/x: not a directory", ErrorKind::NotFound),
        ("/plain", "exec: \"/plain\": permission denied", ErrorKind::NotExecutable),
        ("/etc", "exec: \"/etc\": is a directory: permission denied", ErrorKind::NotExecutable),
    ] {
        bundle = bundle.args(&[program]);
        let error = bundle.try_run().unwrap_err();
        assert_eq!((error.to_string().as_str(), error.kind()), (message, kind), "{program:?}");
        assert_no_cgroup(&bundle.id);
    }
}

/// With runc and Docker it is then the program that fails.
#[test]
fn programs_that_execve_refuses() {
    let bundle = Bundle::new();
    for (name, content) in [("bad", "\0\0\0not a program"), ("script", "#!/no/such/interpreter\n")] {
        let path = bundle.rootfs_path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let mut bundle = bundle;
    for (program, message, kind) in [
        ("/bad", "exec /bad: exec format error", ErrorKind::NotExecutable),
        ("/script", "exec /script: no such file or directory", ErrorKind::NotFound),
    ] {
        bundle = bundle.args(&[program]);
        let outcome = bundle.run();
        assert_eq!((outcome.code, outcome.stderr), (255, format!("{message}\n")));
        let spec = bundle.parsed();
        let mut launch = Launch::new(&bundle.id, bundle.path(), &spec, &bundle.rootfs);
        launch.report_exec_failure = true;
        let error = Container::run(&launch).unwrap_err();
        assert_eq!((error.to_string().as_str(), error.kind()), (message, kind));
        assert_no_cgroup(&bundle.id);
    }
}

#[test]
fn bad_working_directories() {
    // one that is missing is made, inside the root
    let outcome = Bundle::new().set("/process/cwd", json!("/such/folder")).sh("pwd").run();
    assert_eq!(outcome.stdout, "/such/folder\n");
    for cwd in ["/etc/passwd", "/etc/passwd/x"] {
        let error = Bundle::new().set("/process/cwd", json!(cwd)).try_run().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadProcess, "{error}");
        assert!(
            error.to_string().starts_with(&format!("chdir to cwd ({cwd:?}) set in config.json failed: ")),
            "{error}"
        );
    }
    let error = Bundle::new().set("/process/cwd", json!("relative")).try_run().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Spec);
}

#[test]
fn identity() {
    let show =
        "id -u; id -g; id -G; pwd; grep -E '^(Cap|NoNew|Seccomp:)' /proc/self/status; echo $HOME; umask";
    let outcome = Bundle::new().sh(show).run();
    assert_eq!(
        outcome.stdout,
        "0\n0\n0 10\n/\nCapInh:\t0000000000000000\nCapPrm:\t00000000a80425fb\nCapEff:\t00000000a80425fb\n\
         CapBnd:\t00000000a80425fb\nCapAmb:\t0000000000000000\nNoNewPrivs:\t0\nSeccomp:\t0\n/root\n0022\n"
    );
    let outcome = Bundle::new()
        .set("/process/user", json!({ "uid": 1000, "gid": 1001, "additionalGids": [1001, 7], "umask": 0o077 }))
        .set("/process/cwd", json!("/tmp"))
        .set("/process/noNewPrivileges", json!(true))
        .set("/process/capabilities", json!({ "bounding": ["CAP_KILL", "CAP_CHOWN"], "permitted": ["CAP_CHOWN"], "inheritable": ["CAP_CHOWN"], "ambient": ["CAP_CHOWN"], "effective": [] }))
        .sh(show)
        .run();
    assert_eq!(
        outcome.stdout,
        "1000\n1001\n1001 7\n/tmp\nCapInh:\t0000000000000001\nCapPrm:\t0000000000000001\nCapEff:\t0000000000000001\n\
         CapBnd:\t0000000000000021\nCapAmb:\t0000000000000001\nNoNewPrivs:\t1\nSeccomp:\t0\n/home/alice\n0077\n"
    );
}

/// Docker's `--privileged` asks for all, also on a host that has not all.
#[test]
fn capabilities_that_the_host_lacks() {
    let all: Vec<&str> = "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE \
         NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT \
         SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG \
         WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
        .split_whitespace()
        .collect();
    let all: Vec<String> = all.iter().map(|name| format!("CAP_{name}")).collect();
    let outcome = Bundle::new()
        .set("/process/capabilities", json!({ "bounding": all, "effective": all, "permitted": all }))
        .sh("grep CapEff /proc/self/status")
        .run();
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let own = own.lines().find(|line| line.starts_with("CapEff")).unwrap();
    assert_eq!(outcome.stdout.trim(), own);
}

/// Runtime specification, "Process": what cannot be granted is warned of, and does not stop the container.
#[test]
fn warnings_are_given_to_the_caller() {
    let mut bundle = Bundle::new();
    bundle.spec["process"]["capabilities"] = json!({ "permitted": ["CAP_KILL"], "ambient": ["CAP_KILL"], "bounding": ["CAP_KILL", "CAP_NET_BIND"] });
    bundle.spec["linux"]["resources"]["devices"] =
        json!([{ "allow": false, "type": "c", "major": 1, "minor": 11, "access": "rwa" }]);
    let mut warnings = Vec::new();
    let spec = parse_spec(bundle.spec.to_string().as_bytes(), &mut warnings).unwrap();
    assert_eq!(warnings, [Warning::Capabilities { names: vec!["CAP_NET_BIND".to_owned()] }]);
    let rootfs = RootfsSource::Bundle;
    let launch = Launch::new(&bundle.id, bundle.path(), &spec, &rootfs);
    let expect = [
        Warning::DeviceAccess { access: "rwa".to_owned() },
        Warning::AmbientCapability { name: "CAP_KILL".to_owned() },
    ];
    assert_eq!(launch.validate().unwrap(), expect);
    let (container, _) = Container::run(&launch).unwrap();
    assert_eq!(container.warnings(), expect);
    let resources =
        serde_json::from_value(json!({ "devices": [{ "allow": true, "access": "rz" }] })).unwrap();
    let updated = container.update(&resources);
    container.delete(true).unwrap();
    assert!(
        matches!(updated, Ok(warnings) if warnings == [Warning::DeviceAccess { access: "rz".to_owned() }])
    );
    assert_no_cgroup(&bundle.id);
}

#[test]
fn environment_limits_and_names() {
    let outcome = Bundle::new()
        .set("/process/env", json!(["PATH=/bin", "A=1", "A=2", "HOME=/nowhere"]))
        .set("/process/rlimits", json!([{ "type": "RLIMIT_NOFILE", "soft": 77, "hard": 99 }, { "type": "RLIMIT_CORE", "soft": 0, "hard": 0 }]))
        .set("/hostname", json!("a-name"))
        .set("/domainname", json!("example.org"))
        .sh("env | grep -v -E '^(PWD|SHLVL)'; ulimit -Sn; ulimit -Hn; ulimit -c; hostname; cat /proc/sys/kernel/domainname; ip addr show lo | grep -o UP")
        .run();
    let (env, rest) = outcome.stdout.split_at(outcome.stdout.find("77").unwrap());
    assert_eq!(rest, "77\n99\n0\na-name\nexample.org\nUP\nUP\n");
    let env: std::collections::BTreeSet<&str> = env.lines().collect();
    assert_eq!(env, ["PATH=/bin", "A=2", "HOME=/nowhere"].into());
}

#[test]
fn terminals() {
    let bundle =
        Bundle::new().sh("tty; stty size; ls -l /dev/console | head -c 1; test -t 0 && echo terminal");
    let bundle = bundle.set("/process/terminal", json!(true));
    let spec = bundle.parsed();
    let mut launch = Launch::new(&bundle.id, bundle.path(), &spec, &bundle.rootfs);
    launch.stdio = Stdio::Terminal { size: Some((33, 99)) };
    let (container, master) = Container::run(&launch).unwrap();
    let output = read_terminal(master.unwrap());
    assert_eq!(output, "/dev/pts/0\r\n33 99\r\ncterminal\r\n");
    assert_eq!(wait(&container), 0);
    container.delete(false).unwrap();

    let bundle = Bundle::new().args(&["sleep", "100"]);
    let container = bundle.start();
    let process = serde_json::from_value(json!({ "terminal": true, "user": { "uid": 1000, "gid": 0 }, "cwd": "/", "args": ["sh", "-c", "sleep 0.2; tty; stty size; stat -c %u /dev/pts/0"] })).unwrap();
    let process = container.exec(&process, Stdio::Terminal { size: None }, &ExecOptions::default()).unwrap();
    let master = process.terminal.unwrap();
    wherry_runtime::resize_terminal(master.as_fd(), 20, 30).unwrap();
    assert_eq!(read_terminal(master), "/dev/pts/0\r\n20 30\r\n1000\r\n");
    wait_pidfd(process.pidfd.as_fd());
    container.delete(true).unwrap();
    assert_no_cgroup(&bundle.id);
}

/// Reads until the other end is closed, which a terminal tells with EIO.
fn read_terminal(master: std::os::fd::OwnedFd) -> String {
    let mut output = Vec::new();
    let mut buffer = [0; 256];
    loop {
        match rustix::io::read(&master, &mut buffer) {
            Ok(0) | Err(rustix::io::Errno::IO) => return String::from_utf8(output).unwrap(),
            Ok(length) => output.extend_from_slice(&buffer[..length]),
            Err(errno) => panic!("{errno}"),
        }
    }
}

#[test]
fn preserved_descriptors() {
    use std::os::fd::AsRawFd;
    let bundle = Bundle::new().sh("ls /proc/self/fd | wc -l; cat <&3");
    let (reader, writer) = std::io::pipe().unwrap();
    rustix::io::write(&writer, b"handed on").unwrap();
    drop(writer);
    // The test runs in its own process, so descriptor 3 can be taken by force.
    if reader.as_raw_fd() != 3 {
        let moved = rustix::io::fcntl_dupfd_cloexec(&reader, 3).unwrap();
        if moved.as_raw_fd() != 3 {
            let _ = crate::descriptors::duplicate_to(reader.as_fd(), 3);
        }
        std::mem::forget(moved);
    }
    let spec = bundle.parsed();
    let (out, out_end) = std::io::pipe().unwrap();
    let null = fs::File::open("/dev/null").unwrap();
    let mut launch = Launch::new(&bundle.id, bundle.path(), &spec, &bundle.rootfs);
    launch.stdio = Stdio::Fds { stdin: null.as_fd(), stdout: out_end.as_fd(), stderr: out_end.as_fd() };
    launch.preserve_fds = 1;
    let (container, _) = Container::run(&launch).unwrap();
    drop(out_end);
    assert_eq!(text(out), "5\nhanded on");
    wait(&container);
    container.delete(false).unwrap();
}

#[test]
fn own_session_keyring() {
    let outcome = Bundle::new().sh("cat /proc/keys").set("/linux/maskedPaths", json!([])).run();
    assert!(outcome.stdout.contains("_ses.wherry-test-"), "{}", outcome.stdout);
}

#[test]
fn exec_joins_everything() {
    let bundle = Bundle::new().args(&["sleep", "100"]).set("/hostname", json!("inside"));
    let container = bundle.start();
    let process = |script: &str| json!({ "user": { "uid": 0, "gid": 0 }, "cwd": "/tmp", "env": ["PATH=/bin"], "args": ["sh", "-c", script] });
    let (code, output) =
        exec(&container, process("hostname; pwd; ps -o comm | grep -c ^sleep; ls / | grep -c work; exit 7"))
            .unwrap();
    assert_eq!((code, output.as_str()), (7, "inside\n/tmp\n1\n0\n"));
    // the same cgroup
    let (_, output) = exec(&container, process("cat /proc/self/cgroup; cat /proc/1/cgroup")).unwrap();
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines[..lines.len() / 2], lines[lines.len() / 2..]);
    assert!(lines[0].contains(&bundle.id));
    for (args, message) in [
        (["nosuch", ""], "exec: \"nosuch\": executable file not found in $PATH"),
        (["/etc/passwd", ""], "exec: \"/etc/passwd\": permission denied"),
    ] {
        let error = exec(&container, json!({ "user": { "uid": 0, "gid": 0 }, "cwd": "/", "args": args }))
            .unwrap_err();
        assert_eq!(error.to_string(), message);
    }
    let error =
        exec(&container, json!({ "user": { "uid": 0, "gid": 0 }, "cwd": "/nosuch", "args": ["true"] }))
            .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadProcess);
    container.kill(9).unwrap();
    wait(&container);
    assert_eq!(exec(&container, process("true")).unwrap_err().kind(), ErrorKind::State);
    container.delete(false).unwrap();
    assert_no_cgroup(&bundle.id);
}

#[test]
fn seccomp_blocks_a_call() {
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
        "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28 }]
    });
    for no_new_privileges in [false, true] {
        let outcome = Bundle::new()
            .set("/linux/seccomp", profile.clone())
            .set("/process/noNewPrivileges", json!(no_new_privileges))
            .sh("grep Seccomp: /proc/self/status; mkdir /x")
            .run();
        assert_eq!(outcome.stdout, "Seccomp:\t2\n");
        assert!(outcome.stderr.contains("No space left on device"), "{}", outcome.stderr);
    }
}

/// A null device of the host becomes the container's own: nothing of the host's file systems stays open.
#[test]
fn null_devices_are_the_containers_own() {
    let bundle = Bundle::new().args(&["sleep", "100"]);
    let container = bundle.start();
    let device =
        |path: String| fs::metadata(path).map(|meta| std::os::unix::fs::MetadataExt::dev(&meta)).unwrap();
    let own = device(format!("/proc/{}/root/dev", container.pid()));
    let seen: Vec<u64> = (0..3).map(|fd| device(format!("/proc/{}/fd/{fd}", container.pid()))).collect();
    container.delete(true).unwrap();
    assert_eq!(seen, [own; 3]);
}
