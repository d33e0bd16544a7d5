//! `GET /events`: what happened, and what happens.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;

use crate::containers::time;
use crate::engine::Engine;
use crate::error::Error;
use crate::events::Event;
use crate::server::{Filters, Reply, Request, response};

const FILTERS: &[&str] = &[
    "config",
    "container",
    "daemon",
    "event",
    "image",
    "label",
    "network",
    "node",
    "plugin",
    "scope",
    "secret",
    "service",
    "type",
    "volume",
];

/// Streams events: with `since` the kept ones from then on, without `until` (or with one to come) also those that
/// happen from now on.
///
/// # Errors
/// 400 and 500 with dockerd's texts for bad times and filters.
pub(super) fn stream(engine: &Arc<Engine>, request: &Request) -> Result<Reply, Error> {
    let (since, until) = (request.query.get("since"), request.query.get("until"));
    let since_ns = since.map(time).transpose()?;
    let until_ns = until.map(time).transpose()?;
    if let (Some(since_ns), Some(until_ns)) = (since_ns, until_ns)
        && since_ns > until_ns
    {
        let (since, until) = (since.unwrap_or(""), until.unwrap_or(""));
        return Err(Error::InvalidParameter(format!(
            "`since` time ({since}) cannot be after `until` time ({until})"
        )));
    }
    let filters = Filters::parse_known(request.query.get("filters"), FILTERS)?;
    let (sender, response) = response::stream("application/json");
    let subscription = Subscription { engine: engine.clone(), filters, sender, since_ns, until_ns };
    tokio::spawn(subscription.run());
    Ok(response.into())
}

struct Subscription {
    engine: Arc<Engine>,
    filters: Filters,
    sender: mpsc::Sender<Bytes>,
    since_ns: Option<i64>,
    until_ns: Option<i64>,
}

impl Subscription {
    /// Ends at `until`, or when the client is gone.
    async fn run(self) {
        let now_ns = crate::clock::now_ns();
        let (past, mut live) = self.engine.events.subscribe();
        if let Some(since_ns) = self.since_ns {
            let wanted = past
                .iter()
                .filter(|e| e.time_ns >= since_ns && self.until_ns.is_none_or(|until| e.time_ns <= until));
            if !self.send_all(wanted).await {
                return;
            }
        }
        let mut last_ns = past.last().map_or(now_ns, |event| event.time_ns);
        let left =
            self.until_ns.map(|until| Duration::from_nanos(u64::try_from(until - now_ns).unwrap_or(0)));
        let end = async {
            match left {
                Some(left) => tokio::time::sleep(left).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(end);
        loop {
            let received = tokio::select! {
                biased;
                () = self.sender.closed() => return,
                received = live.recv() => received,
                () = &mut end => return,
            };
            let sent = match received {
                Ok(event) => {
                    last_ns = event.time_ns;
                    self.send_all([&event].into_iter()).await
                }
                // The client is slower than what happens: what it missed is still in memory.
                Err(RecvError::Lagged(_)) => {
                    let (past, fresh) = self.engine.events.subscribe();
                    live = fresh;
                    let missed = past.iter().filter(|event| event.time_ns > last_ns);
                    let sent = self.send_all(missed).await;
                    last_ns = past.last().map_or(last_ns, |event| event.time_ns);
                    sent
                }
                Err(RecvError::Closed) => return,
            };
            if !sent {
                return;
            }
        }
    }

    /// Sends those that the filters let pass; false when the client is gone.
    async fn send_all<'a>(&self, events: impl Iterator<Item = &'a Arc<Event>>) -> bool {
        for event in events.filter(|event| passes(&self.filters, event)) {
            let mut line = match serde_json::to_vec(&**event) {
                Ok(line) => line,
                Err(error) => {
                    tracing::error!(%error, "an event cannot be written as JSON");
                    continue;
                }
            };
            line.push(b'\n');
            if self.sender.send(line.into()).await.is_err() {
                return false;
            }
        }
        true
    }
}

/// dockerd's rules: `type`, `event` and `image` are equal to a value, other kinds begin with it, in id or name.
fn passes(filters: &Filters, event: &Event) -> bool {
    let attribute = |name: &str| event.actor.attributes.get(name).map_or("", String::as_str);
    let (id, name) = (event.actor.id.as_str(), attribute("name"));
    let by_name = |kind: &str| filters.any(kind, |value| id.starts_with(value) || name.starts_with(value));
    let kinds = ["daemon", "container", "plugin", "volume", "network", "node", "service", "secret", "config"];
    filters.any("type", |value| value == event.kind)
        && filters.any("scope", |value| value == event.scope)
        && event_passes(filters, &event.action)
        && kinds.iter().all(|kind| by_name(kind))
        && image_passes(filters, id, attribute(if event.kind == "image" { "name" } else { "image" }))
        && filters.labels(&event.actor.attributes)
}

/// `health_status: healthy` and the like are also found by their beginnings.
fn event_passes(filters: &Filters, action: &str) -> bool {
    let compound = ["health_status", "exec_create", "exec_start"];
    let fuzzy = filters.values("event").iter().any(|value| compound.contains(&value.as_str()));
    filters.any("event", |value| if fuzzy { action.starts_with(value) } else { action == value })
}

fn image_passes(filters: &Filters, id: &str, name: &str) -> bool {
    filters.any("image", |value| [id, name, without_tag(id), without_tag(name)].contains(&value))
}

/// `busybox:1` → `busybox`; a port in the host part is no tag.
fn without_tag(name: &str) -> &str {
    match name.rsplit_once(':') {
        Some((base, tag)) if !tag.contains('/') => base,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::events::Actor;

    fn event(kind: &'static str, action: &str, id: &str, attributes: &[(&str, &str)]) -> Event {
        let attributes: BTreeMap<_, _> =
            attributes.iter().map(|(k, v)| ((*k).to_string(), (*v).to_string())).collect();
        Event {
            status: None,
            id: None,
            from: None,
            kind,
            action: action.into(),
            actor: Actor { id: id.into(), attributes },
            scope: "local",
            time: 0,
            time_ns: 0,
        }
    }

    #[test]
    fn filters_choose_as_dockerd_does() {
        let start =
            event("container", "start", "c0ffee", &[("name", "web"), ("image", "busybox:1"), ("a", "b")]);
        let health = event("container", "health_status: healthy", "c0ffee", &[("name", "web")]);
        let pull = event("image", "pull", "localhost:5000/x:1", &[("name", "localhost:5000/x")]);
        let check = |filters: &str, event: &Event, expect: bool| {
            let parsed = Filters::parse_known(Some(filters), FILTERS).unwrap();
            assert_eq!(passes(&parsed, event), expect, "{filters}");
        };
        check("{}", &start, true);
        check(r#"{"type":["container"]}"#, &start, true);
        check(r#"{"type":["image"]}"#, &start, false);
        check(r#"{"container":["c0f"]}"#, &start, true);
        check(r#"{"container":["we"]}"#, &start, true);
        check(r#"{"container":["other"]}"#, &start, false);
        check(r#"{"image":["busybox"]}"#, &start, true);
        check(r#"{"image":["busybox:2"]}"#, &start, false);
        check(r#"{"image":["localhost:5000/x"]}"#, &pull, true);
        check(r#"{"event":["health_status"]}"#, &health, true);
        check(r#"{"event":["health"]}"#, &health, false);
        check(r#"{"label":["a=b"]}"#, &start, true);
        check(r#"{"label":["a=c"]}"#, &start, false);
        check(r#"{"nosuch":["x"]}"#, &start, true);
    }
}
