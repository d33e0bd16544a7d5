//! Containers whose root is nobody on the host.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use crate::support::Bundle;
use serde_json::{Value, json};

/// A container in a user namespace: its ids from 0 on are the host's from 200000 on.
fn bundle(mappings: Value) -> Bundle {
    let mut bundle = Bundle::new();
    bundle.spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
    fs::set_permissions(bundle.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(bundle.rootfs_path().join("data")).unwrap();
    bundle.set("/linux/uidMappings", mappings.clone()).set("/linux/gidMappings", mappings)
}

fn simple() -> Value {
    json!([{ "containerID": 0, "hostID": 200_000, "size": 65536 }])
}

#[test]
fn several_ranges() {
    let ranges = json!([{ "containerID": 0, "hostID": 200_000, "size": 1 }, { "containerID": 1, "hostID": 300_000, "size": 10 },
        { "containerID": 1000, "hostID": 250_000, "size": 5 }]);
    let outcome = bundle(ranges).sh("cat /proc/self/uid_map /proc/self/gid_map").run();
    let words: Vec<&str> = outcome.stdout.split_whitespace().collect();
    let one = ["0", "200000", "1", "1", "300000", "10", "1000", "250000", "5"];
    assert_eq!(words, [one, one].concat());
}

/// The host's root opens the sources of bind mounts: the container's may not look into the folder.
#[test]
fn sources_in_closed_folders() {
    let bundle = bundle(simple()).sh("cat /data/file");
    let closed = bundle.path().join("closed");
    fs::create_dir_all(closed.join("source")).unwrap();
    fs::write(closed.join("source/file"), "content").unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    let mount = json!({ "destination": "/data", "type": "bind", "source": closed.join("source"), "options": ["rbind", "ro"] });
    let outcome = bundle.mount(mount).run();
    assert_eq!(outcome.stdout, "content", "{}", outcome.stderr);
}

/// `idmap` without mappings takes the container's; with mappings those count.
#[test]
fn mounts_with_ids_of_their_own() {
    let own = json!([{ "containerID": 5000, "hostID": 200_001, "size": 1 }]);
    for (mappings, expect) in [(None, "1000"), (Some(own), "1")] {
        let bundle = bundle(simple()).sh("stat -c %u /data/file");
        let source = bundle.path().join("source");
        fs::create_dir(&source).unwrap();
        fs::write(source.join("file"), "").unwrap();
        let owner = if mappings.is_some() { 5000 } else { 1000 };
        chown(source.join("file"), Some(owner), Some(owner)).unwrap();
        let mut mount =
            json!({ "destination": "/data", "type": "bind", "source": source, "options": ["bind", "idmap"] });
        if let Some(mappings) = mappings {
            mount["uidMappings"] = mappings.clone();
            mount["gidMappings"] = mappings;
        }
        let outcome = bundle.mount(mount).run();
        assert_eq!(outcome.stdout.trim(), expect, "{}", outcome.stderr);
    }
    let mount =
        json!({ "destination": "/data", "type": "bind", "source": "/tmp", "options": ["bind", "idmap"] });
    let error = Bundle::new().mount(mount).try_run().unwrap_err();
    assert!(error.to_string().contains("idmap needs uidMappings"), "{error}");
}

/// `idmap` without mappings in a user namespace that is joined takes that one's.
#[test]
fn mounts_with_the_ids_of_a_joined_namespace() {
    let holder = bundle(simple()).args(&["sleep", "100"]);
    let container = holder.start();
    let mut second = bundle(simple()).sh("stat -c %u /data/file");
    let linux = second.spec["linux"].as_object_mut().unwrap();
    linux.remove("uidMappings");
    linux.remove("gidMappings");
    linux.insert(
        "namespaces".into(),
        json!([{ "type": "mount" }, { "type": "pid" }, { "type": "uts" }, { "type": "ipc" }, { "type": "network" },
            { "type": "user", "path": format!("/proc/{}/ns/user", container.pid()) }]),
    );
    let source = second.path().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "").unwrap();
    chown(source.join("file"), Some(7), Some(7)).unwrap();
    let mount =
        json!({ "destination": "/data", "type": "bind", "source": source, "options": ["bind", "idmap"] });
    let outcome = second.mount(mount).try_run();
    container.delete(true).unwrap();
    assert_eq!(outcome.unwrap().stdout, "7\n");
}

/// With the host's network, its sysfs cannot be mounted anew; the host's own is shown instead, and mqueue likewise.
#[test]
fn with_the_hosts_network_and_ipc() {
    let mut bundle = bundle(simple()).sh("ls -d /dev/mqueue /sys/class/net/lo; touch /sys/x; echo $?");
    bundle.spec["linux"]["namespaces"] =
        json!([{ "type": "mount" }, { "type": "user" }, { "type": "pid" }, { "type": "uts" }]);
    let outcome = bundle.run();
    assert_eq!(outcome.stdout, "/dev/mqueue\n/sys/class/net/lo\n1\n", "{}", outcome.stderr);
}

/// A node that the host has not is made beforehand, by the host's root.
#[test]
fn devices_that_the_host_has_not() {
    let device = json!({ "path": "/dev/odd", "type": "c", "major": 1, "minor": 5, "uid": 10, "gid": 11, "fileMode": 0o640 });
    let bundle = bundle(simple())
        .sh("stat -c '%u:%g %a %t:%T' /dev/odd; head -c 1 /dev/odd | wc -c")
        .set("/linux/devices", json!([device]));
    let outcome = bundle.run();
    assert_eq!(outcome.stdout, "10:11 640 1:5\n1\n", "{}", outcome.stderr);
    assert_eq!(fs::metadata(bundle.rootfs_path()).unwrap().uid(), 0);
}
