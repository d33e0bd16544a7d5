//! What is said of Compose projects, without what is never twice the same.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use wherry_tests::Host;

/// What inspect says about a container, as far as somebody asked for it. (Pointers; what is below is shown.)
const OF_CONTAINERS: [&str; 9] = [
    "/Config",
    "/HostConfig",
    "/Mounts",
    "/Path",
    "/Args",
    "/Platform",
    "/NetworkSettings/Networks",
    "/State/Status",
    "/State/Health/Status",
];
/// What Compose or the engine chooses.
const CHOSEN: [&str; 11] = [
    "/Config/Hostname",
    "/Config/Labels/com.docker.compose.config-hash",
    "/Created",
    "/Id",
    "/CreatedAt",
    "/EndpointID",
    "/NetworkID",
    "/Gateway",
    "/IPAddress",
    "/IPv6Gateway",
    "/GlobalIPv6Address",
];

/// What is in an engine, as it looks beside what anybody has.
pub(crate) struct Objects<'a> {
    host: &'a Host,
    bare: BTreeMap<String, Value>,
    since: String,
}

impl<'a> Objects<'a> {
    pub(crate) fn new(host: &'a Host) -> Objects<'a> {
        host.docker("create --name bare --network none busybox").ok();
        let bare = leaves(host, "bare");
        host.docker("rm bare").ok();
        Objects { host, bare, since: now() }
    }

    /// Each setting of these containers, networks and volumes that a container without any settings does not have, and those
    /// that it has and they do not.
    pub(crate) fn settings(&self, names: &str) -> String {
        let mut text = String::new();
        for name in names.split_whitespace() {
            if self.host.docker(&["inspect", name]).code != 0 {
                text += &format!("{name} is not there\n");
                continue;
            }
            let now = leaves(self.host, name);
            let is_container = now.keys().any(|pointer| pointer.starts_with("/HostConfig"));
            let lost = self.bare.keys().filter(|pointer| is_container && !now.contains_key(*pointer));
            for pointer in lost.filter(|pointer| !CHOSEN.iter().any(|end| pointer.ends_with(end))) {
                text += &format!("{name} {} is not there\n", pointer.trim_start_matches('/'));
            }
            for (pointer, value) in now {
                if self.bare.get(&pointer) != Some(&value) && !CHOSEN.iter().any(|end| pointer.ends_with(end))
                {
                    text += &format!("{name} {} {value}\n", pointer.trim_start_matches('/'));
                }
            }
        }
        text
    }

    /// What happened to each object since the last time: containers' events in their order; of others how many.
    pub(crate) fn events(&mut self) -> String {
        let until = now();
        let path = format!("/v1.51/events?since={}&until={until}", self.since);
        self.since = until;
        let answer = self.host.api("GET", &path, &Value::Null);
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        let mut objects: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for event in text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")) {
            let (kind, action) =
                (event["Type"].as_str().unwrap_or(""), event["Action"].as_str().unwrap_or(""));
            // How often somebody's health is asked for is chance. When a container ends that somebody has attached to its
            // input alone, dockerd tells of a `detach`.
            if action.starts_with("exec_") || action == "detach" {
                continue;
            }
            let attributes = &event["Actor"]["Attributes"];
            let id = event["Actor"]["ID"].as_str().unwrap_or("");
            let name = attributes["name"].as_str().unwrap_or(id);
            let detail = ["exitCode", "signal"].iter().find_map(|key| attributes[*key].as_str());
            let action = detail.map_or(action.to_owned(), |detail| format!("{action}({detail})"));
            let object = plain(&format!("{kind} {name}"));
            objects.entry(object.trim().to_owned()).or_default().push(action);
        }
        let mut text = String::new();
        for (object, mut actions) in objects {
            if object.starts_with("container") {
                // These two come in any order, and dockerd may tell of an end twice.
                let again = |a: &mut String, b: &mut String| a == b && (a == "stop" || a.starts_with("die"));
                let mut ended = actions;
                ended.dedup_by(again);
                for at in 1..ended.len() {
                    if ended[at - 1] == "stop" && ended[at].starts_with("die") {
                        ended.swap(at - 1, at);
                    }
                }
                ended.dedup_by(again);
                actions = ended;
            } else {
                actions.sort();
            }
            text += &format!("{object}: {}\n", actions.join(" "));
        }
        text
    }
}

fn now() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    format!("{}.{:09}", now.as_secs(), now.subsec_nanos())
}

/// All that inspect says of an object, by JSON pointer. What is empty says nothing.
fn leaves(host: &Host, name: &str) -> BTreeMap<String, Value> {
    fn walk(value: &Value, path: &str, all: &mut BTreeMap<String, Value>) {
        match value {
            Value::Object(fields) => {
                for (name, field) in fields {
                    walk(field, &format!("{path}/{name}"), all);
                }
            }
            Value::Null => {}
            leaf if [json!(""), json!([]), json!(0)].contains(leaf) => {}
            leaf => {
                all.insert(path.to_owned(), leaf.clone());
            }
        }
    }
    let mut object = host.inspect(name);
    let mut all = BTreeMap::new();
    if object["Config"].is_null() {
        object["Containers"].take();
        walk(&object, "", &mut all);
        return all;
    }
    // The order of a Go map: dockerd's, or Compose's.
    for list in [
        "/Mounts",
        "/HostConfig/Mounts",
        "/HostConfig/Binds",
        "/HostConfig/ExtraHosts",
        "/HostConfig/Ulimits",
        "/HostConfig/Links",
        "/Config/Env",
    ] {
        if let Some(list) = object.pointer_mut(list).and_then(Value::as_array_mut) {
            list.sort_by_key(|entry| {
                entry["Target"].to_string() + &entry["Destination"].to_string() + &entry.to_string()
            });
        }
    }
    // Where an image is mounted is the engine's own business.
    for mount in
        object["Mounts"].as_array_mut().into_iter().flatten().filter(|mount| mount["Type"] == "image")
    {
        mount["Source"].take();
    }
    if let Some(label) = object.pointer_mut("/Config/Labels/com.docker.compose.depends_on")
        && let Some(text) = label.as_str()
    {
        let mut needs: Vec<&str> = text.split(',').collect();
        needs.sort_unstable();
        *label = needs.join(",").into();
    }
    // An address that nobody asked for is the engine's choice.
    for network in
        object["NetworkSettings"]["Networks"].as_object_mut().into_iter().flat_map(|all| all.values_mut())
    {
        for names in ["Aliases", "DNSNames"] {
            if let Some(names) = network[names].as_array_mut() {
                // The short id is another each time.
                names.sort_by_key(|name| {
                    (name.as_str().is_some_and(|name| name.len() == 12), name.to_string())
                });
            }
        }
        if !network["MacAddress"].as_str().is_some_and(|mac| mac.starts_with("02:42:")) {
            network["MacAddress"].take();
        }
    }
    for pointer in OF_CONTAINERS {
        walk(object.pointer(pointer).unwrap_or(&Value::Null), pointer, &mut all);
    }
    all
}

/// Without ids, times, ages, addresses that the engine chose, and the width of columns.
pub(crate) fn plain(text: &str) -> String {
    text.lines().map(|line| columns(&ages(&words(line))) + "\n").collect()
}

/// Ids, times and addresses are words of a kind: letters, digits, and what may stand between them.
fn words(line: &str) -> String {
    let mut plain = String::new();
    let mut rest = line;
    while !rest.is_empty() {
        let inside = |c: char| c.is_ascii_alphanumeric();
        let length = rest.find(|c| !inside(c)).unwrap_or(rest.len());
        if let Some((taken, name)) = known(rest) {
            plain += name;
            rest = &rest[taken..];
        } else if length > 0 {
            plain += &rest[..length];
            rest = &rest[length..];
        } else {
            let c = rest.chars().next().unwrap_or_default();
            plain.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    plain
}

/// What stands at the beginning of this text that is never twice the same: its length, and its kind.
fn known(text: &str) -> Option<(usize, &'static str)> {
    let alphanumeric = text.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(text.len());
    let word = &text[..alphanumeric];
    if matches!(word.len(), 12 | 30..) && word.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f')) {
        return Some((word.len(), "<id>"));
    }
    let shaped = |shape: &str| {
        text.len() >= shape.len()
            && text
                .bytes()
                .zip(shape.bytes())
                .all(|(c, s)| if s == b'0' { c.is_ascii_digit() } else { c == s || (s == b'T' && c == b' ') })
    };
    if shaped("0000-00-00T00:00:00") {
        let fraction = |c: char| !(c.is_ascii_digit() || matches!(c, '.' | 'Z'));
        let end = text[19..].find(fraction).map_or(text.len(), |at| at + 19);
        let zone = [" +0000 UTC", " UTC", "+00:00"]
            .iter()
            .find(|zone| text[end..].starts_with(**zone))
            .map_or(0, |zone| zone.len());
        return Some((end + zone, "<time>"));
    }
    let number = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let dotted = &text[..number];
    if dotted.split('.').filter_map(|part| part.parse::<u8>().ok()).count() == 4 && dotted.starts_with("172.")
    {
        return Some((number, "<address>"));
    }
    if dotted.contains('.')
        && text[number..].starts_with('s')
        && !text[number + 1..].starts_with(|c: char| c.is_ascii_alphanumeric())
    {
        return Some((number + 1, "<seconds>"));
    }
    let v6 = text.find(|c: char| !(c.is_ascii_hexdigit() || c == ':')).unwrap_or(text.len());
    (text.starts_with("fd") && text[..v6].matches(':').count() > 3).then_some((v6, "<address>"))
}

/// `3 seconds`, `Less than a second`, `About a minute`.
fn ages(line: &str) -> String {
    let mut line = line
        .replace("Less than a second", "1 second")
        .replace("About a minute", "1 minute")
        .replace("About an hour", "1 hour");
    for unit in ["second", "minute", "hour"] {
        let mut from = 0;
        while let Some(at) = line[from..].find(unit).map(|at| at + from) {
            let digits = line[..at].trim_end().len()
                - line[..at].trim_end().trim_end_matches(|c: char| c.is_ascii_digit()).len();
            from = at + unit.len();
            if digits == 0 || !line[..at].ends_with(' ') {
                continue;
            }
            let begin = at - 1 - digits;
            let end = from + usize::from(line[from..].starts_with('s'));
            line.replace_range(begin..end, "<age>");
            from = begin + 5;
        }
    }
    line
}

/// Blanks between columns, but not those in front.
fn columns(line: &str) -> String {
    let text = line.trim_start();
    let mut plain = line[..line.len() - text.len()].to_owned();
    let mut blanks = 0;
    for c in text.trim_end().chars() {
        blanks = if c == ' ' { blanks + 1 } else { 0 };
        if blanks < 3 {
            plain.push(c);
        }
    }
    plain
}
