//! `GET /distribution/{name}/json`: what a registry has under a name, without pulling it.

use std::sync::Arc;

use hyper::StatusCode;
use serde_json::{Value, json};
use wherry_image_ref::{Digest, Reference};
use wherry_registry::{Access, Error as Failure, Repository};

use super::registry_error::translate;
use super::{credentials, registry};
use crate::engine::Engine;
use crate::error::Error;
use crate::server::{Reply, Request, response};

const MAX_CONFIG_BYTES: usize = 8 << 20;

pub(super) async fn inspect(engine: Arc<Engine>, name: &str, request: &Request) -> Result<Reply, Error> {
    let reference = name.parse::<Reference>().map_err(wherry_image_store::Error::Reference)?.or_latest();
    let credentials = credentials::of(request);
    let client = registry::client(&engine, request);
    let mut last = None;
    for endpoint in registry::policy(&engine).endpoints(reference.domain()).await {
        let connected =
            Repository::connect(&client, &endpoint, reference.path(), &credentials, Access::Pull).await;
        match connected {
            Ok(repository) => match describe(&repository, &reference).await {
                Ok(found) => return Ok(response::json(StatusCode::OK, &found).into()),
                Err(failure) if endpoint.mirror => last = Some(failure),
                Err(failure) => return Err(refusal(&failure, &reference)),
            },
            Err(failure) => last = Some(failure),
        }
    }
    Err(last.map_or_else(|| Error::server("no endpoints"), |failure| refusal(&failure, &reference)))
}

fn refusal(failure: &Failure, reference: &Reference) -> Error {
    match failure.api() {
        Some(_) => Error::Forbidden(failure.to_string()),
        None => translate(failure, reference),
    }
}

async fn describe(repository: &Repository, reference: &Reference) -> Result<Value, Failure> {
    let digest = match reference.digest() {
        Some(digest) => *digest,
        None => repository.resolve(reference.tag().unwrap_or(wherry_image_ref::DEFAULT_TAG)).await?.digest,
    };
    let body = repository.manifest(&digest).await?;
    let document: Value = serde_json::from_slice(&body).map_err(|e| Failure::Manifest(e.to_string()))?;
    let platforms = match document.get("manifests").and_then(Value::as_array) {
        Some(manifests) => {
            manifests.iter().filter_map(|manifest| manifest.get("platform").cloned()).collect()
        }
        None => vec![platform(repository, &document).await?],
    };
    Ok(json!({
        "Descriptor": {
            "mediaType": document.get("mediaType").cloned().unwrap_or_default(),
            "digest": digest,
            "size": body.len(),
        },
        "Platforms": platforms,
    }))
}

/// Operating system and processor of a single image, from its configuration.
async fn platform(repository: &Repository, manifest: &Value) -> Result<Value, Failure> {
    let digest = manifest.pointer("/config/digest").and_then(Value::as_str);
    let digest = digest.and_then(|text| text.parse::<Digest>().ok());
    let digest = digest.ok_or_else(|| Failure::Manifest("it has no configuration".into()))?;
    let config = repository.small_blob(&digest, MAX_CONFIG_BYTES).await?;
    let config: Value = serde_json::from_slice(&config).map_err(|e| Failure::Manifest(e.to_string()))?;
    let mut platform = serde_json::Map::new();
    for field in ["architecture", "os", "os.version", "variant"] {
        if let Some(value) =
            config.get(field).filter(|value| value.as_str().is_some_and(|text| !text.is_empty()))
        {
            platform.insert(field.to_owned(), value.clone());
        }
    }
    Ok(platform.into())
}
