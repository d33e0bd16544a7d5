//! Container options, one case each (`tests/cases/options.json`): create, start, wait, logs and inspect through the API, and
//! all that comes of it beside what dockerd answered (`tests/cases/options.dockerd.json`).
//!
//! `ENGINE=integration/engines/dockerd RECORD=1` asks dockerd anew; without RECORD the same run checks the recording. Where we
//! mean to differ the case says so itself, with the reason (`instead`, `because`). CASE=part of a name runs some of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use wherry_tests::Host;
use wherry_tests::engine::Binary;

/// What inspect says about settings: all of it is compared with a container that has none.
const SHOWN: [&str; 8] =
    ["Config", "HostConfig", "Mounts", "Path", "Args", "AppArmorProfile", "MountLabel", "LogPath"];
/// How far dockerd's and our texts of a failed start agree: what follows is the runtime's own.
const RUNTIME_SAYS: &str = "OCI runtime create failed: ";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("cases")
}

fn read(name: &str) -> Value {
    let path = folder().join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn options_as_dockerd_honours_them() {
    let reference = Binary::from_environment().is_reference();
    let record = std::env::var_os("RECORD").is_some();
    assert!(!record || reference, "only dockerd's answers are recorded: set ENGINE");
    let wanted = std::env::var("CASE").unwrap_or_default();
    let mut recorded = if record && wanted.is_empty() { json!({}) } else { read("options.dockerd.json") };
    let host = Host::with_arguments(&["--experimental"]);
    let bare = run(&host, &json!({ "name": "bare" }), &BTreeMap::new());
    let bare = flat(&bare.shown);
    let mut wrong = Vec::new();
    let cases = read("options.json");
    for case in cases.as_array().expect("a list of cases") {
        let name = case["name"].as_str().expect("a case has a name");
        if !name.contains(&wanted) {
            continue;
        }
        let result = run(&host, case, &bare).result;
        if record {
            recorded[name] = result;
            continue;
        }
        let mut expected = recorded[name].clone();
        if !reference {
            for (pointer, value) in case["instead"].as_object().into_iter().flatten() {
                put(&mut expected, pointer, value.clone());
            }
        }
        let (expected, result) = (flat(&expected), flat(&result));
        for pointer in expected.keys().chain(result.keys().filter(|key| !expected.contains_key(*key))) {
            let (theirs, ours) = (expected.get(pointer), result.get(pointer));
            if theirs != ours {
                let show = |value: Option<&Value>| value.map_or("nothing".to_owned(), Value::to_string);
                wrong.push(format!(
                    "{name} {pointer}\n    expected {}\n    got      {}",
                    show(theirs),
                    show(ours)
                ));
            }
        }
    }
    if record {
        let text = serde_json::to_string_pretty(&recorded).expect("JSON");
        std::fs::write(folder().join("options.dockerd.json"), text + "\n").expect("write the recording");
    }
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
}

struct Outcome {
    result: Value,
    shown: Value,
}

/// Does one case, and removes what it made.
fn run(host: &Host, case: &Value, bare: &BTreeMap<String, Value>) -> Outcome {
    let name = format!("case-{}", case["name"].as_str().unwrap_or_default());
    each_line(host, &case["setup"]);
    let mut body = case["config"].as_object().cloned().unwrap_or_default();
    body.entry("Image").or_insert_with(|| "busybox".into());
    body.entry("Cmd").or_insert_with(|| json!(["sh", "-c", case["run"].as_str().unwrap_or("true")]));
    for (key, part) in [("HostConfig", "host"), ("NetworkingConfig", "networking")] {
        if case[part].is_object() {
            body.insert(key.into(), case[part].clone());
        }
    }
    // None but the cases about networks need one, and they take time.
    if case["networking"].is_null() && case["network"].is_null() {
        let settings = body.entry("HostConfig").or_insert_with(|| json!({}));
        if let Some(settings) = settings.as_object_mut() {
            settings.entry("NetworkMode").or_insert_with(|| "none".into());
        }
    }
    let body = named(host, &Value::Object(body));
    let query = case["query"].as_str().map_or(String::new(), |query| format!("&{query}"));
    let version = case["version"].as_str().unwrap_or("1.51");
    let answer = host.api("POST", &format!("/v{version}/containers/create?name={name}{query}"), &body);
    let mut result = Map::new();
    let (mut shown, mut id) = (Value::Null, String::new());
    if answer.status == 201 {
        id = answer.json()["Id"].as_str().unwrap_or_default().to_owned();
        result.insert("create".into(), answer.json()["Warnings"].clone());
        if case["start"] != false {
            start(host, case, &id, &mut result);
        }
        let inspect = host.api("GET", &format!("/v1.51/containers/{id}/json"), &Value::Null).json();
        shown = SHOWN.iter().map(|field| (field.to_string(), inspect[*field].clone())).collect();
        normalise(&mut shown, host, &id);
        // dockerd's order is that of a Go map.
        if let Some(mounts) = shown["Mounts"].as_array_mut() {
            mounts.sort_by_key(|mount| mount["Destination"].to_string());
        }
        // Shown once a log was opened, which may be before or after what makes a start fail.
        if result.contains_key("start") {
            shown["LogPath"] = bare.get("/LogPath").cloned().unwrap_or_default();
        }
        if let Some(more) = case["inspect"].as_array() {
            let more = more.iter().filter_map(Value::as_str);
            result.insert(
                "inspect".into(),
                more.map(|p| (p.to_owned(), inspect.pointer(p).cloned().unwrap_or_default())).collect(),
            );
        }
        result.insert("settings".into(), differences(bare, &shown));
        host.api("DELETE", &format!("/v1.51/containers/{id}?force=1&v=1"), &Value::Null).expect(204);
    } else {
        result.insert("refused".into(), json!([answer.status, answer.message()]));
    }
    each_line(host, &case["teardown"]);
    let mut result = Value::Object(result);
    normalise(&mut result, host, &id);
    Outcome { result, shown }
}

fn start(host: &Host, case: &Value, id: &str, result: &mut Map<String, Value>) {
    let answer = host.api("POST", &format!("/v1.51/containers/{id}/start"), &Value::Null);
    if answer.status != 204 {
        let message = answer.message();
        let agreed = message.find(RUNTIME_SAYS).map_or(message.as_str(), |at| &message[..at]);
        result.insert("start".into(), json!([answer.status, agreed]));
        return;
    }
    if let Some(lines) = case["meanwhile"].as_array() {
        let said: Vec<Value> = lines.iter().map(|line| on_host(host, line).into()).collect();
        result.insert("meanwhile".into(), said.into());
    }
    let exit = host.api("POST", &format!("/v1.51/containers/{id}/wait"), &Value::Null).json();
    result.insert("exit".into(), exit["StatusCode"].clone());
    let output = host.docker(&["logs", id]);
    let output =
        if output.code == 0 { output.stdout + &output.stderr } else { output.stderr.trim().to_owned() };
    result.insert("output".into(), output.into());
}

fn each_line(host: &Host, lines: &Value) {
    for line in lines.as_array().into_iter().flatten() {
        on_host(host, line);
    }
}

/// A command of docker's (`docker …`) or of the host's shell; what it says.
fn on_host(host: &Host, line: &Value) -> String {
    let line = named(host, line);
    let line = line.as_str().expect("a command");
    let output = match line.strip_prefix("docker ") {
        Some(line) => host.docker(line),
        None => host.exec(&["sh", "-c", line]),
    };
    output.stdout + &output.stderr
}

/// With the host's folder in place of its name.
fn named(host: &Host, value: &Value) -> Value {
    let text = value.to_string().replace("<folder>", &host.folder().display().to_string());
    serde_json::from_str(&text).expect("still JSON")
}

/// Takes out what is never twice the same.
fn normalise(value: &mut Value, host: &Host, id: &str) {
    let mut text = value.to_string().replace(&host.folder().display().to_string(), "<folder>");
    if let Some(short) = id.get(..12) {
        text = text.replace(id, "<id>").replace(short, "<short>");
    }
    // Ids of volumes and of other containers.
    let mut from = 0;
    while let Some(at) = text[from..].find(|c: char| c.is_ascii_hexdigit()).map(|at| from + at) {
        let length = text[at..].find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(text.len() - at);
        if length == 64 {
            text.replace_range(at..at + 64, "<hex>");
            from = at + 5;
        } else {
            from = at + length;
        }
    }
    *value = serde_json::from_str(&text).expect("still JSON");
}

/// All leaves, by JSON pointer. Empty lists and objects are leaves.
fn flat(value: &Value) -> BTreeMap<String, Value> {
    fn walk(value: &Value, path: &str, all: &mut BTreeMap<String, Value>) {
        match value {
            Value::Object(fields) if !fields.is_empty() => {
                for (name, field) in fields {
                    walk(field, &format!("{path}/{}", name.replace('~', "~0").replace('/', "~1")), all);
                }
            }
            leaf => {
                all.insert(path.to_owned(), leaf.clone());
            }
        }
    }
    let mut all = BTreeMap::new();
    walk(value, "", &mut all);
    all
}

/// The settings that a container without options does not have; `null` for those that only it has.
fn differences(bare: &BTreeMap<String, Value>, shown: &Value) -> Value {
    let shown = flat(shown);
    let mut differences = Map::new();
    for pointer in bare.keys().filter(|pointer| !shown.contains_key(*pointer)) {
        differences.insert(pointer.clone(), Value::Null);
    }
    for (pointer, value) in &shown {
        let expected = matches!(pointer.as_str(), "/Args" | "/Config/Cmd");
        if bare.get(pointer) != Some(value) && !expected {
            differences.insert(pointer.clone(), value.clone());
        }
    }
    differences.into()
}

/// Sets a leaf; `null` removes it. The empty pointer is the whole.
fn put(value: &mut Value, pointer: &str, new: Value) {
    if pointer.is_empty() {
        *value = new;
        return;
    }
    let (parent, name) = pointer.rsplit_once('/').unwrap_or(("", pointer));
    let name = name.replace("~1", "/").replace("~0", "~");
    if let Some(Value::Object(fields)) = value.pointer_mut(parent) {
        if new.is_null() {
            fields.remove(&name);
        } else {
            fields.insert(name, new);
        }
    }
}
