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

/// A device of the host's network goes to the container with its addresses, under another name, and up.
#[test]
fn network_devices_of_the_host() {
    let ip = |args: &str| {
        let status = std::process::Command::new("ip").args(args.split(' ')).status().unwrap();
        assert!(status.success(), "ip {args}");
    };
    let device = format!("wt{}", std::process::id());
    ip(&format!("link add {device} type veth peer name {device}p"));
    ip(&format!("addr add 192.0.2.7/24 dev {device}"));
    ip(&format!("addr add 2001:db8::7/64 dev {device}"));
    let bundle = Bundle::new().sh("ip -o addr show dev inner; ip link show dev inner");
    let mut bundle = bundle;
    bundle.spec["linux"]["netDevices"] = json!({});
    bundle.spec["linux"]["netDevices"][&device] = json!({ "name": "inner" });
    let outcome = bundle.run();
    let gone = !std::path::Path::new("/sys/class/net").join(&device).exists();
    assert!(outcome.stdout.contains("192.0.2.7/24"), "{outcome:?}");
    assert!(outcome.stdout.contains("2001:db8::7/64"), "{outcome:?}");
    assert!(outcome.stdout.contains(",UP"), "{outcome:?}");
    assert!(gone, "a virtual device ends with its namespace");
    let error = bundle.try_run().unwrap_err().to_string();
    assert_eq!(error, format!("config.json: linux.netDevices: there is no network device {device:?}"));
    bundle.spec["linux"]["namespaces"] = json!([{ "type": "mount" }, { "type": "pid" }, { "type": "uts" }]);
    let error = bundle.try_run().unwrap_err().to_string();
    assert!(error.contains("linux.netDevices: a container in the caller's network namespace"), "{error}");
}

/// Root joins another user namespace after the namespaces that belong to the host's.
#[test]
fn user_and_network_namespace_by_path() {
    let map = json!([{ "containerID": 0, "hostID": 200_000, "size": 65536 }]);
    let mut first = Bundle::new().args(&["sleep", "100"]);
    first.spec["linux"]["namespaces"] =
        json!([{ "type": "mount" }, { "type": "user" }, { "type": "uts" }, { "type": "pid" }]);
    first.spec["linux"]["uidMappings"] = map.clone();
    first.spec["linux"]["gidMappings"] = map;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(first.path(), mode).unwrap();
    let container = first.start();
    let path = |kind: &str| format!("/proc/{}/ns/{kind}", container.pid());
    let mut second = Bundle::new().sh("readlink /proc/self/ns/user; readlink /proc/self/ns/net");
    // the network is the host's, and so the host's user namespace's
    second.spec["linux"]["namespaces"] = json!([{ "type": "mount" }, { "type": "user", "path": path("user") },
        { "type": "network", "path": "/proc/self/ns/net" }, { "type": "uts" }, { "type": "pid" }]);
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(second.path(), mode).unwrap();
    let outcome = second.try_run();
    let expect: String = [path("user"), "/proc/self/ns/net".to_owned()]
        .iter()
        .map(|path| format!("{}\n", fs::read_link(path).unwrap().display()))
        .collect();
    let ids =
        exec(&container, json!({ "user": { "uid": 0, "gid": 0 }, "cwd": "/", "args": ["/bin/id", "-u"] }));
    container.delete(true).unwrap();
    assert_eq!(outcome.unwrap().stdout, expect);
    assert_eq!(ids.unwrap().1, "0\n", "a further process joins in the same order");
}

/// Runtime specification, "sysctl": a domain name that is set twice must be the same.
#[test]
fn domain_name_and_sysctl() {
    let mut bundle = Bundle::new().sh("cat /proc/sys/kernel/domainname");
    bundle.spec["domainname"] = json!("one");
    bundle.spec["linux"]["sysctl"] = json!({ "kernel.domainname": "one" });
    assert_eq!(bundle.run().stdout, "one\n");
    bundle.spec["linux"]["sysctl"] = json!({ "kernel.domainname": "two" });
    let error = bundle.try_run().unwrap_err().to_string();
    assert_eq!(error, "config.json: linux.sysctl: \"kernel.domainname\" conflicts with domainname");
}

/// The others by path; those of processes, of networks and of users have tests of their own.
#[test]
fn ipc_uts_cgroup_and_time_namespaces_by_path() {
    let kinds = ["ipc", "uts", "cgroup", "time"];
    let mut holder = Bundle::new().args(&["sleep", "100"]);
    let namespaces = holder.spec["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.extend(["cgroup", "time"].map(|kind| json!({ "type": kind })));
    let holder = holder.set("/linux/timeOffsets", json!({ "monotonic": { "secs": 5_000_000 } }));
    let container = holder.start();
    let path = |kind: &str| format!("/proc/{}/ns/{kind}", container.pid());
    let expect: Vec<String> =
        kinds.iter().map(|kind| fs::read_link(path(kind)).unwrap().to_string_lossy().into_owned()).collect();
    let own: Vec<_> =
        kinds.iter().map(|kind| fs::read_link(format!("/proc/self/ns/{kind}")).unwrap()).collect();
    let mut bundle =
        Bundle::new().sh("for kind in ipc uts cgroup time; do readlink /proc/self/ns/$kind; done; hostname");
    bundle.spec.as_object_mut().unwrap().remove("hostname");
    let mut namespaces = vec![json!({ "type": "mount" }), json!({ "type": "pid" })];
    namespaces.extend(kinds.iter().map(|kind| json!({ "type": kind, "path": path(kind) })));
    let result = bundle.set("/linux/namespaces", json!(namespaces)).try_run();
    container.delete(true).unwrap();
    let outcome = result.unwrap();
    let seen: Vec<&str> = outcome.stdout.lines().collect();
    assert_eq!(seen[..4], expect, "{}", outcome.stderr);
    assert_eq!(seen[4], "wherry-test", "the other container's");
    assert!(own.iter().zip(&expect).all(|(own, other)| own.to_string_lossy() != *other));
}

/// One that somebody has prepared: its mounts are there to bind from, its root is replaced, and the host's stays as it is.
#[test]
fn mount_namespace_by_path() {
    let bundle = Bundle::new().sh("readlink /proc/self/ns/mnt; cat /data/mark; ls /");
    let prepared = bundle.path().join("prepared");
    fs::create_dir(&prepared).unwrap();
    let script = format!(
        "mount -t tmpfs none {0} && echo from inside >{0}/mark && touch {0}/ready && exec sleep 1000",
        prepared.display()
    );
    let mut holder = std::process::Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", &script])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let seen = format!("/proc/{}/root{}/ready", holder.id(), prepared.display());
    crate::support::eventually("it is prepared", || fs::exists(&seen).unwrap());
    let path = format!("/proc/{}/ns/mnt", holder.id());
    let expect = fs::read_link(&path).unwrap().to_string_lossy().into_owned();
    let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap();
    let before = mounts();
    // the source is looked for by who reads the specification, and opened in the namespace
    let bundle = bundle
        .mount(json!({ "destination": "/data", "type": "bind", "source": prepared, "options": ["bind"] }));
    let namespaces = |path: &str| json!([{ "type": "mount", "path": path }, { "type": "pid" }, { "type": "uts" }, { "type": "ipc" }, { "type": "network" }]);
    let bundle = bundle.set("/linux/namespaces", namespaces(&path));
    let result = bundle.try_run();
    let after = mounts();
    let _ = holder.kill();
    holder.wait().unwrap();
    let outcome = result.unwrap();
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    assert_eq!(lines[..2], [expect.as_str(), "from inside"], "{}", outcome.stderr);
    assert!(!lines.contains(&"work") && lines.contains(&"bin"), "{lines:?}");
    assert_eq!(before, after);
    let hosts = Bundle::new().set("/linux/namespaces", namespaces("/proc/self/ns/mnt"));
    let error = hosts.try_run().unwrap_err().to_string();
    assert!(error.contains("is the host's mount namespace, whose root would be replaced"), "{error}");
}
