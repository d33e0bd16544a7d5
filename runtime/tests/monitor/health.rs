//! The health probe.

use wherry_monitor_api::{EventKind, Health, HealthStatus, Request};

use crate::engine::{Host, is_alive, process, until};

fn health(command: &str) -> Health {
    Health {
        process: process(&["/bin/sh", "-c", command]),
        interval_ms: 50,
        timeout_ms: 300,
        start_period_ms: 0,
        start_interval_ms: 50,
        retries: 2,
        restart: None,
    }
}

#[test]
fn the_verdict_follows_the_probe() {
    let mut host = Host::new();
    let mut engine = host.monitor();
    let mut start = host.shell("touch /tmp/well; sleep 1000");
    start.health = Some(health("echo probing; test -e /tmp/well"));
    engine.start(start);
    assert!(matches!(engine.event(), EventKind::Started { .. }));
    assert_eq!(engine.event(), EventKind::Health { status: HealthStatus::Healthy });
    std::fs::remove_file(host.dir.path().join("rootfs/tmp/well")).unwrap();
    assert_eq!(engine.event(), EventKind::Health { status: HealthStatus::Unhealthy });
    let state = engine.state().health.unwrap();
    assert!(state.failing_streak >= 2);
    let last = state.log.last().unwrap();
    assert_eq!((last.code, last.output.as_str()), (1, "probing\n"));
    std::fs::write(host.dir.path().join("rootfs/tmp/well"), "").unwrap();
    assert_eq!(engine.event(), EventKind::Health { status: HealthStatus::Healthy });
    assert_eq!(host.log_text(), "", "a probe's output is not the container's");
    engine.ok(Request::Kill { signal: 9, manual: true });
    engine.exited();
    engine.release(&mut host);
}

#[test]
fn a_probe_that_hangs_is_killed_with_all_that_it_started() {
    let mut host = Host::new();
    let mut engine = host.monitor();
    let mut start = host.shell("sleep 1000");
    start.health = Some(health("echo $$ >/tmp/pid; sleep 500; true"));
    let pid = engine.start(start);
    assert!(matches!(engine.event(), EventKind::Started { .. }));
    assert_eq!(engine.event(), EventKind::Health { status: HealthStatus::Unhealthy });
    let last = engine.state().health.unwrap().log.last().cloned().unwrap();
    assert_eq!((last.code, last.output.as_str()), (-1, "Health check exceeded timeout (300ms)"));
    engine.ok(Request::Pause);
    until("no probe is left", || crate::engine::children(host.monitor_pid()) == [pid]);
    let leftovers = || {
        let Ok(wherry_monitor_api::Reply::Processes(pids)) = engine.call(Request::Processes, &[]) else {
            return 99;
        };
        pids.into_iter().filter(|&pid| is_alive(pid)).count()
    };
    let mut leftovers = leftovers;
    until("only the program and its sleep are left", || leftovers() <= 2);
    engine.ok(Request::Kill { signal: 9, manual: true });
    engine.exited();
    engine.release(&mut host);
}
