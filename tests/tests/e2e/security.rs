//! What a container may not do unless asked.

use wherry_tests::Host;

const CAPABILITIES: &str = "grep Cap /proc/self/status | tr -d '\\t'";

#[test]
fn capabilities() {
    let host = Host::new();
    let of = |options: &str| {
        let mut line: Vec<&str> = vec!["run", "--rm"];
        line.extend(options.split_whitespace());
        line.extend(["busybox", "sh", "-c", CAPABILITIES]);
        let text = host.docker(line.as_slice()).ok().stdout;
        let value =
            |name: &str| text.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_default().to_owned();
        (value("CapInh:"), value("CapPrm:"), value("CapEff:"), value("CapBnd:"), value("CapAmb:"))
    };
    let none = "0000000000000000";
    let same = |set: &str| (none.to_owned(), set.to_owned(), set.to_owned(), set.to_owned(), none.to_owned());
    assert_eq!(of(""), same("00000000a80425fb"));
    assert_eq!(of("--cap-drop ALL"), same(none));
    assert_eq!(of("--cap-drop ALL --cap-add NET_ADMIN"), same("0000000000001000"));
    assert_eq!(of("--cap-add sys_ptrace --cap-drop CAP_CHOWN"), same("00000000a80c25fa"));
    let user = of("-u 33");
    assert_eq!((user.1.as_str(), user.2.as_str(), user.3.as_str()), (none, none, "00000000a80425fb"));
    host.docker("run --rm --cap-add NOSUCH busybox true")
        .fails(125, "invalid CapAdd: unknown capability: \"CAP_NOSUCH\"");
}

#[test]
fn the_kernels_files_are_out_of_reach() {
    let host = Host::new();
    for (command, code) in [
        ("echo 0 >/proc/sys/kernel/panic", 1),
        ("echo b >/proc/sysrq-trigger", 1),
        ("test -s /proc/kcore", 1),
        ("test -s /proc/keys", 1),
        (
            "for d in /sys/fs/cgroup/memory /sys/fs/cgroup; do [ -e $d/cgroup.procs ] && mkdir $d/x && exit 0; done; exit 1",
            1,
        ),
        ("mount -t tmpfs none /mnt", 1),
        ("mkdir /m && mount -t tmpfs none /m", 1),
        ("unshare -m true", 1),
        ("hostname other", 1),
        ("mknod /dev/sda b 8 0 && head -c 1 /dev/sda", 1),
        ("grep -q '^Seccomp:.2' /proc/self/status", 0),
        ("grep -q '^NoNewPrivs:.0' /proc/self/status", 0),
        ("ls /proc/self/fd | wc -l | grep -q '^4$'", 0),
    ] {
        let output = host.docker(&["run", "--rm", "busybox", "sh", "-c", command]);
        assert!((output.code == 0) == (code == 0), "{output}");
    }
    for (options, command) in [
        ("--security-opt no-new-privileges", "grep -q '^NoNewPrivs:.1' /proc/self/status"),
        ("--security-opt seccomp=unconfined", "grep -q '^Seccomp:.0' /proc/self/status"),
        ("--cap-add SYS_ADMIN", "mount -t tmpfs none /tmp"),
    ] {
        let mut line: Vec<&str> = vec!["run", "--rm"];
        line.extend(options.split(' '));
        line.extend(["busybox", "sh", "-c", command]);
        host.docker(line.as_slice()).ok();
    }
}

#[test]
fn privileged_may_nearly_all() {
    let host = Host::new();
    for command in [
        "mount -t tmpfs none /tmp && touch /tmp/x",
        "grep -q '^Seccomp:.0' /proc/self/status",
        "test -w /proc/sys/kernel/panic && cat /proc/sys/kernel/panic >/proc/sys/kernel/panic",
        "test $(ls /dev | wc -l) -gt 20",
        "hostname other",
        "grep -q ' /sys sysfs rw' /proc/mounts",
    ] {
        host.docker(&["run", "--rm", "--privileged", "busybox", "sh", "-c", command]).ok();
    }
}

#[test]
fn folders_of_the_engine_are_closed() {
    use std::os::unix::fs::PermissionsExt;
    let host = Host::new();
    host.docker("run -d --name box busybox sleep 600").ok();
    let mode = |path: &str| std::fs::metadata(host.root().join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("data") & 0o007, 0, "{:o}", mode("data"));
    assert_eq!(mode("data/containers") & 0o007, 0, "{:o}", mode("data/containers"));
    assert_eq!(mode("socket") & 0o007, 0, "{:o}", mode("socket"));
}

#[test]
fn a_hostile_image_stays_inside() {
    let host = Host::new();
    // Mount points that are links, absolute and upwards, resolve inside the root.
    let script = "rm -rf /var/www && ln -s /etc /var/www && ln -s ../../../../../../tmp /up";
    host.docker(&["run", "--name", "made", "busybox", "sh", "-c", script]).ok();
    let folder = host.folder().join("shared");
    std::fs::create_dir(&folder).unwrap();
    let volume = format!("{}:/link", folder.display());
    let check = "ln -s /etc /link/escape; echo x >/link/file; ls /link";
    host.docker(&["run", "--rm", "-v", &volume, "busybox", "sh", "-c", check]).prints("escape\nfile");
    assert!(folder.join("file").exists());
    host.docker(&["run", "--rm", "-v", &volume, "-v", "inner:/link/escape/x", "busybox", "ls", "/etc/x"])
        .ok();
    assert!(!std::path::Path::new("/etc/x").exists(), "the mount point was made inside");
}
