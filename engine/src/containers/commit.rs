//! `POST /commit`: a container's file system and configuration become an image.

use std::collections::BTreeMap;
use std::sync::Arc;

use hyper::StatusCode;
use serde_json::{Value, json};
use wherry_image_store::{ImageConfig, ImageId, NewImage};

use super::config::Config;
use super::record::Record;
use super::state::State;
use super::table::Container;
use super::{control, create};
use crate::engine::{Engine, blocking};
use crate::error::Error;
use crate::images;
use crate::server::{Reply, Request, response};

/// What a client asked for.
struct Asked {
    author: String,
    comment: String,
    changes: Vec<String>,
    /// A configuration that takes the container's place.
    config: Option<Config>,
}

/// Makes an image of a container. It is paused meanwhile, unless `pause=0`.
///
/// # Errors
/// 400 for changes that make no sense, 404 for a missing container, 409 for one that is being removed.
pub(crate) async fn commit(engine: Arc<Engine>, mut request: Request) -> Result<Reply, Error> {
    let text = |name| request.query.get(name).unwrap_or_default().to_owned();
    let (repository, tag) = (text("repo"), text("tag"));
    let (author, comment, reference) = (text("author"), text("comment"), text("container"));
    let changes: Vec<String> = request.query.all("changes").map(str::to_owned).collect();
    let pause = request.query.flag_or("pause", true);
    let config = read_config(&mut request).await?;
    let target = images::tag::target(Some(&repository), Some(&tag))?;
    if reference.is_empty() {
        return Err(Error::InvalidParameter("invalid name or ID supplied: \"\"".into()));
    }
    let container = engine.containers.find(&reference)?;
    super::changes::must_stay(&container, "commit")?;
    let asked = Asked { author, comment, changes, config };
    let paused = pause && matches!(container.status().state, State::Running { paused: false, .. });
    // As in dockerd a container that cannot be paused is committed as it is.
    let paused = paused && control::handle_pause(container.clone(), true).await.is_ok();
    let made = make(&engine, &container, asked, target).await;
    if paused && let Err(error) = control::handle_pause(container.clone(), false).await {
        tracing::warn!(container = container.id, %error, "cannot resume it after its commit");
    }
    let id = made?;
    Ok(response::json(StatusCode::CREATED, &json!({ "Id": id })).into())
}

/// The body, if there is one that says something.
async fn read_config(request: &mut Request) -> Result<Option<Config>, Error> {
    let body: Option<Value> = request.typed_optional_json().await?;
    match body {
        None | Some(Value::Null) => Ok(None),
        Some(body) => create::read_config(body),
    }
}

async fn make(
    engine: &Arc<Engine>,
    container: &Arc<Container>,
    asked: Asked,
    target: Option<wherry_image_ref::Reference>,
) -> Result<ImageId, Error> {
    let record = container.record();
    let config = merged(&record, &asked)?;
    let comment = asked.comment.clone();
    let (task_engine, name) = (engine.clone(), target.clone());
    let id = blocking(move || {
        let engine = &task_engine;
        let id = store(engine, &record, &config, &asked)?;
        images::publish(engine, "create", &id, &id.to_string());
        if let Some(name) = &name {
            engine.store.tag(&id, name)?;
            images::publish(engine, "tag", &id, &name.familiar());
        }
        Ok(id)
    })
    .await?;
    let attributes = BTreeMap::from([
        ("comment".to_owned(), comment),
        ("imageID".to_owned(), id.to_string()),
        ("imageRef".to_owned(), target.map(|name| name.familiar()).unwrap_or_default()),
    ]);
    super::publish_with(engine, container, "commit", attributes);
    Ok(id)
}

/// The changes applied to what was given, and what is then still open filled in from the container.
fn merged(record: &Record, asked: &Asked) -> Result<Config, Error> {
    let mut config = asked.config.clone().unwrap_or_else(|| record.config.clone());
    images::changes::apply(&mut config, &asked.changes)?;
    let container = serde_json::to_value(&record.config).and_then(serde_json::from_value::<ImageConfig>);
    let container =
        container.map_err(|error| Error::server(format!("configuration of {}: {error}", record.id)))?;
    create::inherit(&mut config, &container);
    Ok(config)
}

/// Puts layer and document into the store. Blocking.
fn store(engine: &Engine, record: &Record, config: &Config, asked: &Asked) -> Result<ImageId, Error> {
    let parent = engine.store.image(&engine.store.resolve(&record.image)?)?;
    let mut layers = Vec::with_capacity(parent.diff_ids().len() + 1);
    for diff_id in parent.diff_ids() {
        let layer = engine.store.layer(diff_id);
        layers.push(layer.ok_or(wherry_image_store::Error::NoSuchLayer(*diff_id))?);
    }
    let layer = engine.store.layer_of_writable(&record.id)?;
    let diff_id = Some(layer.diff_id()).filter(|id| !images::document::is_empty_layer(*id));
    if diff_id.is_some() {
        layers.push(layer);
    }
    let child = images::document::Child {
        container: &record.id,
        container_config: &record.config,
        config,
        author: &asked.author,
        comment: &asked.comment,
        layer: diff_id,
    };
    let document = child.document(&engine.store.raw_config(&parent.id)?, &parent.document);
    let new = NewImage {
        config: &document,
        layers: &layers,
        names: &[],
        parent: Some(parent.id),
        tagged: false,
        fetched: false,
    };
    Ok(engine.store.commit(&new)?.id)
}
