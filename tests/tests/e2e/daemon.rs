//! The daemon itself: flags, daemon.json, signals, sockets, several of them, restarts.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::process::Stdio;

use wherry_tests::engine::Binary;
use wherry_tests::http::Connection;
use wherry_tests::{Host, Output, poll};

fn run(host: &Host, arguments: &str) -> Output {
    host.exec(&format!(
        "env WHERRY_TEST_WORK={} {} {arguments}",
        host.folder().display(),
        Binary::from_environment().path().display()
    ))
}

#[test]
fn version_help_and_unknown_flags() {
    let host = Host::new();
    let version = run(&host, "--version").ok();
    assert!(version.stdout.to_lowercase().contains("version "), "{version}");
    run(&host, "--help").contains("--data-root").contains("--registry-mirror").contains("--live-restore");
    let unknown = run(&host, "--nosuchflag");
    assert!(unknown.code != 0 && unknown.stderr.contains("unknown flag: --nosuchflag"), "{unknown}");
    let unknown = run(&host, "nosuchcommand");
    assert!(unknown.code != 0, "{unknown}");
}

#[test]
fn validate_checks_the_configuration() {
    let host = Host::new();
    let file = host.folder().join("daemon.json");
    let check = |json: &str| {
        std::fs::write(&file, json).unwrap();
        run(&host, &format!("--validate --config-file {}", file.display()))
    };
    for good in [
        "{}",
        r#"{"debug": true, "log-level": "warn", "labels": ["a=b"], "mtu": 1400}"#,
        r#"{"registry-mirrors": ["https://mirror.example"], "insecure-registries": ["127.0.0.0/8"], "dns": ["192.0.2.1"]}"#,
        r#"{"log-driver": "json-file", "log-opts": {"max-size": "1m"}, "live-restore": true, "storage-driver": "overlay2"}"#,
        r#"{"default-ulimits": {"nofile": {"Name": "nofile", "Soft": 64, "Hard": 128}}, "exec-opts": ["native.cgroupdriver=cgroupfs"]}"#,
    ] {
        let output = check(good).ok();
        assert!((output.stdout + &output.stderr).contains("configuration OK"));
    }
    for (bad, text) in [
        (
            r#"{"nosuchkey": 1, "another": 2}"#,
            "the following directives don't match any configuration option: ",
        ),
        (r#"{"nosuchkey": 1}"#, "nosuchkey"),
        ("{", "unexpected"),
        (r#"{"debug": "yes"}"#, "debug"),
        (r#"{"log-level": "loud"}"#, "loud"),
        (r#"{"dns": ["nonsense"]}"#, "nonsense"),
        (r#"{"labels": ["nonsense"]}"#, "bad attribute format: nonsense"),
    ] {
        let output = check(bad);
        assert!(output.code != 0 && output.stderr.contains(text), "{bad}: {output}");
    }
    std::fs::write(&file, r#"{"debug": true}"#).unwrap();
    let both = run(&host, &format!("--validate --config-file {} --debug=false", file.display()));
    assert!(
        both.code != 0
            && both.stderr.contains(
                "the following directives are specified both as a flag and in the configuration file: debug"
            ),
        "{both}"
    );
    run(&host, "--validate --config-file /nosuch/file").fails(1, "/nosuch/file");
}

#[test]
fn options_take_effect() {
    let host = Host::with_arguments(&[
        "--bip",
        "10.50.0.1/24",
        "--dns",
        "192.0.2.53",
        "--mtu",
        "1400",
        "--label",
        "shelf=3",
        "--default-ulimit",
        "nofile=77:88",
        "--log-opt",
        "max-size=1m",
        "--insecure-registry",
        "registry.example:5000",
        "--registry-mirror",
        "http://127.0.0.1:9/",
    ]);
    host.docker("run --rm busybox ip -4 addr show eth0").contains("10.50.0.2/24").contains("mtu 1400");
    host.docker("run --rm busybox cat /etc/resolv.conf").contains("nameserver 192.0.2.53");
    host.docker("run --rm busybox sh -c 'ulimit -Sn; ulimit -Hn'").prints("77\n88");
    host.docker("create --name box busybox").ok();
    assert_eq!(host.inspect("box")["HostConfig"]["LogConfig"]["Config"]["max-size"], "1m");
    host.docker("info --format '{{json .Labels}} {{json .RegistryConfig.Mirrors}}'")
        .prints(r#"["shelf=3"] ["http://127.0.0.1:9/"]"#);
    host.docker("info --format '{{json .RegistryConfig.IndexConfigs}}'").contains("registry.example:5000");
}

#[test]
fn a_reload_reads_the_file_again() {
    let host = Host::new();
    let file = host.folder().join("reload.json");
    std::fs::write(&file, r#"{"labels": ["state=before"]}"#).unwrap();
    assert_eq!(host.stop(), 0);
    let second = host.another_engine("second", &["--config-file", &file.display().to_string()]);
    second.start();
    let labels = || second.docker("info --format '{{json .Labels}} {{.Debug}}'").ok().out().to_owned();
    assert_eq!(labels(), r#"["state=before"] false"#);
    std::fs::write(&file, r#"{"labels": ["state=after"], "debug": true}"#).unwrap();
    assert!(second.signal("HUP"));
    poll("the new configuration", 10, || labels() == r#"["state=after"] true"#);
    // A broken file is not taken, and not the end.
    std::fs::write(&file, r#"{"nosuch": 1}"#).unwrap();
    assert!(second.signal("HUP"));
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(labels(), r#"["state=after"] true"#);
    assert_eq!(second.stop(), 0);
}

#[test]
fn two_engines_side_by_side() {
    let mut host = Host::new();
    host.exec("ip link add second0 type bridge").ok();
    host.exec("ip addr add 10.60.0.1/24 dev second0").ok();
    host.exec("ip link set second0 up").ok();
    let second = host.another_engine("second", &["--bridge", "second0"]);
    second.start();
    let archive = host.image_archive("busybox:latest", "");
    second.docker(&["load", "-q", "-i", &archive.display().to_string()]).ok();
    host.docker("run -d --name box -p 8001:80 busybox sh -c 'echo first >index.html; httpd -f -p 80'").ok();
    second
        .docker("run -d --name box -p 8002:80 busybox sh -c 'echo second >index.html; httpd -f -p 80'")
        .ok();
    for (port, text) in [(8001, "first\n"), (8002, "second\n")] {
        poll(text, 10, || {
            host.http_get((wherry_tests::HOST_ADDRESS, port), "/").is_some_and(|page| page.text() == text)
        });
    }
    second.docker("exec box ip -4 addr show eth0").contains("10.60.0.2/24");
    host.docker("exec box ip -4 addr show eth0").contains("172.17.0.2/16");
    second.docker("rm -f box").ok();
    host.docker("exec box true").ok();
    assert_eq!(second.stop(), 0);
    host.docker("exec box true").ok();
    host.exec("ip link del second0").ok();
    host.settle();
    // A third with the roots of the first is refused.
    let again = run(&host, &host.arguments().join(" "));
    assert!(again.code != 0, "{again}");
    assert!(host.is_running());
}

#[test]
fn socket_activation() {
    let host = Host::new();
    assert_eq!(host.stop(), 0);
    let path = host.folder().join("activated.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let roots = host.arguments()[2..].join(" ");
    let engine = Binary::from_environment().path().display().to_string();
    let script = format!(
        "export LISTEN_FDS=1 LISTEN_PID=$$ WHERRY_TEST_WORK={}; exec {engine} -H fd:// {roots} 3<&0 </dev/null",
        host.folder().display()
    );
    let mut command = host.command(&["sh", "-c", &script]);
    command.stdin(Stdio::from(OwnedFd::from(listener))).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    // The connection waits in the socket until the engine is there.
    let stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
    let answer = Connection::new(stream).request("GET", "/_ping", &[], b"");
    assert_eq!(answer.text(), "OK");
    let pid = std::fs::read_to_string(host.root().join("pid")).unwrap();
    host.exec(&["kill", pid.trim()]).ok();
    assert!(child.wait().unwrap().success());
    assert!(path.exists(), "the socket is not ours to remove");
}

#[test]
fn several_addresses() {
    let host = Host::new();
    let socket = format!("unix://{}/more.sock", host.folder().display());
    assert_eq!(host.stop(), 0);
    let second = host.another_engine("second", &["-H", &socket, "-H", "tcp://127.0.0.1:2375", "--tls=false"]);
    second.start();
    poll("the second socket", 20, || host.folder().join("more.sock").exists());
    let answer = poll_ping(&host);
    assert_eq!(answer, "OK");
    assert_eq!(second.stop(), 0);
    assert!(!host.folder().join("more.sock").exists(), "its own sockets are removed");
}

fn poll_ping(host: &Host) -> String {
    wherry_tests::poll_value("the TCP address", 20, || {
        host.http_get((std::net::Ipv4Addr::LOCALHOST, 2375), "/_ping").map(|answer| answer.text())
    })
}
