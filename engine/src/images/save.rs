//! `GET /images/get` and `GET /images/{name}/get`: images as a tar.

use std::sync::Arc;

use wherry_image_ref::Reference;
use wherry_image_store::{Error as StoreError, ImageId, Saved};

use super::body::Archive;
use super::platform;
use crate::engine::Engine;
use crate::error::Error;
use crate::server::{Reply, Request, response};

pub(super) fn save(engine: Arc<Engine>, names: &[&str], request: &Request) -> Result<Reply, Error> {
    let platform = platform::asked(request)?;
    let mut images: Vec<Saved> = Vec::new();
    for name in names {
        for (id, reference) in find(&engine, name)? {
            let known = images.iter().position(|saved| saved.id == id);
            let at = known.unwrap_or_else(|| {
                images.push(Saved { id, references: Vec::new() });
                images.len() - 1
            });
            if let (Some(saved), Some(reference)) = (images.get_mut(at), reference)
                && !saved.references.contains(&reference)
            {
                saved.references.push(reference);
            }
        }
    }
    for saved in &images {
        let image = engine.store.image(&saved.id)?;
        let document = &image.document;
        if let Some(platform) = &platform
            && !platform::is(platform, &document.os, &document.architecture, &document.variant)
        {
            let message = format!("no suitable export target found for platform {platform}");
            return Err(Error::server(message));
        }
    }
    let (sender, response) = response::whole("application/x-tar");
    tokio::task::spawn_blocking(move || {
        let archive = Archive::new(sender);
        match engine.store.save(&images, archive.writer()) {
            Ok(()) => {
                archive.finish();
                for image in &images {
                    super::publish(&engine, "save", &image.id, &image.id.to_string());
                }
            }
            // The head is sent; all that can be done is to break the connection.
            Err(error) => tracing::warn!(%error, "save ended early"),
        }
    });
    Ok(response.into())
}

/// An id stands for the image without names, a repository for all of its tags.
fn find(engine: &Engine, name: &str) -> Result<Vec<(ImageId, Option<Reference>)>, Error> {
    let id = engine.store.resolve(name);
    if let Ok(id) = &id
        && (id.to_string().starts_with(name) || id.0.hex().starts_with(name))
    {
        return Ok(vec![(*id, None)]);
    }
    let reference: Reference = name.parse().map_err(StoreError::Reference)?;
    let missing = || StoreError::NoSuchImage(name.to_owned());
    if !reference.is_name_only() {
        let id = id.map_err(|_| Error::NotFound("reference does not exist".into()))?;
        return Ok(vec![(id, Some(reference).filter(|reference| reference.digest().is_none()))]);
    }
    let tags = engine.store.references().into_iter();
    let tags = tags.filter(|(other, _)| other.tag().is_some() && other.name_only() == reference);
    let found: Vec<_> = tags.map(|(tag, id)| (id, Some(tag))).collect();
    if found.is_empty() { Ok(vec![(id.map_err(|_| missing())?, None)]) } else { Ok(found) }
}
