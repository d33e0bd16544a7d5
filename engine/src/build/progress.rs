//! What a build tells while it goes on.

use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::job::{Event, StepId};
use crate::clock::now_ns;

/// Numbers steps and sends events. Nobody needs to listen.
#[derive(Debug)]
pub(super) struct Progress {
    events: mpsc::UnboundedSender<Event>,
    next: AtomicU32,
}

impl Progress {
    pub(super) fn new(events: mpsc::UnboundedSender<Event>) -> Self {
        Self { events, next: AtomicU32::new(0) }
    }

    pub(super) fn send(&self, event: Event) {
        // The door may have lost its client.
        let _ = self.events.send(event);
    }

    /// There will be such a step.
    pub(super) fn declare(&self, name: String, inputs: Vec<StepId>) -> StepId {
        let step = self.next.fetch_add(1, Ordering::Relaxed);
        self.send(Event::Declared { step, name, inputs });
        step
    }

    pub(super) fn start(&self, step: StepId) {
        self.send(Event::Started { step, at_ns: now_ns() });
    }

    pub(super) fn finish(&self, step: StepId, error: Option<String>) {
        self.send(Event::Finished { step, at_ns: now_ns(), error });
    }

    /// The result of a step is known: it has nothing to do.
    pub(super) fn known(&self, step: StepId) {
        self.start(step);
        self.send(Event::Cached { step });
        self.finish(step, None);
    }

    /// As [`Self::of_pull`], for what is fetched for no step in particular, too: nobody is told of that.
    pub(super) fn of_transfers(&self, step: Option<StepId>) -> mpsc::Sender<Bytes> {
        step.map_or_else(|| mpsc::channel(1).0, |step| self.of_pull(step))
    }

    /// Takes the messages of a pull, and tells of its layers as transfers of a step.
    pub(super) fn of_pull(&self, step: StepId) -> mpsc::Sender<Bytes> {
        let (sender, mut receiver) = mpsc::channel::<Bytes>(16);
        let events = self.events.clone();
        tokio::spawn(async move {
            while let Some(message) = receiver.recv().await {
                if let Some(event) = transfer(step, &message) {
                    let _ = events.send(event);
                }
            }
        });
        sender
    }
}

/// A pull's message about a layer, as an event.
fn transfer(step: StepId, message: &[u8]) -> Option<Event> {
    let message: serde_json::Value = serde_json::from_slice(message).ok()?;
    let (id, status) = (message["id"].as_str()?, message["status"].as_str()?);
    let number = |name: &str| message["progressDetail"][name].as_u64().unwrap_or(0);
    let done = matches!(status, "Pull complete" | "Already exists");
    let known = done || matches!(status, "Downloading" | "Extracting");
    known.then(|| Event::Transfer {
        step,
        id: format!("{status} {id}"),
        current: number("current"),
        total: number("total"),
        done,
    })
}
