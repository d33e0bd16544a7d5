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
            "startContainer",
            json!({ "path": "/bin/sh", "args": ["sh", "-c", "kill -9 $$"] }),
            "startContainer hook #1: signal 9",
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
