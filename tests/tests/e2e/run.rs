//! `docker run`: exit statuses, standard streams, terminals.

use wherry_tests::Host;

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
    ] {
        host.docker(command).fails(code, text);
    }
}
