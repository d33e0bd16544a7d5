//! CVE-2025-52881, CVE-2019-19921, CVE-2023-27561: writes that are meant for procfs, led elsewhere.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;

use crate::stage::Outside;
use crate::support::{Bundle, assert_no_cgroup};

/// Nothing may cover the container's procfs or a part of it, by whatever way it is named.
#[test]
fn procfs_is_not_covered() {
    let source = tempfile::tempdir().unwrap();
    fs::write(source.path().join("f"), "fake").unwrap();
    let file = source.path().join("f");
    let cases = [
        ("/proc/self/attr", json!({ "type": "tmpfs", "source": "t" }), "inside /proc"),
        (
            "/proc/self/attr/exec",
            json!({ "type": "bind", "source": file, "options": ["bind"] }),
            "inside /proc",
        ),
        (
            "/proc/1/oom_score_adj",
            json!({ "type": "bind", "source": file, "options": ["bind"] }),
            "inside /proc",
        ),
        ("/proc/sys", json!({ "type": "tmpfs", "source": "t" }), "inside /proc"),
        (
            "/proc/sys/net/ipv4",
            json!({ "type": "bind", "source": source.path(), "options": ["rbind"] }),
            "inside /proc",
        ),
        ("/proc/sys/../self/attr", json!({ "type": "tmpfs", "source": "t" }), "inside /proc"),
        ("/proc/thread-self", json!({ "type": "tmpfs", "source": "t" }), "inside /proc"),
        ("/link", json!({ "type": "tmpfs", "source": "t" }), "inside /proc"),
        ("/link/self/attr", json!({ "type": "tmpfs", "source": "t" }), "inside /proc"),
        ("/link/uptime", json!({ "type": "bind", "source": file, "options": ["bind"] }), "inside /proc"),
        ("/proc", json!({ "type": "tmpfs", "source": "t" }), "not of type proc"),
        (
            "/proc",
            json!({ "type": "bind", "source": source.path(), "options": ["rbind"] }),
            "not of type proc",
        ),
        (
            "/x/../proc",
            json!({ "type": "bind", "source": source.path(), "options": ["rbind"] }),
            "not of type proc",
        ),
    ];
    for (destination, mut mount, expect) in cases {
        mount["destination"] = json!(destination);
        let bundle = Bundle::new();
        symlink("/proc", bundle.rootfs_path().join("link")).unwrap();
        let bundle = bundle.mount(mount);
        let error = bundle.try_run().unwrap_err().to_string();
        assert!(
            error.contains("cannot be mounted because it is") && error.contains(expect),
            "{destination}: {error}"
        );
        assert_no_cgroup(&bundle.id);
    }
    // what LXCFS does is fine, and so is the host's procfs elsewhere
    for mount in [
        json!({ "destination": "/proc/uptime", "type": "bind", "source": file, "options": ["bind"] }),
        json!({ "destination": "/proc", "type": "proc", "source": "proc" }),
        json!({ "destination": "/host/proc", "type": "bind", "source": "/proc", "options": ["rbind"] }),
    ] {
        let outcome = Bundle::new().mount(mount).sh("cat /proc/uptime").run();
        assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    }
}

/// Kernel parameters go to the kernel, also when the image has files of those names, or links where procfs should be.
#[test]
fn parameters_go_to_the_kernel() {
    let outside = Outside::new();
    for proc in ["folder", "link", "none"] {
        let mut bundle = Bundle::new();
        bundle.spec["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/proc");
        let fake = bundle.rootfs_path().join("proc");
        let file = fake.join("sys/net/ipv4/ip_forward");
        match proc {
            "folder" => {
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(&file, "fake").unwrap();
            }
            "link" => {
                fs::remove_dir(&fake).unwrap();
                symlink(outside.path(), &fake).unwrap();
            }
            _ => fs::remove_dir(&fake).unwrap(),
        }
        // a second procfs shows what is true
        let bundle = bundle
            .mount(json!({ "destination": "/true", "type": "proc", "source": "proc" }))
            .set("/linux/maskedPaths", json!([]))
            .set("/linux/readonlyPaths", json!([]))
            .set("/linux/sysctl", json!({ "net.ipv4.ip_forward": "1" }))
            .sh("cat /true/sys/net/ipv4/ip_forward");
        let outcome = bundle.run();
        assert_eq!(outcome.stdout, "1\n", "{proc}: {}", outcome.stderr);
        outside.check(proc);
        if proc == "folder" {
            assert_eq!(fs::read_to_string(&file).unwrap(), "fake");
        }
    }
}

/// The score of the container's processes is written on the host's procfs, whatever the container's is.
#[test]
fn oom_score_goes_to_the_process() {
    let mut bundle = Bundle::new().set("/process/oomScoreAdj", json!(123)).args(&["sleep", "100"]);
    bundle.spec["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/proc");
    for name in ["1", "self"] {
        fs::create_dir_all(bundle.rootfs_path().join("proc").join(name)).unwrap();
        fs::write(bundle.rootfs_path().join("proc").join(name).join("oom_score_adj"), "fake").unwrap();
    }
    let container = bundle.start();
    let score = fs::read_to_string(format!("/proc/{}/oom_score_adj", container.pid())).unwrap();
    assert_eq!(score, "123\n");
    container.delete(true).unwrap();
    assert_eq!(fs::read_to_string(bundle.rootfs_path().join("proc/self/oom_score_adj")).unwrap(), "fake");
}
