//! How long a monitor lives, and what survives an engine.

use std::time::Duration;

use wherry_monitor_api::{EventKind, FailureKind, Phase, Request, WaitCondition};

use crate::engine::{Host, attached, children, is_alive, read_until, rest, type_in, until, waited};

#[test]
fn an_attached_session_outlives_the_engine() {
    let mut host = Host::new();
    let mut engine = host.monitor();
    let mut client = engine.attach(attached());
    let wait = engine.wait(WaitCondition::NextExit);
    engine.start(
        host.terminal("while read line; do test \"$line\" = end && exit 42; echo \"got $line\"; done"),
    );
    drop(engine);
    type_in(&mut client, "hello\n");
    read_until(&mut client, "got hello\r\n");
    let mut engine = host.connect();
    let state = engine.greet();
    assert!(matches!(state.phase, Phase::Running { .. }));
    assert!(matches!(engine.event(), EventKind::Started { .. }), "the journal tells what nobody heard");
    drop(engine);
    type_in(&mut client, "end\n");
    rest(client);
    assert_eq!(rest(wait), waited(42));
    host.monitor_ends();
    let state = host.state().unwrap();
    assert!(matches!(state.phase, Phase::Exited { code: 42, .. }));
    assert!(state.journal.iter().any(|event| matches!(event.kind, EventKind::Exited { code: 42, .. })));
    assert!(host.cgroups().is_empty());
}

#[test]
fn a_later_monitor_goes_on_with_the_journal() {
    let mut host = Host::new();
    let mut engine = host.monitor();
    engine.start(host.shell("exit 1"));
    drop(engine);
    host.monitor_ends();
    let left = host.state().unwrap().journal;
    assert_eq!(left.iter().map(|event| event.seq).collect::<Vec<_>>(), [1, 2]);
    let mut engine = host.monitor();
    engine.start(host.shell("exit 2"));
    engine.exited();
    engine.exited();
    assert_eq!(engine.state().last_seq, 4);
    engine.release(&mut host);
    assert!(host.state().unwrap().journal.is_empty(), "all of it was acknowledged");
    let mut engine = host.monitor();
    engine.ok(Request::Subscribe { after: 4 });
    engine.start(host.shell("exit 3"));
    let mut seqs = Vec::new();
    until("both events came", || {
        engine.state();
        seqs.extend(engine.events.drain(..).map(|event| event.seq));
        seqs.len() >= 2
    });
    assert_eq!(seqs, [5, 6]);
    engine.release(&mut host);
}

#[test]
fn a_monitor_that_holds_nothing_ends_with_its_engine() {
    let mut host = Host::new();
    let mut engine = host.monitor();
    let (client, wait) = (engine.attach(attached()), engine.wait(WaitCondition::NextExit));
    drop(engine);
    assert_eq!(rest(client), "");
    assert_eq!(rest(wait), "0\r\n\r\n");
    host.monitor_ends();
}

#[test]
fn release_is_refused_while_the_container_runs() {
    let mut host = Host::new();
    let mut engine = host.monitor();
    engine.start(host.shell("sleep 1000"));
    assert_eq!(engine.call(Request::Release, &[]).unwrap_err().kind, FailureKind::State);
    engine.ok(Request::Stop { signal: libc::SIGTERM, timeout_ms: Some(100), manual: true });
    engine.release(&mut host);
}

#[test]
fn a_short_life_is_written_once_and_a_longer_one_soon() {
    let mut host = Host::new();
    let mut engine = host.monitor();
    let pid = engine.start(host.shell("sleep 1000"));
    until("the state is on disk", || host.state().is_some());
    assert!(matches!(host.state().unwrap().phase, Phase::Running { pid: p, pid_start: 1.., .. } if p == pid));
    assert_eq!(host.state().unwrap().monitor.0, host.monitor_pid());
    engine.ok(Request::Stop { signal: libc::SIGKILL, timeout_ms: None, manual: true });
    engine.release(&mut host);
}

#[test]
fn orphans_are_reaped_and_stray_signals_do_no_harm() {
    let mut host = Host::new();
    let mut engine = host.monitor();
    let mut start = host.shell("(sh -c 'sleep 0.1 & echo $!' &); sleep 1000");
    let namespaces = start.oci["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "pid");
    let pid = engine.start(start);
    let monitor = rustix::process::Pid::from_raw(host.monitor_pid()).unwrap();
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::HUP, rustix::process::Signal::INT]
    {
        rustix::process::kill_process(monitor, signal).unwrap();
    }
    until("the orphan is named", || host.log_text().ends_with('\n'));
    let orphan: i32 = host.log_text().trim().parse().unwrap();
    until("the orphan is reaped", || !is_alive(orphan));
    assert_eq!(children(host.monitor_pid()), [pid]);
    engine.ok(Request::Kill { signal: 9, manual: true });
    engine.exited();
    engine.release(&mut host);
}

#[test]
fn many_engines_may_come_and_go() {
    let mut host = Host::new();
    let mut engine = host.monitor();
    engine.start(host.shell("sleep 1000"));
    for _ in 0..20 {
        let mut other = host.connect();
        assert!(matches!(other.greet().phase, Phase::Running { .. }));
    }
    assert!(matches!(engine.event(), EventKind::Started { .. }));
    assert!(engine.is_quiet(Duration::from_millis(20)));
    engine.ok(Request::Kill { signal: 9, manual: true });
    engine.exited();
    engine.release(&mut host);
}
