//! The image configuration document, as Docker and the OCI image specification define it.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::DiffId;

/// An image's configuration document. Unknown fields are ignored here, and kept in the stored bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Document {
    /// When it was made, RFC 3339, as written.
    #[serde(deserialize_with = "lenient")]
    pub created: Option<String>,
    /// Who made it.
    #[serde(deserialize_with = "lenient")]
    pub author: String,
    /// Processor architecture, in Go's words (`amd64`).
    #[serde(deserialize_with = "lenient")]
    pub architecture: String,
    /// Variant of the architecture (`v8`).
    #[serde(deserialize_with = "lenient")]
    pub variant: String,
    /// Operating system (`linux`).
    #[serde(deserialize_with = "lenient")]
    pub os: String,
    /// Version of the operating system; for Windows.
    #[serde(rename = "os.version", deserialize_with = "lenient")]
    pub os_version: String,
    /// What containers of it run, and how.
    #[serde(deserialize_with = "lenient")]
    pub config: ImageConfig,
    /// Its layers.
    #[serde(deserialize_with = "lenient")]
    pub rootfs: RootFs,
    /// How it was built.
    #[serde(deserialize_with = "lenient")]
    pub history: Vec<History>,
    /// The commit's message.
    #[serde(deserialize_with = "lenient")]
    pub comment: String,
    /// The container that it was committed from.
    #[serde(deserialize_with = "lenient")]
    pub container: String,
    /// The engine that made it.
    #[serde(deserialize_with = "lenient")]
    pub docker_version: String,
}

/// The part of the configuration that containers inherit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ImageConfig {
    /// User and group, by name or number: `user[:group]`.
    #[serde(deserialize_with = "lenient")]
    pub user: String,
    /// `port/protocol`; the values are empty objects.
    pub exposed_ports: Option<BTreeMap<String, serde_json::Value>>,
    /// `NAME=value`.
    pub env: Option<Vec<String>>,
    /// The program and its first arguments.
    pub entrypoint: Option<Vec<String>>,
    /// Default arguments, or the program if there is no entry point.
    pub cmd: Option<Vec<String>>,
    /// Absolute paths that get volumes; the values are empty objects.
    pub volumes: Option<BTreeMap<String, serde_json::Value>>,
    /// Working directory.
    #[serde(deserialize_with = "lenient")]
    pub working_dir: String,
    /// Labels.
    pub labels: Option<BTreeMap<String, String>>,
    /// Signal that asks the process to end (`SIGQUIT`, `3`).
    #[serde(deserialize_with = "lenient")]
    pub stop_signal: String,
    /// Seconds between that signal and SIGKILL.
    pub stop_timeout: Option<i64>,
    /// The health probe.
    pub healthcheck: Option<Healthcheck>,
    /// Instructions for builds from this image.
    pub on_build: Option<Vec<String>>,
    /// The shell of `RUN`'s and `CMD`'s shell form.
    pub shell: Option<Vec<String>>,
    /// `Cmd` is one command line; for Windows.
    #[serde(deserialize_with = "lenient")]
    pub args_escaped: bool,
}

/// A health probe. Durations in nanoseconds; 0 means inherit or default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", command]`.
    #[serde(deserialize_with = "lenient")]
    pub test: Vec<String>,
    /// Between probes.
    #[serde(deserialize_with = "lenient")]
    pub interval: i64,
    /// A probe that takes longer has failed.
    #[serde(deserialize_with = "lenient")]
    pub timeout: i64,
    /// Failures in this time from the start do not count.
    #[serde(deserialize_with = "lenient")]
    pub start_period: i64,
    /// Between probes in the start period.
    #[serde(deserialize_with = "lenient")]
    pub start_interval: i64,
    /// So many failures in a row mean unhealthy.
    #[serde(deserialize_with = "lenient")]
    pub retries: i64,
}

/// The layers of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type", deserialize_with = "lenient")]
    pub kind: String,
    /// The lowest layer first.
    #[serde(deserialize_with = "lenient")]
    pub diff_ids: Vec<DiffId>,
}

/// One step of an image's making, the oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    /// RFC 3339, as written.
    pub created: Option<String>,
    /// Who did it.
    #[serde(deserialize_with = "lenient")]
    pub author: String,
    /// The command.
    #[serde(deserialize_with = "lenient")]
    pub created_by: String,
    /// A message.
    #[serde(deserialize_with = "lenient")]
    pub comment: String,
    /// It made no layer.
    #[serde(deserialize_with = "lenient")]
    pub empty_layer: bool,
}

/// Go's JSON reader takes `null` for any value; so do documents in the field.
fn lenient<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
