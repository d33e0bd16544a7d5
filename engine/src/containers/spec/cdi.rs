//! Devices by the Container Device Interface: `--device vendor.com/class=name`. Files in the folders of `--cdi-spec-dir` say what
//! such a name means: variables, device nodes, mounts, hooks and groups, which are put into a container's specification.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use yaml_rust2::{Yaml, YamlLoader};

use crate::error::Error;

/// No specification is longer.
const MAX_BYTES: u64 = 10 << 20;

/// A file.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Specification {
    kind: String,
    devices: Vec<Device>,
    container_edits: Edits,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Device {
    name: String,
    container_edits: Edits,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Edits {
    env: Vec<String>,
    device_nodes: Vec<Node>,
    mounts: Vec<Mount>,
    hooks: Vec<Hook>,
    #[serde(rename = "additionalGids")]
    additional_gids: Vec<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Node {
    path: String,
    host_path: String,
    #[serde(rename = "type")]
    kind: String,
    major: i64,
    minor: i64,
    file_mode: Option<u32>,
    permissions: String,
    uid: Option<u32>,
    gid: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Mount {
    host_path: String,
    container_path: String,
    options: Vec<String>,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Hook {
    hook_name: String,
    path: String,
    args: Vec<String>,
    env: Vec<String>,
    timeout: Option<u64>,
}

/// All specifications of the folders, by kind: a later folder's device hides an earlier one's. A file that cannot be read is left
/// out and told in the log.
fn load(folders: &[String]) -> Vec<Specification> {
    let mut found = Vec::new();
    for folder in folders {
        let Ok(entries) = std::fs::read_dir(folder) else { continue };
        let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort_unstable();
        for path in paths {
            let kind = path.extension().and_then(|extension| extension.to_str());
            let read = match kind {
                Some("json") => {
                    text(&path).and_then(|text| serde_json::from_str(&text).map_err(|e| e.to_string()))
                }
                Some("yaml" | "yml") => text(&path).and_then(|text| from_yaml(&text)),
                _ => continue,
            };
            match read.and_then(|value: Value| Specification::deserialize(value).map_err(|e| e.to_string())) {
                Ok(specification) => found.push(specification),
                Err(error) => {
                    tracing::warn!(path = %path.display(), error, "a CDI specification cannot be read")
                }
            }
        }
    }
    found.reverse();
    found
}

fn text(path: &Path) -> Result<String, String> {
    let length = std::fs::metadata(path).map_err(|e| e.to_string())?.len();
    if length > MAX_BYTES {
        return Err(format!("it has {length} bytes"));
    }
    std::fs::read_to_string(path).map_err(|e| e.to_string())
}

fn from_yaml(text: &str) -> Result<Value, String> {
    let documents = YamlLoader::load_from_str(text).map_err(|e| e.to_string())?;
    documents.first().map(value).ok_or_else(|| "it is empty".to_owned())
}

fn value(yaml: &Yaml) -> Value {
    match yaml {
        Yaml::Real(text) => text.parse::<f64>().map_or(Value::Null, |number| json!(number)),
        Yaml::Integer(number) => json!(number),
        Yaml::String(text) => json!(text),
        Yaml::Boolean(flag) => json!(flag),
        Yaml::Array(items) => items.iter().map(value).collect(),
        Yaml::Hash(entries) => {
            let entries =
                entries.iter().filter_map(|(key, item)| Some((key.as_str()?.to_owned(), value(item))));
            Value::Object(entries.collect::<Map<String, Value>>())
        }
        Yaml::Alias(_) | Yaml::Null | Yaml::BadValue => Value::Null,
    }
}

/// The names of all devices: `vendor.com/class=name`.
pub(crate) fn names(folders: &[String]) -> Vec<String> {
    let mut names: Vec<String> = load(folders)
        .iter()
        .flat_map(|spec| spec.devices.iter().map(|device| format!("{}={}", spec.kind, device.name)))
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Puts devices into a container's specification.
///
/// # Errors
/// 500 `CDI device injection failed: unresolvable CDI devices a.b/c=d`, and nodes that are not there.
pub(super) fn inject(
    wanted: &[String],
    folders: &[String],
    spec: &mut Map<String, Value>,
) -> Result<(), Error> {
    let specifications = load(folders);
    let mut used: Vec<&str> = Vec::new();
    let (mut edits, mut missing) = (Vec::new(), Vec::new());
    for name in wanted {
        let found = name.split_once('=').and_then(|(kind, device)| {
            specifications
                .iter()
                .filter(|spec| spec.kind == kind)
                .find_map(|spec| Some((spec, spec.devices.iter().find(|known| known.name == device)?)))
        });
        let Some((specification, device)) = found else {
            missing.push(name.as_str());
            continue;
        };
        // What all devices of a kind need is needed once.
        if !used.contains(&specification.kind.as_str()) {
            used.push(&specification.kind);
            edits.push(&specification.container_edits);
        }
        edits.push(&device.container_edits);
    }
    if !missing.is_empty() {
        return Err(failed(&format!("unresolvable CDI devices {}", missing.join(", "))));
    }
    for edit in edits {
        apply(edit, spec)?;
    }
    Ok(())
}

fn failed(reason: &str) -> Error {
    Error::server(format!("CDI device injection failed: {reason}"))
}

fn apply(edits: &Edits, spec: &mut Map<String, Value>) -> Result<(), Error> {
    let env: &mut Vec<Value> = list(spec, &["process", "env"]);
    for variable in &edits.env {
        let name = variable.split('=').next().unwrap_or(variable);
        env.retain(|old| old.as_str().is_none_or(|old| old.split('=').next() != Some(name)));
        env.push(variable.as_str().into());
    }
    list(spec, &["process", "user", "additionalGids"])
        .extend(edits.additional_gids.iter().filter(|gid| **gid != 0).map(|gid| json!(gid)));
    for node in &edits.device_nodes {
        let (node, rule) = device(node)?;
        list(spec, &["linux", "devices"]).push(node);
        list(spec, &["linux", "resources", "devices"]).push(rule);
    }
    for mount in &edits.mounts {
        let kind = if mount.kind.is_empty() { "bind" } else { &mount.kind };
        let mut options = mount.options.clone();
        if kind == "bind" && !options.iter().any(|option| option == "bind" || option == "rbind") {
            options.push("rbind".into());
        }
        list(spec, &["mounts"]).push(json!({
            "destination": mount.container_path, "source": mount.host_path, "type": kind, "options": options,
        }));
    }
    for hook in &edits.hooks {
        let known =
            ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
        if !known.contains(&hook.hook_name.as_str()) {
            return Err(failed(&format!("invalid hook name {:?}", hook.hook_name)));
        }
        let mut entry = json!({ "path": hook.path, "args": hook.args, "env": hook.env });
        if let Some(timeout) = hook.timeout {
            entry["timeout"] = timeout.into();
        }
        list(spec, &["hooks", &hook.hook_name]).push(entry);
    }
    Ok(())
}

/// A node as `linux.devices` has it, and the rule that allows it. What the file does not say is as on the host.
fn device(node: &Node) -> Result<(Value, Value), Error> {
    let host = if node.host_path.is_empty() { &node.path } else { &node.host_path };
    let (mut kind, mut major, mut minor) = (node.kind.clone(), node.major, node.minor);
    let mut described = json!({ "path": node.path });
    if kind.is_empty() || (major == 0 && kind != "p") {
        let metadata = std::fs::metadata(host).map_err(|e| {
            failed(&format!("failed to stat CDI host device {host:?}: {}", crate::text::go_error(&e)))
        })?;
        let actual = if metadata.file_type().is_block_device() {
            "b"
        } else if metadata.file_type().is_char_device() {
            "c"
        } else {
            return Err(failed(&format!("CDI host device {host:?} is not a device node")));
        };
        if !kind.is_empty() && kind != actual && kind != "u" {
            return Err(failed(&format!(
                "CDI device ({:?}, {host:?}), host type mismatch ({kind}, {actual})",
                node.path
            )));
        }
        actual.clone_into(&mut kind);
        major = rustix::fs::major(metadata.rdev()).into();
        minor = rustix::fs::minor(metadata.rdev()).into();
        described["fileMode"] = (metadata.mode() & 0o7777).into();
        described["uid"] = metadata.uid().into();
        described["gid"] = metadata.gid().into();
    }
    for (name, given) in [("fileMode", node.file_mode), ("uid", node.uid), ("gid", node.gid)] {
        if let Some(number) = given {
            described[name] = number.into();
        }
    }
    described["type"] = kind.as_str().into();
    described["major"] = major.into();
    described["minor"] = minor.into();
    let access = if node.permissions.is_empty() { "rwm" } else { &node.permissions };
    let rule = json!({ "allow": true, "type": kind, "major": major, "minor": minor, "access": access });
    Ok((described, rule))
}

/// The list at this place of the specification, made if there is none.
fn list<'a>(spec: &'a mut Map<String, Value>, path: &[&str]) -> &'a mut Vec<Value> {
    let (last, folders) = path.split_last().unwrap_or((&"", &[]));
    let mut here = spec;
    for name in folders {
        let entry = here.entry((*name).to_owned()).or_insert_with(|| json!({}));
        if !entry.is_object() {
            *entry = json!({});
        }
        let Value::Object(fields) = entry else { unreachable!("it was made an object") };
        here = fields;
    }
    let entry = here.entry((*last).to_owned()).or_insert_with(|| json!([]));
    if !entry.is_array() {
        *entry = json!([]);
    }
    let Value::Array(items) = entry else { unreachable!("it was made a list") };
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_put_into_the_specification() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(
            dir.path().join("a.yaml"),
            "cdiVersion: 0.6.0\nkind: v.com/c\ncontainerEdits: {env: [ALL=1]}\ndevices:\n- name: one\n  containerEdits:\n    \
             env: [A=new]\n    deviceNodes: [{path: /dev/my, hostPath: /dev/full, permissions: r}]\n    additionalGids: [7]\n    \
             hooks: [{hookName: poststop, path: /bin/true}]\n    mounts: [{hostPath: /a, containerPath: /b, options: [ro]}]\n",
        )
        .unwrap();
        std::fs::write(dir.path().join("b.json"), r#"{"kind":"v.com/d","devices":[{"name":"two"}]}"#)
            .unwrap();
        std::fs::write(dir.path().join("c.json"), "{").unwrap();
        let folders = [dir.path().to_string_lossy().into_owned()];
        assert_eq!(names(&folders), ["v.com/c=one", "v.com/d=two"]);
        let mut spec = Map::new();
        spec.insert("process".into(), json!({ "env": ["A=old", "B=1"] }));
        inject(&["v.com/c=one".into(), "v.com/d=two".into()], &folders, &mut spec).unwrap();
        let spec = Value::Object(spec);
        assert_eq!(
            spec["process"],
            json!({ "env": ["B=1", "ALL=1", "A=new"], "user": { "additionalGids": [7] } })
        );
        assert_eq!(spec["linux"]["devices"][0]["major"], 1);
        assert_eq!(spec["linux"]["resources"]["devices"][0]["access"], "r");
        assert_eq!(spec["mounts"][0]["options"], json!(["ro", "rbind"]));
        assert_eq!(spec["hooks"]["poststop"][0]["path"], "/bin/true");
        let error =
            inject(&["v.com/c=no".into(), "x".into()], &folders, &mut Map::new()).unwrap_err().to_string();
        assert_eq!(error, "CDI device injection failed: unresolvable CDI devices v.com/c=no, x");
    }
}
