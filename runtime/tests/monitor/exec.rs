//! Further processes.

use std::net::Shutdown;
use std::time::Duration;

use serde_json::json;
use wherry_monitor_api::{AttachRequest, EventKind, ExecSpec, FailureKind, Reply, Request};

use crate::engine::{Engine, Host, attached, process, read_until, rest, type_in, until};

fn exec(arguments: &[&str], attach: Option<AttachRequest>) -> Request {
    Request::Exec {
        exec: format!("exec-{}", arguments.last().unwrap()),
        spec: Box::new(ExecSpec { process: process(arguments), console_size: None }),
        attach,
    }
}

fn started(host: &mut Host) -> Engine {
    let mut engine = host.monitor();
    engine.start(host.shell("sleep 1000"));
    assert!(matches!(engine.event(), EventKind::Started { .. }));
    engine
}

fn finish(mut engine: Engine, mut host: Host) {
    engine.ok(Request::Kill { signal: 9, manual: true });
    engine.exited();
    engine.release(&mut host);
    assert!(host.cgroups().is_empty());
}

fn code_of(engine: &mut Engine, id: &str) -> Option<i32> {
    let Ok(Reply::Execs(execs)) = engine.call(Request::Execs, &[]) else { panic!("no execs") };
    execs.iter().find(|record| record.exec == id).unwrap().exit_code
}

#[test]
fn an_attached_exec_streams_and_its_code_is_known_when_the_client_sees_the_end() {
    let mut host = Host::new();
    let mut engine = started(&mut host);
    let mut client = engine.client(exec(&["sh", "-c", "cat; echo err >&2; exit 5"], Some(attached())));
    type_in(&mut client, "text\n");
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(client), "text\nerr\n");
    let id = "exec-cat; echo err >&2; exit 5";
    assert_eq!(code_of(&mut engine, id), Some(5));
    assert_eq!(engine.event(), EventKind::ExecStarted { exec: id.into() });
    assert_eq!(engine.event(), EventKind::ExecExited { exec: id.into(), code: 5 });
    assert_eq!(host.log_text(), "", "an exec's output is not the container's");
    finish(engine, host);
}

#[test]
fn an_exec_with_a_terminal_can_be_resized_and_left() {
    let mut host = Host::new();
    let mut engine = started(&mut host);
    let mut process = process(&["sh", "-c", "tty=1; stty size; read x; stty size; sleep 1000"]);
    process["terminal"] = json!(true);
    let spec = Box::new(ExecSpec { process, console_size: Some((5, 6)) });
    let mut client = engine.client(Request::Exec { exec: "tty".into(), spec, attach: Some(attached()) });
    read_until(&mut client, "5 6\r\n");
    engine.ok(Request::Resize { exec: Some("tty".into()), rows: 7, columns: 8 });
    type_in(&mut client, "\n");
    read_until(&mut client, "7 8\r\n");
    type_in(&mut client, "\x10\x11");
    assert_eq!(rest(client), "detached\r\n");
    assert!(matches!(engine.event(), EventKind::ExecStarted { .. }));
    assert_eq!(engine.event(), EventKind::Detached { exec: Some("tty".into()) });
    assert_eq!(code_of(&mut engine, "tty"), None, "it goes on");
    let resize = Request::Resize { exec: Some("other".into()), rows: 1, columns: 1 };
    assert_eq!(engine.call(resize, &[]).unwrap_err().kind, FailureKind::NoSuchExec);
    finish(engine, host);
}

#[test]
fn a_detached_exec_runs_to_its_end() {
    let mut host = Host::new();
    let mut engine = started(&mut host);
    let reply = engine.call(exec(&["sh", "-c", "echo lost; exit 3"], None), &[]);
    assert!(matches!(reply, Ok(Reply::ExecStarted { pid: 1.. })));
    assert!(matches!(engine.event(), EventKind::ExecStarted { .. }));
    assert!(matches!(engine.event(), EventKind::ExecExited { code: 3, .. }));
    finish(engine, host);
}

#[test]
fn a_failed_exec_leaves_the_client_to_the_engine() {
    let mut host = Host::new();
    let mut engine = started(&mut host);
    for (arguments, kind, text) in [
        (["nosuchcmd"], FailureKind::NotFound, "exec: \"nosuchcmd\": executable file not found in $PATH"),
        (["/proc"], FailureKind::NotExecutable, "exec: \"/proc\": is a directory: permission denied"),
    ] {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let fd = std::os::fd::AsFd::as_fd(&theirs);
        let failure = engine.call(exec(&arguments, Some(attached())), &[fd]).unwrap_err();
        assert_eq!((failure.kind, failure.message.as_str()), (kind, text));
        drop(theirs);
        assert_eq!(rest(ours), "", "nothing has been written");
    }
    assert!(engine.is_quiet(Duration::from_millis(50)));
    finish(engine, host);
}

#[test]
fn a_frozen_container_takes_no_execs() {
    let mut host = Host::new();
    let mut engine = started(&mut host);
    engine.ok(Request::Pause);
    assert_eq!(engine.call(exec(&["true"], None), &[]).unwrap_err().kind, FailureKind::State);
    engine.ok(Request::Resume);
    assert!(matches!(engine.call(exec(&["true"], None), &[]), Ok(Reply::ExecStarted { .. })));
    finish(engine, host);
}

#[test]
fn what_an_exec_leaves_running_does_not_keep_its_client() {
    let mut host = Host::new();
    let mut engine = started(&mut host);
    let client = engine.client(exec(&["sh", "-c", "sleep 1000 & echo started"], Some(attached())));
    assert_eq!(rest(client), "started\n");
    finish(engine, host);
}

#[test]
fn the_end_of_the_container_ends_its_execs() {
    let mut host = Host::new();
    let mut engine = started(&mut host);
    let mut client = engine.client(exec(&["sh", "-c", "echo ready; sleep 1000"], Some(attached())));
    read_until(&mut client, "ready\n");
    engine.ok(Request::Kill { signal: 9, manual: true });
    assert_eq!(rest(client), "");
    let mut seen = Vec::new();
    until("both ends are reported", || {
        seen.push(engine.event());
        seen.iter().any(|event| matches!(event, EventKind::ExecExited { code: 137, .. }))
            && seen.iter().any(|event| matches!(event, EventKind::Exited { code: 137, .. }))
    });
    engine.release(&mut host);
    assert!(host.cgroups().is_empty());
}
