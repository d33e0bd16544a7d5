//! `POST /images/{name}/tag`.

use std::sync::Arc;

use hyper::StatusCode;
use wherry_image_ref::Reference;

use crate::engine::{Engine, blocking};
use crate::error::Error;
use crate::server::{Reply, Request, response};

pub(super) async fn tag(engine: Arc<Engine>, name: String, request: &Request) -> Result<Reply, Error> {
    let Some(reference) = target(request.query.get("repo"), request.query.get("tag"))? else {
        return Ok(response::empty(StatusCode::OK).into());
    };
    if reference.familiar_name() == "sha256" {
        let message = "refusing to create an ambiguous tag using digest algorithm as name";
        return Err(Error::InvalidParameter(message.into()));
    }
    blocking(move || {
        let id = engine.store.resolve(&name)?;
        engine.store.tag(&id, &reference)?;
        super::publish(&engine, "tag", &id, &reference.familiar());
        Ok(())
    })
    .await?;
    Ok(response::empty(StatusCode::CREATED).into())
}

/// Reads `repo` and `tag` as dockerd does for new names: no repository means no name.
///
/// # Errors
/// 400 with dockerd's texts.
pub(crate) fn target(repository: Option<&str>, tag: Option<&str>) -> Result<Option<Reference>, Error> {
    let Some(repository) = repository.filter(|name| !name.is_empty()) else { return Ok(None) };
    let reference: Reference = repository.parse().map_err(wherry_image_store::Error::Reference)?;
    if reference.digest().is_some() {
        return Err(Error::InvalidParameter("cannot import digest reference".into()));
    }
    let reference = match tag.filter(|tag| !tag.is_empty()) {
        Some(tag) => {
            reference.with_tag(tag).map_err(|_| Error::InvalidParameter("invalid tag format".into()))?
        }
        None => reference,
    };
    Ok(Some(reference.or_latest()))
}
