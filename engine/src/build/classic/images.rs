//! The classic builder's images, one for each instruction: making them, and finding those that were made before.
//!
//! They are its cache: an instruction's image is a child of the one before it, and says in its document which command and which
//! configuration it was made with. So the cache survives everything that images survive, and goes with them.

use std::sync::Arc;

use serde_json::Value;
use wherry_image_store::{Document, Image, ImageId, Layer, NewImage};
use wherry_registry::Platform;

use crate::containers::config::Config;
use crate::engine::Engine;
use crate::error::Error;
use crate::images::document::{Child, is_empty_layer};

/// An image to be made.
pub(super) struct Made<'a> {
    pub(super) parent: Option<&'a Arc<Image>>,
    /// The container's id, if there was one.
    pub(super) container: &'a str,
    /// What it was, or would have been, run with.
    pub(super) container_config: &'a Config,
    /// What containers of the image inherit.
    pub(super) config: &'a Config,
    pub(super) author: &'a str,
    /// What the instruction has written.
    pub(super) layer: Option<Layer>,
    /// What an image without a parent is for; `None` for this host.
    pub(super) platform: Option<&'a Platform>,
}

/// Puts an image into the store. It could be built again, so nobody waits for the disk. Blocking.
///
/// # Errors
/// The store's.
pub(super) fn make(engine: &Engine, made: Made<'_>) -> Result<Arc<Image>, Error> {
    let store = &engine.store;
    let (document, raw) = of_parent(engine, &made)?;
    let mut layers = store.hold_layers(&document.rootfs.diff_ids)?;
    // What is not an instruction of files has no layer; one of files that changed none has none either.
    let layer = made.layer.filter(|layer| !is_empty_layer(layer.diff_id()));
    let child = Child {
        container: made.container,
        container_config: made.container_config,
        config: made.config,
        author: made.author,
        comment: "",
        layer: layer.as_ref().map(Layer::diff_id),
    };
    let config = child.document(&raw, &document);
    layers.extend(layer);
    commit(engine, &config, &layers, made.parent)
}

fn commit(
    engine: &Engine,
    config: &[u8],
    layers: &[Layer],
    parent: Option<&Arc<Image>>,
) -> Result<Arc<Image>, Error> {
    let parent = parent.map(|parent| parent.id);
    let new = NewImage { config, layers, names: &[], parent, tagged: false, fetched: true };
    Ok(engine.store.commit_built(&new)?)
}

fn of_parent(engine: &Engine, made: &Made<'_>) -> Result<(Document, Vec<u8>), Error> {
    if let Some(parent) = made.parent {
        return Ok(((*parent.document).clone(), engine.store.raw_config(&parent.id)?));
    }
    let mut document = Document { os: "linux".into(), ..Document::default() };
    if let Some(platform) = made.platform {
        document.architecture.clone_from(&platform.architecture);
        document.variant.clone_from(&platform.variant);
    }
    Ok((document, b"{}".to_vec()))
}

/// The image that was made of `parent` (`None` is scratch) with this configuration before; the newest, if there are several. Images
/// from elsewhere are none of them: their documents can say anything. Blocking.
pub(super) fn known(
    engine: &Engine,
    parent: Option<&Arc<Image>>,
    container_config: &Config,
    platform: Option<&Platform>,
) -> Option<Arc<Image>> {
    let parent = parent.map(|parent| parent.id);
    let wanted = comparable(serde_json::to_value(container_config).ok()?);
    let host = Platform::host();
    let architecture = &platform.unwrap_or(&host).architecture;
    let children = engine.store.images().into_iter().filter(|image| {
        // One with a parent is for what that is for.
        let fits = parent.is_some() || image.document.architecture == *architecture;
        image.built && image.parent == parent && fits
    });
    let same = children.filter(|image| made_with(engine, &image.id).is_some_and(|made| made == wanted));
    same.max_by(|a, b| a.document.created.cmp(&b.document.created))
}

/// The configuration that an image was made with.
fn made_with(engine: &Engine, id: &ImageId) -> Option<Value> {
    let mut document: Value = serde_json::from_slice(&engine.store.raw_config(id).ok()?).ok()?;
    Some(comparable(document.get_mut("container_config")?.take()))
}

/// Without what differs between containers that do the same.
fn comparable(mut config: Value) -> Value {
    if let Some(fields) = config.as_object_mut() {
        fields.remove("Hostname");
        fields.retain(|_, value| {
            !(value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty))
        });
    }
    config
}

/// The image that one of `sources` shows how to make of `parent`. If it was built here, that is what was made then; else its
/// history and layers must begin as the parent's, and go on with the same command: it is the source itself if that ends so,
/// or put into the store as if it had been made here. Blocking.
///
/// # Errors
/// The store's.
pub(super) fn from_sources(
    engine: &Engine,
    sources: &[Arc<Image>],
    made: &Made<'_>,
) -> Result<Option<Arc<Image>>, Error> {
    let own = known(engine, made.parent, made.container_config, made.platform);
    if let Some(own) = own.filter(|own| sources.iter().any(|source| descends(engine, source, own))) {
        return Ok(Some(own));
    }
    let (document, _) = of_parent(engine, made)?;
    let command = made.container_config.cmd.clone().unwrap_or_default().join(" ");
    let (steps, layers) = (document.history.len(), document.rootfs.diff_ids.len());
    for source in sources {
        let other = &source.document;
        let begins_so = other.history.get(..steps).is_some_and(|history| {
            history.iter().zip(&document.history).all(|(a, b)| a.created_by == b.created_by)
        }) && other.rootfs.diff_ids.get(..layers) == Some(&document.rootfs.diff_ids);
        let next = other.history.get(steps).filter(|next| begins_so && next.created_by == command);
        let Some(next) = next else { continue };
        if other.history.len() == steps + 1 {
            return Ok(Some(source.clone()));
        }
        let layer = match next.empty_layer {
            true => None,
            false => other.rootfs.diff_ids.get(layers).and_then(|id| engine.store.layer(id)),
        };
        if layer.is_none() && !next.empty_layer {
            continue;
        }
        let again = Made { layer, parent: made.parent, ..*made };
        return make(engine, again).map(Some);
    }
    Ok(None)
}

/// Whether `image` was made of `ancestor` in some steps, or none.
fn descends(engine: &Engine, image: &Arc<Image>, ancestor: &Image) -> bool {
    let mut at = Some(image.clone());
    while let Some(image) = at {
        if image.id == ancestor.id {
            return true;
        }
        at = image.parent.and_then(|parent| engine.store.image(&parent).ok());
    }
    false
}
