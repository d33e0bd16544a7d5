//! The restart policy, with and without an engine.

use std::time::{Duration, Instant};

use wherry_monitor_api::{EventKind, Phase, Request, RestartPolicy, WaitCondition};

use crate::engine::{Host, rest, until, waited};

#[test]
fn on_failure_tries_so_often_and_then_it_is_over() {
    let mut host = Host::new();
    let mut engine = host.monitor();
    let (wait, next) = (engine.wait(WaitCondition::Removed), engine.wait(WaitCondition::NextExit));
    let mut start = host.shell("echo run; exit 4");
    start.restart = RestartPolicy::OnFailure { max_retries: 2 };
    let begin = Instant::now();
    engine.start(start);
    assert_eq!(rest(next), waited(4), "each exit is one");
    assert_eq!([engine.exited(), engine.exited(), engine.exited()], [(4, true), (4, true), (4, false)]);
    assert!(begin.elapsed() >= Duration::from_millis(300), "100 ms, then 200 ms");
    assert_eq!(host.log_text(), "run\nrun\nrun\n");
    assert_eq!(host.state().unwrap().restart_count, 2);
    engine.release(&mut host);
    assert_eq!(rest(wait), waited(4));
}

#[test]
fn always_goes_on_while_the_engine_is_dead_and_a_new_one_learns_it() {
    let mut host = Host::new();
    let mut engine = host.monitor();
    let not_running = engine.wait(WaitCondition::NotRunning);
    let mut start = host.shell("echo run; sleep 0.05; exit 1");
    start.restart = RestartPolicy::Always;
    engine.start(start);
    drop(engine);
    until("it has run three times", || host.log_text().matches("run").count() >= 3);
    until("the state on disk tells", || host.state().is_some_and(|state| state.restart_count >= 2));
    let mut engine = host.connect();
    let state = engine.greet();
    assert!(state.restart_count >= 2 && !state.journal.is_empty(), "{state:?}");
    let mut last = 0;
    for _ in 0..5 {
        let event = loop {
            if let Some(event) = engine.events.pop_front() {
                break event;
            }
            engine.state();
        };
        assert_eq!(event.seq, last + 1, "without a gap, from the first");
        last = event.seq;
    }
    engine.ok(Request::Stop { signal: libc::SIGKILL, timeout_ms: None, manual: true });
    let stopped = engine.state();
    assert!(matches!(stopped.phase, Phase::Exited { .. }) && stopped.manually_stopped, "{stopped:?}");
    assert!(rest(not_running).contains("StatusCode"));
    let runs = host.log_text();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(host.log_text(), runs, "a stop ends it");
    engine.release(&mut host);
    assert!(host.cgroups().is_empty());
}

#[test]
fn a_stop_calls_a_coming_restart_off() {
    let mut host = Host::new();
    let mut engine = host.monitor();
    let mut start = host.start(&["false"]);
    start.restart = RestartPolicy::UnlessStopped;
    engine.start(start);
    let wait = engine.wait(WaitCondition::NotRunning);
    // Until the delay is long enough to act in it.
    for _ in 0..3 {
        assert_eq!(engine.exited(), (1, true));
    }
    assert!(matches!(engine.state().phase, Phase::Restarting { code: 1, .. }));
    engine.ok(Request::Stop { signal: libc::SIGTERM, timeout_ms: None, manual: true });
    assert!(matches!(host.state().unwrap().phase, Phase::Exited { code: 1, .. }));
    assert_eq!(rest(wait), waited(1));
    assert_eq!(engine.exited(), (1, false));
    engine.release(&mut host);
}

#[test]
fn a_kill_by_the_user_is_not_repaired_but_any_other_death_is() {
    let mut host = Host::new();
    let mut engine = host.monitor();
    let mut start = host.shell("sleep 1000");
    start.restart = RestartPolicy::Always;
    engine.start(start);
    engine.ok(Request::Kill { signal: libc::SIGKILL, manual: false });
    assert_eq!(engine.exited(), (137, true));
    assert!(matches!(engine.event(), EventKind::Started { by_policy: true, .. }));
    engine.ok(Request::Kill { signal: libc::SIGKILL, manual: true });
    assert_eq!(engine.exited(), (137, false));
    engine.release(&mut host);
}

#[test]
fn a_policy_can_be_changed_and_a_start_that_fails_is_tried_again() {
    let mut host = Host::new();
    let mut engine = host.monitor();
    engine.start(host.start(&["/bin/sleep", "1000"]));
    engine
        .ok(Request::Update { resources: None, restart: Some(RestartPolicy::OnFailure { max_retries: 2 }) });
    std::fs::remove_file(host.dir.path().join("rootfs/bin/sleep")).unwrap();
    engine.ok(Request::Kill { signal: libc::SIGKILL, manual: false });
    assert_eq!(engine.exited(), (137, true));
    assert!(matches!(engine.event(), EventKind::StartFailed { code: 127, restarting: true, .. }));
    assert!(matches!(engine.event(), EventKind::StartFailed { code: 127, restarting: false, .. }));
    assert!(matches!(host.state().unwrap().phase, Phase::Exited { code: 127, .. }));
    engine.release(&mut host);
}
