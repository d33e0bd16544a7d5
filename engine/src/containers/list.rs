//! `GET /containers/json`.

use std::sync::Arc;

use hyper::StatusCode;
use regex_lite::Regex;
use serde_json::{Value, json};

use super::network::parse_port;
use super::record::Record;
use super::shown::{self, human_duration};
use super::state::{State, Status};
use super::table::Container;
use super::{inspect, shown::port_list};
use crate::engine::{Engine, blocking};
use crate::error::Error;
use crate::server::{Filters, Reply, Request, response};
use crate::text::go_quote;

const FILTERS: &[&str] = &[
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
];
const HEALTH: &[&str] = &["none", "starting", "healthy", "unhealthy"];
const STATES: &[&str] = &["created", "running", "paused", "restarting", "removing", "exited", "dead"];

/// Lists containers, newest first, from snapshots.
pub(crate) async fn list(engine: &Arc<Engine>, request: &Request) -> Result<Reply, Error> {
    let filters = Filters::parse(request.query.get("filters"), FILTERS)?;
    let limit = request.query.integer("limit").map_err(|e| Error::server(e.to_string()))?;
    let limit = limit.and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
    let wanted = Wanted::new(engine, &filters)?;
    let everything = request.query.flag("all") || limit.is_some() || wanted.implies_all();
    let mut found: Vec<(Arc<Container>, Arc<Record>, Arc<Status>)> = engine
        .containers
        .all()
        .into_iter()
        .map(|container| {
            let (record, status) = (container.record(), container.status());
            (container, record, status)
        })
        .filter(|(_, _, status)| everything || status.state.is_running())
        .filter(|(container, record, status)| wanted.matches(container, record, status))
        .collect();
    found.sort_by_key(|(_, record, _)| std::cmp::Reverse(record.created_ns));
    found.truncate(limit.unwrap_or(usize::MAX));
    let (size, engine, links) = (request.query.flag("size"), engine.clone(), Links::of(engine));
    let rows: Vec<Value> = if size {
        blocking(move || Ok(found.iter().map(|(c, r, s)| row(&engine, &links, c, r, s, true)).collect()))
            .await?
    } else {
        found.iter().map(|(c, r, s)| row(&engine, &links, c, r, s, false)).collect()
    };
    Ok(response::json(StatusCode::OK, &rows).into())
}

/// All containers with their sizes, for `/system/df`. Walks their files; blocks.
pub(crate) fn usage(engine: &Engine) -> Vec<Value> {
    let mut all: Vec<_> = engine.containers.all().into_iter().map(|c| (c.record(), c)).collect();
    all.sort_by_key(|(record, _)| std::cmp::Reverse(record.created_ns));
    let links = Links::of(engine);
    all.iter()
        .map(|(record, container)| row(engine, &links, container, record, &container.status(), true))
        .collect()
}

fn row(
    engine: &Engine,
    links: &Links,
    container: &Container,
    record: &Record,
    status: &Status,
    size: bool,
) -> Value {
    let sandbox = container.sandbox();
    let mut row = json!({
        "Id": record.id,
        "Names": links.names(record),
        "Image": image(engine, record),
        "ImageID": record.image,
        "Command": command(record),
        "Created": record.created_ns / 1_000_000_000,
        "Ports": port_list(record, sandbox.as_deref()),
    });
    if size {
        let (rw, root) = inspect::sizes(engine, record);
        if rw > 0 {
            row["SizeRw"] = json!(rw);
        }
        row["SizeRootFs"] = json!(root);
    }
    row["Labels"] = json!(record.labels());
    row["State"] = json!(status.state.status());
    row["Status"] = json!(describe(status, crate::clock::now_ns()));
    row["HostConfig"] = json!({ "NetworkMode": record.host_config.network_mode });
    if let Some(annotations) = record.host_config.annotations.as_ref().filter(|a| !a.is_empty()) {
        row["HostConfig"]["Annotations"] = json!(annotations);
    }
    row["NetworkSettings"] = json!({ "Networks": shown::networks(record, sandbox.as_deref(), false) });
    row["Mounts"] = json!(record.mounts);
    row
}

/// All links: what a receiver calls its source (a name, or an id's beginning), and the name that the source has through it.
struct Links(Vec<(String, String)>);

impl Links {
    fn of(engine: &Engine) -> Self {
        let mut links = Vec::new();
        for container in engine.containers.all() {
            let receiver = container.record();
            for link in receiver.host_config.links.iter().flatten() {
                let (source, alias) = super::network::parse_link(link);
                links.push((source.to_owned(), format!("/{}/{alias}", receiver.name)));
            }
        }
        Self(links)
    }

    /// A container's own name, and those that others have for it.
    fn names(&self, record: &Record) -> Vec<String> {
        let through =
            self.0.iter().filter(|(source, _)| *source == record.name || record.id.starts_with(source));
        let mut names: Vec<String> = through.map(|(_, name)| name.clone()).collect();
        names.push(format!("/{}", record.name));
        names
    }
}

/// The image's name as given, unless it means another image by now.
fn image(engine: &Engine, record: &Record) -> String {
    match engine.store.resolve(&record.config.image) {
        Ok(id) if id.to_string() == record.image => record.config.image.clone(),
        _ => record.image.clone(),
    }
}

/// The command line, arguments with spaces in quotes as dockerd puts them.
fn command(record: &Record) -> String {
    let arguments = record
        .args
        .iter()
        .map(|argument| if argument.contains(' ') { format!("'{argument}'") } else { argument.clone() });
    std::iter::once(record.path.clone()).chain(arguments).collect::<Vec<_>>().join(" ")
}

/// `Up 4 minutes (healthy)`, `Exited (0) 2 hours ago`, …
fn describe(status: &Status, now_ns: i64) -> String {
    let since = |ns: i64| human_duration((now_ns - ns) / 1_000_000_000);
    match &status.state {
        State::Created | State::Starting => "Created".into(),
        State::Running { started_at_ns, paused: true, .. } => {
            format!("Up {} (Paused)", since(*started_at_ns))
        }
        State::Running { started_at_ns, .. } => match &status.health {
            Some(health) => {
                let word = inspect::health_word(health.status);
                let word = if word == "starting" { "health: starting" } else { word };
                format!("Up {} ({word})", since(*started_at_ns))
            }
            None => format!("Up {}", since(*started_at_ns)),
        },
        State::Restarting { exit } => {
            format!("Restarting ({}) {} ago", exit.code, since(exit.finished_at_ns))
        }
        State::Exited { exit } => format!("Exited ({}) {} ago", exit.code, since(exit.finished_at_ns)),
        State::Removing => "Removal In Progress".into(),
        State::Dead => "Dead".into(),
    }
}

/// The filters, resolved once for a whole list.
struct Wanted<'a> {
    filters: &'a Filters,
    ids: Vec<Pattern<'a>>,
    names: Vec<Pattern<'a>>,
    exited: Vec<i32>,
    /// Ids of the images that `ancestor` names.
    ancestors: Vec<String>,
    before_ns: Option<i64>,
    since_ns: Option<i64>,
    ports: [Vec<(u16, u16, String)>; 2],
}

impl<'a> Wanted<'a> {
    fn new(engine: &Engine, filters: &'a Filters) -> Result<Self, Error> {
        for value in filters.values("status") {
            if !STATES.contains(&value.as_str()) {
                return Err(Error::InvalidParameter(format!(
                    "invalid filter 'status={value}': invalid value for state ({value}): must be one of {}",
                    STATES.join(", ")
                )));
            }
        }
        for value in filters.values("health") {
            if !HEALTH.contains(&value.as_str()) {
                return Err(Error::InvalidParameter(format!(
                    "invalid filter 'health={value}': invalid value for health ({value}): must be one of {}",
                    HEALTH.join(", ")
                )));
            }
        }
        filters.boolean("is-task")?;
        let exited =
            filters.values("exited").iter().map(|text| text.parse().map_err(|_| bad_exit_code(text)));
        let created = |name: &str| -> Result<Option<i64>, Error> {
            filters
                .values(name)
                .last()
                .map(|c| Ok(engine.containers.find(c)?.record().created_ns))
                .transpose()
        };
        let ports = |name: &str| {
            filters.values(name).iter().map(|text| port_range(name, text)).collect::<Result<_, _>>()
        };
        let image = |reference: &String| engine.store.resolve(reference).ok().map(|id| id.to_string());
        Ok(Self {
            filters,
            ids: filters.values("id").iter().map(|text| Pattern::new(text)).collect(),
            names: filters.values("name").iter().map(|text| Pattern::new(text)).collect(),
            exited: exited.collect::<Result<_, _>>()?,
            ancestors: filters.values("ancestor").iter().filter_map(image).collect(),
            before_ns: created("before")?,
            since_ns: created("since")?,
            ports: [ports("publish")?, ports("expose")?],
        })
    }

    /// Whether the filters ask for containers that do not run.
    fn implies_all(&self) -> bool {
        ["status", "exited", "before", "since"].iter().any(|name| !self.filters.values(name).is_empty())
    }

    fn matches(&self, container: &Container, record: &Record, status: &Status) -> bool {
        let filters = self.filters;
        let exited_as_wanted = self.exited.is_empty()
            || status
                .state
                .exit()
                .is_some_and(|e| !status.state.is_running() && self.exited.contains(&e.code));
        (self.ids.is_empty() || self.ids.iter().any(|pattern| pattern.matches(&record.id)))
            && (self.names.is_empty() || self.names.iter().any(|pattern| pattern.matches_name(&record.name)))
            && filters.labels(&record.labels())
            && filters.any("status", |word| word == status.state.status())
            && filters.any("health", |word| {
                word == status.health.as_ref().map_or("none", |h| inspect::health_word(h.status))
            })
            && exited_as_wanted
            && (filters.values("ancestor").is_empty() || self.ancestors.contains(&record.image))
            && self.before_ns.is_none_or(|ns| record.created_ns < ns)
            && self.since_ns.is_none_or(|ns| record.created_ns > ns)
            && filters.any("volume", |v| {
                record.mounts.iter().any(|m| m.name == v || m.destination == v || m.source == v)
            })
            && filters.any("network", |n| {
                record
                    .networks
                    .iter()
                    .any(|(name, a)| name == n || (!n.is_empty() && a.network_id.starts_with(n)))
            })
            && filters.any("is-task", |value| matches!(value, "false" | "0" | "f"))
            && self.ports_match(container, record)
    }

    fn ports_match(&self, container: &Container, record: &Record) -> bool {
        let within = |wanted: &[(u16, u16, String)], port: u16, protocol: &str| {
            wanted.iter().any(|(first, last, p)| (*first..=*last).contains(&port) && p == protocol)
        };
        let [publish, expose] = &self.ports;
        let sandbox = container.sandbox();
        let mut bound = sandbox.iter().flat_map(|s| s.endpoints.iter().flat_map(|e| e.ports.iter()));
        let mut exposed =
            record.config.exposed_ports.iter().flatten().filter_map(|(p, _)| parse_port(p).ok());
        (publish.is_empty() || bound.any(|b| within(publish, b.host_port, &b.protocol.to_string())))
            && (expose.is_empty()
                || exposed.any(|(port, protocol)| within(expose, port, &protocol.to_string())))
    }
}

fn bad_exit_code(text: &str) -> Error {
    let quoted = go_quote(text);
    let reason = format!("strconv.Atoi: parsing {quoted}: invalid syntax");
    Error::InvalidParameter(format!("invalid filter 'exited={text}': {reason}"))
}

/// `80`, `80/udp`, `80-90/tcp`; `filter` is the name of the filter that it is for.
fn port_range(filter: &str, text: &str) -> Result<(u16, u16, String), Error> {
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    match (first.parse(), last.parse()) {
        (Ok(first), Ok(last)) if first <= last => Ok((first, last, protocol.to_lowercase())),
        _ => {
            let digits = !range.is_empty() && range.bytes().all(|b| b.is_ascii_digit());
            let why = if digits { "value out of range" } else { "invalid syntax" };
            let reason = format!("strconv.ParseUint: parsing {}: {why}", go_quote(range));
            Err(Error::server(format!("error while looking up for {filter} {text}: {reason}")))
        }
    }
}

/// What an id or a name is to look like: a regular expression that matches a part of it, or exactly this text.
struct Pattern<'a> {
    text: &'a str,
    expression: Option<Regex>,
}

impl<'a> Pattern<'a> {
    fn new(text: &'a str) -> Self {
        // What is no expression can still be the text itself, as with dockerd.
        Self { text, expression: Regex::new(text).ok() }
    }

    fn matches(&self, subject: &str) -> bool {
        subject == self.text || self.expression.as_ref().is_some_and(|e| e.is_match(subject))
    }

    /// Names match with and without their slash.
    fn matches_name(&self, name: &str) -> bool {
        self.matches(name) || self.matches(&format!("/{name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::containers::state::Exit;

    #[test]
    fn a_status_reads_as_docker_ps_prints_it() {
        let now = 1_000_000_000_000;
        let status = |state| Status { state, ..Status::created() };
        let exit =
            Exit { code: 3, started_at_ns: 1, finished_at_ns: now - 22_000_000_000, oom_killed: false };
        let running = |paused| State::Running { pid: 1, started_at_ns: now - 240_000_000_000, paused };
        let cases = [
            (State::Created, "Created"),
            (running(false), "Up 4 minutes"),
            (running(true), "Up 4 minutes (Paused)"),
            (State::Exited { exit: exit.clone() }, "Exited (3) 22 seconds ago"),
            (State::Restarting { exit }, "Restarting (3) 22 seconds ago"),
        ];
        for (state, text) in cases {
            assert_eq!(describe(&status(state), now), text);
        }
    }

    #[test]
    fn names_match_in_part_unless_anchored() {
        let matches = |name: &str, pattern: &str| Pattern::new(pattern).matches_name(name);
        for pattern in ["eb", "^/web", "^web-1$", "/web-1", "a|web", "^w[eb]+-\\d$", ""] {
            assert!(matches("web-1", pattern), "{pattern}");
        }
        for pattern in ["^eb", "^web$", "[", "web-10"] {
            assert!(!matches("web-1", pattern), "{pattern}");
        }
    }
}
