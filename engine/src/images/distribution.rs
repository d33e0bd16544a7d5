//! `GET /distribution/{name}/json`: what a registry has under a name, without pulling it.

use std::sync::Arc;

use hyper::StatusCode;
use serde_json::{Value, json};
use wherry_image_ref::{Digest, Reference, ReferenceError};
use wherry_registry::{Access, Error as Failure, ManifestDocument, Repository};

use super::registry::{Asked, Endpoints};
use super::registry_error::{plain, translate};
use super::{credentials, registry};
use crate::engine::Engine;
use crate::error::Error;
use crate::server::{Reply, Request, response};

const MAX_CONFIG_BYTES: usize = 8 << 20;

pub(super) async fn inspect(engine: Arc<Engine>, name: &str, request: &Request) -> Result<Reply, Error> {
    let reference = name.parse::<Reference>().map_err(|error| match error {
        ReferenceError::LooksLikeId(_) => Error::server("no manifest found for full image ID"),
        error => wherry_image_store::Error::Reference(error).into(),
    })?;
    let reference = reference.or_latest();
    let (client, policy) = (registry::client(&engine, request), registry::policy(&engine));
    let credentials = &credentials::of(request);
    let asked = Asked { client: &client, policy: &policy, credentials, reference: &reference };
    let tell = |failure: &Failure| refusal(failure, &reference);
    let mut endpoints = Endpoints::new(asked, Access::Pull, &reference.familiar(), tell).await;
    while let Some(repository) = endpoints.next().await {
        match describe(&repository, &reference).await {
            Ok(found) => return Ok(response::json(StatusCode::OK, &found).into()),
            Err(failure) => endpoints.passed(tell(&failure)),
        }
    }
    Err(endpoints.into_last())
}

/// The registry's own words are not made more of than they say.
fn refusal(failure: &Failure, reference: &Reference) -> Error {
    match failure.api() {
        Some(_) => plain(failure, failure.to_string()),
        None => translate(failure, reference),
    }
}

async fn describe(repository: &Repository, reference: &Reference) -> Result<Value, Failure> {
    let digest = match reference.digest() {
        Some(digest) => *digest,
        None => repository.resolve(reference.tag().unwrap_or(wherry_image_ref::DEFAULT_TAG)).await?.digest,
    };
    let body = repository.manifest(&digest).await?;
    let document = ManifestDocument::parse(&body)?;
    if document.is_schema_one() {
        return Err(Failure::SchemaOne);
    }
    let value: Value = serde_json::from_slice(&body).map_err(|e| Failure::Manifest(e.to_string()))?;
    Ok(json!({
        "Descriptor": { "mediaType": document.media_type(), "digest": digest, "size": body.len() },
        "Platforms": platforms(repository, &document, &value).await,
    }))
}

/// All of a list; the one of an image in Docker's format. As with dockerd, what cannot be known is null.
async fn platforms(repository: &Repository, document: &ManifestDocument, value: &Value) -> Value {
    if let Some(manifests) = value.get("manifests").and_then(Value::as_array) {
        let platforms = manifests.iter().map(|manifest| platform(manifest.get("platform")));
        return if manifests.is_empty() { Value::Null } else { platforms.collect() };
    }
    if document.media_type() != wherry_registry::Manifest::DOCKER_TYPE {
        return Value::Null;
    }
    let digest = value.pointer("/config/digest").and_then(Value::as_str);
    let Some(digest) = digest.and_then(|text| text.parse::<Digest>().ok()) else { return Value::Null };
    let Ok(config) = repository.small_blob(&digest, MAX_CONFIG_BYTES).await else { return Value::Null };
    let Ok(config) = serde_json::from_slice::<Value>(&config) else { return Value::Null };
    let says = |field: &str| config.get(field).and_then(Value::as_str).is_some_and(|text| !text.is_empty());
    if says("os") || says("architecture") { json!([platform(Some(&config))]) } else { Value::Null }
}

/// The fields of a platform, in dockerd's order.
fn platform(from: Option<&Value>) -> Value {
    let field = |name: &str| from.and_then(|from| from.get(name)).cloned();
    let mut platform = serde_json::Map::new();
    for name in ["architecture", "os"] {
        platform.insert(name.to_owned(), field(name).unwrap_or_else(|| "".into()));
    }
    for name in ["os.version", "os.features", "variant"] {
        let value = field(name).filter(|value| !value.is_null() && *value != "" && *value != json!([]));
        platform.extend(value.map(|value| (name.to_owned(), value)));
    }
    platform.into()
}
