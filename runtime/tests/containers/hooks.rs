//! Hooks: what they see, and what they may spoil.

use std::fs;

use crate::support::{Bundle, assert_no_cgroup};
use serde_json::json;
use wherry_runtime::{Container, Error, Launch};

#[test]
fn environment_and_folder() {
    let bundle = Bundle::new();
    let out = bundle.path().join("out");
    let show = format!("echo $PATH > {0}; pwd > {0}.cwd; ls > {0}.ls", out.display());
    let bundle = bundle.sh("cat /tmp/env");
    let mut bundle = bundle;
    bundle.spec["process"]["env"] = json!(["PATH=/bin", "ONE=two"]);
    bundle.spec["hooks"] = json!({
        "createContainer": [{ "path": "/bin/sh", "args": ["sh", "-c", show] }],
        "startContainer": [{ "path": "/bin/sh", "args": ["sh", "-c", "echo $ONE $HOME > /tmp/env"] }]
    });
    let outcome = bundle.run();
    let read = |name: &str| fs::read_to_string(format!("{}{name}", out.display())).unwrap();
    assert_eq!(read("").trim(), std::env::var("PATH").unwrap(), "without a word: the runtime's environment");
    assert_eq!(read(".cwd").trim(), bundle.rootfs_path().to_string_lossy());
    assert!(read(".ls").contains("bin\n"));
    assert_eq!(outcome.stdout, "two /root\n", "in the container: the program's");
}

#[test]
fn failures_name_the_hook() {
    for (list, hook, words) in [
        ("createContainer", json!({ "path": "/bin/false" }), "createContainer hook #1: exit status 1"),
        (
            "createContainer",
            json!({ "path": "/no/such" }),
            "createContainer hook #1: no such file or directory",
        ),
        (
            "createContainer",
            json!({ "path": "/bin/sh", "args": ["sh", "-c", "echo out; echo err >&2; exit 3"] }),
            "createContainer hook #1: exit status 3, stdout and stderr: out\nerr",
        ),
        (
            "startContainer",
            json!({ "path": "/bin/cat", "args": ["cat", "/nosuchfile"] }),
            "startContainer hook #1: exit status 1, stdout and stderr: cat: can't open '/nosuchfile': No such file or directory",
        ),
        (
            "createRuntime",
            json!({ "path": "/bin/sh", "args": ["sh", "-c", "echo out; exit 3"] }),
            "createRuntime hook #1: exit status 3, stdout and stderr: out",
        ),
        (
            "startContainer",
            json!({ "path": "/bin/sh", "args": ["sh", "-c", "kill -9 $$"] }),
            "startContainer hook #1: signal: killed",
        ),
        (
            "startContainer",
            json!({ "path": "/bin/sleep", "args": ["sleep", "100"], "timeout": 1 }),
            "startContainer hook #1: timed out",
        ),
    ] {
        let mut bundle = Bundle::new();
        bundle.spec["hooks"] = json!({});
        bundle.spec["hooks"][list] = json!([{ "path": "/bin/true" }, hook]);
        let error = bundle.try_run().unwrap_err();
        assert_eq!(error.to_string(), format!("error running {words}"));
        assert_no_cgroup(&bundle.id);
    }
}

/// Hooks that say more than anybody reads, and that read less than they are told, are not waited for in vain.
#[test]
fn hooks_that_talk_and_do_not_listen() {
    let mut bundle = Bundle::new();
    let talk =
        json!([{ "path": "/bin/sh", "args": ["sh", "-c", "head -c 300000 /dev/zero"], "timeout": 20 }]);
    for list in ["createRuntime", "createContainer", "startContainer", "poststart", "poststop"] {
        bundle.spec["hooks"][list] = talk.clone();
    }
    bundle.spec["annotations"] = json!({ "long": "x".repeat(200_000) });
    let outcome = bundle.sh("echo done").run();
    assert_eq!((outcome.code, outcome.stdout.as_str()), (0, "done\n"), "{}", outcome.stderr);
}

/// `startContainer` hooks are programs of the container's: its filter is theirs, with and without no_new_privs.
#[test]
fn the_filter_holds_for_hooks_in_the_container() {
    for no_new_privileges in [false, true] {
        let mut bundle = Bundle::new().set("/process/noNewPrivileges", json!(no_new_privileges));
        bundle.spec["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL_PROCESS" }] });
        let made = bundle.path().join("made");
        bundle.spec["hooks"] =
            json!({ "startContainer": [{ "path": "/bin/mkdir", "args": ["mkdir", "/tmp/made"] }] });
        let error = bundle.try_run().unwrap_err().to_string();
        assert_eq!(error, "error running startContainer hook #0: signal: bad system call");
        bundle.spec["hooks"] =
            json!({ "createContainer": [{ "path": "/bin/mkdir", "args": ["mkdir", made] }] });
        assert_eq!(bundle.run().code, 0);
        assert!(made.exists(), "createContainer hooks are the host's programs");
    }
}

/// Runtime specification, "Lifecycle": a failing `poststart` hook stops the container.
#[test]
fn a_failing_poststart_hook_stops_the_container() {
    let mut bundle = Bundle::new().args(&["sleep", "100"]);
    bundle.spec["hooks"] = json!({ "poststart": [{ "path": "/bin/false" }] });
    let spec = bundle.parsed();
    let (mut container, _) =
        Container::create(&Launch::new(&bundle.id, bundle.path(), &spec, &bundle.rootfs)).unwrap();
    let error = container.start().unwrap_err();
    assert!(matches!(error, Error::Hook { name: "poststart", .. }), "{error}");
    assert_eq!(crate::support::wait(&container), 137);
    container.delete(false).unwrap();
    assert_no_cgroup(&bundle.id);
}
