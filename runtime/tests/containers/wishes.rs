//! Annotations that are wishes to the runtime, by crun's names.

use std::fs;
use std::process::Command;

use serde_json::json;

use crate::support::{Bundle, exec};

#[test]
fn hooks_write_to_files() {
    let bundle = Bundle::new().args(&["/bin/true"]);
    let (out, err) = (bundle.path().join("out"), bundle.path().join("err"));
    fs::write(&out, "before\n").unwrap();
    let hook = |word: &str| json!([{ "path": "/bin/sh", "args": ["sh", "-c", format!("echo {word}; echo not {word} >&2")] }]);
    let bundle = bundle
        .set("/hooks", json!({ "prestart": hook("a"), "createContainer": hook("b"), "startContainer": hook("c"), "poststop": hook("d") }))
        .set("/annotations", json!({ "run.oci.hooks.stdout": out, "run.oci.hooks.stderr": err }));
    assert_eq!(bundle.run().code, 0);
    assert_eq!(fs::read_to_string(&out).unwrap(), "before\na\nb\nc\nd\n", "what was there stays");
    assert_eq!(fs::read_to_string(&err).unwrap(), "not a\nnot b\nnot c\nnot d\n");
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&err).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let nowhere = json!({ "run.oci.hooks.stdout": "/no/such/folder/out" });
    let error = bundle.set("/annotations", nowhere).try_run().unwrap_err().to_string();
    assert!(error.starts_with("open /no/such/folder/out (run.oci.hooks.stdout): "), "{error}");
}

/// Nothing of the container can be found through the files that hooks write to: they are closed before its program.
#[test]
fn files_of_hooks_are_not_handed_on() {
    let bundle = Bundle::new().sh("ls /proc/self/fd | wc -l");
    let out = bundle.path().join("out");
    let bundle = bundle
        .set("/hooks", json!({ "startContainer": [{ "path": "/bin/true" }] }))
        .set("/annotations", json!({ "run.oci.hooks.stdout": out }));
    assert_eq!(bundle.run().stdout, "4\n", "0 to 2 and the folder itself");
}

/// Podman's `--group-add keep-groups`. In a user namespace that does not know them, too, which setgroups could not give back.
#[test]
fn the_callers_groups_are_kept() {
    let program = env!("CARGO_BIN_EXE_wherry-runtime");
    for (user, keep, expect) in
        [(false, "1", "7 4242"), (false, "0", "0 10"), (true, "1", "65534 65534"), (true, "0", "0 10")]
    {
        let mut bundle = Bundle::new()
            .sh("while read -r name list; do [ $name != Groups: ] || echo $list; done < /proc/self/status")
            .set("/annotations", json!({ "run.oci.keep_original_groups": keep }));
        if user {
            let map = json!([{ "containerID": 0, "hostID": 200_000, "size": 65536 }]);
            bundle.spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
            bundle = bundle.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
            let open: fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            fs::set_permissions(bundle.path(), open).unwrap();
        }
        fs::write(bundle.path().join("config.json"), bundle.spec.to_string()).unwrap();
        let state = bundle.path().join("state");
        let run = |words: &[&str]| {
            let mut command = Command::new("setpriv");
            command.args(["--groups", "7,4242", program, "--root"]).arg(&state).args(words);
            let output = command.current_dir(bundle.path()).output().unwrap();
            (crate::support::text_of(&output.stdout), crate::support::text_of(&output.stderr))
        };
        let (groups, error) = run(&["run", &bundle.id]);
        assert_eq!(groups.trim(), expect, "user namespace: {user}, keep: {keep}: {error}");
    }
}

/// A further process keeps them as well.
#[test]
fn the_callers_groups_are_kept_by_further_processes() {
    let bundle = Bundle::new()
        .args(&["sleep", "100"])
        .set("/annotations", json!({ "run.oci.keep_original_groups": "1" }));
    let container = bundle.start();
    let groups = |status: &str| {
        let line = status.lines().find(|line| line.starts_with("Groups:")).unwrap();
        line.split_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>()
    };
    let process = json!({ "user": { "uid": 0, "gid": 0, "additionalGids": [77] }, "cwd": "/", "args": ["/bin/cat", "/proc/self/status"] });
    let result = exec(&container, process);
    container.delete(true).unwrap();
    let own = fs::read_to_string("/proc/self/status").unwrap();
    assert_eq!(groups(&result.unwrap().1), groups(&own));
}

#[test]
fn unknown_system_calls_can_be_refused() {
    let filter = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{ "names": ["no_such_call"], "action": "SCMP_ACT_ERRNO" }] });
    let bundle = Bundle::new().args(&["/bin/true"]).set("/linux/seccomp", filter);
    assert_eq!(bundle.run().code, 0, "by default such a name does not count");
    let bundle = bundle.set("/annotations", json!({ "run.oci.seccomp_fail_unknown_syscall": "1" }));
    let error = bundle.try_run().unwrap_err().to_string();
    assert!(
        error.contains("linux.seccomp.syscalls: \"no_such_call\" is no system call that is known"),
        "{error}"
    );
    let bundle = bundle.set("/annotations", json!({ "run.oci.seccomp_fail_unknown_syscall": "0" }));
    assert_eq!(bundle.run().code, 0);
}
