//! Filters: what they need not allow, and who is told of calls.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use serde_json::{Value, json};

use crate::listener::answer;
use crate::support::{Bundle, exec};

/// With no_new_privs the filter is the last thing before the program: what the runtime does on its way need not be allowed.
#[test]
fn a_filter_need_not_allow_what_the_runtime_does() {
    let forbidden = [
        "setresuid",
        "setresgid",
        "setgroups",
        "capset",
        "chdir",
        "sendmsg",
        "recvfrom",
        "openat2",
        "close_range",
    ];
    let profile = json!({ "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": forbidden, "action": "SCMP_ACT_KILL_PROCESS" }] });
    let bundle = Bundle::new()
        .args(&["/bin/true"])
        .set("/process/noNewPrivileges", json!(true))
        .set("/linux/seccomp", profile);
    assert_eq!(bundle.run().code, 0);
}

/// The message and the descriptor that came to the listener's socket.
fn receive(socket: &UnixListener) -> (Value, OwnedFd) {
    let (connection, _) = socket.accept().unwrap();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut text = vec![0; 65536];
    let flags = RecvFlags::CMSG_CLOEXEC;
    let received =
        rustix::net::recvmsg(&connection, &mut [IoSliceMut::new(&mut text)], &mut control, flags).unwrap();
    let fd = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    (serde_json::from_slice(&text[..received.bytes]).unwrap(), fd.unwrap())
}

fn notified(bundle: Bundle) -> Bundle {
    let path = bundle.path().join("listener.sock");
    bundle.set("/linux/seccomp", json!({ "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path,
        "listenerMetadata": "for the agent", "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_NOTIFY" }] }))
}

#[test]
fn calls_are_told_to_a_listener() {
    for no_new_privileges in [false, true] {
        let bundle = notified(Bundle::new())
            .sh("mkdir /tmp/x 2>&1 | grep -c 'No anode'; sleep 100")
            .set("/process/noNewPrivileges", json!(no_new_privileges));
        let mut bundle = bundle;
        bundle.spec["annotations"] = json!({ "some": "thing" });
        let socket = UnixListener::bind(bundle.path().join("listener.sock")).unwrap();
        let container = bundle.start();
        let (message, listener) = receive(&socket);
        assert_eq!(message["fds"], json!(["seccompFd"]));
        assert_eq!(message["pid"], json!(container.pid()));
        assert_eq!(message["metadata"], json!("for the agent"));
        let state = &message["state"];
        assert_eq!((&state["id"], &state["status"]), (&json!(bundle.id), &json!("creating")));
        assert_eq!(state["annotations"]["some"], json!("thing"));
        assert_eq!(i64::from(answer(&listener, libc::ENOANO)), libc::SYS_mkdir);

        // a further process has a filter, and so a listener, of its own
        let (code, told) = std::thread::scope(|scope| {
            let agent = scope.spawn(|| {
                let (message, listener) = receive(&socket);
                answer(&listener, libc::ENOANO);
                message
            });
            let process = json!({ "user": { "uid": 0, "gid": 0 }, "cwd": "/", "args": ["/bin/mkdir", "/tmp/y"],
                "noNewPrivileges": no_new_privileges });
            let (code, _) = exec(&container, process).unwrap();
            (code, agent.join().unwrap())
        });
        container.delete(true).unwrap();
        assert_eq!((code, &told["state"]["status"]), (1, &json!("running")));
        assert_eq!(told["state"]["pid"], json!(container_pid(&message)));
        assert_ne!(told["pid"], message["pid"]);
    }
}

fn container_pid(message: &Value) -> i64 {
    message["state"]["pid"].as_i64().unwrap()
}

#[test]
fn listeners_that_cannot_be() {
    let check = |change: &dyn Fn(&mut Value), words: &str| {
        let mut bundle = notified(Bundle::new());
        change(&mut bundle.spec["linux"]["seccomp"]);
        let error = bundle.try_run().unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    check(&|profile| profile["defaultAction"] = json!("SCMP_ACT_NOTIFY"), "cannot be the default");
    check(
        &|profile| profile["syscalls"][0]["names"] = json!(["sendmsg"]),
        "cannot be used for the sendmsg syscall",
    );
    check(&|profile| profile["listenerPath"] = json!(""), "linux.seccomp.listenerPath: is missing");
    // nobody listens
    check(&|_| {}, "failed to connect with seccomp agent");
}

/// What each action does to the process that makes the call.
#[test]
fn every_action() {
    for (rule, expect) in [
        (json!({ "action": "SCMP_ACT_ALLOW" }), "0"),
        (json!({ "action": "SCMP_ACT_LOG" }), "0"),
        (json!({ "action": "SCMP_ACT_ERRNO" }), "1 Operation not permitted"),
        (json!({ "action": "SCMP_ACT_ERRNO", "errnoRet": 28 }), "1 No space left on device"),
        // nobody traces: the call does not exist
        (json!({ "action": "SCMP_ACT_TRACE" }), "1 Function not implemented"),
        (json!({ "action": "SCMP_ACT_TRAP" }), "159"),
        (json!({ "action": "SCMP_ACT_KILL" }), "159"),
        (json!({ "action": "SCMP_ACT_KILL_THREAD" }), "159"),
        (json!({ "action": "SCMP_ACT_KILL_PROCESS" }), "159"),
    ] {
        let mut rule = rule;
        rule["names"] = json!(["mkdir", "mkdirat"]);
        let default = if rule["action"] == "SCMP_ACT_ALLOW" { "SCMP_ACT_LOG" } else { "SCMP_ACT_ALLOW" };
        let bundle = Bundle::new()
            .sh("said=$(mkdir /tmp/x 2>&1); echo $? ${said##*: }")
            .set("/linux/seccomp", json!({ "defaultAction": default, "syscalls": [rule] }));
        let outcome = bundle.run();
        let seen = outcome.stdout.trim();
        assert!(
            seen == expect || expect == "159" && seen.starts_with("159"),
            "{rule}: {seen:?} {}",
            outcome.stderr
        );
    }
}

/// What is not listed is answered with `defaultErrnoRet`, or EPERM.
#[test]
fn the_default_answer() {
    let all =
        include_str!("../../src/seccomp/tables/x86_64.txt").lines().filter_map(|line| line.split(' ').next());
    let names: Vec<&str> = all.filter(|name| !name.starts_with("mkdir")).collect();
    for (errno, expect) in [(Value::Null, "Operation not permitted"), (json!(28), "No space left on device")]
    {
        let mut filter = json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{ "names": names, "action": "SCMP_ACT_ALLOW" }] });
        if !errno.is_null() {
            filter["defaultErrnoRet"] = errno;
        }
        let outcome = Bundle::new().args(&["mkdir", "/tmp/x"]).set("/linux/seccomp", filter).run();
        assert!(outcome.code == 1 && outcome.stderr.trim().ends_with(expect), "{outcome:?}");
    }
}
