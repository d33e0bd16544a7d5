//! `DELETE /images/{name}` and `POST /images/prune`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};

use hyper::StatusCode;
use serde::Serialize;
use wherry_image_store::{Image, ImageId, Removed, chain_ids};

use super::list::created_ns;
use super::{platform, when};
use crate::engine::{Engine, blocking};
use crate::error::Error;
use crate::server::filters::Filters;
use crate::server::{ApiVersion, Reply, Request, response};

/// Held while images are pruned.
static PRUNING: Mutex<()> = Mutex::new(());

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
    if name.trim().is_empty() {
        return Err(Error::InvalidParameter("image name cannot be blank".into()));
    }
    if request.version >= ApiVersion(1, 50) {
        let platforms =
            request.query.all("platforms").map(platform::decode).collect::<Result<Vec<_>, _>>()?;
        match platforms.as_slice() {
            [] => {}
            [one] => platform::find(&engine, &name, Some(one)).map(|_| ())?,
            _ => return Err(Error::InvalidParameter("multiple platforms are not supported".into())),
        }
    }
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
        _ => return Err(Error::server("more than one until filter specified")),
    };
    let pruned = blocking(move || {
        let Ok(_one_at_a_time) = PRUNING.try_lock() else {
            return Err(Error::Conflict("a prune operation is already running".into()));
        };
        let pruned = prune_all(&engine, &filters, dangling_only, until_ns);
        let attributes = BTreeMap::from([("reclaimed".to_owned(), pruned.space_reclaimed.to_string())]);
        engine.events.publish("image", "prune", "", attributes);
        Ok(pruned)
    })
    .await?;
    Ok(response::json(StatusCode::OK, &pruned).into())
}

fn prune_all(engine: &Engine, filters: &Filters, dangling_only: bool, until_ns: Option<i64>) -> Pruned {
    let images = engine.store.images();
    let sizes = layer_sizes(engine, &images);
    let parents: HashSet<ImageId> = images.iter().filter_map(|image| image.parent).collect();
    let mut lines = Vec::new();
    for image in &images {
        let is_named = !image.repo_tags.is_empty() || !image.repo_digests.is_empty();
        let is_base = parents.contains(&image.id) && (dangling_only || !is_named);
        let too_young = until_ns.is_some_and(|limit| created_ns(image).is_none_or(|ns| ns > limit));
        let no_labels = BTreeMap::new();
        let labels = image.config().labels.as_ref().unwrap_or(&no_labels);
        // Digests alone do not keep an image.
        let keeps_its_names = dangling_only && !image.repo_tags.is_empty();
        if !is_base && !too_young && !keeps_its_names && filters.labels(labels) {
            remove_all_names(engine, image, &mut lines);
        }
    }
    let deleted = lines.iter().filter_map(|line| match line {
        Line::Deleted(id) => sizes.get(id),
        Line::Untagged(_) => None,
    });
    let space_reclaimed = deleted.sum();
    Pruned { images_deleted: Some(lines).filter(|lines| !lines.is_empty()), space_reclaimed }
}

/// What there is not any more when a layer, with all below it, is deleted: its size by the name that the answer has.
fn layer_sizes(engine: &Engine, images: &[Arc<Image>]) -> HashMap<String, u64> {
    let layers =
        images.iter().flat_map(|image| chain_ids(image.diff_ids()).into_iter().zip(image.diff_ids()));
    layers.map(|(chain, layer)| (chain.to_string(), engine.store.layer_size(layer).unwrap_or(0))).collect()
}

/// Name by name, as dockerd does: an image that a container uses loses all but one. Conflicts are no errors here.
fn remove_all_names(engine: &Engine, image: &Image, lines: &mut Vec<Line>) {
    let mut names: Vec<String> = image.repo_tags.iter().chain(&image.repo_digests).cloned().collect();
    if names.is_empty() {
        names = vec![image.id.0.hex().to_string()];
    }
    for name in names {
        if let Err(error) = remove_one(engine, &name, false, false, lines) {
            tracing::debug!(name, %error, "not pruned");
        }
    }
}
