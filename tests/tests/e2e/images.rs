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

/// An image of its own, whose id differs from all others by its label.
fn small(host: &Host, name: &str, label: &str) -> String {
    let archive = host.docker("export seed").ok().bytes;
    let line = ["import", "-c", &format!("LABEL kind=small n={label}"), "-", name];
    let words: &[&str] = if name.is_empty() { &line[..4] } else { &line };
    host.docker_with_input(words, &archive).ok().out().to_owned()
}

fn list(host: &Host, path: &str) -> Vec<Value> {
    host.api("GET", path, &Value::Null).expect(200).json().as_array().unwrap().clone()
}

#[test]
fn filters_select() {
    let host = Host::new();
    host.docker("create --name seed busybox true").ok();
    let (first, second) = (small(&host, "one:1", "1"), small(&host, "two:1", "2"));
    host.docker("tag one:1 reg.example:5000/x/one").ok();
    let nameless = small(&host, "", "3");
    let ids = |arguments: &str| -> Vec<String> {
        let line = format!("images -q --no-trunc --filter label=kind=small {arguments}");
        let mut ids: Vec<String> = host.docker(&line).ok().stdout.lines().map(str::to_owned).collect();
        ids.sort();
        ids.dedup();
        ids
    };
    let sorted = |mut ids: Vec<&String>| -> Vec<String> {
        ids.sort();
        ids.into_iter().cloned().collect()
    };
    assert_eq!(ids(""), sorted(vec![&first, &second, &nameless]));
    assert_eq!(ids("--filter label=n=2"), [second.as_str()]);
    assert_eq!(ids("--filter dangling=true"), [nameless.as_str()]);
    assert_eq!(ids("--filter dangling=false"), sorted(vec![&first, &second]));
    assert_eq!(ids("--filter since=one:1"), sorted(vec![&second, &nameless]));
    assert_eq!(ids("--filter before=two:1"), [first.as_str()]);
    assert_eq!(ids("--filter until=1h"), Vec::<String>::new());
    assert_eq!(ids("--filter reference=t*"), [second.as_str()]);
    assert_eq!(ids("--filter reference=reg.example:5000/*/*"), [first.as_str()]);
    assert_eq!(ids("--filter reference=*/x/one"), [first.as_str()]);
    let fails = |filter: &str, text: &str| {
        host.docker(&["images", "--filter", filter]).fails(1, text);
    };
    fails("before=nosuch", "No such image: nosuch");
    fails("until=xyz", "failed to parse value as time or duration: \"xyz\"");
    fails("dangling=maybe", "invalid filter 'dangling=[maybe]'");
    fails("label!=x", "invalid filter 'label!'");
    fails("reference=[", "syntax error in pattern");
    let old = list(&host, "/v1.40/images/json?filter=two:1");
    assert_eq!(
        (old.len(), &old[0]["RepoTags"], &old[0]["RepoDigests"]),
        (1, &json!(["two:1"]), &Value::Null)
    );
    let query = "/v1.42/images/json?filters=%7B%22dangling%22%3A%5B%22true%22%5D%7D";
    let old = list(&host, query);
    assert_eq!(
        (&old[0]["RepoTags"], &old[0]["RepoDigests"]),
        (&json!(["<none>:<none>"]), &json!(["<none>@<none>"]))
    );
}

#[test]
fn sizes_are_shared_and_used() {
    let host = Host::new();
    host.docker("create --name seed busybox true").ok();
    small(&host, "one:1", "1");
    small(&host, "two:1", "2");
    host.docker("create --name user one:1 x").ok();
    let of =
        |list: &[Value], name: &str| list.iter().find(|i| i["RepoTags"] == json!([name])).cloned().unwrap();
    let with = list(&host, "/v1.51/images/json?shared-size=1");
    let (one, busybox) = (of(&with, "one:1"), of(&with, "busybox:latest"));
    assert_eq!((&one["SharedSize"], &one["Containers"]), (&one["Size"], &json!(1)));
    assert_eq!((&busybox["SharedSize"], &busybox["Containers"]), (&json!(0), &json!(1)));
    assert_eq!(of(&list(&host, "/v1.50/images/json"), "one:1")["Containers"], json!(-1));
    let usage = host.api("GET", "/v1.51/system/df?type=image", &Value::Null).expect(200).json();
    let sum = busybox["Size"].as_u64().unwrap() + one["Size"].as_u64().unwrap();
    assert_eq!(usage["LayersSize"], json!(sum), "the layer that two images have counts once");
    let shown = of(usage["Images"].as_array().unwrap(), "two:1");
    assert_eq!(
        (&shown["SharedSize"], &shown["RepoDigests"], &shown["Containers"]),
        (&shown["Size"], &Value::Null, &json!(0))
    );
    assert_eq!((&usage["Containers"], &usage["Volumes"]), (&Value::Null, &Value::Null));
    host.docker("system df -v").contains("two");
    host.docker("system df --format {{.Type}}:{{.TotalCount}}").contains("Images:3");
}

#[test]
fn platforms_are_compared() {
    let host = Host::new();
    let ask = |path: &str, platform: &str| {
        let platform = escape(platform);
        host.api("GET", &format!("/v1.51/images/busybox/{path}?platform={platform}"), &Value::Null)
    };
    for path in ["json", "history"] {
        ask(path, r#"{"os":"linux","architecture":"s390x"}"#).expect(404);
        assert_eq!(ask(path, "{}").expect(400).message(), "both OS and Architecture must be provided");
        let text = "failed to parse platform: invalid character 'x' looking for beginning of value";
        assert_eq!(ask(path, "x").expect(400).message(), text);
        let own = format!(r#"{{"os":"linux","architecture":{}}}"#, host.inspect("busybox")["Architecture"]);
        ask(path, &own).expect(200);
    }
    let platform = escape(r#"{"os":"linux","architecture":"amd64"}"#);
    let path = format!("/v1.51/images/busybox/json?manifests=1&platform={platform}");
    let both = host.api("GET", &path, &Value::Null);
    assert_eq!(
        both.expect(400).message(),
        "conflicting options: manifests and platform options cannot both be set"
    );
}

#[test]
fn removal_goes_name_by_name() {
    let host = Host::new();
    host.docker("create --name seed busybox true").ok();
    let id = small(&host, "one:1", "1");
    host.docker("tag one:1 one:2").ok();
    host.docker("tag one:1 two:1").ok();
    host.docker("create --name user one:1 x").ok();
    host.docker("rmi one:1").prints("Untagged: one:1");
    host.docker(&["rmi", &id[7..19]])
        .fails(1, "(must be forced) - image is referenced in multiple repositories");
    host.docker("rmi two:1").prints("Untagged: two:1");
    host.docker("rmi one:2")
        .fails(1, "conflict: unable to remove repository reference \"one:2\" (must force) - container");
    host.docker(&["rmi", &id]).fails(1, "(must be forced) - image is being used by stopped container");
    host.docker(&["rmi", "-f", &id]).prints(&format!("Untagged: one:2\nDeleted: {id}"));
    host.docker("ps -a --format {{.Image}} --filter name=user").prints(&id[7..19]);
    host.docker("rm user").ok();
    // A parent stays as long as it has children, and goes with the last one unless it may not.
    small(&host, "base:1", "2");
    let base = host.inspect("base:1")["Id"].as_str().unwrap().to_owned();
    host.docker("create --name user base:1 x").ok();
    let child = host.docker("commit user child:1").ok().out().to_owned();
    host.docker("rm user").ok();
    host.docker("rmi base:1").prints("Untagged: base:1");
    host.docker(&["rmi", "-f", &base]).fails(1, "(cannot be forced) - image has dependent child images");
    host.docker("rmi --no-prune child:1").prints(&format!("Untagged: child:1\nDeleted: {child}"));
    host.docker(&["inspect", "-f", "{{.Id}}", &base]).prints(&base);
    let answer = host.api("DELETE", "/v1.51/images/%20", &Value::Null).expect(400);
    assert_eq!(answer.message(), "image name cannot be blank");
    host.docker("tag busybox sha256:x")
        .fails(1, "refusing to create an ambiguous tag using digest algorithm as name");
}

#[test]
fn prune_keeps_what_is_named_or_used() {
    let host = Host::new();
    host.docker("create --name seed busybox true").ok();
    let prune = |filters: &str| {
        let path = format!("/v1.51/images/prune?filters={}", escape(filters));
        host.api("POST", &path, &Value::Null)
    };
    let nothing = json!({"ImagesDeleted": null, "SpaceReclaimed": 0});
    assert_eq!(prune("{}").expect(200).json(), nothing);
    small(&host, "one:1", "1");
    let nameless = small(&host, "", "2");
    assert_eq!(prune(r#"{"label":["n=1"]}"#).expect(200).json(), nothing);
    assert_eq!(prune(r#"{"until":["1h"]}"#).expect(200).json(), nothing);
    assert_eq!(prune(r#"{"label!":["n=2"]}"#).expect(200).json(), nothing);
    let pruned = prune("{}").expect(200).json();
    assert_eq!(pruned["ImagesDeleted"], json!([{"Deleted": nameless}]), "its layer is one:1's, too");
    assert_eq!(pruned["SpaceReclaimed"], 0);
    // Of all names of an image in use dockerd leaves one.
    host.docker("tag one:1 one:2").ok();
    host.docker("create --name user one:1 x").ok();
    let pruned = prune(r#"{"dangling":["false"],"label":["kind"]}"#).expect(200).json();
    assert_eq!(pruned["ImagesDeleted"], json!([{"Untagged": "one:1"}]));
    host.docker("rm user").ok();
    let size = host.inspect("one:2")["Size"].clone();
    let pruned = prune(r#"{"dangling":["false"],"label":["kind"]}"#).expect(200).json();
    assert_eq!(
        (&pruned["SpaceReclaimed"], &pruned["ImagesDeleted"][0]),
        (&size, &json!({"Untagged": "one:2"}))
    );
    assert_eq!(pruned["ImagesDeleted"].as_array().map(Vec::len), Some(3), "name, image, layer");
    let fails = |filters: &str, status: u16, text: &str| {
        assert_eq!(prune(filters).expect(status).message(), text);
    };
    fails(r#"{"nosuch":["1"]}"#, 400, "invalid filter 'nosuch'");
    fails(r#"{"dangling":["x"]}"#, 400, "invalid filter 'dangling=[x]'");
    fails(r#"{"until":["1h","2h"]}"#, 500, "more than one until filter specified");
    host.docker("images --format {{.Repository}}").prints("busybox");
}

/// For a query.
fn escape(text: &str) -> String {
    text.bytes().map(|b| format!("%{b:02X}")).collect()
}
