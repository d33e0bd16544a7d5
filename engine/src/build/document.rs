//! The document of a built image, as BuildKit writes it: what is not set is left out.

use serde_json::{Map, Value, json};
use wherry_dockerfile::plan::{ImageConfig, Platform};
use wherry_image_store::{DiffId, Document};

use super::convert;
use super::inline::{self, StepResult};
use crate::clock;
use crate::images::document::step as history_step;
use crate::text::go_json;

/// What BuildKit says of each of its steps.
const COMMENT: &str = "buildkit.dockerfile.v0";

/// A step in a history.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) created_by: String,
    pub(super) created_ns: i64,
    pub(super) is_empty_layer: bool,
}

/// What a document is made of.
pub(super) struct Image<'a> {
    /// The base image, unless it is built from scratch.
    pub(super) base: Option<&'a Document>,
    pub(super) platform: &'a Platform,
    pub(super) config: &'a ImageConfig,
    pub(super) history: &'a [Entry],
    /// When it was made; `None` for the time of its last step.
    pub(super) created_ns: Option<i64>,
    pub(super) layers: &'a [DiffId],
    /// What made which of them, if the image is to be a cache.
    pub(super) cache: Option<Vec<StepResult>>,
}

impl Image<'_> {
    /// The document.
    pub(super) fn render(&self) -> Vec<u8> {
        let created = self.created_ns.or(self.history.iter().map(|entry| entry.created_ns).max());
        let base_created = self.base.and_then(|base| base.created.clone());
        let created = created.map(clock::rfc3339).or(base_created);
        let mut history: Vec<Value> =
            self.base.map(|base| base.history.iter().map(history_step).collect()).unwrap_or_default();
        history.extend(self.history.iter().map(|entry| {
            let mut value = json!({
                "created": clock::rfc3339(entry.created_ns),
                "created_by": entry.created_by,
                "comment": COMMENT,
            });
            if entry.is_empty_layer {
                value["empty_layer"] = true.into();
            }
            value
        }));
        let mut fields = Map::new();
        let mut add = |name: &str, value: Value| drop(fields.insert(name.to_owned(), value));
        add("architecture", json!(self.platform.architecture));
        if !self.config.author.is_empty() {
            add("author", json!(self.config.author));
        }
        add("config", config(self.config));
        if let Some(created) = created {
            add("created", json!(created));
        }
        add("history", json!(history));
        if let Some(results) = self.cache.as_ref().filter(|results| !results.is_empty()) {
            add(inline::FIELD, json!(inline::write(results)));
        }
        add("os", json!(self.platform.os));
        add("rootfs", json!({ "type": "layers", "diff_ids": self.layers }));
        if !self.platform.variant.is_empty() {
            add("variant", json!(self.platform.variant));
        }
        go_json(&fields).into_bytes()
    }
}

/// In the order of the specification's fields.
fn config(config: &ImageConfig) -> Value {
    let full = serde_json::to_value(convert::to_config(config)).unwrap_or_default();
    let mut fields = Map::new();
    let order = [
        "User",
        "ExposedPorts",
        "Env",
        "Entrypoint",
        "Cmd",
        "Volumes",
        "WorkingDir",
        "Labels",
        "StopSignal",
        "ArgsEscaped",
        "Healthcheck",
        "OnBuild",
        "Shell",
    ];
    for name in order {
        let value = full.get(name).cloned().unwrap_or_default();
        // An empty list of arguments is not the same as none.
        let is_empty = match &value {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Array(list) => list.is_empty() && !matches!(name, "Entrypoint" | "Cmd"),
            Value::Object(map) => map.is_empty(),
            Value::Bool(flag) => !flag,
            Value::Number(_) => false,
        };
        if !is_empty {
            fields.insert(name.to_owned(), value);
        }
    }
    Value::Object(fields)
}
