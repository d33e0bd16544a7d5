//! File systems, devices, parameters.

use std::fs;

use crate::support::{Bundle, exec, unified};
use serde_json::json;
use wherry_runtime::{ErrorKind, Launch, RootfsSource};

const TMPFS_OF_GROUPS: &str = "ro,nosuid,nodev,noexec,relatime - tmpfs tmpfs rw,mode=755";

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
        // version 2 is the host's own mount in the host's cgroup namespace: what is mounted there comes in, nothing goes out
        ("/sys/fs/cgroup", if unified() { "ro,nosuid,nodev,noexec,relatime " } else { TMPFS_OF_GROUPS }),
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
    assert!(!table.contains(" shared:"), "a mount would reach the host: {table}");
    assert!(!unified() || line("/sys/fs/cgroup").contains(" - cgroup2 "), "{table}");
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

/// The texts are runc's: some clients look for their words.
#[test]
fn mounts_that_do_not_fit() {
    let bind = |to: &str| json!({ "destination": to, "type": "bind", "source": "/etc/hostname", "options": ["rbind"] });
    let error = Bundle::new().mount(bind("/etc")).try_run().unwrap_err();
    assert_eq!(
        error.to_string(),
        "error mounting \"/etc/hostname\" to rootfs at \"/etc\": mount src=/etc/hostname, dst=/etc: not a directory: Are you trying \
         to mount a directory onto a file (or vice-versa)? Check if the specified host path exists and is the expected type"
    );
    let folder =
        json!({ "destination": "/etc/passwd", "type": "bind", "source": "/tmp", "options": ["rbind"] });
    let error = Bundle::new().mount(folder).try_run().unwrap_err();
    assert!(
        error.to_string().contains("not a directory: Are you trying to mount a directory onto a file"),
        "{error}"
    );
    let error = Bundle::new().mount(bind("/proc/x")).try_run().unwrap_err();
    assert_eq!(
        error.to_string(),
        "error mounting \"/etc/hostname\" to rootfs at \"/proc/x\": create mountpoint for /proc/x mount: make mountpoint \"/proc/x\": no such file or directory"
    );
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

/// Whatever the kernel was built to do: a layer that is copied must be whole by itself.
#[test]
#[ignore = "changes settings of the kernel that others use: make test-vm"]
fn layers_are_plain() {
    let mut bundle = Bundle::new().sh("mv /tmp/folder /tmp/moved; chmod 600 /tmp/moved/file");
    let path = bundle.path().to_path_buf();
    for folder in ["rootfs/tmp/folder", "diff", "work", "merged"] {
        fs::create_dir(path.join(folder)).unwrap();
    }
    fs::write(path.join("rootfs/tmp/folder/file"), "content").unwrap();
    bundle.rootfs = RootfsSource::Overlay {
        lower: vec![path.join("rootfs")],
        upper: path.join("diff"),
        work: path.join("work"),
    };
    let bundle = bundle.set("/root/path", json!(path.join("merged")));
    let parameters = std::path::Path::new("/sys/module/overlay/parameters");
    let before: Vec<_> = ["redirect_dir", "metacopy"]
        .map(|name| (parameters.join(name), fs::read_to_string(parameters.join(name))))
        .into();
    for (file, _) in &before {
        let _ = fs::write(file, "Y"); // where the kernel lets us
    }
    let outcome = bundle.try_run();
    for (file, value) in before {
        value.map_or(Ok(()), |value| fs::write(file, value.trim())).unwrap();
    }
    assert_eq!(outcome.unwrap().code, 0);
    assert_eq!(fs::read_to_string(path.join("diff/tmp/moved/file")).unwrap(), "content");
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
    // As another runtime gets it: on the host, and without a descriptor for each layer that stays open.
    let spec = bundle.parsed();
    let layers = |fd: &fs::DirEntry| fs::read_link(fd.path()).is_ok_and(|link| link.starts_with(&path));
    let descriptors = || fs::read_dir("/proc/self/fd").unwrap().flatten().filter(layers).count();
    Launch::new(&bundle.id, bundle.path(), &spec, &bundle.rootfs).mount_overlay().unwrap();
    let seen = fs::read_to_string(path.join("merged/file"));
    let after = descriptors();
    rustix::mount::unmount(path.join("merged"), rustix::mount::UnmountFlags::DETACH).unwrap();
    assert_eq!((seen.unwrap().as_str(), after), ("59\n", 0));
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

/// A bind mount for which some flags are asked has those, and not the source's others; one without a word has the source's.
#[test]
fn flags_of_a_source() {
    let bundle = Bundle::new().sh("while read -r _ point _ flags _; do case $point in /a|/b|/c) echo $point $flags;; esac; done < /proc/self/mounts");
    let source = bundle.path().join("source");
    fs::create_dir(&source).unwrap();
    let mount = |args: &[&str]| {
        let done = std::process::Command::new("mount").args(args).arg(&source).status().unwrap();
        assert!(done.success());
    };
    mount(&["-t", "tmpfs", "none"]);
    mount(&["--bind", "-o", "remount,nosuid,noexec,noatime"]);
    let bind = |to: &str, options: &[&str]| json!({ "destination": to, "type": "bind", "source": source, "options": options });
    let bundle = bundle
        .mount(bind("/a", &["bind"]))
        .mount(bind("/b", &["bind", "ro"]))
        .mount(bind("/c", &["bind", "exec", "relatime"]));
    let plain = bundle.try_run();
    // in another user namespace what protects the source stays, and may not be taken away in words
    let map = json!([{ "containerID": 0, "hostID": 200_000, "size": 65536 }]);
    let mut bundle = bundle.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
    bundle.spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(bundle.path(), mode).unwrap();
    let refused = bundle.try_run();
    bundle.spec["mounts"].as_array_mut().unwrap().pop();
    let within = bundle.try_run();
    let unmounted = std::process::Command::new("umount").arg(&source).status().unwrap();
    assert!(unmounted.success());
    let flags = |outcome: Result<crate::support::Outcome, wherry_runtime::Error>| {
        let outcome = outcome.unwrap();
        let line =
            |line: &str| line.split(',').take_while(|word| *word != "inode64").collect::<Vec<_>>().join(",");
        outcome.stdout.lines().map(line).collect::<Vec<_>>()
    };
    assert_eq!(flags(plain), ["/a rw,nosuid,noexec,noatime", "/b ro,noatime", "/c rw,relatime"]);
    assert_eq!(flags(within), ["/a rw,nosuid,noexec,noatime", "/b ro,nosuid,noexec,noatime"]);
    let refused = refused.unwrap_err();
    assert_eq!(refused.errno(), Some(1), "{refused}");
}

/// Sources in the root file system that earlier mounts of the container make, bound and with mapped ids, in a user
/// namespace and without. The paths may be given as the host's.
#[test]
fn sources_that_earlier_mounts_make() {
    for (user, idmap) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut bundle = Bundle::new().sh("cat /final/x/y/file; stat -c %u /final/x/y/file");
        let root = bundle.rootfs_path();
        for folder in ["one/x", "two/y", "three"] {
            fs::create_dir_all(bundle.path().join(folder)).unwrap();
        }
        fs::write(bundle.path().join("three/file"), "from three\n").unwrap();
        let owner = if user { 200_000 } else { 0 };
        if user {
            let map = json!([{ "containerID": 0, "hostID": owner, "size": 65536 }]);
            bundle.spec["linux"]["uidMappings"] = map.clone();
            bundle.spec["linux"]["gidMappings"] = map;
            bundle.spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
            let open: fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            fs::set_permissions(bundle.path(), open).unwrap();
        }
        for folder in ["mnt", "final"] {
            fs::create_dir(root.join(folder)).unwrap();
        }
        let bind = |from: std::path::PathBuf, to: &str, options: &[&str]| json!({ "destination": to, "type": "bind", "source": from, "options": options });
        let mut last = bind(root.join("mnt"), root.join("final").to_str().unwrap(), &["rbind"]);
        if idmap {
            last["options"] = json!(["rbind", "ridmap"]);
            let map = json!([{ "containerID": 0, "hostID": owner + 7, "size": 1 }]);
            last["uidMappings"] = map.clone();
            last["gidMappings"] = map;
        }
        let bundle = bundle
            .mount(bind(bundle_path(&root, "one"), "/mnt", &["bind"]))
            .mount(bind(bundle_path(&root, "two"), "/mnt/x", &["bind"]))
            .mount(bind(bundle_path(&root, "three"), "/mnt/x/y", &["bind"]))
            .mount(last);
        let outcome = bundle.run();
        let uid = match (user, idmap) {
            (false, false) => 0,
            (true, false) => 65534,
            (_, true) => 7,
        };
        assert_eq!(outcome.stdout, format!("from three\n{uid}\n"), "{user} {idmap}: {}", outcome.stderr);
    }
}

fn bundle_path(root: &std::path::Path, name: &str) -> std::path::PathBuf {
    root.parent().unwrap().join(name)
}

/// A source in the container is what the container sees there: a link to the host's files leads nowhere.
#[test]
fn sources_inside_stay_inside() {
    let bundle = Bundle::new().sh("ls /seen");
    let source = bundle.path().join("source");
    fs::create_dir(&source).unwrap();
    std::os::unix::fs::symlink(bundle.path(), source.join("out")).unwrap();
    let bind = |from: std::path::PathBuf, to: &str| json!({ "destination": to, "type": "bind", "source": from, "options": ["rbind"] });
    let through = bundle.rootfs_path().join("mnt/out");
    let error =
        bundle.mount(bind(source, "/mnt")).mount(bind(through.clone(), "/seen")).try_run().unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("open mount source {}: no such file or directory", through.display())
    );
}

/// Targets are made where links that lead nowhere would lead, inside the root.
#[test]
fn targets_through_links_that_lead_nowhere() {
    use std::os::unix::fs::symlink;
    let bundle = Bundle::new();
    let root = bundle.rootfs_path();
    let source = bundle.path().join("hosts");
    fs::write(&source, "hosts\n").unwrap();
    symlink("/tmp/foo/bar/", root.join("jump")).unwrap();
    symlink("/jump/baz/hosts", root.join("etc/hosts")).unwrap();
    symlink("../run//up/hosts", root.join("etc/relative")).unwrap();
    symlink("../../../../../../../out/hosts", root.join("etc/far")).unwrap();
    symlink("new/", root.join("folder")).unwrap();
    let mut bundle =
        bundle.sh("cat /tmp/foo/bar/baz/hosts /run/up/hosts /out/hosts /etc/hosts; ls /new | head -1");
    for target in ["/etc/hosts", "/etc/relative", "/etc/far"] {
        bundle = bundle.mount(
            json!({ "destination": target, "type": "bind", "source": source, "options": ["bind", "ro"] }),
        );
    }
    let bundle = bundle
        .mount(json!({ "destination": "/folder", "type": "bind", "source": "/bin/", "options": ["bind"] }));
    let outcome = bundle.run();
    assert!(outcome.stdout.starts_with(&"hosts\n".repeat(4)), "{} {}", outcome.stdout, outcome.stderr);
    assert_eq!(outcome.stdout.lines().count(), 5);
    let files = ["tmp/foo/bar/baz/hosts", "run/up/hosts", "out/hosts"];
    assert!(files.iter().all(|file| root.join(file).is_file()) && root.join("new").is_dir());
    // and what leads nowhere for good is refused
    for (text, errno) in [("loop", libc::ELOOP), ("missing/..", libc::ENOENT)] {
        let bundle = Bundle::new();
        symlink(text, bundle.rootfs_path().join("loop")).unwrap();
        let error = bundle
            .mount(json!({ "destination": "/loop", "type": "bind", "source": "/etc/hostname", "options": ["bind"] }))
            .try_run()
            .unwrap_err();
        assert_eq!(error.errno(), Some(errno), "{text}: {error}");
    }
}

/// A tmpfs has the permissions of the folder that it covers from its first moment, and shows them.
#[test]
fn permissions_of_a_tmpfs_are_its_option() {
    let bundle = Bundle::new().sh("stat -c %a /covers /own; grep ' /covers ' /proc/self/mounts");
    let root = bundle.rootfs_path();
    for folder in ["covers", "own"] {
        fs::create_dir(root.join(folder)).unwrap();
        let mode: fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(0o1710);
        fs::set_permissions(root.join(folder), mode).unwrap();
    }
    let tmpfs = |to: &str, options: &[&str]| json!({ "destination": to, "type": "tmpfs", "source": "tmpfs", "options": options });
    let bundle = bundle.mount(tmpfs("/covers", &["nosuid"])).mount(tmpfs("/own", &["mode=701", "ro"]));
    let outcome = bundle.run();
    assert!(outcome.stdout.starts_with("1710\n701\n"), "{} {}", outcome.stdout, outcome.stderr);
    assert!(outcome.stdout.contains("mode=1710"), "{}", outcome.stdout);
}
