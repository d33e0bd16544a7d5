//! The details of failures from which BuildKit's clients make the excerpt of the Dockerfile, the failed step and the
//! exit status. They travel as JSON, each under a name of its own.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::pb::Any;

/// Where in which file: clients print the lines around it.
#[must_use]
pub fn source(filename: &str, data: &[u8], language: &str, lines: &[(usize, usize)]) -> Any {
    let ranges: Vec<_> = lines
        .iter()
        .map(|(first, last)| json!({ "start": { "line": first }, "end": { "line": last } }))
        .collect();
    let mut info = json!({ "filename": filename, "data": STANDARD.encode(data) });
    if let Some(fields) = info.as_object_mut().filter(|_| !language.is_empty()) {
        fields.insert("language".into(), language.into());
    }
    detail("errdefs.Source", &json!({ "info": info, "ranges": ranges }))
}

/// Which step.
#[must_use]
pub fn vertex(digest: &str) -> Any {
    detail("errdefs.Vertex", &json!({ "digest": digest }))
}

/// With which status a step's process ended.
#[must_use]
pub fn exit(code: u32) -> Any {
    detail("gatewayapi.ExitMessage", &json!({ "Code": code }))
}

/// Which front end refused.
#[must_use]
pub fn frontend(name: &str) -> Any {
    detail("errdefs.Frontend", &json!({ "name": name }))
}

/// That the front end does not know a request.
#[must_use]
pub fn subrequest(name: &str) -> Any {
    detail("errdefs.Subrequest", &json!({ "name": name }))
}

fn detail(name: &str, value: &serde_json::Value) -> Any {
    Any { type_url: format!("github.com/moby/buildkit/{name}+json"), value: value.to_string().into_bytes() }
}
