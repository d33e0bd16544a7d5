//! Clients that wait.

use std::time::Duration;

use wherry_monitor_api::{Request, WaitCondition};

use crate::engine::{Host, rest, waited};

#[test]
fn conditions() {
    let mut host = Host::new();
    let mut engine = host.monitor();
    assert_eq!(rest(engine.wait(WaitCondition::NotRunning)), waited(0), "it does not run");
    let (next, removed) = (engine.wait(WaitCondition::NextExit), engine.wait(WaitCondition::Removed));
    engine.start(host.shell("sleep 0.1; exit 9"));
    let not_running = engine.wait(WaitCondition::NotRunning);
    assert_eq!(rest(next), waited(9));
    assert_eq!(rest(not_running), waited(9));
    assert_eq!(rest(engine.wait(WaitCondition::NotRunning)), waited(9), "at once");
    removed.set_nonblocking(true).unwrap();
    let mut byte = [0];
    assert!(std::io::Read::read(&mut &removed, &mut byte).is_err(), "not before it is removed");
    removed.set_nonblocking(false).unwrap();
    engine.exited();
    engine.release(&mut host);
    assert_eq!(rest(removed), waited(9));
}

#[test]
fn a_client_that_goes_away_is_forgotten() {
    let mut host = Host::new();
    let mut engine = host.monitor();
    engine.start(host.shell("sleep 1000"));
    let fds = || std::fs::read_dir(format!("/proc/{}/fd", host.monitor_pid())).unwrap().count();
    // What follows a start is done once this is answered.
    engine.state();
    let before = fds();
    for _ in 0..200 {
        drop(engine.wait(WaitCondition::NextExit));
        drop(engine.attach(crate::engine::attached()));
        drop(engine.client(Request::FollowLogs(crate::engine::following())));
    }
    crate::engine::until("all are gone", || fds() <= before);
    engine.ok(Request::Kill { signal: 9, manual: true });
    engine.exited();
    engine.release(&mut host);
}

#[test]
fn those_who_wait_for_removal_are_answered_though_the_engine_is_dead() {
    let mut host = Host::new();
    let mut engine = host.monitor();
    let wait = engine.wait(WaitCondition::Removed);
    engine.start(host.shell("sleep 0.2; exit 6"));
    drop(engine);
    assert_eq!(rest(wait), waited(6));
    host.monitor_ends();
}

#[test]
fn a_stuck_client_does_not_keep_others_waiting_for_ever() {
    let mut host = Host::new();
    let mut engine = host.monitor();
    let mut request = crate::engine::attached();
    request.stdin = false;
    let stuck = engine.attach(request);
    let wait = engine.wait(WaitCondition::NextExit);
    // More than the socket takes, less than what holds the container back.
    engine.start(host.shell("head -c 300000 /dev/zero; exit 2"));
    assert_eq!(rest(wait), waited(2));
    engine.exited();
    engine.ok(Request::Release);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(rest(stuck).len(), 300_000, "and it loses nothing");
    host.monitor_ends();
}
