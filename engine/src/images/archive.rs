//! `POST /images/load`.

use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

use wherry_image_ref::Reference;
use wherry_image_store::{ImageId, LoadEvent, Wanted};

use super::body::BlockingBody;
use super::messages::{self, Client, Pace};
use super::platform;
use crate::engine::Engine;
use crate::error::Error;
use crate::server::{Reply, Request, response};

pub(super) fn load(engine: Arc<Engine>, request: Request) -> Result<Reply, Error> {
    let platform = platform::asked(&request)?;
    let quiet = request.query.flag_or("quiet", true);
    let (sender, response) = response::stream("application/json");
    let client = Client(sender);
    let body = BlockingBody::new(request.body);
    tokio::task::spawn_blocking(move || {
        let observer = Observer {
            engine: &engine,
            client: &client,
            quiet,
            paces: Mutex::default(),
            ids: Mutex::default(),
        };
        let body = WhileHeard { body, client: &client };
        let is_it = |os: &str, architecture: &str, variant: &str| {
            platform.as_ref().is_none_or(|platform| platform::is(platform, os, architecture, variant))
        };
        let wanted: Option<Wanted<'_>> = if platform.is_some() { Some(&is_it) } else { None };
        match engine.store.load_wanted(body, wanted, &|event| observer.observe(&event)) {
            Ok(()) => observer.finish(),
            Err(error) => {
                tracing::warn!(%error, "cannot load the archive");
                client.tell(messages::error(&error.to_string()));
            }
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
    ids: Mutex<Ids>,
}

/// The images that were loaded.
#[derive(Default)]
struct Ids {
    all: Vec<ImageId>,
    last_has_name: bool,
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
                let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
                ids.all.push(id);
                ids.last_has_name = !references.is_empty();
            }
        }
    }

    /// dockerd names all images by their ids if the last one has no name; without any image that is an empty line.
    fn finish(&self) {
        let ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        if !ids.last_has_name {
            let lines: String = ids.all.iter().map(|id| format!("Loaded image ID: {id}\n")).collect();
            self.client.tell(messages::stream(&lines));
        }
    }

    fn is_due(&self, layer: &str, last: bool) -> bool {
        let mut paces = self.paces.lock().unwrap_or_else(PoisonError::into_inner);
        paces.entry(layer.to_owned()).or_default().allows(last)
    }
}
