//! From containers and file systems to images: diff, commit, export, import.

use std::process::Command;

use serde_json::{Value, json};
use wherry_tests::{Host, Output, engine::Binary};

/// What changes most kinds of files.
const WORK: &str = "mkdir /d; echo x >/d/f; ln /d/f /d/g; ln -s f /d/l; rm /bin/ls; echo y >>/etc/passwd; \
                    mkfifo /p; rm -rf /home; mkdir /home; chmod 711 /root";

#[test]
fn diff_tells_what_changed() {
    let host = Host::new();
    host.docker("create --name still busybox true").ok();
    host.docker("diff still").prints("");
    let none = host.api("GET", "/v1.51/containers/still/changes", &Value::Null).expect(200);
    assert_eq!(none.json(), Value::Null);
    host.docker(&["run", "--name", "work", "busybox", "sh", "-c", WORK]).ok();
    let mut lines: Vec<String> = host.docker("diff work").ok().stdout.lines().map(str::to_owned).collect();
    lines.sort();
    let expect = [
        "A /d",
        "A /d/f",
        "A /d/g",
        "A /d/l",
        "A /p",
        "C /bin",
        "C /etc",
        "C /etc/passwd",
        "C /root",
        "D /bin/ls",
    ];
    assert_eq!(lines, expect);
    host.docker("diff nosuch").fails(1, "No such container: nosuch");
}

#[test]
fn commit_makes_an_image_of_a_container() {
    let host = Host::new();
    let line = ["run", "--name", "work", "-l", "a=b", "-e", "X=1", "-p", "80", "busybox", "sh", "-c", WORK];
    host.docker(&line).ok();
    let line = ["commit", "-a", "me <x>", "-m", "say & hi", "work", "made:1"];
    let id = host.docker(&line).ok().out().to_owned();
    let made = host.inspect("made:1");
    let base = host.inspect("busybox");
    assert_eq!((&made["Id"], &made["Parent"]), (&json!(id), &base["Id"]));
    assert_eq!((&made["Author"], &made["Comment"]), (&json!("me <x>"), &json!("say & hi")));
    assert_eq!(made["Config"]["Cmd"], json!(["sh", "-c", WORK]));
    assert_eq!(made["Config"]["Labels"], json!({"a": "b"}));
    assert_eq!(made["Config"]["ExposedPorts"], json!({"80/tcp": {}}));
    assert_eq!(made["RootFS"]["Layers"].as_array().map(Vec::len), Some(2));
    let steps: Value = host.api("GET", "/v1.51/images/made:1/history", &Value::Null).expect(200).json();
    assert_eq!((&steps[0]["Id"], &steps[1]["Id"]), (&made["Id"], &base["Id"]));
    assert_eq!((&steps[0]["Comment"], &steps[0]["Tags"]), (&json!("say & hi"), &json!(["made:1"])));
    assert_eq!(steps[0]["CreatedBy"], json!(format!("sh -c {WORK}")));
    // What the image has, and what it has not.
    let script = "cat /d/g /d/l; stat -c %h%a /d/f; stat -c %a /root; [ ! -e /bin/ls ]; ls /home; [ -p /p ]; tail -n1 /etc/passwd";
    let seen = host.docker(&[
        "run",
        "--rm",
        "made:1",
        "busybox",
        "sh",
        "-ec",
        &script.replace("ls /home", "busybox ls /home"),
    ]);
    seen.prints("x\nx\n2644\n711\ny");
    // A step that changed nothing adds no layer.
    host.docker("create --name still busybox true").ok();
    host.docker("commit still same").ok();
    let same = host.inspect("same");
    assert_eq!(same["RootFS"], base["RootFS"]);
    assert_eq!(host.docker(&["rmi", "busybox"]).code, 1, "containers use it");
    host.docker("rm work still").ok();
    host.docker("rmi busybox").prints("Untagged: busybox:latest");
    host.docker(&["rmi", &id]).ok();
}

#[test]
fn changes_are_instructions() {
    let host = Host::new();
    host.docker("create --name cc -e A=1 -w /w busybox sh -c true").ok();
    let mut line = vec!["commit"];
    let changes = [
        "ENV B=$A C=\"d e\"",
        "LABEL q='r s'",
        "EXPOSE 81 90/udp",
        "VOLUME /v",
        "WORKDIR rel",
        "USER u:g",
        "STOPSIGNAL SIGQUIT",
        "ONBUILD RUN z",
        "HEALTHCHECK --interval=5s --retries=2 CMD x y",
        "ENTRYPOINT [\"e\"]",
        "CMD f g",
    ];
    for change in &changes {
        line.extend(["-c", change]);
    }
    line.extend(["cc", "made"]);
    host.docker(line.as_slice()).ok();
    let config = host.inspect("made")["Config"].clone();
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let expect = json!({
        "Cmd": ["/bin/sh", "-c", "f g"], "Entrypoint": ["e"], "Env": ["A=1", path, "B=1", "C=d e"],
        "ExposedPorts": {"81/tcp": {}, "90/udp": {}},
        "Healthcheck": {"Test": ["CMD-SHELL", "x y"], "Interval": 5_000_000_000_i64, "Retries": 2},
        "Labels": {"q": "r s"}, "OnBuild": ["RUN z"], "StopSignal": "SIGQUIT", "User": "u:g", "Volumes": {"/v": {}},
        "WorkingDir": "/w/rel",
    });
    assert_eq!(config, expect);
    for (change, text) in [
        ("RUN x", "RUN is not a valid change command"),
        ("FOO x", "FOO is not a valid change command"),
        ("ENV A", "ENV must have two arguments"),
        ("EXPOSE x", "Invalid containerPort: x"),
        ("STOPSIGNAL x", "invalid signal: x"),
        ("LABEL a='b", "unexpected end of statement while looking for matching single-quote"),
        ("HEALTHCHECK --foo CMD x", "unknown flag: --foo"),
    ] {
        host.docker(&["commit", "-c", change, "cc", "no"]).fails(1, text);
    }
}

#[test]
fn commit_takes_what_the_api_takes() {
    let host = Host::new();
    host.docker("create --name cc busybox true").ok();
    let commit = |query: &str, body: &Value| host.api("POST", &format!("/v1.51/commit?{query}"), body);
    let id = commit("container=cc&repo=from-body", &json!({"Cmd": ["x"], "Env": ["A=1"]})).expect(201).json();
    let image = host.inspect("from-body");
    assert_eq!((&image["Id"], &image["Config"]["Cmd"]), (&id["Id"], &json!(["x"])));
    assert_eq!(image["Config"]["Env"].as_array().map(Vec::len), Some(2));
    commit("container=cc", &json!({})).expect(201);
    let fails = |query: &str, status: u16, text: &str| {
        let answer = commit(query, &Value::Null).expect(status);
        assert_eq!(answer.message(), text, "{query}");
    };
    fails("container=nosuch", 404, "No such container: nosuch");
    fails("", 400, "invalid name or ID supplied: \"\"");
    fails("container=cc&repo=a&tag=b%2Fc", 400, "invalid tag format");
    fails(
        "container=cc&repo=Up",
        400,
        "invalid reference format: repository name (library/Up) must be lowercase",
    );
    let digest = format!("a@sha256:{}", "0".repeat(64));
    fails(&format!("container=cc&repo={digest}"), 400, "cannot import digest reference");
}

#[test]
fn a_running_container_is_paused_while_it_is_committed() {
    let host = Host::new();
    host.docker("run -d --name cc busybox sh -c 'echo x >/f; sleep 600'").ok();
    let events = |pause: &str| {
        let now = |plus: u64| (std::time::UNIX_EPOCH.elapsed().map_or(0, |t| t.as_secs()) + plus).to_string();
        let since = now(0);
        host.docker(&["commit", pause, "cc", "made"]).ok();
        let until = now(1);
        let line = [
            "events",
            "--since",
            &since,
            "--until",
            &until,
            "--filter",
            "container=cc",
            "--format",
            "{{.Action}}",
        ];
        host.docker(&line).ok().out().replace('\n', " ")
    };
    wherry_tests::poll("the container's file", 10, || host.docker("diff cc").stdout.contains("A /f"));
    let paused = events("--pause=true");
    assert!(paused.ends_with("pause unpause commit") || paused.ends_with("pause commit unpause"), "{paused}");
    std::thread::sleep(std::time::Duration::from_millis(1100)); // events are told apart by whole seconds
    assert_eq!(events("--pause=false"), "commit");
    host.docker(&["inspect", "-f", "{{.State.Status}}", "cc"]).prints("running");
    host.docker("run --rm made cat /f").prints("x");
}

#[test]
fn export_and_import() {
    let host = Host::new();
    host.docker(&["run", "--name", "work", "busybox", "sh", "-c", WORK]).ok();
    let archive = host.docker("export work").ok().bytes;
    let names = list(&archive);
    for name in ["d/f", "d/l", "p", ".dockerenv", "etc/resolv.conf", "dev/console", "proc/", "sys/"] {
        assert!(names.iter().any(|n| n == name), "{name} is in {names:?}");
    }
    assert!(!names.iter().any(|n| n == "bin/ls" || n.contains(".wh.")), "{names:?}");
    let line = ["import", "-c", "CMD [\"cat\", \"/d/g\"]", "-c", "ENV A=1", "-m", "hello", "-", "flat:1"];
    let id = host.docker_with_input(&line, &archive).ok().out().to_owned();
    let flat = host.inspect("flat:1");
    assert_eq!((&flat["Id"], &flat["Comment"], &flat["Parent"]), (&json!(id), &json!("hello"), &json!("")));
    assert_eq!((&flat["Config"]["Env"], &flat["Os"]), (&json!(["A=1"]), &json!("linux")));
    assert_eq!(flat["RootFS"]["Layers"].as_array().map(Vec::len), Some(1));
    host.docker("run --rm flat:1").prints("x");
    host.docker("history --format {{.Comment}} flat:1").prints("hello");
    host.docker("export nosuch").fails(1, "No such container: nosuch");
}

#[test]
fn import_takes_what_dockerd_takes() {
    let host = Host::new();
    host.docker("create --name cc busybox true").ok();
    let archive = host.docker("export cc").ok().bytes;
    let layers = |name: &str| host.inspect(name)["RootFS"]["Layers"].clone();
    host.docker_with_input("import - plain", &archive).ok();
    for program in ["gzip", "bzip2", "xz", "zstd"] {
        if program == "xz" && Binary::from_environment().is_reference() {
            continue; // the lab's dockerd has none
        }
        host.docker_with_input(&["import", "-", program], &compressed(program, &archive)).ok();
        assert_eq!(layers(program), layers("plain"), "{program}");
    }
    host.docker_with_input("import --platform linux/arm64/v8 - arm", &archive).ok();
    let arm = host.inspect("arm");
    assert_eq!((&arm["Architecture"], &arm["Variant"]), (&json!("arm64"), &json!("v8")));
    let anonymous = host.docker_with_input("import -", &archive).ok();
    assert_eq!(host.inspect(anonymous.out())["RepoTags"], json!([]));
    let fails = |line: &str, input: &[u8], text: &str| {
        host.docker_with_input(line, input).fails(1, text);
    };
    fails("import --platform windows - x", &archive, "operating system is not supported");
    fails("import --platform a/b/c/d - x", &archive, "cannot parse platform specifier");
    fails("import -c 'RUN x' - x", &archive, "RUN is not a valid change command");
    fails("import - UP", &archive, "must be lowercase");
    fails("import - x", &archive[..100_000], "unexpected EOF");
    fails("import - x", &[b'x'; 4096], "archive/tar: invalid tar header");
    host.docker("import http://127.0.0.1:1/x y").fails(1, "connect: connection refused");
    host.docker("images -q x").prints("");
}

#[test]
fn import_fetches_addresses() {
    let host = Host::new();
    host.docker("run --name web busybox sh -c 'mkdir -p /www/d; echo hi >/www/d/f; tar -C /www -cf /f.tar d; mv /f.tar /www'")
        .ok();
    host.docker("commit web web").ok();
    host.docker("run -d --name httpd --network host web httpd -f -p 127.0.0.1:8099 -h /www").ok();
    wherry_tests::poll("the web server", 10, || host.http_get(([127, 0, 0, 1], 8099), "/d/f").is_some());
    let output = host.docker("import http://127.0.0.1:8099/f.tar fetched").contains("sha256:");
    assert!(output.stdout.contains("Downloading from http://127.0.0.1:8099/f.tar"), "{output}");
    assert_eq!(host.inspect("fetched")["Comment"], json!("Imported from http://127.0.0.1:8099/f.tar"));
    host.docker("import http://127.0.0.1:8099/none x")
        .fails(1, "failed to GET http://127.0.0.1:8099/none with status 404 Not Found");
    host.docker("rm -f httpd").ok();
}

/// What a program of compression makes of `bytes`.
fn compressed(program: &str, bytes: &[u8]) -> Vec<u8> {
    let mut command = Command::new(program);
    command.args(["-q", "-c"]);
    Output::with_input(command, bytes).ok().bytes
}

/// The names in a tar.
fn list(archive: &[u8]) -> Vec<String> {
    let mut command = Command::new("tar");
    command.arg("-t");
    Output::with_input(command, archive).ok().stdout.lines().map(str::to_owned).collect()
}
