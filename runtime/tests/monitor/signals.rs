//! Stop, kill, pause, limits.

use std::time::{Duration, Instant};

use serde_json::json;
use wherry_monitor_api::{EventKind, FailureKind, Phase, Reply, Request};

use crate::engine::{Host, attached, is_alive, rest, until};

fn stop(timeout_ms: Option<u64>) -> Request {
    Request::Stop { signal: libc::SIGTERM, timeout_ms, manual: true }
}

#[test]
fn stop_lets_a_handler_finish() {
    let mut host = Host::new();
    let mut engine = host.monitor();
    engine.start(host.shell("trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.05; done"));
    until("it is ready", || host.log_text() == "ready\n");
    engine.ok(stop(Some(15_000)));
    assert!(
        matches!(host.state().unwrap().phase, Phase::Exited { code: 3, .. }),
        "recorded before the reply"
    );
    assert!(host.state().unwrap().manually_stopped);
    assert_eq!(host.log_text(), "ready\nbye\n");
    assert!(matches!(engine.event(), EventKind::Started { .. }));
    assert!(matches!(engine.event(), EventKind::Exited { code: 3, stopped: true, restarting: false, .. }));
    assert_eq!(engine.call(stop(None), &[]).unwrap_err().kind, FailureKind::State);
    engine.release(&mut host);
}

#[test]
fn stop_kills_what_does_not_listen_even_when_it_is_frozen() {
    let mut host = Host::new();
    let mut engine = host.monitor();
    for frozen in [false, true] {
        let pid = engine.start(host.shell("trap '' TERM; echo ready; while :; do sleep 1; done"));
        until("it is ready", || host.log_text().ends_with("ready\n"));
        if frozen {
            engine.ok(Request::Pause);
        }
        let begin = Instant::now();
        engine.ok(stop(Some(200)));
        assert!(begin.elapsed() >= Duration::from_millis(200));
        assert!(!is_alive(pid));
        assert_eq!(engine.exited(), (137, false));
    }
    engine.release(&mut host);
    assert!(host.cgroups().is_empty());
}

#[test]
fn a_client_that_takes_no_output_does_not_keep_a_stop_from_ending() {
    let mut host = Host::new();
    let mut engine = host.monitor();
    let mut start = host.shell("yes");
    (start.log.max_bytes, start.log.max_files) = (Some(1 << 20), 3);
    engine.start(start);
    let mut request = attached();
    request.stdin = false;
    let frozen = engine.attach(request.clone());
    request.logs = true;
    let reads_history = engine.attach(request);
    std::thread::sleep(Duration::from_millis(100));
    let begin = Instant::now();
    engine.ok(stop(Some(0)));
    assert_eq!(engine.exited(), (137, false));
    assert!(begin.elapsed() < Duration::from_secs(10));
    // What was on its way to them still arrives.
    for client in [frozen, reads_history] {
        let text = rest(client);
        assert!(text.len() > 10_000 && text.trim_end_matches('\n').ends_with("y\ny"), "{}", text.len());
    }
    engine.release(&mut host);
}

#[test]
fn pause_freezes_and_resume_thaws() {
    let mut host = Host::new();
    let mut engine = host.monitor();
    engine.start(host.shell("while :; do echo x; usleep 1000; done"));
    assert!(matches!(engine.event(), EventKind::Started { .. }));
    until("it writes", || host.log_text().len() > 10);
    engine.ok(Request::Pause);
    assert_eq!(engine.event(), EventKind::Paused);
    assert!(matches!(engine.state().phase, Phase::Running { paused: true, .. }));
    assert_eq!(engine.call(Request::Pause, &[]).unwrap_err().kind, FailureKind::State);
    std::thread::sleep(Duration::from_millis(50));
    let before = host.log_text().len();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(host.log_text().len(), before);
    engine.ok(Request::Resume);
    assert_eq!(engine.event(), EventKind::Resumed);
    until("it writes again", || host.log_text().len() > before);
    assert_eq!(engine.call(Request::Resume, &[]).unwrap_err().kind, FailureKind::State);
    engine.ok(Request::Pause);
    engine.ok(Request::Kill { signal: libc::SIGKILL, manual: true });
    assert_eq!(engine.exited(), (137, false));
    engine.release(&mut host);
}

#[test]
fn limits_processes_and_statistics() {
    let mut host = Host::new();
    let mut engine = host.monitor();
    let pid = engine.start(host.shell("sleep 1000 & wait"));
    until("both processes are there", || match engine.call(Request::Processes, &[]) {
        Ok(Reply::Processes(pids)) => pids.len() == 2 && pids.contains(&pid),
        other => panic!("{other:?}"),
    });
    engine.ok(Request::Update { resources: Some(json!({"pids": {"limit": 77}})), restart: None });
    let limits: Vec<String> = host
        .cgroups()
        .iter()
        .filter_map(|cgroup| std::fs::read_to_string(cgroup.join("pids.max")).ok())
        .collect();
    assert!(limits.iter().any(|limit| limit == "77\n"), "{limits:?}");
    let Ok(Reply::Stats(stats)) = engine.call(Request::Stats, &[]) else { panic!("no statistics") };
    assert!(stats["memory"]["usage_bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{stats}");
    engine.ok(stop(Some(0)));
    engine.exited();
    engine.release(&mut host);
}

#[test]
fn the_kernel_killing_for_lack_of_memory_is_noticed() {
    let mut host = Host::new();
    let mut engine = host.monitor();
    let mut start = host.shell("x=xxxxxxxxxxxxxxxx; while :; do x=$x$x; done");
    start.oci["linux"]["resources"] = json!({"memory": {"limit": 8 << 20, "swap": 8 << 20}});
    engine.start(start);
    assert!(matches!(engine.event(), EventKind::Started { .. }));
    assert_eq!(engine.event(), EventKind::OutOfMemory);
    assert!(matches!(engine.event(), EventKind::Exited { code: 137, oom_killed: true, .. }));
    assert!(matches!(host.state().unwrap().phase, Phase::Exited { oom_killed: true, .. }));
    engine.release(&mut host);
}
