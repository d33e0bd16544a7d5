//! `POST /images/load`.

use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

use wherry_image_ref::Reference;
use wherry_image_store::LoadEvent;

use super::body::BlockingBody;
use super::messages::{self, Client, Pace};
use crate::engine::Engine;
use crate::error::Error;
use crate::server::{Reply, Request, response};

pub(super) fn load(engine: Arc<Engine>, request: Request) -> Result<Reply, Error> {
    if let Some(platform) = request.query.get("platform") {
        let parsed: Result<serde_json::Map<String, serde_json::Value>, _> = serde_json::from_str(platform);
        parsed.map_err(|e| Error::InvalidParameter(format!("failed to parse platform: {e}")))?;
    }
    let quiet = request.query.flag_or("quiet", true);
    let (sender, response) = response::stream("application/json");
    let client = Client(sender);
    let body = BlockingBody::new(request.body);
    tokio::task::spawn_blocking(move || {
        let observer = Observer { engine: &engine, client: &client, quiet, paces: Mutex::default() };
        let body = WhileHeard { body, client: &client };
        if let Err(error) = engine.store.load(body, &|event| observer.observe(&event)) {
            tracing::warn!(%error, "cannot load the archive");
            client.tell(messages::error(&error.to_string()));
        }
    });
    Ok(response.into())
}

/// Ends a load whose client has gone, even if all of the archive has arrived.
struct WhileHeard<'a> {
    body: BlockingBody,
    client: &'a Client,
}

impl Read for WhileHeard<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.client.is_gone() {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the client has gone"));
        }
        self.body.read(buffer)
    }
}

struct Observer<'a> {
    engine: &'a Engine,
    client: &'a Client,
    quiet: bool,
    paces: Mutex<HashMap<String, Pace>>,
}

impl Observer<'_> {
    fn observe(&self, event: &LoadEvent<'_>) {
        match *event {
            LoadEvent::Layer { id, current, total } => {
                if !self.quiet && self.is_due(id, current == total) {
                    self.client.tell(messages::progress("Loading layer", id, current, total));
                }
            }
            LoadEvent::Renamed { reference, previous } => {
                let name = reference.familiar();
                self.client.tell(messages::stream(&format!(
                    "The image {name} already exists, renaming the old one with ID {previous} to empty string\n"
                )));
            }
            LoadEvent::Image { id, references } => {
                super::publish(self.engine, "load", &id, &id.to_string());
                for reference in references.iter().map(Reference::familiar) {
                    self.client.tell(messages::stream(&format!("Loaded image: {reference}\n")));
                }
                if references.is_empty() {
                    self.client.tell(messages::stream(&format!("Loaded image ID: {id}\n")));
                }
            }
        }
    }

    fn is_due(&self, layer: &str, last: bool) -> bool {
        let mut paces = self.paces.lock().unwrap_or_else(PoisonError::into_inner);
        paces.entry(layer.to_owned()).or_default().allows(last)
    }
}
