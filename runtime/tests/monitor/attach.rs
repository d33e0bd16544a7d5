//! Attached clients: input, terminals, detaching.

use std::io::Write;
use std::net::Shutdown;
use std::time::Duration;

use wherry_monitor_api::{EventKind, Phase, Request, WaitCondition};

use crate::engine::{Host, attached, read_until, rest, type_in, until, waited};

#[test]
fn input_reaches_the_program_and_its_end_too() {
    let mut host = Host::new();
    let mut engine = host.monitor();
    let mut request = attached();
    request.already_read = b"early ".to_vec();
    let mut client = engine.attach(request);
    type_in(&mut client, "before the start, ");
    let wait = engine.wait(WaitCondition::NextExit);
    engine.start(host.interactive("cat; echo end"));
    type_in(&mut client, "after it\n");
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(client), "early before the start, after it\nend\n");
    assert_eq!(rest(wait), waited(0));
    engine.exited();
    engine.release(&mut host);
}

#[test]
fn twenty_megabytes_of_input_arrive_whole() {
    let mut host = Host::new();
    let mut engine = host.monitor();
    let client = engine.attach(attached());
    engine.start(host.interactive("wc -c"));
    let mut writer = client.try_clone().unwrap();
    let typist = std::thread::spawn(move || {
        writer.write_all(&vec![b'x'; 20 << 20]).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    assert_eq!(rest(client), format!("{}\n", 20 << 20));
    typist.join().unwrap();
    engine.exited();
    engine.release(&mut host);
}

#[test]
fn a_program_that_does_not_read_ends_in_an_orderly_way() {
    let mut host = Host::new();
    let mut engine = host.monitor();
    let mut client = engine.attach(attached());
    engine.start(host.interactive("exec 0<&-; echo closed; sleep 0.2"));
    assert_eq!(read_until(&mut client, "closed\n"), "closed\n");
    // More than any buffer takes; nobody will read it.
    client.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let _ = client.write_all(&vec![b'x'; 4 << 20]);
    assert_eq!(rest(client), "", "the end of the connection, not a reset");
    engine.exited();
    engine.release(&mut host);
}

#[test]
fn standard_input_stays_open_for_the_next_client() {
    let mut host = Host::new();
    let mut engine = host.monitor();
    let mut start = host.interactive("cat");
    start.stdin_once = false;
    engine.start(start);
    for text in ["one\n", "two\n"] {
        let mut client = engine.attach(attached());
        type_in(&mut client, text);
        assert_eq!(read_until(&mut client, "\n"), text);
        client.shutdown(Shutdown::Write).unwrap();
        // As dockerd: the end of such a client's input is the end of the client.
        assert_eq!(rest(client), "");
    }
    assert!(matches!(engine.state().phase, Phase::Running { .. }));
    engine.ok(Request::Kill { signal: 9, manual: true });
    engine.exited();
    engine.release(&mut host);
}

#[test]
fn several_clients_see_the_same_and_one_that_vanishes_disturbs_nobody() {
    let mut host = Host::new();
    let mut engine = host.monitor();
    let mut start = host.interactive("while read line; do echo got $line; done");
    start.stdin_once = false;
    engine.start(start);
    let (mut one, mut two) = (engine.attach(attached()), engine.attach(attached()));
    type_in(&mut one, "a\n");
    assert_eq!(read_until(&mut one, "\n"), "got a\n");
    assert_eq!(read_until(&mut two, "\n"), "got a\n");
    drop(one);
    type_in(&mut two, "b\n");
    assert_eq!(read_until(&mut two, "\n"), "got b\n");
    engine.ok(Request::Kill { signal: 9, manual: true });
    engine.exited();
    engine.release(&mut host);
}

#[test]
fn a_terminal_has_a_size_that_changes_and_is_left_by_its_keys() {
    let mut host = Host::new();
    let mut engine = host.monitor();
    let mut client = engine.attach(attached());
    engine.start(host.terminal("stty size; while read line; do echo \"got <$line>\"; stty size; done"));
    assert!(read_until(&mut client, "100\r\n").ends_with("30 100\r\n"));
    engine.ok(Request::Resize { exec: None, rows: 11, columns: 22 });
    type_in(&mut client, "hello\n");
    assert!(read_until(&mut client, "22\r\n").ends_with("got <hello>\r\n11 22\r\n"));
    // The sequence in two halves; what is held back in between and turns out to be input is not lost.
    type_in(&mut client, "\x10x\n");
    assert!(read_until(&mut client, "22\r\n").contains("got <\x10x>"));
    type_in(&mut client, "\x10");
    std::thread::sleep(Duration::from_millis(20));
    type_in(&mut client, "\x11");
    assert_eq!(rest(client), "detached\r\n");
    assert!(matches!(engine.event(), EventKind::Started { .. }));
    assert_eq!(engine.event(), EventKind::Detached { exec: None });
    let mut again = engine.attach(attached());
    type_in(&mut again, "x\n");
    read_until(&mut again, "got <x>\r\n");
    engine.ok(Request::Kill { signal: 9, manual: true });
    rest(again);
    assert_eq!(engine.exited(), (137, false));
    assert!(host.log_text().contains("got <hello>\r\n"));
    engine.release(&mut host);
}

#[test]
fn a_terminal_may_be_closed_and_opened_again() {
    let mut host = Host::new();
    let mut engine = host.monitor();
    let client = engine.attach(attached());
    let command = "tty=$(readlink /proc/self/fd/0); exec 0<&- 1>&- 2>&-; usleep 100000; echo again >$tty; usleep 100000; \
                   echo and again >$tty; usleep 50000; exit 4";
    engine.start(host.terminal(command));
    std::thread::sleep(Duration::from_millis(80));
    let before = ticks(host.monitor_pid());
    assert_eq!(rest(client), "again\r\nand again\r\n");
    assert!(ticks(host.monitor_pid()) - before < 10, "the monitor does not wait busily");
    assert_eq!(engine.exited(), (4, false));
    engine.release(&mut host);
}

/// Processor time of a process, in hundredths of a second.
fn ticks(pid: i32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn the_log_so_far_comes_first_and_nothing_is_missing_between() {
    let mut host = Host::new();
    let mut engine = host.monitor();
    let mut start = host.interactive("seq 20000; printf 'prompt> '; read x; echo $x");
    start.stdin_once = false;
    engine.start(start);
    until("the prompt is waiting", || host.log_text().ends_with("20000\n"));
    std::thread::sleep(Duration::from_millis(50));
    let mut request = attached();
    request.logs = true;
    let mut client = engine.attach(request);
    let text = read_until(&mut client, "prompt> ");
    assert_eq!(text.lines().count(), 20001);
    type_in(&mut client, "answer\n");
    assert_eq!(rest(client), "answer\n");
    let mut request = attached();
    (request.logs, request.stream) = (true, false);
    assert_eq!(engine.exited(), (0, false));
    assert_eq!(rest(engine.attach(request)).lines().count(), 20001, "only the log, and then the end");
    engine.release(&mut host);
}
