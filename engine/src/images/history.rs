//! `GET /images/{name}/history`.

use hyper::StatusCode;
use serde::Serialize;

use super::platform;
use crate::clock;
use crate::engine::Engine;
use crate::error::Error;
use crate::server::{Reply, Request, response};

/// One step, in dockerd's order of fields.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Step {
    comment: String,
    /// Seconds since the epoch.
    created: i64,
    created_by: String,
    id: String,
    size: u64,
    tags: Option<Vec<String>>,
}

pub(super) fn history(engine: &Engine, name: &str, request: &Request) -> Result<Reply, Error> {
    let image = platform::find(engine, name, platform::asked(request)?.as_ref())?;
    let mut layers = image.diff_ids().iter();
    let mut steps = Vec::new();
    for entry in &image.document.history {
        let mut size = 0;
        if !entry.empty_layer {
            let layer =
                layers.next().ok_or_else(|| Error::server("too many non-empty layers in History section"))?;
            size = engine.store.layer_size(layer).unwrap_or(0);
        }
        let created = entry.created.as_deref().and_then(clock::parse_rfc3339);
        steps.push(Step {
            comment: entry.comment.clone(),
            created: created.map_or(0, |ns| ns.div_euclid(1_000_000_000)),
            created_by: entry.created_by.clone(),
            id: "<missing>".into(),
            size,
            tags: None,
        });
    }
    steps.reverse();
    // Steps of images that were built here have ids of their own.
    let mut next = Some(image);
    for step in &mut steps {
        let Some(image) = next else { break };
        step.id = image.id.to_string();
        step.tags = Some(image.repo_tags.clone()).filter(|tags| !tags.is_empty());
        next = image.parent.and_then(|parent| engine.store.image(&parent).ok());
    }
    Ok(response::json(StatusCode::OK, &steps).into())
}
