use super::*;
use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::net::{UnixDatagram, UnixListener};
use wherry_monitor_api::SyslogForm;

fn remote(target: LogTarget, when_full: WhenFull, buffer_bytes: u64) -> RemoteLog {
    let (form, hostname, tag) = (SyslogForm::Rfc3164, "h".into(), "t".into());
    let format = LogFormat::Syslog { form, facility: 24, hostname, tag, counted: false };
    RemoteLog { targets: vec![target], format, when_full, buffer_bytes, retries: 2, retry_wait_ms: 1000 }
}

#[test]
fn a_server_that_does_not_read_costs_bounded_memory() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let poller = Poller::new().unwrap();
    let mut dropping = Shipper::new(remote(LogTarget::UnixStream(path.clone()), WhenFull::Drop, 10_000));
    let mut blocking = Shipper::new(remote(LogTarget::UnixStream(path), WhenFull::Block, 10_000));
    for shipper in [&mut dropping, &mut blocking] {
        for number in 0..20_000 {
            if shipper.is_full() {
                break;
            }
            shipper.push(Stream::Stdout, format!("line {number}\n").as_bytes(), 0);
            assert_eq!(shipper.work(&poller), None);
        }
    }
    assert!(dropping.queued < 11_000 && dropping.dropped > 1000, "{} {}", dropping.queued, dropping.dropped);
    assert!(blocking.is_full() && blocking.dropped == 0);
    // It reads again: whole lines, in order.
    let mut text = String::new();
    let (mut first, _) = listener.accept().unwrap();
    let (mut second, _) = listener.accept().unwrap();
    first.set_nonblocking(true).unwrap();
    second.set_nonblocking(true).unwrap();
    while !blocking.is_idle() || !dropping.is_idle() {
        let mut buffer = vec![0; 1 << 16];
        if let Ok(read) = second.read(&mut buffer) {
            text.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
        }
        let _ = first.read(&mut buffer);
        blocking.work(&poller);
        dropping.work(&poller);
    }
    let _ = second.read_to_string(&mut text);
    let numbers = text.lines().map(|line| line.rsplit_once(' ').unwrap().1.parse::<u32>().unwrap());
    assert!(numbers.clone().count() > 100 && numbers.enumerate().all(|(at, number)| at == number as usize));
}

#[test]
fn patience_ends() {
    let target = LogTarget::UnixStream("/nosuch/socket".into());
    let mut shipper = Shipper::new(remote(target, WhenFull::Block, 10_000));
    let poller = Poller::new().unwrap();
    shipper.push(Stream::Stdout, b"x\n", 0);
    assert_eq!(shipper.work(&poller), Some(Duration::from_secs(1)));
    assert_eq!(shipper.work(&poller), Some(Duration::from_millis(1500)));
    assert_eq!(shipper.work(&poller), None);
    assert!(shipper.is_idle() && shipper.dropped == 1);
}

#[test]
fn lines_that_were_cut_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let socket = UnixDatagram::bind(&path).unwrap();
    let mut remote = remote(LogTarget::UnixDatagram(path), WhenFull::Block, 10_000_000);
    remote.format = LogFormat::Journald { fields: vec![("A".into(), "x\ny".into())] };
    let mut shipper = Shipper::new(remote);
    let poller = Poller::new().unwrap();
    for text in ["one\n", "tw", "o\n", ""] {
        shipper.push(Stream::Stderr, text.as_bytes(), 0);
        shipper.work(&poller);
    }
    let received = || {
        let mut buffer = vec![0; 4096];
        let read = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..read]).into_owned()
    };
    let first = received();
    assert!(
        first.starts_with("PRIORITY=3\nMESSAGE=one\nA\n\u{3}\0\0\0\0\0\0\0x\ny\nCONTAINER_LOG_ORDINAL=1\n"),
        "{first}"
    );
    assert!(!first.contains("PARTIAL"));
    assert!(received().contains(
        "CONTAINER_PARTIAL_ORDINAL=1\nCONTAINER_PARTIAL_LAST=false\nCONTAINER_PARTIAL_MESSAGE=true\n"
    ));
    assert!(received().ends_with("CONTAINER_PARTIAL_ORDINAL=2\nCONTAINER_PARTIAL_LAST=true\n"));
    assert!(received().contains("CONTAINER_PARTIAL_ORDINAL=1\n"));
    // The last words had no end; the container's next run begins a line of its own.
    shipper.finish(Stream::Stderr);
    shipper.push(Stream::Stderr, b"three\n", 0);
    shipper.work(&poller);
    let next = received();
    assert!(next.contains("MESSAGE=three\n") && !next.contains("PARTIAL"), "{next}");
}

#[test]
fn records_for_fluentd() {
    let fields = BTreeMap::from([("container_id".to_owned(), "c".to_owned())]);
    let entry = Entry { text: b"hi", stream: Stream::Stdout, time_ns: 1_000_000_002, part: None };
    let plain = fluentd::message("t", &fields, false, None, &entry);
    let expect =
        b"\x94\xa1t\xd3\0\0\0\0\0\0\0\x01\x83\xaccontainer_id\xa1c\xa6source\xa6stdout\xa3log\xa2hi\x80";
    assert_eq!(plain, expect);
    let asked = fluentd::message("t", &fields, true, Some(5), &entry);
    assert!(asked.windows(10).any(|w| w == b"\xd7\0\0\0\0\x01\0\0\0\x02"));
    let name = asked.last_chunk::<16>().unwrap();
    assert!(fluentd::confirms(&[b"\x81\xa3ack\xb0", &name[..]].concat(), &asked));
    assert!(!fluentd::confirms(b"\x81\xa3ack\xb0", &asked));
}
