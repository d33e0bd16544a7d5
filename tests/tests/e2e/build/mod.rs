//! The classic builder: `POST /build`, message by message.

mod context;
mod copy;
mod run;

use serde_json::Value;
use wherry_tests::{Host, http::Response};

/// Files of a context: name, mode, content; a name that ends with a slash is a folder, `name -> target` a link.
pub(crate) type Files<'a> = &'a [(&'a str, u32, &'a str)];

/// A tar of a context.
pub(crate) fn context(files: Files<'_>) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, mode, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(*mode);
        header.set_mtime(1_000_000_000);
        header.set_uid(1234);
        header.set_gid(4321);
        header.set_size(0);
        if let Some((name, target)) = name.split_once(" -> ") {
            header.set_entry_type(tar::EntryType::Symlink);
            tar.append_link(&mut header, name, target).unwrap();
        } else if name.ends_with('/') {
            header.set_entry_type(tar::EntryType::Directory);
            tar.append_data(&mut header, name, &b""[..]).unwrap();
        } else {
            header.set_size(content.len() as u64);
            tar.append_data(&mut header, name, content.as_bytes()).unwrap();
        }
    }
    tar.into_inner().unwrap()
}

/// Builds a context with these parameters.
pub(crate) fn post(host: &Host, query: &str, body: &[u8]) -> Response {
    let path = format!("/v1.51/build?{query}");
    host.connect().request("POST", &path, &[("Content-Type", "application/x-tar")], body)
}

/// As [`post`], of a context with a Dockerfile and a file `f`.
pub(crate) fn build(host: &Host, query: &str, dockerfile: &str) -> Response {
    post(host, query, &context(&[("Dockerfile", 0o644, dockerfile), ("f", 0o640, "content\n")]))
}

/// The messages, with ids that differ from run to run as `ID`.
pub(crate) fn messages(answer: &Response) -> Vec<String> {
    let text = answer.text();
    text.split_terminator("\r\n").map(without_ids).collect()
}

/// Ids, short and long, as `ID`.
fn without_ids(text: &str) -> String {
    let is_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(is_hex) {
        let (before, tail) = rest.split_at(at);
        let end = tail.find(|c: char| !is_hex(c)).unwrap_or(tail.len());
        let (word, after) = tail.split_at(end);
        out.push_str(before);
        out.push_str(if word.len() == 12 || word.len() == 64 { "ID" } else { word });
        rest = after;
    }
    out + rest
}

/// The texts of the stream, joined.
pub(crate) fn text(answer: &Response) -> String {
    let messages = answer.text();
    let lines = messages.split_terminator("\r\n").filter_map(|line| serde_json::from_str::<Value>(line).ok());
    without_ids(
        &lines.filter_map(|message| message["stream"].as_str().map(str::to_owned)).collect::<String>(),
    )
}

/// The error that a build ended with, and its code.
pub(crate) fn failure(answer: &Response) -> (String, Value) {
    let text = answer.text();
    let last = text.trim_end().rsplit("\r\n").next().unwrap_or_default();
    let message: Value = serde_json::from_str(last).unwrap_or_default();
    assert_eq!(message["error"], message["errorDetail"]["message"], "{text}");
    (message["error"].as_str().unwrap_or_default().to_owned(), message["errorDetail"]["code"].clone())
}

/// What a program in an image prints.
pub(crate) fn output(host: &Host, image: &str, script: &str) -> String {
    host.docker(&["run", "--rm", "--entrypoint", "sh", "-u", "0", image, "-c", script]).ok().out().to_owned()
}

#[test]
fn the_stream_is_dockerds_message_by_message() {
    let host = Host::new();
    let dockerfile = "ARG BASE=busybox\nFROM $BASE AS first\nARG WHO=nobody\nENV G=\"hello $WHO\" D=/data\nWORKDIR $D\nCOPY . .\n\
                      RUN echo out; \\\n    # a comment\n    echo err >&2\nFROM busybox\nCOPY --from=first /data/f /\nCMD [\"x\", \"y\"]\n";
    let answer = build(
        &host,
        "t=one&t=two:x&labels=%7B%22z%22:%22y%22%7D&buildargs=%7B%22NOPE%22:%22y%22%7D",
        dockerfile,
    );
    let answer = answer.expect(200);
    assert_eq!(answer.header("content-type"), "application/json");
    let got = messages(&answer);
    let expect: Vec<String> = [
        r#"{"stream":"Step 1/11 : ARG BASE=busybox"}"#,
        r#"{"stream":"\n"}"#,
        r#"{"stream":"Step 2/11 : FROM $BASE AS first"}"#,
        r#"{"stream":"\n"}"#,
        r#"{"stream":" ---\u003e ID\n"}"#,
        r#"{"stream":"Step 3/11 : ARG WHO=nobody"}"#,
        r#"{"stream":"\n"}"#,
        r#"{"stream":" ---\u003e Running in ID\n"}"#,
        r#"{"stream":" ---\u003e Removed intermediate container ID\n"}"#,
        r#"{"stream":" ---\u003e ID\n"}"#,
        r#"{"stream":"Step 4/11 : ENV G=\"hello $WHO\" D=/data"}"#,
        r#"{"stream":"\n"}"#,
        r#"{"stream":" ---\u003e Running in ID\n"}"#,
        r#"{"stream":" ---\u003e Removed intermediate container ID\n"}"#,
        r#"{"stream":" ---\u003e ID\n"}"#,
        r#"{"stream":"Step 5/11 : WORKDIR $D"}"#,
        r#"{"stream":"\n"}"#,
        r#"{"stream":" ---\u003e Running in ID\n"}"#,
        r#"{"stream":" ---\u003e Removed intermediate container ID\n"}"#,
        r#"{"stream":" ---\u003e ID\n"}"#,
        r#"{"stream":"Step 6/11 : COPY . ."}"#,
        r#"{"stream":"\n"}"#,
        r#"{"stream":" ---\u003e ID\n"}"#,
        r#"{"stream":"Step 7/11 : RUN echo out;     echo err \u003e\u00262"}"#,
        r#"{"stream":"\n"}"#,
        r#"{"stream":" ---\u003e Running in ID\n"}"#,
        r#"{"stream":"out\n"}"#,
        r#"{"stream":"\u001b[91merr\n\u001b[0m"}"#,
        r#"{"stream":" ---\u003e Removed intermediate container ID\n"}"#,
        r#"{"stream":" ---\u003e ID\n"}"#,
        r#"{"aux":{"ID":"sha256:ID"}}"#,
        r#"{"stream":"Step 8/11 : FROM busybox"}"#,
        r#"{"stream":"\n"}"#,
        r#"{"stream":" ---\u003e ID\n"}"#,
        r#"{"stream":"Step 9/11 : COPY --from=first /data/f /"}"#,
        r#"{"stream":"\n"}"#,
        r#"{"stream":" ---\u003e ID\n"}"#,
        r#"{"stream":"Step 10/11 : CMD [\"x\", \"y\"]"}"#,
        r#"{"stream":"\n"}"#,
        r#"{"stream":" ---\u003e Running in ID\n"}"#,
        r#"{"stream":" ---\u003e Removed intermediate container ID\n"}"#,
        r#"{"stream":" ---\u003e ID\n"}"#,
        r#"{"stream":"Step 11/11 : LABEL z=y"}"#,
        r#"{"stream":"\n"}"#,
        r#"{"stream":" ---\u003e Running in ID\n"}"#,
        r#"{"stream":" ---\u003e Removed intermediate container ID\n"}"#,
        r#"{"stream":" ---\u003e ID\n"}"#,
        r#"{"aux":{"ID":"sha256:ID"}}"#,
        r#"{"stream":"[Warning] One or more build-args [NOPE] were not consumed\n"}"#,
        r#"{"stream":"Successfully built ID\n"}"#,
        r#"{"stream":"Successfully tagged one:latest\n"}"#,
        r#"{"stream":"Successfully tagged two:x\n"}"#,
    ]
    .map(str::to_owned)
    .into();
    // The two streams of a program come in no order.
    let (out, err) = (expect[26].clone(), expect[27].clone());
    let swapped = got.iter().position(|m| *m == err) < got.iter().position(|m| *m == out);
    let mut expect = expect;
    if swapped {
        expect.swap(26, 27);
    }
    assert_eq!(got, expect);
    assert_eq!(host.docker("ps -aq").ok().out(), "", "no container of a step is left");
    let quiet = build(&host, "q=1", dockerfile).expect(200);
    assert_eq!(messages(&quiet), [r#"{"stream":"sha256:ID\n"}"#]);
}

#[test]
fn instructions_become_configuration_and_history() {
    let host = Host::new();
    let dockerfile = "FROM busybox\nMAINTAINER me <x>\nENV A=\"1 2\" B=$PATH\nLABEL l=\"x y\"\nEXPOSE 80 90/udp\nVOLUME /v\nUSER nobody\n\
                      SHELL [\"/bin/sh\", \"-ec\"]\nHEALTHCHECK --interval=1s CMD test -e /f\nSTOPSIGNAL SIGINT\nENTRYPOINT [\"e\"]\nCMD c d\n\
                      WORKDIR /w\nWORKDIR x\nONBUILD RUN echo hi\nCOPY f /f\nRUN true\n";
    build(&host, "t=made", dockerfile).expect(200);
    let made = host.inspect("made");
    let config = &made["Config"];
    assert_eq!(made["Author"], "me <x>");
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let env = serde_json::json!([format!("PATH={path}"), "A=1 2", format!("B={path}")]);
    assert_eq!(config["Env"], env);
    assert_eq!(config["Labels"], serde_json::json!({"l": "x y"}));
    assert_eq!(config["ExposedPorts"], serde_json::json!({"80/tcp": {}, "90/udp": {}}));
    assert_eq!(config["Volumes"], serde_json::json!({"/v": {}}));
    assert_eq!(config["Shell"], serde_json::json!(["/bin/sh", "-ec"]));
    assert_eq!(config["Healthcheck"]["Test"], serde_json::json!(["CMD-SHELL", "test -e /f"]));
    assert_eq!(config["Entrypoint"], serde_json::json!(["e"]));
    assert_eq!(config["Cmd"], serde_json::json!(["/bin/sh", "-ec", "c d"]));
    assert_eq!((&config["User"], &config["WorkingDir"]), (&"nobody".into(), &"/w/x".into()));
    assert_eq!(
        (&config["StopSignal"], &config["OnBuild"]),
        (&"SIGINT".into(), &serde_json::json!(["RUN echo hi"]))
    );
    let history: Value = host.api("GET", "/v1.51/images/made/history", &Value::Null).expect(200).json();
    let lines: Vec<String> = history
        .as_array()
        .unwrap()
        .iter()
        .map(|step| format!("{} {}", without_ids(step["CreatedBy"].as_str().unwrap()), step["Size"]))
        .take(8)
        .collect();
    let expect = [
        "/bin/sh -ec true 0",
        "/bin/sh -ec #(nop) COPY file:ID in /f  8",
        "/bin/sh -ec #(nop)  ONBUILD RUN echo hi 0",
        "/bin/sh -ec #(nop) WORKDIR /w/x 0",
        "/bin/sh -ec #(nop) WORKDIR /w 0",
        "/bin/sh -ec #(nop)  CMD [\"/bin/sh\" \"-ec\" \"c d\"] 0",
        "/bin/sh -ec #(nop)  ENTRYPOINT [\"e\"] 0",
        "/bin/sh -ec #(nop)  STOPSIGNAL SIGINT 0",
    ];
    assert_eq!(lines, expect);
    let child = build(&host, "t=child", "FROM made\nUSER root\n").expect(200);
    assert!(
        text(&child).contains("# Executing 1 build trigger\n ---> Running in ID\nhi\n"),
        "{}",
        text(&child)
    );
    assert_eq!(host.inspect("child")["Config"]["OnBuild"], Value::Null);
}

#[test]
fn what_was_built_before_is_not_built_again() {
    let host = Host::new();
    let dockerfile = "FROM busybox\nENV A=b\nCOPY f /f\nRUN date +%N >/now\nARG V=1\nRUN echo $V >/v\n";
    let cached = |query: &str, dockerfile: &str| {
        let answer = build(&host, query, dockerfile).expect(200);
        (text(&answer).matches("Using cache").count(), text(&answer))
    };
    assert_eq!(cached("t=made", dockerfile).0, 0);
    let now = output(&host, "made", "cat /now");
    let (count, all) = cached("t=made", dockerfile);
    assert_eq!(count, 5, "{all}");
    assert_eq!(output(&host, "made", "cat /now"), now);
    assert_eq!(cached("t=made&buildargs=%7B%22V%22:%222%22%7D", dockerfile).0, 4);
    assert_eq!(output(&host, "made", "cat /v"), "2");
    assert_eq!(cached("nocache=1", dockerfile).0, 0);
    // Another content, another mode; another time is nothing.
    let with = |mode: u32, content: &str| {
        let body = context(&[("Dockerfile", 0o644, dockerfile), ("f", mode, content)]);
        text(&post(&host, "", &body).expect(200)).matches("Using cache").count()
    };
    assert_eq!(with(0o640, "content\n"), 5);
    assert_eq!(with(0o600, "content\n"), 1);
    assert_eq!(with(0o640, "other\n"), 1);
    host.kill();
    host.start();
    assert_eq!(cached("", dockerfile).0, 5, "the cache survives the engine");
}

#[test]
fn an_image_from_elsewhere_can_be_the_cache() {
    let host = Host::new();
    let dockerfile = "FROM busybox\nENV A=b\nRUN date +%N >/now\n";
    build(&host, "t=made", dockerfile).expect(200);
    let now = output(&host, "made", "cat /now");
    let archive = host.folder().join("made.tar").display().to_string();
    host.docker(&["save", "-o", &archive, "made"]).ok();
    let ids = host.docker("images -aq --no-trunc").ok().out().to_owned();
    let base = host.inspect("busybox")["Id"].as_str().unwrap().to_owned();
    host.docker("rmi made").ok();
    for id in ids.lines().filter(|id| *id != base) {
        host.docker(&["rmi", "-f", id]);
    }
    host.docker(&["load", "-i", &archive]).ok();
    let again = build(&host, "t=again&cachefrom=%5B%22made%22%5D", dockerfile).expect(200);
    assert_eq!(text(&again).matches("Using cache").count(), 2, "{}", text(&again));
    assert_eq!(output(&host, "again", "cat /now"), now);
    let id = |name: &str| host.inspect(name)["Id"].clone();
    assert_eq!(id("again"), id("made"));
    // Only its steps count, then: not others that were built here, and none at all if it is not here.
    let cached = |query: &str, dockerfile: &str| {
        text(&build(&host, query, dockerfile).expect(200)).matches("Using cache").count()
    };
    let other = "FROM busybox\nENV C=d\n";
    assert_eq!(cached("t=other", other), 0);
    assert_eq!(cached("cachefrom=%5B%22made%22%5D", other), 0);
    assert_eq!(cached("t=new&cachefrom=%5B%22other%22%5D", other), 1);
    assert_eq!(id("new"), id("other"));
    assert_eq!(cached("cachefrom=%5B%22nosuch%22%5D", other), 0);
}

#[test]
fn refusals_come_before_the_stream() {
    let host = Host::new();
    let check = |query: &str, dockerfile: &str, status: u16, message: &str| {
        let answer = build(&host, query, dockerfile).expect(status);
        assert_eq!(answer.message(), message, "{query} {dockerfile}");
    };
    let unknown = "dockerfile parse error on line 2: unknown instruction: FOO (did you mean FROM?)";
    check("", "FROM busybox\nFOO bar\n", 400, unknown);
    check("", "", 400, "the Dockerfile (Dockerfile) cannot be empty");
    check("", "RUN true\n", 400, "no build stage in current context");
    check("target=zz", "FROM busybox AS a\n", 400, "target stage \"zz\" could not be found");
    check("dockerfile=nope", "FROM busybox\n", 500, "Cannot locate specified Dockerfile: nope");
    let outside = "forbidden path outside the build context: ../nope ()";
    check("dockerfile=../nope", "FROM busybox\n", 500, outside);
    let name = "invalid reference format: repository name (library/BAD) must be lowercase";
    check("t=BAD", "FROM busybox\n", 500, name);
    check("squash=1", "FROM busybox\n", 400, "squash is only supported with experimental mode");
    check("version=3", "FROM busybox\n", 400, "invalid version \"3\"");
}

#[test]
fn prune_and_cancel_take_dockerds_parameters() {
    let host = Host::new();
    let post = |path: &str| host.api("POST", path, &Value::Null);
    let nothing = post("/v1.51/build/prune?all=1").expect(200);
    assert_eq!(nothing.text(), "{\"CachesDeleted\":null,\"SpaceReclaimed\":0}\n");
    let refused = post("/v1.51/build/prune?filters=%7B%22nosuch%22:%5B%22x%22%5D%7D").expect(400);
    assert_eq!(refused.message(), "failed to prune build cache: invalid filter 'nosuch'");
    let refused = post("/v1.51/build/prune?keep-storage=abc").expect(400);
    let expect = "keep-storage is in bytes and expects an integer, got abc: strconv.Atoi: parsing \"abc\": invalid syntax";
    assert_eq!(refused.message(), expect);
    assert_eq!(post("/v1.51/build/cancel").expect(400).message(), "build ID not provided");
    post("/v1.51/build/cancel?id=nosuch").expect(200);
}
