//! `docker exec`.

use serde_json::{Value, json};
use wherry_tests::{Host, poll};

#[test]
fn runs_in_the_container() {
    let host = Host::new();
    host.docker("run -d --name box --hostname inside -e FOO=bar -w /tmp busybox sleep 600").ok();
    for (command, text) in [
        ("exec box hostname", "inside"),
        ("exec box sh -c 'echo $FOO'", "bar"),
        ("exec box pwd", "/tmp"),
        ("exec -w /etc box pwd", "/etc"),
        ("exec -e FOO=baz -e NEW=1 box sh -c 'echo $FOO $NEW'", "baz 1"),
        ("exec box id -u", "0"),
        ("exec -u 33 box id", "uid=33(www-data) gid=33(www-data) groups=33(www-data),44(video)"),
        ("exec -u www-data box id -un", "www-data"),
        ("exec -u 1234:5678 box id", "uid=1234 gid=5678 groups=5678"),
        ("exec box sh -c 'cat /proc/1/cmdline | tr \\\\0 -'", "sleep-600-"),
        ("exec box sh -c 'cat /proc/self/status | grep CapEff | cut -f2'", "00000000a80425fb"),
        (
            "exec --privileged box sh -c 'test $(grep CapEff /proc/self/status | cut -f2) != 00000000a80425fb && echo more'",
            "more",
        ),
    ] {
        host.docker(command).prints(text);
    }
}

#[test]
fn exit_statuses() {
    let host = Host::new();
    host.docker("run -d --name box busybox sleep 600").ok();
    for (command, code, text) in [
        ("exec box true", 0, ""),
        ("exec box sh -c 'exit 5'", 5, ""),
        ("exec box sh -c 'kill -9 $$'", 137, ""),
        ("exec box sh -c 'kill -TERM $$'", 143, ""),
        ("exec -u nosuch box true", 1, "unable to find user nosuch: no matching entries in passwd file"),
        ("exec nosuch true", 1, "No such container: nosuch"),
    ] {
        host.docker(command).fails(code, text);
    }
    for (command, code, text) in [
        ("exec box nosuchcmd", 127, r#"exec: "nosuchcmd": executable file not found in $PATH"#),
        ("exec box /etc/passwd", 126, r#"exec: "/etc/passwd": permission denied"#),
        ("exec -w /nosuch box true", 127, "no such file or directory"),
    ] {
        // The client prints this one on its standard output.
        let output = host.docker(command).exits(code);
        assert!((output.stdout.clone() + &output.stderr).contains(text), "{output}");
    }
}

#[test]
fn input_output_and_terminals() {
    let host = Host::new();
    host.docker("run -d --name box busybox sleep 600").ok();
    let output = host.docker("exec box sh -c 'echo out; echo err >&2'").ok();
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("out\n", "err\n"));
    host.docker_with_input("exec -i box tr a-z A-Z", b"shout").prints("SHOUT");
    let many = vec![b'y'; 5_000_000];
    assert!(host.docker_with_input("exec -i box cat", &many).ok().bytes == many);

    let mut shell = host.docker_terminal("exec -it box sh");
    shell.expect("# ").send("stty size\n").expect("40 120");
    shell.resize(20, 70);
    poll("the new size", 10, || {
        shell.send("stty size\n").expect("# ");
        shell.text().contains("20 70")
    });
    shell.send("exit 6\n");
    assert_eq!(shell.wait().0, 6);

    let mut shell = host.docker_terminal("exec -it box sh");
    shell.expect("# ").send("\x10\x11");
    shell.wait();
    // Only the client went away; the shell is still there.
    host.docker("top box").contains("sh");
}

#[test]
fn detached_and_many() {
    let host = Host::new();
    host.docker("run -d --name box busybox sleep 600").ok();
    host.docker("exec -d box sh -c 'echo done >/tmp/file'").prints("");
    poll("the detached command", 10, || host.docker("exec box cat /tmp/file").stdout == "done\n");
    std::thread::scope(|scope| {
        let host = &host;
        for i in 0..8 {
            scope.spawn(move || host.docker(&["exec", "box", "echo", &i.to_string()]).prints(&i.to_string()));
        }
    });
    // Its end ends what runs in it.
    let session = host.docker_session("exec box sleep 600");
    poll("the exec", 10, || host.docker("top box").stdout.matches("sleep 600").count() == 2);
    host.docker("kill box").ok();
    assert_eq!(session.wait().0, 137);
}

#[test]
fn exec_of_the_api() {
    let host = Host::new();
    host.docker("run -d --name box busybox sleep 600").ok();
    let body = json!({"Cmd": ["sh", "-c", "echo hi; exit 4"], "AttachStdout": true, "AttachStderr": true});
    let id = host.api("POST", "/v1.51/containers/box/exec", &body).expect(201).json()["Id"].clone();
    let id = id.as_str().unwrap();
    let get = || host.api("GET", &format!("/v1.51/exec/{id}/json"), &Value::Null).expect(200).json();
    let before = get();
    assert_eq!(
        (&before["Running"], &before["ExitCode"], &before["ProcessConfig"]["entrypoint"]),
        (&json!(false), &Value::Null, &json!("sh"))
    );
    let mut connection = host.connect();
    let start = json!({"Detach": false, "Tty": false}).to_string();
    let json_type = ("Content-Type", "application/json");
    let head = connection.open("POST", &format!("/v1.51/exec/{id}/start"), &[json_type], start.as_bytes());
    assert_eq!((head.status, head.header("content-type")), (200, "application/vnd.docker.raw-stream"));
    assert_eq!(connection.frame(), Some((1, b"hi\n".to_vec())));
    assert_eq!(connection.frame(), None);
    let after = get();
    assert_eq!(
        (&after["Running"], &after["ExitCode"], after["ContainerID"].as_str().map(str::len)),
        (&json!(false), &json!(4), Some(64))
    );
    host.api("POST", &format!("/v1.51/exec/{id}/start"), &json!({"Detach": true})).expect(409);
    host.api("POST", "/v1.51/exec/nosuch/start", &json!({})).expect(404);
    host.api("GET", "/v1.51/exec/nosuch/json", &Value::Null).expect(404);
    let none = host.api("POST", "/v1.51/containers/box/exec", &json!({"Cmd": []})).expect(400);
    assert_eq!(none.message(), "No exec command specified");
    host.api("POST", "/v1.51/containers/nosuch/exec", &json!({"Cmd": ["true"]})).expect(404);
}

#[test]
fn an_exec_has_the_variables_of_the_containers_links() {
    let host = Host::new();
    host.docker("run -d --name source -e P=1 --expose 70 busybox sleep 600").ok();
    host.docker("run -d --name user --link source:x busybox sleep 600").ok();
    let env = host.docker("exec user env").contains("X_ENV_P=1").contains("X_NAME=/user/x");
    assert!(env.stdout.contains("X_PORT_70_TCP=tcp://172.17.0."), "{env}");
    let refused = "Cannot link to a non running container: /source AS /user/x";
    host.docker("stop -t 0 source").ok();
    host.docker("exec user env").fails(1, refused);
    host.docker("rm source").ok();
    host.docker("exec user env").fails(1, refused);
    host.docker("restart -t 0 user").fails(1, refused);
}
