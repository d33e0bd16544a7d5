//! What is wrong with the command, the container's state, or the caller.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Stdio;

use serde_json::json;

use crate::scene::Scene;
use crate::support::eventually;

#[test]
fn ids() {
    let scene = Scene::new();
    scene.write_with(&[]);
    let too_long = "x".repeat(2000);
    for id in ["", ".", "..", "a/b", "/etc", "../x", "a b", "ä", "a\nb", "x;y", "*", too_long.as_str()] {
        let message = scene.refused_by(scene.command(&["run", "-b", scene.path(), id]), 1);
        assert!(message.contains("invalid container ID format"), "{id:?}: {message}");
        for command in ["state", "delete", "kill"] {
            let message = scene.refused_by(scene.command(&[command, id]), 1);
            let expect = ["does not exist", "invalid container ID format"];
            assert!(expect.iter().any(|text| message.contains(text)), "{command} {id:?}: {message}");
        }
    }
}

#[test]
fn busy_and_dead_containers() {
    let scene = Scene::new();
    scene.write_with(&[("/process/args", json!(["sleep", "1000"]))]);
    let mut create = scene.command(&["create", "-b", scene.path(), scene.id()]);
    assert!(create.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
    let refused = |args: &[&str], code: i32, expect: &str| {
        let mut args = args.to_vec();
        let rest = args.split_off(1);
        args.push(scene.id());
        args.extend(rest);
        let message = scene.refused_by(scene.command(&args), code);
        assert!(message.ends_with(expect), "{args:?}: {message}");
    };
    assert!(scene.refused("run").ends_with("container with given ID already exists"));
    refused(&["resume"], 1, "container not paused");
    assert!(scene.command(&["start", scene.id()]).status().unwrap().success());
    assert!(scene.refused("create").ends_with("container with given ID already exists"));
    refused(&["start"], 1, "cannot start an already running container");
    refused(&["delete"], 1, "that is not stopped: running");
    refused(&["kill", "NOSUCH"], 1, "unknown signal \"NOSUCH\"");
    refused(&["kill", "-70"], 1, "unknown signal \"70\"");
    refused(&["kill", "4096"], 1, "unknown signal \"4096\"");
    refused(&["exec", "nosuch"], 255, r#"exec: "nosuch": executable file not found in $PATH"#);
    let file = scene.bundle.path().join("part.json");
    let path = file.to_str().unwrap();
    let parse = |args: &[&str], text: &str, code: i32, expect: &str| {
        fs::write(&file, text).unwrap();
        let mut args = args.to_vec();
        args.push(scene.id());
        let message = scene.refused_by(scene.command(&args), code);
        assert!(message.contains(expect), "{text}: {message}");
    };
    for (text, expect) in [
        ("[]", "it is not a JSON object"),
        ("{}", "Cwd property must not be empty"),
        (r#"{"user":{"uid":0,"gid":0},"cwd":"/"}"#, "args must not be empty"),
        (r#"{"user":{"uid":0,"gid":0},"cwd":"/","args":[7]}"#, "args[0]: invalid type: integer `7`"),
        (r#"{"user":{"uid":0,"gid":0},"cwd":"x","args":["true"]}"#, "Cwd must be an absolute path"),
        (r#"{"user":{"uid":0,"gid":0},"cwd":"/nosuch","args":["true"]}"#, "chdir to cwd (\"/nosuch\")"),
        (
            r#"{"user":{"uid":0,"gid":0},"cwd":"/","args":["true"],"env":["X"]}"#,
            "process.env: \"X\" has no '='",
        ),
        (
            r#"{"cwd":"/","args":["true"],"user":{"uid":4294967295,"gid":0}}"#,
            "process.user.uid: 4294967295 is no id",
        ),
        (
            r#"{"cwd":"/","args":["true"],"user":{"uid":0,"gid":4294967295}}"#,
            "process.user.gid: 4294967295 is no id",
        ),
    ] {
        parse(&["exec", "--process", path], text, 255, expect);
    }
    for (text, expect) in [
        ("[]", "JSON"),
        (r#"{"memory":{"limit":"x"}}"#, "invalid type: string \"x\""),
        (r#"{"unified":{"../x":"1"}}"#, "linux.resources.unified: \"../x\" is not the name"),
        (r#"{"hugepageLimits":[{"pageSize":"../x","limit":1}]}"#, "page size \"../x\" is not like 2MB"),
    ] {
        parse(&["update", "--resources", path], text, 1, expect);
    }
    for user in ["-1", "4294967296", "root", "0x0", "1:-1", ":"] {
        let message = scene.refused_by(scene.command(&["exec", "--user", user, scene.id(), "true"]), 255);
        assert!(message.contains("invalid value") && message.contains("--user"), "{user:?}: {message}");
    }
    assert!(scene.command(&["kill", scene.id(), "KILL"]).status().unwrap().success());
    eventually("it ends", || {
        let state = scene.command(&["state", scene.id()]).output().unwrap().stdout;
        String::from_utf8_lossy(&state).contains("stopped")
    });
    refused(&["start"], 1, "cannot start a container that has stopped");
    refused(&["kill"], 1, "container not running");
    refused(&["pause"], 1, "container not running");
    refused(&["exec", "true"], 255, "cannot exec in a stopped container");
    assert!(scene.refused("run").ends_with("container with given ID already exists"));
    assert!(scene.command(&["delete", scene.id()]).status().unwrap().success());
    for command in ["state", "start", "kill", "delete", "pause", "resume", "ps", "update"] {
        refused(&[command], 1, "container does not exist");
    }
    crate::support::assert_no_cgroup(scene.id());
}

/// A state that is damaged is told, not guessed at.
#[test]
fn damaged_state() {
    let scene = Scene::new();
    let folder = scene.root().join(scene.id());
    fs::create_dir(&folder).unwrap();
    for (text, expect) in
        [("", "EOF while parsing"), ("{}", "missing field"), ("[1,2]", "invalid"), ("{\"a", "EOF")]
    {
        fs::write(folder.join("state.json"), text).unwrap();
        for command in ["state", "kill", "start", "delete"] {
            let message = scene.refused_by(scene.command(&[command, scene.id()]), 1);
            assert!(
                message.contains("state.json") && message.contains(expect),
                "{command} {text}: {message}"
            );
        }
    }
}

/// Without the rights to make a container, that is what is said.
#[test]
fn no_permission() {
    let scene = Scene::new();
    scene.write_with(&[]);
    // where somebody else can reach it
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let program = folder.path().join("runtime");
    fs::copy(env!("CARGO_BIN_EXE_wherry-runtime"), &program).unwrap();
    fs::write(folder.path().join("config.json"), scene.bundle.spec.to_string()).unwrap();
    fs::create_dir(folder.path().join("rootfs")).unwrap();
    let run = |root: &str| {
        let mut command = std::process::Command::new(&program);
        command.args(["--root", root, "run", "-b", folder.path().to_str().unwrap(), scene.id()]);
        command.uid(4242).gid(4242).stdin(Stdio::null()).current_dir("/");
        scene.refused_by(command, 1)
    };
    let message = run("/nosuch/wherry");
    assert!(message.contains("/nosuch") && message.contains("Permission denied"), "{message}");
    let root = folder.path().join("root");
    let message = run(root.to_str().unwrap());
    assert!(message.contains("ermission denied") || message.contains("not permitted"), "{message}");
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
}
