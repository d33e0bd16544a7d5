//! Images: Docker's endpoints over the store and the registry client.
//!
//! Reading handlers look at the store's snapshot, which never waits; all that touches the
//! disk runs on the blocking pool. What lasts (pull, load) is a stream of JSON messages, and
//! ends when its client goes.

mod archive;
mod body;
pub(crate) mod changes;
mod create;
pub(crate) mod credentials;
mod distribution;
pub(crate) mod document;
mod history;
mod import;
mod inspect;
mod layer;
mod list;
pub(crate) mod messages;
mod output;
pub(crate) mod pattern;
mod platform;
mod pull;
mod push;
pub(crate) mod registry;
mod registry_error;
mod remote;
mod remove;
mod save;
mod search;
mod sources;
pub(crate) mod tag;
mod transfers;
pub(crate) mod when;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

pub(crate) use body::{Archive, BlockingBody};
pub(crate) use create::{Pulled, pull_for_build};
pub(crate) use list::summaries;
pub(crate) use pull::Stop;
pub(crate) use remote::{Documents, FoundImage, MAX_CONFIG_BYTES, MAX_MANIFEST_BYTES, Remote, image_of};
use wherry_image_ref::Reference;
use wherry_image_store::{ImageId, Store};

use crate::engine::Engine;
use crate::error::Error;
use crate::router::Route;
use crate::server::{Reply, Request};

/// What all pulls and pushes share.
#[derive(Debug)]
pub(crate) struct Registries {
    downloads: transfers::Transfers<layer::Fetched>,
    uploads: transfers::Transfers<push::Pushed>,
    sources: sources::Sources,
}

impl Registries {
    /// Opens what is kept in `data_root`.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn open(data_root: &Path, store: &Store) -> Result<Self, Error> {
        let sources = sources::Sources::open(data_root, store)?;
        Ok(Self { downloads: Default::default(), uploads: Default::default(), sources })
    }
}

/// Finds the handler of a path below `/images` or `/distribution`.
///
/// # Errors
/// Those of the handlers; `PageNotFound` for other paths.
pub(crate) async fn route(engine: Arc<Engine>, route: &Route, request: Request) -> Result<Reply, Error> {
    let (method, segments) = route.parts();
    match (method, segments.as_slice()) {
        ("GET", ["images", "json"]) => list::list(&engine, &request),
        ("POST", ["images", "create"]) => match request.query.get("fromImage") {
            None | Some("") => import::import(engine, request).await,
            Some(_) => create::create(engine, &request).await,
        },
        ("GET", ["images", "search"]) => search::search(engine, &request).await,
        ("GET", ["distribution", name @ .., "json"]) => {
            distribution::inspect(engine, &name.join("/"), &request).await
        }
        ("GET", ["images", "get"]) => {
            save::save(engine, &request.query.all("names").collect::<Vec<_>>(), &request)
        }
        ("POST", ["images", name @ .., "push"]) => push::push(engine, &name.join("/"), &request).await,
        ("GET", ["images", name @ .., "get"]) => save::save(engine, &[&name.join("/")], &request),
        ("POST", ["images", "load"]) => archive::load(engine, request),
        ("POST", ["images", "prune"]) => remove::prune(engine, &request).await,
        ("GET", ["images", name @ .., "json"]) => inspect::inspect(&engine, &name.join("/"), &request),
        ("GET", ["images", name @ .., "history"]) => history::history(&engine, &name.join("/"), &request),
        ("POST", ["images", name @ .., "tag"]) => tag::tag(engine, name.join("/"), &request).await,
        ("DELETE", ["images", name @ ..]) if !name.is_empty() => {
            remove::remove(engine, name.join("/"), &request).await
        }
        _ => Err(Error::PageNotFound),
    }
}

/// Publishes what happened to an image. `name` is the reference or, as dockerd does for some, the id.
pub(crate) fn publish(engine: &Engine, action: &str, id: &ImageId, name: &str) {
    let labels = engine.store.image(id).ok().and_then(|image| image.config().labels.clone());
    publish_with(engine, action, id, name, labels.unwrap_or_default());
}

fn publish_with(engine: &Engine, action: &str, id: &ImageId, name: &str, labels: BTreeMap<String, String>) {
    let mut attributes = labels;
    attributes.insert("name".into(), name.into());
    engine.events.publish("image", action, id.to_string(), attributes);
}

/// Publishes what happened under a name, as pulls and pushes do.
fn publish_reference(engine: &Engine, action: &str, reference: &Reference) {
    let image = engine.store.resolve(&reference.familiar()).and_then(|id| engine.store.image(&id)).ok();
    let labels = image.and_then(|image| image.config().labels.clone());
    let mut attributes: BTreeMap<String, String> = labels.unwrap_or_default();
    attributes.insert("name".into(), reference.familiar_name());
    engine.events.publish("image", action, reference.familiar(), attributes);
}

/// The containers that use an image.
fn users(engine: &Engine, id: &ImageId) -> Vec<wherry_image_store::User> {
    let id = id.to_string();
    let containers = engine.containers.all().into_iter();
    containers
        .filter(|container| {
            let record = container.record();
            record.image == id || record.mount_extras.values().any(|mount| mount.image == id)
        })
        .map(|container| wherry_image_store::User {
            container: container.id.clone(),
            running: container.status().state.is_running(),
        })
        .collect()
}
