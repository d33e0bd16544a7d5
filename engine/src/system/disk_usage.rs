//! `GET /system/df`.

use std::collections::HashSet;
use std::sync::Arc;

use hyper::StatusCode;
use serde_json::{Value, json};

use crate::build;
use crate::containers;
use crate::engine::{Engine, blocking};
use crate::error::Error;
use crate::images;
use crate::server::{ApiVersion, Filters, Reply, Request, response};
use crate::volumes;

const KINDS: &[&str] = &["container", "image", "volume", "build-cache"];

/// Answers with all kinds of objects, or those that `type` names; the others are null.
pub(super) async fn answer(engine: Arc<Engine>, request: &Request) -> Result<Reply, Error> {
    // Older clients cannot choose.
    let chosen = request.version >= ApiVersion(1, 42);
    let kinds: Vec<String> = request.query.all("type").filter(|_| chosen).map(str::to_string).collect();
    if let Some(unknown) = kinds.iter().find(|kind| !KINDS.contains(&kind.as_str())) {
        return Err(Error::InvalidParameter(format!("unknown object type: {unknown}")));
    }
    let document = blocking(move || {
        let wanted = |kind: &str| kinds.is_empty() || kinds.iter().any(|k| k == kind);
        let part = |kind: &str, value: &dyn Fn() -> Result<Value, Error>| {
            if wanted(kind) { value() } else { Ok(Value::Null) }
        };
        Ok(json!({
            "LayersSize": if wanted("image") { layers_bytes(&engine) } else { 0 },
            "Images": part("image", &|| images_of(&engine))?,
            "Containers": part("container", &|| Ok(containers::usage(&engine)))?,
            "Volumes": part("volume", &|| Ok(json!(volumes::usage(&engine))))?,
            "BuildCache": part("build-cache", &|| Ok(build_cache(&engine)))?,
        }))
    })
    .await?;
    Ok(response::json(StatusCode::OK, &document).into())
}

fn images_of(engine: &Engine) -> Result<Value, Error> {
    let mut summaries = images::summaries(engine, &Filters::default(), false, true)?;
    let containers = engine.containers.all();
    for summary in &mut summaries {
        let id = summary.id.to_string();
        summary.containers = containers.iter().filter(|c| c.record().image == id).count() as i64;
    }
    Ok(json!(summaries))
}

fn build_cache(engine: &Engine) -> Value {
    build::usage::usage(engine).iter().map(build::usage::Usage::to_json).collect()
}

/// Bytes of all layers, each counted once.
fn layers_bytes(engine: &Engine) -> u64 {
    let images = engine.store.images();
    let layers: HashSet<_> = images.iter().flat_map(|image| image.diff_ids()).collect();
    layers.into_iter().filter_map(|layer| engine.store.layer_size(layer)).sum()
}
