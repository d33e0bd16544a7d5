//! Output and exit codes.

use std::net::Shutdown;

use wherry_monitor_api::{EventKind, FailureKind, Framing, Phase, Reply, Request, WaitCondition};

use crate::engine::{Host, attached, rest, waited};

#[test]
fn a_container_runs_and_its_output_and_exit_code_arrive() {
    let mut host = Host::new();
    let mut engine = host.monitor();
    let mut request = attached();
    (request.stdin, request.framing) = (false, Framing::Multiplexed);
    let client = engine.attach(request);
    // As the docker CLI does when it has no input.
    client.shutdown(Shutdown::Write).unwrap();
    let wait = engine.wait(WaitCondition::NextExit);
    let pid = engine.start(host.shell("echo out; echo err >&2; exit 7"));
    let text = rest(client);
    assert!(
        text.contains("\x01\0\0\0\0\0\0\x04out\n") && text.contains("\x02\0\0\0\0\0\0\x04err\n"),
        "{text:?}"
    );
    assert_eq!(rest(wait), waited(7));
    assert_eq!(engine.event(), EventKind::Started { pid, by_policy: false });
    let exited = EventKind::Exited { code: 7, restarting: false, oom_killed: false, stopped: false };
    assert_eq!(engine.event(), exited);
    assert!(matches!(host.state().unwrap().phase, Phase::Exited { code: 7, oom_killed: false, .. }));
    let mut log: Vec<String> = host.log_text().lines().map(str::to_owned).collect();
    log.sort();
    assert_eq!(log, ["err", "out"]);
    engine.release(&mut host);
    assert!(host.cgroups().is_empty());
}

#[test]
fn an_exit_by_a_signal_is_128_and_its_number() {
    let mut host = Host::new();
    let mut engine = host.monitor();
    engine.start(host.shell("sh -c 'kill -9 $$'; exit $?"));
    assert_eq!(engine.exited(), (137, false));
    engine.start(host.start(&["/bin/sleep", "1000"]));
    engine.ok(Request::Kill { signal: libc::SIGKILL, manual: true });
    assert_eq!(engine.exited(), (137, false));
    engine.release(&mut host);
}

#[test]
fn a_start_that_fails_says_why_and_can_be_tried_again() {
    let mut host = Host::new();
    let mut engine = host.monitor();
    let wait = engine.wait(WaitCondition::Removed);
    for (program, kind, text) in [
        ("nosuchcmd", FailureKind::NotFound, "exec: \"nosuchcmd\": executable file not found in $PATH"),
        ("/etc", FailureKind::NotExecutable, "exec: \"/etc\": is a directory: permission denied"),
    ] {
        let failure = engine.call(Request::Start(Box::new(host.start(&[program]))), &[]).unwrap_err();
        assert_eq!((failure.kind, failure.message.as_str()), (kind, text));
    }
    assert!(matches!(engine.state().phase, Phase::Exited { code: 126, .. }));
    engine.start(host.start(&["true"]));
    assert_eq!(engine.exited(), (0, false));
    engine.release(&mut host);
    assert_eq!(rest(wait), waited(0));
    assert!(host.cgroups().is_empty());
}

#[test]
fn large_output_arrives_whole_and_a_slow_client_holds_the_container_back() {
    let mut host = Host::new();
    let mut engine = host.monitor();
    let mut request = attached();
    request.stdin = false;
    let client = engine.attach(request);
    let wait = engine.wait(WaitCondition::NextExit);
    const LINES: usize = 500_000;
    engine.start(host.shell(&format!("seq {LINES}")));
    // The client has not read yet: what it does not take is neither lost nor kept in the monitor's memory.
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(matches!(engine.state().phase, Phase::Running { .. }));
    let text = rest(client);
    assert_eq!(text.lines().count(), LINES);
    assert!(text.ends_with(&format!("{LINES}\n")));
    assert_eq!(rest(wait), waited(0));
    assert_eq!(host.log_text(), text);
    engine.release(&mut host);
}

#[test]
fn output_that_something_else_holds_open_does_not_keep_an_exit_back() {
    let mut host = Host::new();
    let mut engine = host.monitor();
    let mut start = host.shell("(sleep 1000 &) ; echo done");
    let namespaces = start.oci["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "pid");
    engine.start(start);
    assert_eq!(engine.exited(), (0, false));
    assert_eq!(host.log_text(), "done\n");
    let children = || crate::engine::children(host.monitor_pid());
    crate::engine::until("the host's pid namespace keeps nothing of it", || children().is_empty());
    engine.release(&mut host);
    assert!(host.cgroups().is_empty());
}

#[test]
fn the_process_gets_clean_signals_and_descriptors() {
    let mut host = Host::new();
    let mut engine = host.monitor();
    let command = "grep -E 'Sig(Blk|Ign)' /proc/self/status; ls /proc/$$/fd; echo x >/dev/stdout";
    let mut start = host.shell(command);
    start.oci["process"]["user"] = serde_json::json!({"uid": 1000, "gid": 1000});
    engine.start(start);
    engine.exited();
    let log = host.log_text();
    assert!(log.contains("SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n"), "{log}");
    assert!(log.ends_with("0\n1\n2\nx\n") || log.ends_with("0\n1\n10\n2\nx\n"), "{log}");
    engine.release(&mut host);
}

#[test]
fn nonsense_is_refused_and_harms_nothing() {
    let mut host = Host::new();
    let mut engine = host.monitor();
    for request in [
        Request::Pause,
        Request::Resume,
        Request::Stats,
        Request::Processes,
        Request::Kill { signal: 9, manual: true },
        Request::Stop { signal: 9, timeout_ms: None, manual: true },
        Request::Resize { exec: None, rows: 1, columns: 1 },
        Request::Update { resources: None, restart: None },
    ] {
        let what = format!("{request:?}");
        assert_eq!(engine.call(request, &[]).unwrap_err().kind, FailureKind::State, "{what}");
    }
    let mut start = host.shell("true");
    start.oci = serde_json::json!({"ociVersion": 1});
    let failure = engine.call(Request::Start(Box::new(start)), &[]).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Protocol);
    assert_eq!(
        engine.call(Request::Attach(attached()), &[]).unwrap_err().kind,
        FailureKind::Protocol,
        "no client"
    );
    assert_eq!(engine.call(Request::Hello { version: 99 }, &[]).unwrap_err().kind, FailureKind::Protocol);
    let mut other = std::os::unix::net::UnixStream::connect(host.socket_path()).unwrap();
    std::io::Write::write_all(&mut other, b"\x03\0\0\0\0abc").unwrap();
    assert_eq!(rest(other), "", "a malformed message ends its connection only");
    engine.start(host.shell("sleep 1000"));
    assert!(matches!(engine.call(Request::Stats, &[]), Ok(Reply::Stats(_))));
    engine.ok(Request::Kill { signal: 9, manual: true });
    engine.exited();
    engine.release(&mut host);
}
