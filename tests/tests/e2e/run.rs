//! `docker run`: exit statuses, standard streams, terminals.

use wherry_tests::{Host, poll};

#[test]
fn exit_statuses_are_the_programs() {
    let host = Host::new();
    for (command, code, text) in [
        ("run --rm busybox true", 0, ""),
        ("run --rm busybox false", 1, ""),
        ("run --rm busybox sh -c 'exit 42'", 42, ""),
        ("run --rm busybox nosuchcmd", 127, r#"exec: "nosuchcmd": executable file not found in $PATH"#),
        ("run --rm busybox /no/such", 127, r#"exec: "/no/such": stat /no/such: no such file or directory"#),
        ("run --rm busybox /etc/passwd", 126, r#"exec: "/etc/passwd": permission denied"#),
        ("run --rm busybox /etc", 126, r#"exec: "/etc": is a directory"#),
        ("run --rm --nosuchflag busybox", 125, "unknown flag: --nosuchflag"),
        ("run --rm --name w busybox true", 125, "Invalid container name (w)"),
        ("run --rm --network nosuchnet busybox true", 125, "network nosuchnet not found"),
        (
            "run --rm -v nosuch/dir:/x busybox true",
            125,
            "includes invalid characters for a local volume name",
        ),
        ("run --rm -m 1m busybox true", 125, "Minimum memory limit allowed is 6MB"),
        ("run --rm -w relative busybox true", 125, "the working directory 'relative' is invalid"),
        (
            "run --rm --user nosuchuser busybox true",
            125,
            "unable to find user nosuchuser: no matching entries in passwd file",
        ),
    ] {
        host.docker(command).fails(code, text);
    }
    // A program that ended by a signal.
    host.docker("run -d --name killed busybox sleep 600").ok();
    host.docker("kill -s TERM killed").ok();
    host.docker("kill -s KILL killed").ok();
    host.docker("wait killed").prints("137");
    assert_eq!(host.inspect("killed")["State"]["ExitCode"], 137);
}

#[test]
fn output_and_input_keep_every_byte() {
    let host = Host::new();
    let output = host.docker("run --rm busybox sh -c 'echo out; echo err >&2; printf last'").ok();
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("out\nlast", "err\n"));

    host.docker_with_input("run --rm -i busybox cat", b"").prints("");
    host.docker_with_input("run --rm -i busybox sh -c 'read x; echo got $x; exit 9'", b"line\n").exits(9);
    // Without -i the input is not the container's.
    host.docker_with_input("run --rm busybox sh -c 'cat; echo end'", b"text").prints("end");

    let many: Vec<u8> = (0..20_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let echoed = host.docker_with_input("run --rm -i --log-driver none busybox cat", &many).ok();
    assert!(echoed.bytes == many, "20 MB come back as they were sent ({} bytes did)", echoed.bytes.len());
    let counted = host.docker_with_input("run --rm -i busybox sh -c 'wc -c'", &many).ok();
    assert_eq!(counted.out(), "20000000");
    let made =
        host.docker("run --rm --log-driver none busybox sh -c 'yes 0123456789abcde | head -c 20000000'").ok();
    assert!(made.bytes.len() == 20_000_000 && made.bytes.chunks(16).all(|c| c == b"0123456789abcde\n"));
}

#[test]
fn a_program_that_does_not_read_ends_all_the_same() {
    let host = Host::new();
    let output = host.docker_with_input("run --rm -i busybox head -c 5", &vec![b'x'; 3_000_000]);
    assert_eq!((output.code, output.stdout.as_str()), (0, "xxxxx"));
    // Input that stays open does not keep the client once the program has ended.
    let session = host.docker_session("run --rm -i busybox sh -c 'echo bye; exit 4'");
    let (code, text) = session.wait();
    assert_eq!((code, text.trim()), (4, "bye"));
}

#[test]
fn a_terminal_has_the_clients_size_and_keys() {
    let host = Host::new();
    let mut shell = host.docker_terminal("run --rm -it --name term busybox sh");
    shell.expect("# ").send("stty size; tty; echo TERM=$TERM\n");
    shell.expect("40 120").expect("/dev/pts/0").expect("TERM=xterm");
    shell.resize(33, 99);
    poll("the new size", 10, || host.docker("exec term stty -F /dev/pts/0 size").stdout.trim() == "33 99");
    shell.send("sh -c 'echo ready; exec sleep 300'\n").expect("ready\r\n");
    // Interrupt, at the keyboard.
    shell.send("\x03").expect("# ").send("echo $?\n").expect("130").send("exit 7\n");
    let (code, text) = shell.wait();
    assert_eq!(code, 7, "{text}");
}

#[test]
fn a_terminal_is_the_containers_console() {
    let host = Host::new();
    let (code, text) =
        host.docker_terminal("run --rm -t busybox sh -c 'ls -l /dev/console; tty; id -u; echo e >&2'").wait();
    assert_eq!(code, 0);
    assert!(
        text.contains("/dev/console") && text.contains("crw") && text.ends_with("/dev/pts/0\n0\ne\n"),
        "{text}"
    );
    // A terminal of the container needs one of the client's for its input only.
    host.docker("run --rm -it busybox true").fails(1, "the input device is not a TTY");
    host.docker("run --rm -t busybox sh -c 'test -t 1 && echo yes'").prints("yes");
}

#[test]
fn detach_keys_leave_it_running() {
    let host = Host::new();
    let mut shell = host.docker_terminal("run -it --name box busybox sh");
    shell.expect("# ").send("x=kept\n").expect("# ").send("\x10").send("\x11");
    assert_eq!(shell.wait().0, 0);
    host.docker(&["ps", "--format", "{{.Names}} {{.State}}"]).prints("box running");

    let mut shell = host.docker_terminal("attach box");
    shell.send("\n").expect("# ").send("echo still $x\n").expect("still kept").send("\x10\x11");
    shell.wait();

    let mut shell = host.docker_terminal("attach --detach-keys a,b box");
    shell.send("\n").expect("# ").send("echo a1\n").expect("a1").send("ab");
    let (_, text) = shell.wait();
    assert!(text.contains("read escape sequence"), "{text}");

    let mut shell = host.docker_terminal("attach box");
    shell.send("\n").expect("# ").send("exit 12\n");
    assert_eq!(shell.wait().0, 12);
    host.docker("attach box").fails(1, "You cannot attach to a stopped container, start it first");
}

#[test]
fn several_clients_attach_to_one_program() {
    let host = Host::new();
    host.docker(
        "run -di --name many busybox sh -c 'while read x; do echo \"<$x>\"; done; echo end >&2; exit 5'",
    )
    .ok();
    let mut first = host.docker_session("attach many");
    let second = host.docker_session("attach --no-stdin many");
    // Neither says that it is attached: send until both have seen a line.
    let mut n = 0;
    poll("both clients", 20, || {
        n += 1;
        first.send(&format!("line{n}\n"));
        first.expect(&format!("<line{n}>"));
        second.text().contains(&format!("<line{n}>"))
    });
    first.close_input();
    // `run -di` opened the input for the first client that closes it (StdinOnce is false): the program lives on.
    host.docker("kill many").ok();
    for session in [first, second] {
        assert_eq!(session.wait().0, 137);
    }
}

#[test]
fn signals_reach_the_program() {
    let host = Host::new();
    let program = "trap \"echo got TERM; exit 21\" TERM; trap \"echo got HUP\" HUP; echo ready; while :; do sleep .1; done";
    let mut session = host.docker_session(&["run", "--rm", "busybox", "sh", "-c", program]);
    session.expect("ready");
    session.signal(rustix::process::Signal::HUP);
    session.expect("got HUP");
    session.signal(rustix::process::Signal::TERM);
    session.expect("got TERM");
    assert_eq!(session.wait().0, 21);
}

#[test]
fn without_the_proxy_signals_are_the_clients_own() {
    let host = Host::new();
    let line = "run --name box --sig-proxy=false busybox sh -c 'trap \"echo got TERM; exit 21\" TERM; echo ready; while :; do sleep .1; done'";
    let mut session = host.docker_session(line);
    session.expect("ready");
    session.signal(rustix::process::Signal::TERM);
    assert_ne!(session.wait().0, 21);
    assert_eq!(host.inspect("box")["State"]["Status"], "running");
    host.docker("logs box").prints("ready");
}

#[test]
fn kill_sends_what_is_asked_for() {
    let host = Host::new();
    let traps =
        ["HUP", "USR1", "TERM", "WINCH"].map(|name| format!("trap \"echo got {name}\" {name}; ")).concat();
    let program = format!("{traps}echo ready; while :; do sleep .1; done");
    host.docker(&["run", "-d", "--name", "box", "busybox", "sh", "-c", &program]).ok();
    let said = |text: &str| {
        poll(text, 10, || host.docker("logs box").ok().stdout.lines().last() == Some(text));
    };
    said("ready");
    for (signal, text) in
        [("HUP", "got HUP"), ("SIGUSR1", "got USR1"), ("15", "got TERM"), ("sigwinch", "got WINCH")]
    {
        host.docker(&["kill", "-s", signal, "box"]).prints("box");
        said(text);
    }
    for (signal, text) in [
        ("NOSUCH", "invalid signal: NOSUCH"),
        ("0", "invalid signal: 0"),
        ("99", "the linux daemon does not support signal 99"),
    ] {
        host.docker(&["kill", "-s", signal, "box"]).fails(1, text);
    }
    host.docker("kill box").prints("box");
    host.docker("wait box").prints("137");
}

#[test]
fn a_missing_image_is_pulled_and_named() {
    let host = Host::with_arguments(&["--registry-mirror", "http://127.0.0.1:9"]);
    let output = host.docker("run --rm nosuchimage true");
    assert_eq!(output.code, 125, "{output}");
    assert!(output.stderr.contains("Unable to find image 'nosuchimage:latest' locally"), "{output}");
    host.docker("run --rm --pull never nosuchimage true").fails(125, "No such image: nosuchimage:latest");
}
