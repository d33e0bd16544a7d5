//! Configuration documents of images that are made on this host, as dockerd writes them: a commit of a container, an
//! import of a file system. What the bytes are decides over the image's id, so they are Go's: fields sorted by name,
//! characters of HTML escaped.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};
use wherry_image_store::{DiffId, Document, History};

use crate::clock;
use crate::containers::config::Config;
use crate::text::go_json;

/// The SHA-256 of a tar without entries: a step that changed no file has this layer, and then it has none.
const EMPTY_LAYER: &str = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";

/// Whether a layer has nothing in it.
pub(crate) fn is_empty_layer(layer: DiffId) -> bool {
    layer.to_string() == EMPTY_LAYER
}

/// A step that makes a new image of another one.
#[derive(Debug)]
pub(crate) struct Child<'a> {
    /// The container's id.
    pub(crate) container: &'a str,
    /// The container's configuration.
    pub(crate) container_config: &'a Config,
    /// What containers of the new image inherit.
    pub(crate) config: &'a Config,
    /// Who made it.
    pub(crate) author: &'a str,
    /// The message.
    pub(crate) comment: &'a str,
    /// What it adds to the parent's layers, if it changed any file.
    pub(crate) layer: Option<DiffId>,
}

impl Child<'_> {
    /// The document of the new image. `parent` is the other image's document as it is stored.
    pub(crate) fn document(&self, parent: &[u8], parsed: &Document) -> Vec<u8> {
        let now = clock::rfc3339(clock::now_ns());
        let mut history: Vec<Value> = parsed.history.iter().map(step).collect();
        history.push(step(&History {
            created: Some(now.clone()),
            author: self.author.into(),
            created_by: self.container_config.cmd.clone().unwrap_or_default().join(" "),
            comment: self.comment.into(),
            empty_layer: self.layer.is_none(),
        }));
        let layers: Vec<DiffId> = parsed.rootfs.diff_ids.iter().copied().chain(self.layer).collect();
        let architecture = match parsed.architecture.as_str() {
            "" => wherry_registry::Platform::host().architecture,
            known => known.to_owned(),
        };
        let os = if parsed.os.is_empty() { "linux" } else { &parsed.os };
        let mut fields = Fields::default();
        fields.add("architecture", &architecture);
        fields.add_text("author", self.author);
        fields.add("config", self.config);
        fields.add_text("container", self.container);
        fields.add("container_config", self.container_config);
        fields.add("created", &now);
        fields.add("docker_version", crate::ENGINE_VERSION);
        fields.add("history", &history);
        fields.add("os", os);
        fields.add_text("os.version", &parsed.os_version);
        if let Some(features) = os_features(parent) {
            fields.add("os.features", &features);
        }
        fields.add("rootfs", &root_fs(&layers));
        fields.add_text("variant", &parsed.variant);
        fields.render()
    }
}

/// A file system that becomes an image.
#[derive(Debug)]
pub(crate) struct Imported<'a> {
    /// What containers of it inherit.
    pub(crate) config: &'a Config,
    /// The message.
    pub(crate) comment: &'a str,
    /// What it is for.
    pub(crate) platform: &'a wherry_registry::Platform,
    /// The file system.
    pub(crate) layer: DiffId,
}

impl Imported<'_> {
    /// The document of the new image.
    pub(crate) fn document(&self) -> Vec<u8> {
        let now = clock::rfc3339(clock::now_ns());
        let made = History { created: Some(now.clone()), comment: self.comment.into(), ..History::default() };
        let mut fields = Fields::default();
        fields.add("architecture", &self.platform.architecture);
        fields.add_text("comment", self.comment);
        fields.add("config", self.config);
        fields.add("container_config", &Config::default());
        fields.add("created", &now);
        fields.add("docker_version", crate::ENGINE_VERSION);
        fields.add("history", &[step(&made)]);
        fields.add("os", &self.platform.os);
        fields.add("rootfs", &root_fs(&[self.layer]));
        fields.add_text("variant", &self.platform.variant);
        fields.render()
    }
}

/// A document's fields, sorted.
#[derive(Default)]
struct Fields(BTreeMap<&'static str, Value>);

impl Fields {
    fn add(&mut self, name: &'static str, value: &(impl Serialize + ?Sized)) {
        self.0.insert(name, json!(value));
    }

    /// Empty text is left out.
    fn add_text(&mut self, name: &'static str, text: &str) {
        if !text.is_empty() {
            self.add(name, text);
        }
    }

    fn render(&self) -> Vec<u8> {
        go_json(&self.0).into_bytes()
    }
}

/// A step of the history in Go's order of fields; what is empty is left out.
pub(crate) fn step(entry: &History) -> Value {
    let mut fields = serde_json::Map::new();
    if let Some(created) = &entry.created {
        fields.insert("created".into(), json!(created));
    }
    for (name, text) in
        [("created_by", &entry.created_by), ("author", &entry.author), ("comment", &entry.comment)]
    {
        if !text.is_empty() {
            fields.insert(name.into(), json!(text));
        }
    }
    if entry.empty_layer {
        fields.insert("empty_layer".into(), json!(true));
    }
    Value::Object(fields)
}

fn root_fs(layers: &[DiffId]) -> Value {
    if layers.is_empty() { json!({"type": "layers"}) } else { json!({"type": "layers", "diff_ids": layers}) }
}

/// The one field that is carried over without being looked at anywhere.
fn os_features(document: &[u8]) -> Option<Vec<String>> {
    #[derive(serde::Deserialize)]
    struct Part {
        #[serde(rename = "os.features")]
        features: Option<Vec<String>>,
    }
    let part: Part = serde_json::from_slice(document).ok()?;
    part.features.filter(|features| !features.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = r#"{"architecture":"arm64","config":{"Cmd":["sh"]},"history":[{"created":"2026-11-22T01:19:36Z",
        "created_by":"ADD x"},{"created_by":"CMD","empty_layer":true}],"os":"linux","os.features":["f"],
        "rootfs":{"type":"layers","diff_ids":[]},"variant":"v8"}"#;

    fn config(json: &str) -> Config {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_commit_is_written_as_dockerd_writes_it() {
        let parsed: Document = serde_json::from_str(BASE).unwrap();
        let child = Child {
            container: "51c2",
            container_config: &config(r#"{"Hostname":"h","Cmd":["sh","-c","x"],"Labels":{}}"#),
            config: &config(r#"{"Env":["F=1"],"Labels":{}}"#),
            author: "me <x>",
            comment: "a & b",
            layer: None,
        };
        let text = String::from_utf8(child.document(BASE.as_bytes(), &parsed)).unwrap();
        let document: Value = serde_json::from_str(&text).unwrap();
        let now = document["created"].as_str().unwrap();
        let common = r#""Domainname":"","User":"","AttachStdin":false,"AttachStdout":false,"AttachStderr":false,"Tty":false,"OpenStdin":false,"StdinOnce":false"#;
        let expect = format!(
            concat!(
                r#"{{"architecture":"arm64","author":"me \u003cx\u003e","config":{{"Hostname":"",{common},"Env":["F=1"],"Cmd":null,"#,
                r#""Image":"","Volumes":null,"WorkingDir":"","Entrypoint":null,"OnBuild":null,"Labels":{{}}}},"container":"51c2","#,
                r#""container_config":{{"Hostname":"h",{common},"Env":null,"Cmd":["sh","-c","x"],"Image":"","Volumes":null,"#,
                r#""WorkingDir":"","Entrypoint":null,"OnBuild":null,"Labels":{{}}}},"created":"{now}","docker_version":"{version}","#,
                r#""history":[{{"created":"2026-11-22T01:19:36Z","created_by":"ADD x"}},{{"created_by":"CMD","empty_layer":true}},"#,
                r#"{{"created":"{now}","created_by":"sh -c x","author":"me \u003cx\u003e","comment":"a \u0026 b","empty_layer":true}}],"#,
                r#""os":"linux","os.features":["f"],"rootfs":{{"type":"layers"}},"variant":"v8"}}"#,
            ),
            common = common,
            now = now,
            version = crate::ENGINE_VERSION,
        );
        assert_eq!(text, expect);
    }

    #[test]
    fn an_import_is_written_as_dockerd_writes_it() {
        let platform = wherry_registry::Platform::parse("linux/arm64/v8").unwrap();
        let layer: DiffId = serde_json::from_value(json!(EMPTY_LAYER)).unwrap();
        assert!(is_empty_layer(layer));
        let imported = Imported { config: &Config::default(), comment: "m", platform: &platform, layer };
        let document: Value = serde_json::from_slice(&imported.document()).unwrap();
        let names: Vec<&str> = document.as_object().unwrap().keys().map(String::as_str).collect();
        let expect =
            "architecture comment config container_config created docker_version history os rootfs variant";
        assert_eq!(names.join(" "), expect);
        assert_eq!(document["history"][0]["comment"], "m");
        assert_eq!(document["rootfs"]["diff_ids"][0], EMPTY_LAYER);
    }
}
