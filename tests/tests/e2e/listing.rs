//! `docker ps`, `inspect` and their kin.

use serde_json::{Value, json};
use wherry_tests::Host;

#[test]
fn ps_filters() {
    let host = Host::new();
    host.load_image("other:1", r#"{"Cmd":["true"]}"#);
    host.docker("run -d --name web --label tier=front --network host busybox sleep 600").ok();
    host.docker("run -d --name slow -v data:/d busybox sleep 600").ok();
    host.docker("run --name done busybox sh -c 'exit 3'").exits(3);
    host.docker("create --name fresh --label tier=back other:1").ok();
    host.docker("pause slow").ok();
    let names = |options: &str| {
        let mut line: Vec<&str> = vec!["ps", "--format", "{{.Names}}"];
        line.extend(options.split_whitespace());
        host.docker(line.as_slice()).ok().stdout.replace('\n', " ").trim().to_owned()
    };
    for (options, expected) in [
        ("", "slow web"),
        ("-a", "fresh done slow web"),
        ("-l", "fresh"),
        ("-n 2", "fresh done"),
        ("-a --filter status=exited", "done"),
        ("-a --filter status=created", "fresh"),
        ("--filter status=paused", "slow"),
        ("-a --filter status=exited --filter status=created", "fresh done"),
        ("-a --filter exited=3", "done"),
        ("-a --filter exited=0", ""),
        ("-a --filter name=do", "done"),
        ("-a --filter name=^/web$", "web"),
        ("-a --filter label=tier", "fresh web"),
        ("-a --filter label=tier=front", "web"),
        ("-a --filter ancestor=other:1", "fresh"),
        ("-a --filter ancestor=busybox", "done slow web"),
        ("-a --filter before=done", "slow web"),
        ("-a --filter since=slow", "fresh done"),
        ("-a --filter volume=data", "slow"),
        ("-a --filter volume=/d", "slow"),
        ("-a --filter network=host", "web"),
        ("-a --filter health=none", "fresh done slow web"),
        ("-a --filter is-task=true", ""),
    ] {
        assert_eq!(names(options), expected, "ps {options}");
    }
    host.docker("ps --filter nosuch=1").fails(1, "invalid filter 'nosuch'");
    host.docker("ps --filter status=nosuch").fails(1, "invalid filter 'status=nosuch'");
    host.docker(&["ps", "-a", "--format", "{{.Names}} {{.Status}}", "--filter", "name=done"])
        .contains("done Exited (3) ");
    host.docker(&["ps", "-as", "--format", "{{.Size}}", "--filter", "name=done"]).contains("0B (virtual 1.");
    host.docker(&["ps", "--no-trunc", "--format", "{{.Command}}", "--filter", "name=web"])
        .prints(r#""sleep 600""#);
}

#[test]
fn columns_of_ps() {
    let host = Host::new();
    host.docker("run -d --name web -p 8080:80 -p 9000-9001:9000-9001/udp --expose 443 busybox sleep 600")
        .ok();
    let line = ["ps", "--format", "{{.Image}}|{{.Command}}|{{.Ports}}|{{.Networks}}|{{.State}}|{{.Mounts}}"];
    host.docker(&line).prints(
        r#"busybox|"sleep 600"|443/tcp, 0.0.0.0:9000-9001->9000-9001/udp, [::]:9000-9001->9000-9001/udp, 0.0.0.0:8080->80/tcp, [::]:8080->80/tcp|bridge|running|"#,
    );
    let id = host.docker("ps -q --no-trunc").ok().out().to_owned();
    assert!(id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit()));
    for length in [1, 4, 12, 64] {
        host.docker(&["inspect", "-f", "{{.Name}}", &id[..length]]).prints("/web");
    }
    host.docker(&["inspect", "-f", "{{.Name}}", "/web"]).prints("/web");
}

#[test]
fn lists_of_the_api() {
    let host = Host::new();
    host.docker("create --name box --label a=b busybox true").ok();
    let list = |query: &str| host.api("GET", &format!("/v1.51/containers/json{query}"), &Value::Null);
    assert_eq!(list("").expect(200).text().trim(), "[]");
    for query in [
        "?all=1",
        "?all=true&limit=0",
        "?filters=%7B%22status%22%3A%5B%22created%22%5D%7D",
        "?filters=%7B%22status%22%3A%7B%22created%22%3Atrue%7D%7D",
        "?limit=1",
    ] {
        let json = list(query).expect(200).json();
        assert_eq!(json.as_array().map(Vec::len), Some(1), "{query}");
        let entry = &json[0];
        assert_eq!(
            (&entry["Names"], &entry["Image"], &entry["State"], &entry["Labels"]),
            (&json!(["/box"]), &json!("busybox"), &json!("created"), &json!({"a": "b"}))
        );
        assert!(
            entry["ImageID"].as_str().is_some_and(|id| id.starts_with("sha256:"))
                && entry["Created"].is_i64(),
            "{entry}"
        );
        assert_eq!(
            (&entry["Ports"], &entry["Mounts"], &entry["HostConfig"]),
            (&json!([]), &json!([]), &json!({"NetworkMode": "bridge"}))
        );
    }
    list("?filters=nonsense").expect(400);
    list("?filters=%7B%22nosuch%22%3A%5B%22x%22%5D%7D").expect(400);
}

#[test]
fn inspect_has_what_clients_read() {
    let host = Host::new();
    host.docker("run -d --name box -e A=b -p 80 busybox sleep 600").ok();
    let found = host.inspect("box");
    let expect = [
        ("/Name", json!("/box")),
        ("/Path", json!("sleep")),
        ("/Args", json!(["600"])),
        ("/RestartCount", json!(0)),
        ("/Driver", json!("overlay2")),
        ("/Platform", json!("linux")),
        ("/State/Status", json!("running")),
        ("/State/Running", json!(true)),
        ("/State/ExitCode", json!(0)),
        ("/State/Error", json!("")),
        ("/State/FinishedAt", json!("0001-01-01T00:00:00Z")),
        ("/Config/Cmd", json!(["sleep", "600"])),
        ("/Config/Image", json!("busybox")),
        ("/Config/Entrypoint", Value::Null),
        ("/Config/Labels", json!({})),
        ("/Config/Tty", json!(false)),
        ("/HostConfig/NetworkMode", json!("bridge")),
        ("/HostConfig/RestartPolicy", json!({"Name": "no", "MaximumRetryCount": 0})),
        ("/HostConfig/LogConfig", json!({"Type": "json-file", "Config": {}})),
        ("/HostConfig/Binds", Value::Null),
        ("/HostConfig/CapAdd", Value::Null),
        ("/HostConfig/ShmSize", json!(67_108_864)),
        ("/HostConfig/CgroupnsMode", json!("host")),
        ("/HostConfig/Runtime", json!("runc")),
        ("/Mounts", json!([])),
        ("/ExecIDs", Value::Null),
        ("/NetworkSettings/Networks/bridge/IPAddress", json!("172.17.0.2")),
        ("/NetworkSettings/Networks/bridge/Gateway", json!("172.17.0.1")),
        ("/NetworkSettings/Networks/bridge/IPPrefixLen", json!(16)),
        ("/NetworkSettings/IPAddress", json!("172.17.0.2")),
    ];
    for (pointer, value) in expect {
        assert_eq!(found.pointer(pointer), Some(&value), "{pointer}");
    }
    assert!(found["State"]["Pid"].as_i64() > Some(1) && found["Id"].as_str().map(str::len) == Some(64));
    assert!(found["Config"]["Env"].as_array().unwrap().contains(&json!("A=b")));
    let port: u16 =
        found["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"].as_str().unwrap().parse().unwrap();
    assert!(port >= 32768);
    host.docker("inspect nothere").fails(1, "No such object: nothere");
    host.docker("inspect --type container nothere").fails(1, "No such container: nothere");
    assert_eq!(host.docker("inspect nothere").stdout.trim(), "[]");
    host.docker("inspect -s -f '{{.SizeRw}}' box").prints("0");
}

#[test]
fn version_and_info() {
    let host = Host::new();
    host.docker("version --format '{{.Server.APIVersion}} {{.Server.MinAPIVersion}} {{.Server.Os}}'")
        .prints("1.51 1.24 linux");
    host.docker("run -d --name on busybox sleep 600").ok();
    host.docker("create --name off busybox").ok();
    host.docker("info --format '{{.Containers}} {{.ContainersRunning}} {{.ContainersPaused}} {{.ContainersStopped}} {{.Images}} {{.Driver}} {{.OSType}}'")
        .prints("2 1 0 1 1 overlay2 linux");
    host.docker("info --format '{{.DockerRootDir}}'").prints(&host.root().join("data").display().to_string());
    host.docker("system df").contains("Images").contains("Local Volumes");
}
