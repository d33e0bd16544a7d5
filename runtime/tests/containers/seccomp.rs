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
