//! What happened, for `docker events`: a bus of the present and a bounded memory of the past.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use tokio::sync::broadcast;

/// How many past events are kept for `since`.
const KEPT: usize = 4096;

/// An event as the API shows it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Event {
    /// Legacy: the action, for containers and images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<String>,
    /// Legacy: the actor's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<String>,
    /// Legacy: the container's image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) from: Option<String>,
    /// `container`, `image`, `network`, `volume`, `daemon`.
    #[serde(rename = "Type")]
    pub(crate) kind: &'static str,
    /// `start`, `die`, …
    #[serde(rename = "Action")]
    pub(crate) action: String,
    /// To whom it happened.
    #[serde(rename = "Actor")]
    pub(crate) actor: Actor,
    /// Always `local`.
    pub(crate) scope: &'static str,
    /// Seconds since the epoch.
    pub(crate) time: i64,
    /// Nanoseconds since the epoch.
    #[serde(rename = "timeNano")]
    pub(crate) time_ns: i64,
}

/// To whom an event happened.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Actor {
    /// Id, or an image's or volume's name.
    #[serde(rename = "ID")]
    pub(crate) id: String,
    /// Name, image, labels, exit code …
    #[serde(rename = "Attributes")]
    pub(crate) attributes: BTreeMap<String, String>,
}

/// The bus. Publishing never waits.
#[derive(Debug)]
pub(crate) struct Bus {
    past: Mutex<VecDeque<Arc<Event>>>,
    live: broadcast::Sender<Arc<Event>>,
}

impl Default for Bus {
    fn default() -> Self {
        Self { past: Mutex::new(VecDeque::new()), live: broadcast::channel(1024).0 }
    }
}

impl Bus {
    /// Publishes an event that happens now.
    pub(crate) fn publish(
        &self,
        kind: &'static str,
        action: impl Into<String>,
        id: impl Into<String>,
        attributes: BTreeMap<String, String>,
    ) {
        self.publish_at(crate::clock::now_ns(), kind, action, id, attributes);
    }

    /// Publishes an event that happened at `time_ns`, possibly while no engine was there.
    pub(crate) fn publish_at(
        &self,
        time_ns: i64,
        kind: &'static str,
        action: impl Into<String>,
        id: impl Into<String>,
        attributes: BTreeMap<String, String>,
    ) {
        let (action, id) = (action.into(), id.into());
        let legacy = matches!(kind, "container" | "image");
        let event = Arc::new(Event {
            status: legacy.then(|| action.clone()),
            id: legacy.then(|| id.clone()).filter(|id| !id.is_empty()),
            from: (kind == "container").then(|| attributes.get("image").cloned()).flatten(),
            kind,
            action,
            actor: Actor { id, attributes },
            scope: "local",
            time: time_ns.div_euclid(1_000_000_000),
            time_ns,
        });
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        if past.len() == KEPT {
            past.pop_front();
        }
        // What happened while no engine was there comes late, and takes its place in time.
        let place = past.partition_point(|earlier| earlier.time_ns <= time_ns);
        past.insert(place, event.clone());
        // Sent under the lock, so that `subscribe` sees each event once. Nobody listening is fine.
        let _ = self.live.send(event);
    }

    /// How many listen.
    pub(crate) fn listeners(&self) -> usize {
        self.live.receiver_count()
    }

    /// The events kept so far, and those to come, without a gap between them.
    pub(crate) fn subscribe(&self) -> (Vec<Arc<Event>>, broadcast::Receiver<Arc<Event>>) {
        let past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        (past.iter().cloned().collect(), self.live.subscribe())
    }
}
