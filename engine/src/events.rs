//! What happened, for `docker events`: a bus of the present and a bounded memory of the past, also of earlier engines.

mod history;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use tokio::sync::broadcast;

use self::history::{History, Line};
use crate::error::Error;

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

/// The bus. Publishing never waits for those who listen.
#[derive(Debug)]
pub(crate) struct Bus {
    past: Mutex<Past>,
    live: broadcast::Sender<Arc<Event>>,
    /// The last event of each container's monitor that an earlier engine has published.
    seen: HashMap<String, u64>,
}

#[derive(Debug)]
struct Past {
    events: VecDeque<Arc<Event>>,
    history: History,
}

/// To whom something has happened.
#[derive(Debug)]
pub(crate) struct Told {
    ids: HashSet<String>,
    since_ns: i64,
}

impl Told {
    /// Whether it has been told of this one, where it happened at `time_ns`; of what is too long ago to be known, yes.
    pub(crate) fn has(&self, id: &str, time_ns: i64) -> bool {
        time_ns < self.since_ns || self.ids.contains(id)
    }
}

/// The kinds of events, which is what a line on disk may say.
const KINDS: [&str; 6] = ["builder", "container", "daemon", "image", "network", "volume"];

impl Bus {
    /// Opens the events of a data root. Blocking.
    ///
    /// # Errors
    /// The file cannot be made or read.
    pub(crate) fn open(data_root: &Path) -> Result<Self, Error> {
        let (history, lines) =
            History::open(data_root).map_err(Error::io("open", data_root.join("events").display()))?;
        let seen = history::seen(&lines);
        let skip = lines.len().saturating_sub(history::KEPT);
        let events = lines.into_iter().skip(skip).filter_map(from_line).collect();
        Ok(Self { past: Mutex::new(Past { events, history }), live: broadcast::channel(1024).0, seen })
    }

    /// The last event of a container's monitor that an earlier engine has published; 0 for none.
    pub(crate) fn seen(&self, container: &str) -> u64 {
        self.seen.get(container).copied().unwrap_or(0)
    }

    /// To whom this has happened, as far as is known.
    pub(crate) fn told(&self, action: &str) -> Told {
        let past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        let full = past.events.len() >= history::KEPT;
        Told {
            ids: past.events.iter().filter(|e| e.action == action).map(|e| e.actor.id.clone()).collect(),
            since_ns: past.events.front().filter(|_| full).map_or(0, |oldest| oldest.time_ns),
        }
    }

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
        self.publish_from(0, time_ns, kind, action, id, attributes);
    }

    /// As [`Self::publish_at`], with the number that a container's monitor gave the event.
    pub(crate) fn publish_from(
        &self,
        seq: u64,
        time_ns: i64,
        kind: &'static str,
        action: impl Into<String>,
        id: impl Into<String>,
        attributes: BTreeMap<String, String>,
    ) {
        let line =
            Line { kind: kind.to_owned(), action: action.into(), id: id.into(), attributes, time_ns, seq };
        // The order on disk is the order in which they are told, hence one lock around both: the write is a copy into the
        // page cache.
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        past.history.append(&line);
        let event = Arc::new(event(kind, line));
        if past.events.len() == history::KEPT {
            past.events.pop_front();
        }
        // What happened while no engine was there comes late, and takes its place in time.
        let place = past.events.partition_point(|earlier| earlier.time_ns <= time_ns);
        past.events.insert(place, event.clone());
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
        (past.events.iter().cloned().collect(), self.live.subscribe())
    }
}

fn from_line(line: Line) -> Option<Arc<Event>> {
    let kind = KINDS.into_iter().find(|kind| *kind == line.kind)?;
    Some(Arc::new(event(kind, line)))
}

fn event(kind: &'static str, line: Line) -> Event {
    let Line { action, id, attributes, time_ns, .. } = line;
    let legacy = matches!(kind, "container" | "image");
    Event {
        status: legacy.then(|| action.clone()),
        id: legacy.then(|| id.clone()).filter(|id| !id.is_empty()),
        from: (kind == "container").then(|| attributes.get("image").cloned()).flatten(),
        kind,
        action,
        actor: Actor { id, attributes },
        scope: "local",
        time: time_ns.div_euclid(1_000_000_000),
        time_ns,
    }
}
