//! Images: load, list, inspect, tag, remove.

use serde_json::{Value, json};
use wherry_tests::Host;

#[test]
fn load_tells_what_it_loaded() {
    let host = Host::new();
    let archive = host.image_archive("some/thing:1.2", r#"{"Cmd":["true"]}"#);
    let path = archive.display().to_string();
    host.docker(&["load", "-i", &path]).prints("Loaded image: some/thing:1.2");
    host.docker(&["load", "-q", "-i", &path]).prints("Loaded image: some/thing:1.2");
    host.docker_with_input("load -q", &std::fs::read(&archive).unwrap())
        .prints("Loaded image: some/thing:1.2");
    host.docker_with_input("load -q", b"this is no archive").fails(1, "");
    host.docker_with_input("load -q", &std::fs::read(&archive).unwrap()[..40_000]).fails(1, "unexpected EOF");
    host.docker("run --rm some/thing:1.2").ok();
}

#[test]
fn an_archive_that_moves_a_name_says_so() {
    let host = Host::new();
    host.load_image("mine:1", r#"{"Cmd":["true"]}"#);
    let first = host.inspect("mine:1")["Id"].as_str().unwrap().to_owned();
    let archive = host.image_archive("mine:1", r#"{"Cmd":["false"]}"#);
    let output = host.docker(&["load", "-i", &archive.display().to_string()]).ok();
    assert!(
        output.stdout.contains(&format!(
            "The image mine:1 already exists, renaming the old one with ID {first} to empty string"
        )),
        "{output}"
    );
    host.docker(&["images", "-q", "--no-trunc", "-f", "dangling=true"]).prints(&first);
    host.docker("image prune -f").contains(&first);
}

#[test]
fn lists_and_filters() {
    let host = Host::new();
    host.load_image("other:1", r#"{"Cmd":["true"],"Labels":{"kind":"small"}}"#);
    host.docker("tag other:1 registry.example.org:5000/team/other:2").ok();
    let line = ["images", "--format", "{{.Repository}}:{{.Tag}}"];
    let mut names: Vec<String> = host.docker(&line).ok().stdout.lines().map(str::to_owned).collect();
    names.sort();
    assert_eq!(names, ["busybox:latest", "other:1", "registry.example.org:5000/team/other:2"]);
    for (arguments, expected) in [
        ("busybox", "busybox:latest"),
        ("busybox:latest", "busybox:latest"),
        ("nosuch", ""),
        ("--filter label=kind=small other", "other:1"),
        ("--filter reference=busy*", "busybox:latest"),
        ("--filter dangling=true", ""),
        ("--filter before=other:1 busybox", ""),
    ] {
        let mut line: Vec<&str> = vec!["images", "--format", "{{.Repository}}:{{.Tag}}"];
        line.extend(arguments.split(' '));
        host.docker(line.as_slice()).prints(expected);
    }
    host.docker("images --filter nosuch=1").fails(1, "invalid filter 'nosuch'");
    let list = host.api("GET", "/v1.51/images/json", &Value::Null).expect(200).json();
    let busybox =
        list.as_array().unwrap().iter().find(|i| i["RepoTags"] == json!(["busybox:latest"])).unwrap();
    assert_eq!(
        (&busybox["SharedSize"], &busybox["Containers"], &busybox["ParentId"], &busybox["RepoDigests"]),
        (&json!(-1), &json!(0), &json!(""), &json!([]))
    );
    assert!(
        busybox["Id"].as_str().is_some_and(|id| id.starts_with("sha256:"))
            && busybox["Size"].as_i64() > Some(1_000_000)
    );
}

#[test]
fn inspect_and_history() {
    let host = Host::new();
    let busybox = host.inspect("busybox");
    for (pointer, value) in [
        ("/RepoTags", json!(["busybox:latest"])),
        ("/RepoDigests", json!([])),
        ("/Os", json!("linux")),
        ("/Config/Cmd", json!(["sh"])),
        ("/RootFS/Type", json!("layers")),
        ("/GraphDriver/Name", json!("overlay2")),
        ("/Created", json!("2023-11-14T22:13:20Z")),
    ] {
        assert_eq!(busybox.pointer(pointer), Some(&value), "{pointer}");
    }
    host.docker(&["history", "--format", "{{.CreatedBy}}", "busybox"]).prints("busybox-image.sh");
    host.docker("image inspect nosuch").fails(1, "No such image: nosuch");
    let id = busybox["Id"].as_str().unwrap();
    host.docker(&["run", "--rm", &id[7..19], "echo", "by id"]).prints("by id");
    host.docker(&["run", "--rm", id, "echo", "by id"]).prints("by id");
}

#[test]
fn tags_and_removal() {
    let host = Host::new();
    host.load_image("other:1", r#"{"Cmd":["true"]}"#);
    host.docker("tag other:1 other:2").ok();
    host.docker("tag nosuch other:3").fails(1, "No such image: nosuch:latest");
    host.docker("tag other:1 UPPER").fails(1, "must be lowercase");
    host.docker("rmi other:2").prints("Untagged: other:2");
    host.docker("run --name user other:1").ok();
    host.docker("rmi other:1")
        .fails(1, r#"conflict: unable to remove repository reference "other:1" (must force) - container"#);
    let id = host.inspect("other:1")["Id"].as_str().unwrap().to_owned();
    host.docker(&["rmi", &id[7..19]]).fails(1, "(must be forced) - image is being used by stopped container");
    host.docker("rm user").ok();
    let output = host.docker("rmi other:1").contains("Untagged: other:1");
    assert!(output.stdout.contains(&format!("Deleted: {id}")), "{output}");
    host.docker("rmi other:1").fails(1, "No such image: other:1");

    host.docker("run -d --name user busybox sleep 600").ok();
    let id = host.inspect("busybox")["Id"].as_str().unwrap().to_owned();
    host.docker(&["rmi", "-f", &id[7..19]])
        .fails(1, "(cannot be forced) - image is being used by running container");
    host.docker("rm -f user").ok();
    host.docker("tag busybox second").ok();
    host.docker(&["rmi", &id[7..19]])
        .fails(1, "(must be forced) - image is referenced in multiple repositories");
    host.docker("rmi second").ok();
    host.docker("image prune -af").contains("Deleted Images");
    host.docker("images -q").prints("");
}
