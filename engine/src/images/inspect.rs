//! `GET /images/{name}/json`.

use std::collections::BTreeMap;

use hyper::StatusCode;
use serde::Serialize;
use serde_json::{Map, Value, json};
use wherry_image_store::{DiffId, Document, Image, ImageConfig, ImageId};

use super::platform;
use crate::clock;
use crate::engine::Engine;
use crate::error::Error;
use crate::server::{ApiVersion, Reply, Request, response};
use crate::text::go_json;

/// An image in dockerd's order of fields.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Inspect {
    id: ImageId,
    repo_tags: Vec<String>,
    repo_digests: Vec<String>,
    parent: String,
    comment: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    container: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    container_config: Option<Value>,
    docker_version: String,
    author: String,
    architecture: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    variant: String,
    os: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    os_version: String,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    virtual_size: Option<u64>,
    graph_driver: GraphDriver,
    #[serde(rename = "RootFS")]
    root_fs: RootFs,
    metadata: Metadata,
    config: Value,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct GraphDriver {
    data: Option<BTreeMap<&'static str, String>>,
    name: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct RootFs {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    layers: Vec<DiffId>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Metadata {
    last_tag_time: String,
}

pub(super) fn inspect(engine: &Engine, name: &str, request: &Request) -> Result<Reply, Error> {
    let version = request.version;
    let platform =
        request.query.get("platform").filter(|text| !text.is_empty() && version >= ApiVersion(1, 49));
    let platform = platform.map(platform::decode).transpose()?;
    if platform.is_some() && version >= ApiVersion(1, 48) && request.query.flag("manifests") {
        let message = "conflicting options: manifests and platform options cannot both be set";
        return Err(Error::InvalidParameter(message.into()));
    }
    let image = platform::find(engine, name, platform.as_ref())?;
    let document = &image.document;
    let last_tagged = image.last_tagged.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    let created = document.created.as_deref().and_then(clock::parse_rfc3339);
    let inspect = Inspect {
        id: image.id,
        repo_tags: image.repo_tags.clone(),
        repo_digests: image.repo_digests.clone(),
        parent: image.parent.map(|id| id.to_string()).unwrap_or_default(),
        comment: comment(document),
        created: created.map(clock::rfc3339),
        container: if version < ApiVersion(1, 45) { document.container.clone() } else { String::new() },
        container_config: (version < ApiVersion(1, 45)).then(empty_container_config),
        docker_version: document.docker_version.clone(),
        author: document.author.clone(),
        architecture: document.architecture.clone(),
        variant: document.variant.clone(),
        os: document.os.clone(),
        os_version: document.os_version.clone(),
        size: image.size_bytes,
        virtual_size: (version < ApiVersion(1, 44)).then_some(image.size_bytes),
        graph_driver: GraphDriver { data: folders(engine, &image), name: "overlay2" },
        root_fs: RootFs { r#type: "layers", layers: image.diff_ids().to_vec() },
        metadata: Metadata {
            last_tag_time: clock::rfc3339(last_tagged.map_or(0, |since| since.as_nanos() as i64)),
        },
        config: config(image.config(), version),
    };
    // Of all answers this is one whose characters of HTML dockerd escapes.
    let text = go_json(&inspect) + "\n";
    Ok(response::with_type(StatusCode::OK, Some("application/json"), text.into()).into())
}

/// The image's own message, or that of its last step.
fn comment(document: &Document) -> String {
    let last = document.history.last().map(|step| &step.comment);
    Some(&document.comment).filter(|own| !own.is_empty()).or(last).cloned().unwrap_or_default()
}

/// Where the layers are. `MergedDir` and `WorkDir` are what dockerd would use; nothing is mounted there.
fn folders(engine: &Engine, image: &Image) -> Option<BTreeMap<&'static str, String>> {
    let mut layers = image.diff_ids().iter().rev().map(|id| engine.store.layer_diff(id));
    let top = layers.next()?;
    let sibling = |name| top.with_file_name(name).display().to_string();
    let mut data = BTreeMap::from([
        ("MergedDir", sibling("merged")),
        ("UpperDir", top.display().to_string()),
        ("WorkDir", sibling("work")),
    ]);
    let lower: Vec<String> = layers.map(|path| path.display().to_string()).collect();
    if !lower.is_empty() {
        data.insert("LowerDir", lower.join(":"));
    }
    Some(data)
}

/// Without entries, a null.
fn list(entries: Option<&Vec<String>>) -> Value {
    json!(entries.filter(|entries| !entries.is_empty()))
}

/// What containers inherit: some fields are always there, others when they say something. Before 1.50
/// there were fields that only containers have, always empty.
fn config(config: &ImageConfig, version: ApiVersion) -> Value {
    let mut fields = BTreeMap::from([
        ("Cmd", list(config.cmd.as_ref())),
        ("Entrypoint", list(config.entrypoint.as_ref())),
        ("Env", list(config.env.as_ref())),
        ("Labels", json!(config.labels.as_ref().filter(|labels| !labels.is_empty()))),
        ("OnBuild", list(config.on_build.as_ref())),
        ("User", json!(config.user)),
        ("Volumes", json!(config.volumes.as_ref().filter(|volumes| !volumes.is_empty()))),
        ("WorkingDir", json!(config.working_dir)),
    ]);
    if config.args_escaped {
        fields.insert("ArgsEscaped", json!(true));
    }
    if let Some(ports) = config.exposed_ports.as_ref().filter(|ports| !ports.is_empty()) {
        fields.insert("ExposedPorts", json!(ports));
    }
    if let Some(shell) = config.shell.as_ref().filter(|shell| !shell.is_empty()) {
        fields.insert("Shell", json!(shell));
    }
    if !config.stop_signal.is_empty() {
        fields.insert("StopSignal", json!(config.stop_signal));
    }
    if let Some(probe) = &config.healthcheck {
        let numbers = [
            ("Interval", probe.interval),
            ("Retries", probe.retries),
            ("StartInterval", probe.start_interval),
            ("StartPeriod", probe.start_period),
            ("Timeout", probe.timeout),
        ];
        let mut check: BTreeMap<&str, Value> =
            numbers.into_iter().filter(|(_, n)| *n != 0).map(|(name, n)| (name, json!(n))).collect();
        if !probe.test.is_empty() {
            check.insert("Test", json!(probe.test));
        }
        fields.insert("Healthcheck", json!(check));
    }
    if version < ApiVersion(1, 50) {
        for name in ["AttachStderr", "AttachStdin", "AttachStdout", "OpenStdin", "StdinOnce", "Tty"] {
            fields.insert(name, json!(false));
        }
        for name in ["Domainname", "Hostname", "Image"] {
            fields.insert(name, json!(""));
        }
    }
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>().into()
}

/// A field of old clients that meant something when images were commits of containers only.
fn empty_container_config() -> Value {
    json!({
        "Hostname": "", "Domainname": "", "User": "", "AttachStdin": false, "AttachStdout": false,
        "AttachStderr": false, "Tty": false, "OpenStdin": false, "StdinOnce": false, "Env": null, "Cmd": null,
        "Image": "", "Volumes": null, "WorkingDir": "", "Entrypoint": null, "OnBuild": null, "Labels": null,
    })
}
