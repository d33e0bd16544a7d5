//! How runtimes were broken, tried again.

use std::fs;

use crate::support::Bundle;
use serde_json::json;
use wherry_runtime::ErrorKind;

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

/// The cgroup's device rules hold, in both versions.
#[test]
fn forbidden_devices_cannot_be_opened() {
    let outcome = Bundle::new().sh("mknod /dev/mem1 c 1 1 && echo made; dd if=/dev/mem1 bs=1 count=1; echo $?; cat /dev/null; echo $?").run();
    assert_eq!(outcome.stdout, "made\n1\n0\n", "{}", outcome.stderr);
    assert!(outcome.stderr.contains("Operation not permitted"), "{}", outcome.stderr);
}

/// What belongs to the host is not changed by a container that shares it.
#[test]
fn shared_namespaces_are_left_alone() {
    let namespaces = json!([{ "type": "mount" }, { "type": "pid" }]);
    let before = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let error = Bundle::new().set("/linux/namespaces", namespaces.clone()).try_run().unwrap_err();
    assert!(error.to_string().starts_with("config.json: hostname: "), "{error}");
    assert_eq!(fs::read_to_string("/proc/sys/kernel/hostname").unwrap(), before);
    for key in ["net.ipv4.ip_forward", "kernel.shmmax", "kernel.domainname"] {
        let bundle = Bundle::new().set("/linux/namespaces", namespaces.clone()).set("/hostname", json!(""));
        let error = bundle.set("/linux/sysctl", json!({ key: "1" })).try_run().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Spec, "{key}: {error}");
    }
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

/// CVE-2019-5736: the container must not get hold of the program that starts it.
#[test]
fn own_program_cannot_be_executed() {
    let bundle = Bundle::new();
    std::os::unix::fs::symlink("/proc/self/exe", bundle.rootfs_path().join("bin/evil")).unwrap();
    let error = bundle.args(&["/bin/evil"]).try_run().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotExecutable, "{error}");
}
