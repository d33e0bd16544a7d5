//! `GET /containers/{id}/changes` and `GET /containers/{id}/export`: what a container wrote, and all that it has.

use std::sync::Arc;

use hyper::StatusCode;
use serde::Serialize;
use wherry_image_store::Change;

use super::state::State;
use super::table::Container;
use crate::engine::{Engine, blocking};
use crate::error::Error;
use crate::images::Archive;
use crate::server::{Reply, response};

/// A changed path, as the API has it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Shown {
    path: String,
    kind: u8,
}

pub(super) async fn changes(engine: Arc<Engine>, container: Arc<Container>) -> Result<Reply, Error> {
    let changes = blocking(move || Ok(engine.store.changes(&container.id)?)).await?;
    let show = |change: &Change| Shown {
        path: String::from_utf8_lossy(&change.path).into_owned(),
        kind: change.kind as u8,
    };
    let shown: Vec<Shown> = changes.iter().map(show).collect();
    // dockerd's list without entries is a null.
    let shown = Some(shown).filter(|shown| !shown.is_empty());
    Ok(response::json(StatusCode::OK, &shown).into())
}

/// Refuses to read a container that is going.
///
/// # Errors
/// 409 with dockerd's text.
pub(super) fn must_stay(container: &Container, verb: &str) -> Result<(), Error> {
    let word = match container.status().state {
        State::Dead => "Dead",
        State::Removing => "being removed",
        _ => return Ok(()),
    };
    Err(Error::Conflict(format!("You cannot {verb} container {} which is {word}", container.id)))
}

pub(super) fn export(engine: Arc<Engine>, container: Arc<Container>) -> Result<Reply, Error> {
    must_stay(&container, "export")?;
    let (sender, response) = response::whole("application/octet-stream");
    tokio::task::spawn_blocking(move || {
        let archive = Archive::new(sender);
        match engine.store.export(&container.id, archive.writer()) {
            Ok(()) => {
                archive.finish();
                super::publish(&engine, &container, "export");
            }
            // The head is sent; all that can be done is to break the connection.
            Err(error) => tracing::warn!(container = container.id, %error, "export ended early"),
        }
    });
    Ok(response.into())
}
