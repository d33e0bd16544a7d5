//! CVE-2021-30465, CVE-2024-45310: a shared volume changes while containers mount things in it.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::stage::{Outside, Swapper};
use crate::support::{Bundle, assert_no_cgroup};

/// What is mounted, made or covered inside of the volume's folder that is swapped with a link.
fn inside(source: &std::path::Path) -> Vec<(&'static str, Value)> {
    let bind = |name: &str| json!({ "type": "bind", "source": source.join(name), "options": ["rbind"] });
    vec![
        ("a tmpfs on a folder", json!({ "mount": { "type": "tmpfs", "source": "t" }, "on": "deep" })),
        (
            "a tmpfs on a new folder",
            json!({ "mount": { "type": "tmpfs", "source": "t" }, "on": "new/folder" }),
        ),
        ("a folder on a new folder", json!({ "mount": bind("folder"), "on": "made" })),
        ("a file on a new file", json!({ "mount": bind("file"), "on": "made-file" })),
        ("a file in new folders", json!({ "mount": bind("file"), "on": "x/y/z" })),
        ("an mqueue", json!({ "mount": { "type": "mqueue", "source": "m" }, "on": "dir" })),
    ]
}

fn race(to: impl Fn(&Outside) -> std::path::PathBuf) {
    let (outside, source) = (Outside::new(), tempfile::tempdir().unwrap());
    fs::create_dir(source.path().join("folder")).unwrap();
    fs::write(source.path().join("file"), "x").unwrap();
    let volume = tempfile::tempdir().unwrap();
    let (real, link) = (volume.path().join("real"), volume.path().join("link"));
    fs::create_dir_all(real.join("deep")).unwrap();
    symlink(to(&outside), &link).unwrap();
    let count = tempfile::NamedTempFile::new().unwrap();
    let bundles: Vec<(&str, Bundle)> = inside(source.path())
        .into_iter()
        .map(|(what, case)| {
            let mut mount = case["mount"].clone();
            mount["destination"] = json!(format!("/volume/real/{}", case["on"].as_str().unwrap()));
            let bundle = Bundle::new()
                .mount(json!({ "destination": "/volume", "type": "bind", "source": volume.path(), "options": ["rbind"] }))
                .mount(mount)
                .set("/linux/maskedPaths", json!(["/volume/real/file", "/volume/real/deep", "/volume/real/null"]))
                .set("/linux/readonlyPaths", json!(["/volume/real/core_pattern", "/volume/real/dir"]))
                .set("/linux/devices", json!([{ "path": "/volume/real/node", "type": "c", "major": 1, "minor": 3 }]));
            (what, bundle)
        })
        .collect();
    let swapper = Swapper::start(&real, &link, count.path());
    let deadline = Instant::now() + Duration::from_secs(2);
    let (mut started, mut refused) = (0, 0);
    while Instant::now() < deadline || started + refused < bundles.len() {
        for (what, bundle) in &bundles {
            match bundle.try_run() {
                Ok(_) => started += 1,
                Err(_) => refused += 1,
            }
            outside.check(what);
            assert_no_cgroup(&bundle.id);
        }
    }
    assert!(swapper.swaps() > 1000, "{started} started, {refused} refused, {} swaps", swapper.swaps());
}

#[test]
fn folder_swapped_with_an_absolute_link() {
    race(|outside| outside.path().to_owned());
}

#[test]
fn folder_swapped_with_a_relative_link() {
    race(|outside| {
        let up = "../".repeat(30);
        std::path::PathBuf::from(up).join(outside.path().strip_prefix("/").unwrap())
    });
}

/// A name in the image itself is exchanged with a link to the host's folder, while it is masked, made read-only and
/// mounted upon.
#[test]
fn image_swapped() {
    let outside = Outside::new();
    let bundle = Bundle::new();
    let trap = bundle.rootfs_path().join("trap");
    symlink(outside.path(), &trap).unwrap();
    let swapped = bundle.rootfs_path().join("etc");
    let count = tempfile::NamedTempFile::new().unwrap();
    let bundle = bundle
        .sh("touch /made; ls /")
        .set("/linux/maskedPaths", json!(["/etc/file", "/etc/passwd"]))
        .set("/linux/readonlyPaths", json!(["/etc/dir", "/etc"]))
        .mount(json!({ "destination": "/etc/dir/deeper", "type": "tmpfs", "source": "t" }));
    let swapper = Swapper::start(&swapped, &trap, count.path());
    let deadline = Instant::now() + Duration::from_secs(1);
    while Instant::now() < deadline {
        let _ = bundle.try_run();
        outside.check("etc");
    }
    assert!(swapper.swaps() > 500);
}
