//! `DELETE /images/{name}` and `POST /images/prune`.

use std::collections::BTreeMap;
use std::sync::Arc;

use hyper::StatusCode;
use serde::Serialize;
use wherry_image_store::{Image, Removed};

use super::list::created_ns;
use super::when;
use crate::engine::{Engine, blocking};
use crate::error::Error;
use crate::server::filters::Filters;
use crate::server::{Reply, Request, response};

/// One line of the answer.
#[derive(Debug, Serialize)]
enum Line {
    Untagged(String),
    Deleted(String),
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Pruned {
    images_deleted: Option<Vec<Line>>,
    space_reclaimed: u64,
}

pub(super) async fn remove(engine: Arc<Engine>, name: String, request: &Request) -> Result<Reply, Error> {
    let (force, noprune) = (request.query.flag("force"), request.query.flag("noprune"));
    let lines = blocking(move || {
        let mut lines = Vec::new();
        remove_one(&engine, &name, force, noprune, &mut lines)?;
        Ok(lines)
    })
    .await?;
    Ok(response::json(StatusCode::OK, &lines).into())
}

/// Removes a name or image, publishes what happened, and adds it to `lines`.
fn remove_one(
    engine: &Engine,
    name: &str,
    force: bool,
    noprune: bool,
    lines: &mut Vec<Line>,
) -> Result<(), wherry_image_store::Error> {
    // Events carry labels, which are gone with the image.
    let image = engine.store.resolve(name).and_then(|id| engine.store.image(&id)).ok();
    let (removed, result) = engine.store.remove(name, force, noprune, &|id| super::users(engine, id));
    for removed in removed {
        lines.push(match removed {
            Removed::Untagged { reference, image: id, event } => {
                if event {
                    let known = image.as_ref().filter(|image| image.id == id);
                    let labels = known.and_then(|image| image.config().labels.clone());
                    super::publish_with(engine, "untag", &id, &id.to_string(), labels.unwrap_or_default());
                }
                Line::Untagged(reference.familiar())
            }
            Removed::Deleted(id) => {
                super::publish(engine, "delete", &id, &id.to_string());
                Line::Deleted(id.to_string())
            }
            Removed::DeletedLayer(chain) => Line::Deleted(chain.to_string()),
        });
    }
    result
}

/// Removes images that no container uses: those without names, or with `dangling=false` all.
pub(super) async fn prune(engine: Arc<Engine>, request: &Request) -> Result<Reply, Error> {
    let filters = Filters::parse(request.query.get("filters"), &["dangling", "label", "label!", "until"])?;
    let dangling_only = filters.boolean("dangling")?.unwrap_or(true);
    let until_ns = match filters.values("until") {
        [] => None,
        [one] => Some(when::until(one)?),
        _ => return Err(Error::InvalidParameter("more than one until filter specified".into())),
    };
    let pruned = blocking(move || {
        let before = layer_bytes(&engine);
        let mut lines = Vec::new();
        for image in engine.store.images() {
            if is_prunable(&engine, &image, &filters, dangling_only, until_ns) {
                remove_all_names(&engine, &image, dangling_only, &mut lines);
            }
        }
        let after = layer_bytes(&engine);
        engine.events.publish(
            "image",
            "prune",
            "",
            BTreeMap::from([("reclaimed".to_owned(), before.saturating_sub(after).to_string())]),
        );
        let images_deleted = Some(lines).filter(|lines| !lines.is_empty());
        Ok(Pruned { images_deleted, space_reclaimed: before.saturating_sub(after) })
    })
    .await?;
    Ok(response::json(StatusCode::OK, &pruned).into())
}

fn is_prunable(
    engine: &Engine,
    image: &Image,
    filters: &Filters,
    dangling_only: bool,
    until_ns: Option<i64>,
) -> bool {
    let no_labels = BTreeMap::new();
    let too_young = until_ns.is_some_and(|limit| created_ns(image).is_none_or(|ns| ns > limit));
    let named = !image.repo_tags.is_empty() || !image.repo_digests.is_empty();
    !too_young
        && filters.labels(image.config().labels.as_ref().unwrap_or(&no_labels))
        && !(dangling_only && named)
        && super::users(engine, &image.id).is_empty()
}

/// Conflicts are no errors here: the image is then needed after all.
fn remove_all_names(engine: &Engine, image: &Image, dangling_only: bool, lines: &mut Vec<Line>) {
    let mut names: Vec<String> = image.repo_tags.iter().chain(&image.repo_digests).cloned().collect();
    if names.is_empty() || dangling_only {
        names = vec![image.id.to_string()];
    }
    for name in names {
        if let Err(error) = remove_one(engine, &name, false, false, lines) {
            tracing::debug!(name, %error, "not pruned");
        }
    }
}

fn layer_bytes(engine: &Engine) -> u64 {
    engine.store.layers_bytes()
}
