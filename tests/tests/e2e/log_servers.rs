//! Log drivers that send entries elsewhere, beside the copy that `docker logs` reads.

use std::io::Read;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use serde_json::Value;
use wherry_tests::engine::Binary;
use wherry_tests::{Host, poll};

const TWO_LINES: &str = "'echo one; sleep 0.3; echo two >&2'";

fn udp(host: &Host, port: u16) -> UdpSocket {
    let socket = host.in_network(|| UdpSocket::bind(("127.0.0.1", port)).expect("bind"));
    socket.set_read_timeout(Some(Duration::from_secs(10))).expect("set a limit");
    socket
}

fn tcp(host: &Host, port: u16) -> TcpListener {
    host.in_network(|| TcpListener::bind(("127.0.0.1", port)).expect("bind"))
}

fn datagram(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; 65536];
    let length = socket.recv(&mut buffer).expect("a datagram");
    buffer.truncate(length);
    buffer
}

/// Accepts connections until one has sent what satisfies `enough` (dockerd and we may look first whether somebody is there).
fn received(listener: &TcpListener, enough: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut all: Vec<(TcpStream, Vec<u8>)> = Vec::new();
    listener.set_nonblocking(true).expect("set");
    let mut found = Vec::new();
    poll("what was sent to the log server", 15, || {
        if let Ok((stream, _)) = listener.accept() {
            stream.set_nonblocking(true).expect("set");
            all.push((stream, Vec::new()));
        }
        for (stream, bytes) in &mut all {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = stream.read(&mut buffer) {
                bytes.extend_from_slice(&buffer[..length]);
            }
            if enough(bytes) {
                found.clone_from(bytes);
            }
        }
        !found.is_empty()
    });
    found
}

/// Digits as `9`, so that times and process ids compare.
fn shape(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let mut shape = String::new();
    for c in text.chars() {
        let c = if c.is_ascii_digit() { '9' } else { c };
        if !(c == '9' && shape.ends_with('9')) {
            shape.push(c);
        }
    }
    shape
}

#[test]
fn syslog() {
    let host = Host::new();
    let server = udp(&host, 5514);
    let name = host.exec("hostname").ok().out().to_owned();
    let month = host.exec("date +%b").ok().out().to_owned();
    for (format, stdout, stderr) in [
        (
            "rfc3164",
            format!("<158>{month} D T {name} t[P]: one\n"),
            format!("<155>{month} D T {name} t[P]: two\n"),
        ),
        ("rfc5424", format!("<158>1 S {name} t P t - one\n"), format!("<155>1 S {name} t P t - two\n")),
        ("rfc5424micro", format!("<158>1 S {name} t P t - one\n"), format!("<155>1 S {name} t P t - two\n")),
    ] {
        host.docker(
            format!(
                "run --rm --network none --log-driver syslog --log-opt syslog-address=udp://127.0.0.1:5514 --log-opt tag=t \
                 --log-opt syslog-facility=local3 --log-opt syslog-format={format} busybox sh -c {TWO_LINES}"
            )
            .as_str(),
        )
        .ok();
        for expect in [stdout, stderr] {
            let line = String::from_utf8(datagram(&server)).expect("text");
            let plain = expect.replace("D T", "9 9:9:9").replace('P', "9").replace('S', "9-9-9T9:9:9Z");
            let plain =
                plain.replace("9:9:9Z", if format.ends_with("micro") { "9:9:9.9Z" } else { "9:9:9Z" });
            assert_eq!(shape(line.as_bytes()).replace("<9>", "").replace("  ", " "), {
                let (_, rest) = plain.split_once('>').expect("a priority");
                shape(rest.as_bytes())
            });
            assert!(line.starts_with(&expect[..5]), "{line}");
        }
    }
    let listener = tcp(&host, 5515);
    host.docker(
        format!(
            "run -d --name box --network none --log-driver syslog --log-opt syslog-address=tcp://127.0.0.1:5515 busybox sh -c \
             {TWO_LINES}"
        )
        .as_str(),
    )
    .ok();
    let bytes = received(&listener, |bytes| bytes.ends_with(b"two\n"));
    let id = host.inspect("box")["Id"].as_str().expect("an id")[..12].to_owned();
    let lines: Vec<String> = String::from_utf8(bytes).expect("text").lines().map(str::to_owned).collect();
    assert!(
        lines[0].starts_with("<30>") && lines[0].contains(&format!(" {id}[")) && lines[0].ends_with("]: one"),
        "{lines:?}"
    );
    assert!(lines[1].starts_with("<27>") && lines[1].ends_with("]: two"), "{lines:?}");
    host.docker("logs box").prints("one");
}

#[test]
fn gelf() {
    let host = Host::new();
    let server = udp(&host, 12201);
    host.docker(
        format!(
            "run --name box --network none --label a=1 --log-driver gelf --log-opt gelf-address=udp://127.0.0.1:12201 --log-opt \
             gelf-compression-type=none --log-opt labels=a --log-opt tag=t busybox sh -c {TWO_LINES}"
        )
        .as_str(),
    )
    .ok();
    let container = host.inspect("box");
    for (text, level) in [("one", 6), ("two", 3)] {
        let message: Value = serde_json::from_slice(&datagram(&server)).expect("JSON");
        let mut names: Vec<&str> =
            message.as_object().expect("an object").keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "_a",
                "_command",
                "_container_id",
                "_container_name",
                "_created",
                "_image_id",
                "_image_name",
                "_tag",
                "host",
                "level",
                "short_message",
                "timestamp",
                "version"
            ]
        );
        assert_eq!((&message["short_message"], &message["level"]), (&text.into(), &level.into()));
        assert_eq!(
            (&message["_container_id"], &message["_container_name"]),
            (&container["Id"], &"box".into())
        );
        assert_eq!(
            (&message["_image_id"], &message["_image_name"]),
            (&container["Image"], &"busybox".into())
        );
        assert_eq!(
            (&message["_tag"], &message["_a"], &message["version"]),
            (&"t".into(), &"1".into(), &"1.1".into())
        );
        assert!(message["_command"].as_str().expect("text").starts_with("sh -c echo one"), "{message}");
        assert!(message["timestamp"].as_f64().expect("a number") > 1.7e9);
    }
    // Long and compressed: gzip, in pieces.
    host.docker(
        "run --rm --network none --log-driver gelf --log-opt gelf-address=udp://127.0.0.1:12201 busybox sh -c \
         'head -c 6000 /dev/urandom | hexdump | tr -d \"\\n\"'",
    )
    .ok();
    let (first, second) = (datagram(&server), datagram(&server));
    assert_eq!((&first[..2], &second[..2]), (&[0x1e, 0x0f][..], &[0x1e, 0x0f][..]));
    assert_eq!((&first[2..10], first[10], second[10]), (&second[2..10], 0, 1));
    assert_eq!((first.len(), &first[12..14]), (1420, &[0x1f, 0x8b][..]), "gzip");
    let listener = tcp(&host, 12202);
    host.docker(
        "run -d --rm --network none --log-driver gelf --log-opt gelf-address=tcp://127.0.0.1:12202 busybox sh -c 'echo hi; \
         sleep 1'",
    )
    .ok();
    let bytes = received(&listener, |bytes| bytes.ends_with(b"\0"));
    let message: Value = serde_json::from_slice(&bytes[..bytes.len() - 1]).expect("JSON");
    assert_eq!(message["short_message"], "hi");
}

#[test]
fn fluentd() {
    let host = Host::new();
    let listener = tcp(&host, 24224);
    host.docker(
        "run -d --name box --network none --env E=5 --log-driver fluentd --log-opt env=E --log-opt tag=t.{{.Name}} busybox sh -c \
         'echo one; sleep 1'",
    )
    .ok();
    let bytes = received(&listener, |bytes| bytes.ends_with(b"\x80"));
    let id = host.inspect("box")["Id"].as_str().expect("an id").to_owned();
    assert_eq!(bytes[..7], *b"\x94\xa5t.box");
    // The seconds, as 32 or 64 bits; then the record with five entries, in any order, and no options.
    let record = if bytes[7] == 0xd2 { 12 } else { 16 };
    assert_eq!(bytes[record], 0x85, "{:x?}", &bytes[..20]);
    for entry in [
        [&b"\xaccontainer_id\xd9\x40"[..], id.as_bytes()].concat(),
        b"\xaecontainer_name\xa4/box".to_vec(),
        b"\xa6source\xa6stdout".to_vec(),
        b"\xa3log\xa3one".to_vec(),
        b"\xa1E\xa15".to_vec(),
    ] {
        assert!(
            bytes.windows(entry.len()).any(|window| window == entry),
            "{:?}",
            String::from_utf8_lossy(&entry)
        );
    }
    host.docker("wait box").ok();
    host.docker("logs box").prints("one");
    // Nobody there: only an asynchronous driver starts.
    drop(listener);
    host.docker("run --rm --network none --log-driver fluentd busybox true").fails(
        125,
        "failed to initialize logging driver: dial tcp 127.0.0.1:24224: connect: connection refused",
    );
    host.docker(
        "run --rm --network none --log-driver fluentd --log-opt fluentd-async=true --log-opt fluentd-max-retries=1 --log-opt \
         fluentd-retry-wait=100ms busybox echo through",
    )
    .prints("through");
}

#[test]
fn journald() {
    // The reference has a /run that nobody else sees.
    if Binary::from_environment().is_reference() {
        return;
    }
    let host = Host::new();
    let path = host.folder().join("journal");
    let journal = UnixDatagram::bind(&path).expect("bind");
    journal.set_read_timeout(Some(Duration::from_secs(10))).expect("set a limit");
    let link =
        format!("mkdir -p /run/systemd/journal && ln -s {} /run/systemd/journal/socket", path.display());
    host.exec(&["sh", "-c", &link]).ok();
    host.docker(
        format!(
            "run --name box --network none --label com.a-b=1 --log-driver journald --log-opt labels=com.a-b --log-opt tag=t busybox \
             sh -c {TWO_LINES}"
        )
        .as_str(),
    )
    .ok();
    for (text, priority) in [("one", "6"), ("two", "3")] {
        let mut buffer = vec![0; 65536];
        let length = journal.recv(&mut buffer).expect("a message");
        let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
        for line in [
            &format!("MESSAGE={text}"),
            &format!("PRIORITY={priority}"),
            "CONTAINER_NAME=box",
            "CONTAINER_TAG=t",
            "SYSLOG_IDENTIFIER=t",
            "IMAGE_NAME=busybox",
            "COM_A_B=1",
        ] {
            assert!(message.lines().any(|l| l == line), "{line} in {message}");
        }
    }
    host.docker("logs box").ok();
}

#[test]
fn a_server_that_hangs() {
    // There dockerd waits for ever, at the container's end also in mode non-blocking.
    if Binary::from_environment().is_reference() {
        return;
    }
    let host = Host::new();
    let listener = tcp(&host, 5516);
    let run = |name: &str, mode: &str| {
        let line = format!(
            "run -d --name {name} --network none --log-driver syslog --log-opt syslog-address=tcp://127.0.0.1:5516 --log-opt \
             mode={mode} busybox sh -c 'yes 0123456789012345678901234567890123456789 | head -c 30000000; echo done >/tmp/done'"
        );
        host.docker(line.as_str()).ok();
    };
    // Accepted by the kernel, and never read.
    run("free", "non-blocking");
    host.docker("wait free").prints("0");
    run("held", "blocking");
    // It is held back, and can be ended.
    let written = || -> u64 {
        let pids = host.docker("top held -o pid").ok();
        let files = pids.stdout.lines().skip(1).map(|pid| format!("/proc/{}/io", pid.trim()));
        let counts = files.map(|file| host.exec(&["cat", &file]).stdout);
        let counts = counts.map(|io| io.lines().find_map(|line| line.strip_prefix("wchar: ")?.parse().ok()));
        counts.map(Option::<u64>::unwrap_or_default).sum()
    };
    poll("the container to wait for its log server", 20, || {
        let before = written();
        std::thread::sleep(std::time::Duration::from_millis(500));
        before > 10_000 && written() == before
    });
    host.docker("exec held test -e /tmp/done").exits(1);
    assert_eq!(host.inspect("held")["State"]["Status"], "running");
    host.docker("kill held").ok();
    host.docker("wait held").prints("137");
    drop(listener);
}

#[test]
fn rotated_files_are_compressed_and_read() {
    let host = Host::new();
    host.docker(
        "run --name box --network none --log-driver json-file --log-opt max-size=200k --log-opt max-file=4 --log-opt \
         compress=true busybox sh -c 'i=0; while [ $i -lt 8000 ]; do echo line-$i; i=$((i+1)); done; sleep 1'",
    )
    .ok();
    let log = host.inspect("box")["LogPath"].as_str().expect("a path").to_owned();
    assert!(std::path::Path::new(&format!("{log}.2.gz")).exists(), "{log}.2.gz");
    let kept = host.docker("logs box").ok();
    let lines: Vec<&str> = kept.stdout.lines().collect();
    assert!(lines.len() > 5000 && lines.last() == Some(&"line-7999"), "{} lines", lines.len());
    let first: usize = lines[0].trim_start_matches("line-").parse().expect("a number");
    assert!(lines.iter().enumerate().all(|(at, line)| *line == format!("line-{}", first + at)));
    let tail = host.docker("logs --tail 4000 box").ok();
    assert_eq!(tail.stdout.lines().next(), Some("line-4000"));
}
