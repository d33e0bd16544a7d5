//! Volumes and bind mounts.

use serde_json::{Value, json};
use wherry_tests::Host;

#[test]
fn named_volumes_keep_their_files() {
    let host = Host::new();
    host.docker("volume create --label k=v data").prints("data");
    host.docker("run --rm -v data:/d busybox sh -c 'echo kept >/d/file'").ok();
    host.docker("run --rm -v data:/d busybox cat /d/file").prints("kept");
    host.docker("run --rm -v data:/d:ro busybox touch /d/x").fails(1, "Read-only file system");
    let volume = host.inspect("data");
    assert_eq!(
        (&volume["Driver"], &volume["Scope"], &volume["Labels"]),
        (&"local".into(), &"local".into(), &json!({"k": "v"}))
    );
    let mountpoint = volume["Mountpoint"].as_str().unwrap().to_owned();
    assert_eq!(mountpoint, host.root().join("data/volumes/data/_data").display().to_string());
    assert_eq!(std::fs::read_to_string(format!("{mountpoint}/file")).unwrap(), "kept\n");

    host.docker("run -d --name user -v data:/d busybox sleep 600").ok();
    host.docker("volume rm data").fails(1, "volume is in use - [");
    host.docker("rm -f user").ok();
    host.docker("volume rm data").prints("data");
    host.docker("volume rm data").fails(1, "get data: no such volume");
    host.docker("volume inspect data").fails(1, "get data: no such volume");
    host.docker("volume create -d nosuch x1").fails(1, "nosuch");
    host.docker("volume create a")
        .fails(1, "volume name is too short, names should be at least two alphanumeric characters");
}

#[test]
fn a_new_volume_takes_the_images_files() {
    let host = Host::new();
    let listing = "ls -A /etc | tr '\\n' ' '";
    for target in ["-v fresh:/etc", "-v /etc", "--mount type=volume,src=other,dst=/etc"] {
        let mut line: Vec<&str> = vec!["run", "--rm"];
        line.extend(target.split(' '));
        line.extend(["busybox", "sh", "-c", listing]);
        host.docker(line.as_slice()).contains("group").contains("passwd");
    }
    // A volume that has files, or was told so, does not.
    host.docker("run --rm -v has:/d busybox touch /d/own").ok();
    host.docker("run --rm -v has:/var busybox ls /var").prints("own");
    let line = [
        "run",
        "--rm",
        "--mount",
        "type=volume,src=bare,dst=/etc,volume-nocopy",
        "busybox",
        "sh",
        "-c",
        "ls /etc | grep -c passwd",
    ];
    host.docker(&line).fails(1, "");
    // Owner and mode come along.
    host.docker("run --rm -v tmp:/tmp busybox stat -c %a /tmp").prints("1777");
}

#[test]
fn bind_mounts() {
    let host = Host::new();
    let folder = host.folder().join("bound");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("in"), "from outside").unwrap();
    let run = |volume: &str, command: &str| {
        host.docker(&["run", "--rm", "-v", volume, "busybox", "sh", "-c", command])
    };
    let bound = folder.display().to_string();
    run(&format!("{bound}:/b"), "cat /b/in; echo back >/b/out").prints("from outside");
    assert_eq!(std::fs::read_to_string(folder.join("out")).unwrap(), "back\n");
    run(&format!("{bound}:/b:ro"), "echo x >/b/x").fails(1, "Read-only file system");
    run(&format!("{bound}/in:/etc/motd"), "cat /etc/motd").prints("from outside");
    run(&format!("{bound}/made:/b"), "ls /b").prints("");
    assert!(folder.join("made").is_dir(), "-v makes a missing folder");
    let mount = format!("type=bind,src={bound}/missing,dst=/b");
    host.docker(&["run", "--rm", "--mount", &mount, "busybox", "true"])
        .fails(125, "bind source path does not exist");
    run("relative/path:/b", "true").fails(125, "includes invalid characters");
    run("/x:relative", "true").fails(125, "invalid mount path: 'relative' mount path must be absolute");
    run("/x:/y:badmode", "true").fails(125, "invalid mode: badmode");
    host.docker(&["run", "--rm", "-v", "/a:/same", "-v", "/b:/same", "busybox", "true"])
        .fails(125, "Duplicate mount point: /same");
    // Mounts of the host below the folder are there, too.
    host.docker(&["run", "--rm", "-v", "/sys:/s:ro", "busybox", "ls", "/s/fs/cgroup"]).ok();
}

#[test]
fn they_are_told_by_inspect() {
    let host = Host::new();
    let folder = host.folder().join("bound");
    std::fs::create_dir(&folder).unwrap();
    let folder = folder.display().to_string();
    host.docker(&[
        "create",
        "--name",
        "box",
        "-v",
        "vol:/v:ro",
        "-v",
        &format!("{folder}:/b"),
        "--mount",
        "type=tmpfs,dst=/t",
        "busybox",
    ])
    .ok();
    let mounts = host.inspect("box")["Mounts"].take();
    let mounts = mounts.as_array().unwrap();
    let of = |destination: &str| {
        mounts.iter().find(|m| m["Destination"] == destination).cloned().unwrap_or(Value::Null)
    };
    assert_eq!(
        of("/b"),
        json!({"Type": "bind", "Source": folder, "Destination": "/b", "Mode": "", "RW": true, "Propagation": "rprivate"})
    );
    let volume = of("/v");
    assert_eq!(
        (&volume["Type"], &volume["Name"], &volume["RW"], &volume["Mode"]),
        (&json!("volume"), &json!("vol"), &json!(false), &json!("ro"))
    );
    assert_eq!(of("/t")["Type"], "tmpfs");
}

#[test]
fn volumes_from_another_container() {
    let host = Host::new();
    host.docker("create --name donor -v shared:/s -v /anon busybox").ok();
    host.docker("run --rm --volumes-from donor busybox sh -c 'echo x >/s/x; echo y >/anon/y'").ok();
    host.docker("run --rm --volumes-from donor busybox cat /s/x /anon/y").prints("x\ny");
    host.docker("run --rm --volumes-from donor:ro busybox touch /s/z").fails(1, "Read-only file system");
    host.docker("run --rm --volumes-from nosuch busybox true").fails(125, "No such container: nosuch");
}

#[test]
fn lists_and_filters() {
    let host = Host::new();
    host.docker("volume create --label kind=a one").ok();
    host.docker("volume create two").ok();
    host.docker("create --name user -v two:/t busybox").ok();
    for (filter, names) in [
        ("name=o", "one\ntwo"),
        ("name=one", "one"),
        ("label=kind", "one"),
        ("label=kind=b", ""),
        ("dangling=true", "one"),
        ("dangling=false", "two"),
        ("driver=local", "one\ntwo"),
    ] {
        host.docker(&["volume", "ls", "-q", "--filter", filter]).prints(names);
    }
    host.docker("volume ls --filter nosuch=1").fails(1, "invalid filter 'nosuch'");
    host.docker("volume prune -f --filter label=kind=a").ok();
    host.docker("volume ls -q").prints("one\ntwo");
    host.docker("volume prune -f -a").contains("one");
    host.docker("volume ls -q").prints("two");
    let again = host.api("POST", "/v1.51/volumes/create", &json!({"Name": "two"})).expect(201).json();
    assert_eq!(again["Name"], "two");
    let unnamed = host.api("POST", "/v1.51/volumes/create", &json!({})).expect(201).json();
    assert_eq!(unnamed["Name"].as_str().map(str::len), Some(64));
    host.docker("volume prune -f").ok();
}

#[test]
fn anonymous_volumes_go_with_the_last_of_their_containers() {
    let host = Host::new();
    host.load_image("logs:1", r#"{"Cmd":["true"],"Volumes":{"/var/log":{}}}"#);
    host.docker("run --name first logs:1").ok();
    host.docker("run -d --name second --volumes-from first busybox sleep 600").ok();
    host.docker("run --rm --volumes-from first busybox ls /var/log").ok();
    assert_eq!(host.docker("volume ls -q").ok().stdout.lines().count(), 1, "others still use it");
    host.docker("rm -fv second first").ok();
    host.docker("volume ls -q").prints("");
    // In the other order, too.
    host.docker("run --name first logs:1").ok();
    host.docker("run -d --name second --volumes-from first busybox sleep 600").ok();
    host.docker("rm -fv first second").ok();
    host.docker("volume ls -q").prints("");
}

/// A folder of the host for each mount of an image, whatever it is called inside, and for each container that has it.
#[test]
fn images_as_volumes() {
    let host = Host::new();
    if wherry_tests::engine::Binary::from_environment().is_reference() {
        // With the layers of before containerd's store, dockerd has them behind a switch.
        return;
    }
    let target = format!("/{}", "x".repeat(200));
    let run = |name: &str, mounts: Value| {
        let mut body = json!({ "Image": "busybox", "Cmd": ["sleep", "600"], "HostConfig": mounts });
        body["HostConfig"]["NetworkMode"] = "none".into();
        host.api("POST", &format!("/v1.51/containers/create?name={name}"), &body).expect(201);
        host.api("POST", &format!("/v1.51/containers/{name}/start"), &Value::Null).expect(204);
    };
    run("one", json!({ "Mounts": [{ "Type": "image", "Source": "busybox", "Target": target }] }));
    run("two", json!({ "VolumesFrom": ["one"] }));
    for name in ["one", "two"] {
        host.docker(&["exec", name, "test", "-x", &format!("{target}/bin/busybox")]).ok();
    }
    host.docker("rm -f one").ok();
    host.docker("restart -t 0 two").ok();
    host.docker(&["exec", "two", "test", "-x", &format!("{target}/bin/busybox")]).ok();
}
