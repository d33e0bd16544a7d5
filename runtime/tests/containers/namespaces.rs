//! Namespaces, new and joined.

use std::fs;

use crate::support::{Bundle, exec};
use serde_json::json;

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
