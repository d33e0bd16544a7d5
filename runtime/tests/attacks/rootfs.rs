//! Images that have something else where folders are expected.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use serde_json::json;

use crate::stage::Outside;
use crate::support::{Bundle, assert_no_cgroup};

/// What may stand in a path's place.
const KINDS: [&str; 9] = [
    "absolute link",
    "relative link",
    "link to /proc/self",
    "dangling link",
    "loop",
    "fifo",
    "device",
    "file",
    "huge file",
];

fn plant(kind: &str, path: &Path, outside: &Path) {
    let _ = fs::remove_dir_all(path);
    let _ = fs::remove_file(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let node = |kind, device| mknodat(CWD, path, kind, Mode::from_raw_mode(0o666), device).unwrap();
    match kind {
        "absolute link" => symlink(outside, path).unwrap(),
        "relative link" => {
            symlink(format!("{}{}", "../".repeat(30), outside.strip_prefix("/").unwrap().display()), path)
                .unwrap()
        }
        "link to /proc/self" => symlink("/proc/self/root", path).unwrap(),
        "dangling link" => symlink(outside.join("missing/x"), path).unwrap(),
        "loop" => symlink(path.file_name().unwrap(), path).unwrap(),
        "fifo" => node(FileType::Fifo, 0),
        "device" => node(FileType::CharacterDevice, makedev(1, 1)),
        "file" => fs::write(path, "x").unwrap(),
        _ => fs::File::create(path).unwrap().set_len(1 << 40).unwrap(),
    }
}

/// Whatever an image has in place of what is mounted: the container starts or is refused, and the host stays as it is.
#[test]
fn mount_points_that_are_traps() {
    let outside = Outside::new();
    for target in ["proc", "sys", "dev"] {
        for kind in KINDS {
            let bundle = Bundle::new();
            plant(kind, &bundle.rootfs_path().join(target), outside.path());
            let what = format!("/{target} is a {kind}");
            let result = bundle.try_run();
            assert!(result.is_err(), "{what}");
            outside.check(&what);
            assert_no_cgroup(&bundle.id);
        }
    }
}

/// Without a file system of its own `/dev` is the image's, with all that is in it.
#[test]
fn devices_in_an_image_that_are_traps() {
    let outside = Outside::new();
    for target in ["dev/pts", "dev/shm", "dev/null", "dev/ptmx", "dev/console"] {
        for kind in KINDS {
            let mut bundle = Bundle::new().sh("cat /proc/self/mountinfo");
            bundle.spec["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/dev");
            plant(kind, &bundle.rootfs_path().join(target), outside.path());
            let what = format!("/{target} is a {kind}");
            // it may start or be refused
            let _ = bundle.try_run();
            outside.check(&what);
            assert_no_cgroup(&bundle.id);
        }
    }
}

/// Files that the runtime reads in the container before the program runs.
#[test]
fn passwd_without_end() {
    let outside = Outside::new();
    let mut kinds = KINDS.to_vec();
    kinds.push("link to /dev/zero");
    for kind in kinds {
        let bundle = Bundle::new().sh("echo $HOME");
        let path = bundle.rootfs_path().join("etc/passwd");
        if kind == "link to /dev/zero" {
            fs::remove_file(&path).unwrap();
            symlink("/dev/zero", &path).unwrap();
        } else {
            plant(kind, &path, outside.path());
        }
        let outcome = bundle.run();
        assert_eq!(outcome.stdout, "/\n", "/etc/passwd is a {kind}: {}", outcome.stderr);
    }
}

/// Targets that lead through links, for all kinds of mounts, with folders and files to be made.
#[test]
fn targets_through_links() {
    let outside = Outside::new();
    let source = tempfile::tempdir().unwrap();
    fs::write(source.path().join("f"), "x").unwrap();
    for link in ["absolute link", "relative link", "dangling link", "link to /proc/self"] {
        for (rest, mount) in [
            ("", json!({ "type": "tmpfs", "source": "t" })),
            ("/new/folder", json!({ "type": "tmpfs", "source": "t" })),
            ("/new/folder", json!({ "type": "bind", "source": source.path(), "options": ["rbind"] })),
            ("/new/file", json!({ "type": "bind", "source": source.path().join("f"), "options": ["bind"] })),
            ("/file", json!({ "type": "bind", "source": source.path().join("f"), "options": ["bind"] })),
            ("/deep", json!({ "type": "mqueue", "source": "m" })),
            ("/new", json!({ "type": "sysfs", "source": "s" })),
        ] {
            let mut mount = mount;
            mount["destination"] = json!(format!("/trap{rest}"));
            let bundle = Bundle::new();
            plant(link, &bundle.rootfs_path().join("trap"), outside.path());
            let bundle =
                bundle.mount(mount.clone()).set("/linux/maskedPaths", json!(["/trap/file", "/trap/dir"]));
            let bundle = bundle.set("/linux/readonlyPaths", json!(["/trap/null"]));
            let _ = bundle.try_run();
            outside.check(&format!("{link}: {mount}"));
            assert_no_cgroup(&bundle.id);
        }
    }
}
