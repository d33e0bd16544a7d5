//! Clients that follow the log.

use wherry_monitor_api::{BodyEncoding, FailureKind, Framing, LogDriver, Request};

use crate::engine::{Host, attached, following, read_until, rest, type_in};

#[test]
fn history_then_what_comes_then_the_end() {
    let mut host = Host::new();
    let mut engine = host.monitor();
    let mut start = host.interactive("echo one; while read line; do echo $line; done");
    start.stdin_once = false;
    engine.start(start);
    let mut typist = engine.attach(attached());
    let mut client = engine.client(Request::FollowLogs(following()));
    read_until(&mut client, "one\n");
    type_in(&mut typist, "two\n");
    assert_eq!(read_until(&mut client, "\n"), "two\n");
    let mut tail = following();
    (tail.tail, tail.timestamps, tail.framing) = (Some(1), true, Framing::Multiplexed);
    let mut late = engine.client(Request::FollowLogs(tail));
    let text = read_until(&mut late, "two\n");
    assert!(text.starts_with("\x01\0\0\0\0\0\0\x23") && text.ends_with("Z two\n"), "{text:?}");
    engine.ok(Request::Kill { signal: 9, manual: true });
    assert_eq!(rest(client), "");
    assert_eq!(rest(late), "");
    engine.exited();
    let mut chunked = following();
    (chunked.encoding, chunked.follow) = (BodyEncoding::Chunked, false);
    assert_eq!(rest(engine.client(Request::FollowLogs(chunked))), "8\r\none\ntwo\n\r\n0\r\n\r\n");
    engine.release(&mut host);
}

#[test]
fn a_lot_is_followed_through_rotation_without_holding_the_container_back() {
    let mut host = Host::new();
    let mut engine = host.monitor();
    let mut start = host.interactive("read x; seq 100000");
    (start.log.max_bytes, start.log.max_files) = (Some(1 << 20), 100);
    let mut typist = engine.attach(attached());
    engine.start(start);
    let slow = engine.client(Request::FollowLogs(following()));
    type_in(&mut typist, "go\n");
    assert_eq!(rest(typist).lines().count(), 100_000);
    assert_eq!(engine.exited(), (0, false));
    let text = rest(slow);
    assert_eq!((text.lines().count(), text.lines().next_back()), (100_000, Some("100000")));
    assert!(std::fs::metadata(host.dir.path().join("log.json.3")).is_ok());
    engine.release(&mut host);
}

#[test]
fn following_ends_at_a_time() {
    let mut host = Host::new();
    let mut engine = host.monitor();
    engine.start(host.shell("echo a; sleep 1000"));
    let mut request = following();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    request.until_ns = Some(i64::try_from(now).unwrap() + 300_000_000);
    assert_eq!(rest(engine.client(Request::FollowLogs(request))), "a\n");
    engine.ok(Request::Kill { signal: 9, manual: true });
    engine.exited();
    engine.release(&mut host);
}

#[test]
fn without_a_log_there_is_nothing_to_follow() {
    let mut host = Host::new();
    let mut engine = host.monitor();
    let mut start = host.shell("echo a; sleep 1000");
    start.log.driver = LogDriver::None;
    engine.start(start);
    let (_ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let fd = std::os::fd::AsFd::as_fd(&theirs);
    let failure = engine.call(Request::FollowLogs(following()), &[fd]).unwrap_err();
    assert_eq!(failure.kind, FailureKind::State);
    engine.ok(Request::Kill { signal: 9, manual: true });
    engine.exited();
    assert!(!host.log_path().exists());
    engine.release(&mut host);
}
