//! Containers as their programs see them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::os::fd::AsFd;

use serde_json::json;
use support::{Bundle, assert_no_cgroup, cgroup_folders, eventually, text, wait, wait_pidfd};
use wherry_runtime::{Container, ErrorKind, ExecOptions, Launch, RootfsSource, Status, Stdio};

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
    fs::write(bundle.rootfs_path().join("bad"), "\0\0\0not a program").unwrap();
    fs::write(bundle.rootfs_path().join("script"), "#!/no/such/interpreter\n").unwrap();
    for name in ["bad", "script"] {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(bundle.rootfs_path().join(name), mode).unwrap();
    }
    let mut bundle = bundle;
    for (program, message, kind) in [
        ("nosuchcmd", "exec: \"nosuchcmd\": executable file not found in $PATH", ErrorKind::NotFound),
        ("", "exec: \"\": executable file not found in $PATH", ErrorKind::NotFound),
        ("/x", "exec: \"/x\": stat /x: no such file or directory", ErrorKind::NotFound),
        ("/bin/sh/x", "exec: \"/bin/sh/x\": stat /bin/sh/x: not a directory", ErrorKind::NotFound),
        ("/plain", "exec: \"/plain\": permission denied", ErrorKind::NotExecutable),
        ("/etc", "exec: \"/etc\": is a directory", ErrorKind::NotExecutable),
        ("/bad", "exec /bad: exec format error", ErrorKind::NotExecutable),
        ("/script", "exec /script: no such file or directory", ErrorKind::NotFound),
    ] {
        bundle = bundle.args(&[program]);
        let error = bundle.try_run().unwrap_err();
        assert_eq!((error.to_string().as_str(), error.kind()), (message, kind), "{program:?}");
        assert_no_cgroup(&bundle.id);
    }
}

#[test]
fn bad_working_directories() {
    for cwd in ["/nosuch", "/etc/passwd"] {
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

/// CVE-2024-21626: a descriptor of the host's tree must not become the working directory.
#[test]
fn working_directory_by_descriptor() {
    // a descriptor without close-on-exec, of the host's root
    let leak = rustix::fs::open(
        "/",
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY,
        rustix::fs::Mode::empty(),
    )
    .unwrap();
    let mut bundle = Bundle::new().sh("pwd; ls /proc/self/fd | wc -l; ls -l /proc/self/fd >&2");
    for fd in 3..40 {
        bundle = bundle.set("/process/cwd", json!(format!("/proc/self/fd/{fd}")));
        match bundle.try_run() {
            Err(error) => assert_eq!(error.kind(), ErrorKind::BadProcess, "{error}"),
            Ok(outcome) => panic!("fd {fd} was entered: {outcome:?}"),
        }
    }
    // nor does it reach the program: 0, 1, 2 and the one that ls has open
    let outcome = bundle.set("/process/cwd", json!("/")).run();
    assert_eq!(outcome.stdout, "/\n4\n", "{}", outcome.stderr);
    drop(leak);
}

#[test]
fn mounts_are_as_asked_for() {
    let bundle = Bundle::new().sh("cat /proc/self/mountinfo");
    let source = bundle.path().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "content").unwrap();
    let bundle = bundle
        .mount(json!({ "destination": "/data/deep/er", "type": "bind", "source": source, "options": ["rbind", "ro", "nosuid", "rprivate"] }))
        .mount(json!({ "destination": "/one/file", "type": "bind", "source": source.join("file"), "options": ["rbind", "rslave"] }))
        .mount(json!({ "destination": "/scratch", "type": "tmpfs", "source": "tmpfs", "options": ["noexec", "size=4096k", "mode=1770"] }));
    let outcome = bundle.run();
    let table = outcome.stdout;
    let line = |point: &str| {
        table
            .lines()
            .find(|l| l.split(' ').nth(4) == Some(point))
            .unwrap_or_else(|| panic!("no {point} in {table}"))
            .to_owned()
    };
    for (point, words) in [
        ("/proc", "rw,nosuid,nodev,noexec,relatime - proc proc rw"),
        ("/dev", "rw,nosuid - tmpfs tmpfs rw,size=65536k,mode=755"),
        ("/dev/pts", "rw,nosuid,noexec,relatime - devpts devpts rw,gid=5,mode=620,ptmxmode=666"),
        ("/sys", "ro,nosuid,nodev,noexec,relatime - sysfs sysfs rw"),
        ("/sys/fs/cgroup", "ro,nosuid,nodev,noexec,relatime - tmpfs tmpfs rw,mode=755"),
        ("/dev/mqueue", "rw,nosuid,nodev,noexec,relatime - mqueue mqueue rw"),
        ("/dev/shm", "rw,nosuid,nodev,noexec,relatime - tmpfs shm rw,size=65536k"),
        ("/scratch", "rw,noexec,relatime - tmpfs tmpfs rw,size=4096k,mode=1770"),
        ("/data/deep/er", "ro,nosuid,"),
        ("/one/file", "rw,"),
        ("/proc/sys", "ro,nosuid,nodev,noexec,relatime - proc proc rw"),
        ("/proc/keys", "rw,nosuid - tmpfs tmpfs rw,size=65536k,mode=755"),
        ("/proc/acpi", "ro,relatime - tmpfs tmpfs rw"),
    ] {
        if point == "/proc/acpi" && !std::path::Path::new(point).exists() {
            continue;
        }
        assert!(line(point).contains(words), "{point}: {}", line(point));
    }
    assert!(!table.contains("master:") || line("/one/file").contains("master:"), "{table}");
    assert!(bundle.rootfs_path().join("one/file").is_file());
}

#[test]
fn nothing_of_the_host_is_reachable() {
    let outcome = Bundle::new().sh("ls -a / ; cat /proc/self/mountinfo | wc -l; ls /proc/1/root/").run();
    assert!(!outcome.stdout.contains("work"), "{}", outcome.stdout);
    assert_eq!(outcome.code, 0);
}

#[test]
fn bind_mounts_of_nothing_fail() {
    let error = Bundle::new()
        .mount(json!({ "destination": "/x", "type": "bind", "source": "/no/such", "options": ["bind"] }))
        .try_run()
        .unwrap_err();
    assert_eq!(error.to_string(), "open mount source /no/such: No such file or directory (os error 2)");
}

#[test]
fn readonly_rootfs_and_paths() {
    let outcome = Bundle::new()
        .set("/root/readonly", json!(true))
        .sh("touch /x; echo $?; touch /dev/x; echo $?; echo 1 > /proc/sys/kernel/randomize_va_space; echo $?; mkdir /sys/x; echo $?")
        .run();
    assert_eq!(outcome.stdout, "1\n0\n1\n1\n", "{}", outcome.stderr);
}

#[test]
fn masked_paths_are_empty() {
    let outcome = Bundle::new()
        .sh("cat /proc/interrupts /proc/keys /proc/timer_list | wc -c; ls -A /sys/firmware | wc -l; stat -c %t:%T /proc/interrupts; touch /sys/firmware/x")
        .run();
    assert_eq!(outcome.stdout, "0\n0\n1:3\n", "{}", outcome.stderr);
    assert!(outcome.stderr.contains("Read-only file system"), "{}", outcome.stderr);
}

#[test]
fn devices_and_links() {
    let outcome = Bundle::new()
        .set("/linux/devices", json!([{ "path": "/dev/deep/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 432, "uid": 5, "gid": 6 }]))
        .sh("cd /dev; for d in null zero full random urandom tty deep/fuse; do stat -c '%n %F %t:%T %a %u:%g' $d; done; for l in fd stdin stdout stderr ptmx; do readlink $l; done; echo x > null; dd if=zero bs=3 count=1 2>/dev/null | wc -c")
        .run();
    assert_eq!(
        outcome.stdout,
        "null character special file 1:3 666 0:0\nzero character special file 1:5 666 0:0\n\
         full character special file 1:7 666 0:0\nrandom character special file 1:8 666 0:0\n\
         urandom character special file 1:9 666 0:0\ntty character special file 5:0 666 0:0\n\
         deep/fuse character special file a:e5 660 5:6\n\
         /proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\npts/ptmx\n3\n",
        "{}",
        outcome.stderr
    );
}

/// The cgroup's device rules hold, in both versions.
#[test]
fn forbidden_devices_cannot_be_opened() {
    let outcome = Bundle::new().sh("mknod /dev/mem1 c 1 1 && echo made; dd if=/dev/mem1 bs=1 count=1; echo $?; cat /dev/null; echo $?").run();
    assert_eq!(outcome.stdout, "made\n1\n0\n", "{}", outcome.stderr);
    assert!(outcome.stderr.contains("Operation not permitted"), "{}", outcome.stderr);
}

/// 2026-41579: an image whose /dev or /proc is a symbolic link.
#[test]
fn links_in_place_of_mount_points_are_refused() {
    for name in ["dev", "proc", "sys"] {
        let bundle = Bundle::new();
        let path = bundle.rootfs_path().join(name);
        fs::remove_dir(&path).unwrap();
        std::os::unix::fs::symlink("/etc", &path).unwrap();
        assert!(bundle.try_run().is_err(), "/{name} -> /etc");
        assert_eq!(
            fs::read_dir(bundle.rootfs_path().join("etc")).unwrap().count(),
            2,
            "nothing was made in /etc"
        );
    }
}

/// Links in an image lead into the image, whatever they say.
#[test]
fn bind_targets_stay_inside() {
    let bundle = Bundle::new();
    let outside = bundle.path().join("outside");
    fs::create_dir(&outside).unwrap();
    std::os::unix::fs::symlink(&outside, bundle.rootfs_path().join("absolute")).unwrap();
    std::os::unix::fs::symlink("../../../../../../etc", bundle.rootfs_path().join("relative")).unwrap();
    let source = bundle.path().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("mark"), "here\n").unwrap();
    fs::create_dir_all(bundle.rootfs_path().join(outside.strip_prefix("/").unwrap())).unwrap();
    let bundle = bundle
        .sh("cat /absolute/x/mark /etc/y/mark")
        .mount(
            json!({ "destination": "/absolute/x", "type": "bind", "source": source, "options": ["rbind"] }),
        )
        .mount(
            json!({ "destination": "/relative/y", "type": "bind", "source": source, "options": ["rbind"] }),
        );
    let outcome = bundle.run();
    assert_eq!(outcome.stdout, "here\nhere\n", "{}", outcome.stderr);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
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

#[test]
fn environment_limits_and_names() {
    let outcome = Bundle::new()
        .set("/process/env", json!(["PATH=/bin", "A=1", "A=2", "HOME=/nowhere"]))
        .set("/process/rlimits", json!([{ "type": "RLIMIT_NOFILE", "soft": 77, "hard": 99 }, { "type": "RLIMIT_CORE", "soft": 0, "hard": 0 }]))
        .set("/hostname", json!("a-name"))
        .set("/domainname", json!("example.org"))
        .sh("env | grep -v -E '^(PWD|SHLVL)'; ulimit -Sn; ulimit -Hn; ulimit -c; hostname; cat /proc/sys/kernel/domainname; ip addr show lo | grep -o UP")
        .run();
    assert_eq!(
        outcome.stdout,
        "PATH=/bin\nHOME=/nowhere\nA=2\n77\n99\n0\na-name\nexample.org\nUP\nUP\n".replacen(
            "PATH=/bin\nHOME=/nowhere\nA=2\n",
            &outcome.stdout[..outcome.stdout.find("77").unwrap()],
            1
        )
    );
    let env: std::collections::BTreeSet<&str> = outcome.stdout.lines().take(3).collect();
    assert_eq!(env, ["PATH=/bin", "A=2", "HOME=/nowhere"].into());
}

#[test]
fn sysctls() {
    let outcome = Bundle::new()
        .set("/linux/sysctl", json!({ "net.ipv4.ip_unprivileged_port_start": "0", "kernel.shmmax": "4096" }))
        .sh("cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shmmax")
        .run();
    assert_eq!(outcome.stdout, "0\n4096\n");
    for key in ["kernel.panic", "vm.swappiness", "net/../kernel/panic"] {
        let error = Bundle::new().set("/linux/sysctl", json!({ key: "1" })).try_run().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Spec, "{key}: {error}");
    }
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

#[test]
fn cgroup_limits() {
    let bundle = Bundle::new()
        .args(&["sleep", "100"])
        .set("/linux/resources/memory", json!({ "limit": 33554432, "swap": 33554432 }))
        .set("/linux/resources/pids", json!({ "limit": 17 }))
        .set("/linux/resources/cpu", json!({ "shares": 512, "quota": 50000, "period": 100000 }));
    let container = bundle.start();
    let stats = container.stats().unwrap();
    assert_eq!(stats.memory.limit_bytes, 33554432);
    assert_eq!(stats.pids.limit, Some(17));
    assert!(stats.pids.current >= 1);
    assert!(stats.memory.usage_bytes > 0);
    let folders = cgroup_folders(&bundle.id);
    let read = |name: &str| folders.iter().find_map(|f| fs::read_to_string(f.join(name)).ok());
    assert!(read("cpu.shares").is_some_and(|t| t == "512\n") || read("cpu.weight").is_some());
    assert!(
        read("cpu.cfs_quota_us").is_some_and(|t| t == "50000\n")
            || read("cpu.max").is_some_and(|t| t == "50000 100000\n")
    );
    container
        .update(&serde_json::from_value(json!({ "memory": { "limit": 67108864, "swap": 134217728 }, "pids": { "limit": -1 }, "cpu": { "quota": 20000 } })).unwrap())
        .unwrap();
    let stats = container.stats().unwrap();
    assert_eq!((stats.memory.limit_bytes, stats.pids.limit), (67108864, None));
    container.delete(true).unwrap();
    assert_no_cgroup(&bundle.id);
}

#[test]
fn want_of_memory_is_told() {
    let bundle = Bundle::new()
        .sh("sleep 0.3; x=$(dd if=/dev/zero bs=1M count=64 2>/dev/null | tail -c 60000000); echo $x | wc -c")
        .set("/linux/resources/memory", json!({ "limit": 8388608, "swap": 8388608 }));
    let container = bundle.start();
    let watch = container.oom_watch().expect("a memory cgroup");
    wait(&container);
    assert!(container.oom_kill_count() >= 1);
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    let poll = &mut [rustix::event::PollFd::new(&watch, rustix::event::PollFlags::IN)];
    assert_eq!(rustix::event::poll(poll, Some(&now)), Ok(1));
    container.delete(false).unwrap();
    assert_no_cgroup(&bundle.id);
}

#[test]
fn pause_and_resume() {
    let bundle = Bundle::new().sh("i=0; while true; do i=$((i+1)); echo $i > /tmp/count; done");
    let container = bundle.start();
    let count = || fs::read_to_string(bundle.rootfs_path().join("tmp/count")).unwrap_or_default();
    eventually("it counts", || !count().is_empty());
    container.pause().unwrap();
    assert_eq!(container.status(), Status::Paused);
    assert!(container.pause().is_err());
    let process = json!({ "user": { "uid": 0, "gid": 0 }, "cwd": "/", "args": ["true"] });
    assert_eq!(
        exec(&container, process).unwrap_err().to_string(),
        "cannot exec in a container that is paused"
    );
    let before = count();
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert_eq!(count(), before);
    container.resume().unwrap();
    assert_eq!(container.status(), Status::Running);
    eventually("it goes on", || count() != before);
    container.pause().unwrap();
    container.delete(true).unwrap();
    assert_no_cgroup(&bundle.id);
}

#[test]
fn create_then_start() {
    let bundle = Bundle::new().sh("echo ran > /tmp/mark");
    let spec = bundle.parsed();
    let launch = Launch::new(&bundle.id, bundle.path(), &spec, &bundle.rootfs);
    let (mut container, _) = Container::create(&launch).unwrap();
    assert_eq!(container.status(), Status::Created);
    assert!(!bundle.rootfs_path().join("tmp/mark").exists());
    container.start().unwrap();
    assert!(container.start().is_err());
    assert_eq!(wait(&container), 0);
    assert_eq!(container.status(), Status::Stopped);
    assert!(bundle.rootfs_path().join("tmp/mark").exists());
    container.delete(false).unwrap();
}

#[test]
fn a_created_container_can_be_deleted() {
    let bundle = Bundle::new();
    let spec = bundle.parsed();
    let (container, _) =
        Container::create(&Launch::new(&bundle.id, bundle.path(), &spec, &bundle.rootfs)).unwrap();
    container.delete(true).unwrap();
    assert_no_cgroup(&bundle.id);
}

#[test]
fn another_process_can_start_it() {
    let bundle = Bundle::new().args(&["sleep", "100"]);
    let spec = bundle.parsed();
    let mut launch = Launch::new(&bundle.id, bundle.path(), &spec, &bundle.rootfs);
    launch.start_socket_in = Some(bundle.path());
    let (container, _) = Container::create(&launch).unwrap();
    let saved = serde_json::to_string(&container.save().unwrap()).unwrap();
    let opened: wherry_runtime::SavedState = serde_json::from_str(&saved).unwrap();
    let mut opened = opened.open().unwrap().unwrap();
    assert_eq!(opened.status(), Status::Created);
    opened.start().unwrap();
    assert_eq!(opened.status(), Status::Running);
    assert!(opened.start().is_err());
    container.delete(true).unwrap();
    assert_no_cgroup(&bundle.id);
}

fn exec(container: &Container, process: serde_json::Value) -> Result<(i32, String), wherry_runtime::Error> {
    let process: oci_spec::runtime::Process = serde_json::from_value(process).unwrap();
    let (out, out_end) = std::io::pipe().unwrap();
    let null = fs::File::open("/dev/null").unwrap();
    let stdio = Stdio::Fds { stdin: null.as_fd(), stdout: out_end.as_fd(), stderr: out_end.as_fd() };
    let result = container.exec(&process, stdio, &ExecOptions::default());
    drop(out_end);
    let process = result?;
    let output = text(out);
    Ok((wait_pidfd(process.pidfd.as_fd()), output))
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
fn network_namespace_by_path() {
    let holder = Bundle::new().args(&["sleep", "100"]);
    let container = holder.start();
    let path = format!("/proc/{}/ns/net", container.pid());
    let expect = fs::read_link(&path).unwrap().to_string_lossy().into_owned();
    let bundle = Bundle::new().sh("readlink /proc/self/ns/net").set(
        "/linux/namespaces",
        json!([{ "type": "mount" }, { "type": "pid" }, { "type": "network", "path": path }]),
    );
    let mut bundle = bundle;
    bundle.spec.as_object_mut().unwrap().remove("hostname");
    assert_eq!(bundle.run().stdout.trim(), expect);
    container.delete(true).unwrap();
}

#[test]
fn pid_namespace_by_path() {
    let holder = Bundle::new().args(&["sleep", "123"]);
    let container = holder.start();
    let path = format!("/proc/{}/ns/pid", container.pid());
    let bundle = Bundle::new()
        .sh("ps; exit 3")
        .set("/linux/namespaces", json!([{ "type": "mount" }, { "type": "uts" }, { "type": "network" }, { "type": "pid", "path": path }]));
    let outcome = bundle.run();
    assert_eq!(outcome.code, 3);
    assert!(outcome.stdout.contains("sleep 123"), "{}", outcome.stdout);
    container.delete(true).unwrap();
}

#[test]
fn cgroup_namespace() {
    let bundle = Bundle::new().sh("cat /proc/self/cgroup");
    let mut bundle = bundle;
    bundle.spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "cgroup" }));
    let outcome = bundle.run();
    assert!(outcome.stdout.lines().all(|line| line.ends_with(":/")), "{}", outcome.stdout);
}

#[test]
fn time_namespace_with_offsets() {
    let mut bundle = Bundle::new().sh("cat /proc/uptime");
    bundle.spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "time" }));
    let bundle = bundle.set("/linux/timeOffsets", json!({ "boottime": { "secs": 10_000_000 } }));
    let outcome = bundle.run();
    let uptime: f64 = outcome.stdout.split(' ').next().unwrap().parse().unwrap();
    assert!(uptime > 10_000_000.0, "{}", outcome.stdout);
}

#[test]
fn user_namespace() {
    let mut bundle = Bundle::new().sh("id -u; cat /proc/self/uid_map; touch /tmp/x; stat -c %u /dev/null; echo x > /dev/null; cat /proc/keys | wc -c; cat /proc/self/cgroup | wc -l");
    bundle.spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
    let map = json!([{ "containerID": 0, "hostID": 200000, "size": 65536 }]);
    let bundle = bundle.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
    std::os::unix::fs::chown(bundle.rootfs_path().join("tmp"), Some(200_000), Some(200_000)).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(bundle.path(), mode).unwrap();
    let outcome = bundle.run();
    assert!(
        outcome.stdout.starts_with("0\n         0     200000      65536\n65534\n0\n"),
        "{} {}",
        outcome.stdout,
        outcome.stderr
    );
    let owner =
        std::os::unix::fs::MetadataExt::uid(&fs::metadata(bundle.rootfs_path().join("tmp/x")).unwrap());
    assert_eq!(owner, 200_000);
    let bundle = bundle.args(&["sleep", "100"]);
    let container = bundle.start();
    let (code, output) =
        exec(&container, json!({ "user": { "uid": 0, "gid": 0 }, "cwd": "/", "args": ["id", "-u"] }))
            .unwrap();
    assert_eq!((code, output.as_str()), (0, "0\n"));
    container.delete(true).unwrap();
}

#[test]
fn overlay_rootfs() {
    let mut bundle = Bundle::new().sh("cat /a /b /both; echo new > /new; rm /a");
    let path = bundle.path().to_path_buf();
    for (layer, files) in [("one", ["a", "both"]), ("two", ["b", "both"])] {
        fs::create_dir(path.join(layer)).unwrap();
        for file in files {
            fs::write(path.join(layer).join(file), format!("{layer}\n")).unwrap();
        }
    }
    for folder in ["diff", "work", "merged"] {
        fs::create_dir(path.join(folder)).unwrap();
    }
    bundle.rootfs = RootfsSource::Overlay {
        lower: vec![path.join("two"), path.join("one"), path.join("rootfs")],
        upper: path.join("diff"),
        work: path.join("work"),
    };
    let bundle = bundle.set("/root/path", json!(path.join("merged")));
    let outcome = bundle.run();
    assert_eq!(outcome.stdout, "one\ntwo\ntwo\n", "{}", outcome.stderr);
    assert_eq!(fs::read_to_string(path.join("diff/new")).unwrap(), "new\n");
    assert_eq!(fs::read_dir(path.join("merged")).unwrap().count(), 0, "nothing is mounted on the host");
    assert!(path.join("rootfs/bin").exists());
}

/// More and longer layers than fit into one page or one string.
#[test]
fn overlay_of_many_long_layers() {
    let mut bundle = Bundle::new().sh("cat /file; ls / | grep -c layer");
    let path = bundle.path().join("x".repeat(200)).join("y".repeat(100));
    fs::create_dir_all(&path).unwrap();
    let mut lower = Vec::new();
    for layer in (0..60).rev() {
        let layer_path = path.join(layer.to_string());
        fs::create_dir(&layer_path).unwrap();
        fs::write(layer_path.join("file"), format!("{layer}\n")).unwrap();
        fs::write(layer_path.join(format!("layer{layer}")), "").unwrap();
        lower.push(layer_path);
    }
    lower.push(bundle.rootfs_path());
    for folder in ["diff", "work", "merged"] {
        fs::create_dir(path.join(folder)).unwrap();
    }
    bundle.rootfs = RootfsSource::Overlay { lower, upper: path.join("diff"), work: path.join("work") };
    let bundle = bundle.set("/root/path", json!(path.join("merged")));
    assert_eq!(bundle.run().stdout, "59\n60\n");
}

#[test]
fn modes_of_tmpfs() {
    let tmpfs = |path: &str, options: &[&str]| json!({ "destination": path, "type": "tmpfs", "source": "tmpfs", "options": options });
    let outcome = Bundle::new()
        .sh("stat -c '%n %a' /new /etc /a /a/b")
        .mount(tmpfs("/new", &[]))
        .mount(tmpfs("/etc", &["size=1m"]))
        .mount(tmpfs("/a/b", &["mode=700"]))
        .run();
    assert_eq!(outcome.stdout, "/new 1777\n/etc 755\n/a 755\n/a/b 700\n", "as with dockerd");
}

#[test]
fn own_session_keyring() {
    let outcome = Bundle::new().sh("cat /proc/keys").set("/linux/maskedPaths", json!([])).run();
    assert!(outcome.stdout.contains("_ses.wherry-test-"), "{}", outcome.stdout);
}

/// Mounts made on the host later come into an `rslave` bind, and go to the host out of an `rshared` one.
#[test]
fn propagation() {
    let bundle = Bundle::new().args(&["sleep", "100"]);
    let shared = bundle.path().join("shared");
    fs::create_dir(&shared).unwrap();
    let mount =
        |args: &[&str]| assert!(std::process::Command::new("mount").args(args).status().unwrap().success());
    let path = shared.to_str().unwrap();
    mount(&["-t", "tmpfs", "none", path]);
    mount(&["--make-shared", path]);
    for folder in ["in", "out"] {
        fs::create_dir(shared.join(folder)).unwrap();
    }
    let bind = |to: &str, propagation: &str| json!({ "destination": to, "type": "bind", "source": path, "options": ["rbind", propagation] });
    let bundle = bundle
        .mount(bind("/private", "rprivate"))
        .mount(bind("/slave", "rslave"))
        .mount(bind("/shared", "rshared"));
    let bundle = bundle.set("/process/capabilities", json!({ "bounding": ["CAP_SYS_ADMIN"], "effective": ["CAP_SYS_ADMIN"], "permitted": ["CAP_SYS_ADMIN"] }));
    let container = bundle.start();
    mount(&["-t", "tmpfs", "none", shared.join("in").to_str().unwrap()]);
    fs::write(shared.join("in/mark"), "").unwrap();
    let process = json!({ "user": { "uid": 0, "gid": 0 }, "cwd": "/", "args": ["sh", "-c", "ls -d /*/in/mark; mount -t tmpfs none /slave/out && touch /slave/out/no; mount -t tmpfs none /shared/out && touch /shared/out/yes"],
        "capabilities": { "bounding": ["CAP_SYS_ADMIN"], "effective": ["CAP_SYS_ADMIN"], "permitted": ["CAP_SYS_ADMIN"] } });
    let result = exec(&container, process);
    let seen: Vec<bool> = ["out/yes", "out/no"].iter().map(|name| shared.join(name).exists()).collect();
    container.delete(true).unwrap();
    let unmounted = std::process::Command::new("umount").args(["-R", path]).status().unwrap();
    assert!(unmounted.success());
    assert_eq!(result.unwrap().1, "/shared/in/mark\n/slave/in/mark\n");
    assert_eq!(seen, [true, false]);
}

/// CVE-2021-30465: somebody swaps a folder of a shared volume for a link while mounts are made in it.
#[test]
fn swapped_links_lead_nowhere() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let volume = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    let (real, link) = (volume.path().join("real"), volume.path().join("link"));
    fs::create_dir(&real).unwrap();
    std::os::unix::fs::symlink(outside.path(), &link).unwrap();
    let bundles: Vec<Bundle> = (0..20)
        .map(|_| {
            Bundle::new()
                .mount(json!({ "destination": "/volume", "type": "bind", "source": volume.path(), "options": ["rbind"] }))
                .mount(json!({ "destination": "/volume/real/deep", "type": "tmpfs", "source": "tmpfs", "options": [] }))
                .sh("cat /proc/self/mountinfo | grep -c deep")
        })
        .collect();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let flags = rustix::fs::RenameFlags::EXCHANGE;
                let _ = rustix::fs::renameat_with(rustix::fs::CWD, &real, rustix::fs::CWD, &link, flags);
            }
        });
        for bundle in &bundles {
            // it may fail, it may work; it may not leave the container
            let _ = bundle.try_run();
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!table.contains(outside.path().to_str().unwrap()));
}

#[test]
fn tmpfs_begins_with_what_it_covers() {
    let bundle = Bundle::new().sh(
        "cat /seed/file /seed/sub/deep; readlink /seed/link; stat -c %a /seed /seed/file; echo x > /seed/new",
    );
    let seed = bundle.rootfs_path().join("seed");
    fs::create_dir_all(seed.join("sub")).unwrap();
    fs::write(seed.join("file"), "one\n").unwrap();
    fs::write(seed.join("sub/deep"), "two\n").unwrap();
    std::os::unix::fs::symlink("sub/deep", seed.join("link")).unwrap();
    for (path, mode) in [(seed.clone(), 0o751), (seed.join("file"), 0o640)] {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    }
    let outcome = bundle
        .mount(
            json!({ "destination": "/seed", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"] }),
        )
        .run();
    assert_eq!(outcome.stdout, "one\ntwo\nsub/deep\n751\n640\n", "{}", outcome.stderr);
    assert!(!seed.join("new").exists());
}

#[test]
fn hooks_run_in_their_order_and_place() {
    let bundle = Bundle::new().sh("echo program >> /log; cat /log");
    let log = bundle.rootfs_path().join("log");
    let script = |name: &str, path: &std::path::Path, shell: &str| json!({ "path": shell, "args": ["sh", "-c", format!("head -c 1 > /dev/null; echo {name} >> {}", path.display())] });
    let inside = std::path::Path::new("/log");
    let bundle = bundle.set(
        "/hooks",
        json!({
            "prestart": [script("prestart", &log, "/bin/sh")],
            "createRuntime": [script("createRuntime", &log, "/bin/sh")],
            "createContainer": [script("createContainer", &log, "/bin/sh")],
            "startContainer": [script("startContainer", inside, "/bin/sh")],
            "poststop": [script("poststop", &log, "/bin/sh")],
        }),
    );
    let outcome = bundle.run();
    assert_eq!(
        outcome.stdout, "prestart\ncreateRuntime\ncreateContainer\nstartContainer\nprogram\n",
        "{}",
        outcome.stderr
    );
    assert!(fs::read_to_string(&log).unwrap().ends_with("poststop\n"));
    let error = Bundle::new()
        .set("/hooks", json!({ "createRuntime": [{ "path": "/bin/false" }] }))
        .try_run()
        .unwrap_err();
    assert!(error.to_string().starts_with("error running createRuntime hook #0: "), "{error}");
    let error = Bundle::new()
        .set("/hooks", json!({ "createContainer": [{ "path": "/bin/false" }] }))
        .try_run()
        .unwrap_err();
    assert!(error.to_string().contains("/bin/false"), "{error}");
    let error = Bundle::new()
        .set(
            "/hooks",
            json!({ "createContainer": [{ "path": "/bin/sleep", "args": ["sleep", "100"], "timeout": 1 }] }),
        )
        .try_run()
        .unwrap_err();
    assert_eq!(error.errno(), Some(110), "{error}");
}

/// CVE-2019-5736: the container must not get hold of the program that starts it.
#[test]
fn own_program_cannot_be_executed() {
    let bundle = Bundle::new();
    std::os::unix::fs::symlink("/proc/self/exe", bundle.rootfs_path().join("bin/evil")).unwrap();
    let error = bundle.args(&["/bin/evil"]).try_run().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotExecutable, "{error}");
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
            let _ = nix_dup2(reader.as_fd(), 3);
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

fn nix_dup2(fd: std::os::fd::BorrowedFd<'_>, number: i32) -> std::io::Result<()> {
    use std::os::fd::FromRawFd;
    #[allow(unsafe_code)]
    // SAFETY: nothing in this process uses the number; it is given up at once.
    let mut target = unsafe { std::os::fd::OwnedFd::from_raw_fd(number) };
    rustix::io::dup2(fd, &mut target)?;
    std::mem::forget(target);
    Ok(())
}

/// The child must not depend on locks that other threads hold.
#[test]
fn fifty_containers_from_eight_threads() {
    // made before: a file that is being written cannot be executed, and forks inherit the descriptor
    let bundles: Vec<Bundle> = (0..50).map(|_| Bundle::new().sh("echo $((6*7))")).collect();
    let busy = std::sync::atomic::AtomicBool::new(true);
    std::thread::scope(|scope| {
        // a ninth thread keeps the allocator's locks busy
        scope.spawn(|| {
            while busy.load(std::sync::atomic::Ordering::Relaxed) {
                std::hint::black_box(vec![vec![0_u8; 100]; 1000]);
            }
        });
        let workers: Vec<_> = bundles
            .chunks(7)
            .map(|chunk| scope.spawn(move || chunk.iter().map(Bundle::try_run).collect::<Vec<_>>()))
            .collect();
        assert_eq!(workers.len(), 8);
        let results: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        busy.store(false, std::sync::atomic::Ordering::Relaxed);
        for result in results {
            for outcome in result.unwrap() {
                let outcome = outcome.unwrap();
                assert_eq!((outcome.code, outcome.stdout.as_str()), (0, "42\n"));
            }
        }
    });
}
