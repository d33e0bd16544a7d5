//! `GET /containers/json`.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use hyper::StatusCode;
use regex_lite::Regex;
use serde::Serialize;
use serde_json::{Value, json};
use wherry_netd::protocol::Sandbox;

use super::config::MountPoint;
use super::inspect;
use super::network::parse_port;
use super::record::Record;
use super::shown::{Networks, Port, human_duration, port_list};
use super::state::{State, Status};
use super::table::Container;
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
    let mut found: Vec<Listed> = engine
        .containers
        .all()
        .into_iter()
        .map(Listed::now)
        .filter(|listed| everything || listed.status.state.is_running())
        .filter(|listed| wanted.matches(listed))
        .collect();
    found.sort_by_key(|listed| std::cmp::Reverse(listed.record.created_ns));
    found.truncate(limit.unwrap_or(usize::MAX));
    let (size, engine) = (request.query.flag("size"), engine.clone());
    let answer = move || {
        let rows = Rows::of(&engine, size);
        let shown: Vec<Row<'_>> = found.iter().map(|listed| rows.row(listed)).collect();
        response::json(StatusCode::OK, &shown)
    };
    // Only for sizes are files walked.
    let answer = if size { blocking(move || Ok(answer())).await? } else { answer() };
    Ok(answer.into())
}

/// All containers with their sizes, for `/system/df`. Walks their files; blocks.
pub(crate) fn usage(engine: &Engine) -> Value {
    let mut all: Vec<Listed> = engine.containers.all().into_iter().map(Listed::now).collect();
    all.sort_by_key(|listed| std::cmp::Reverse(listed.record.created_ns));
    let rows = Rows::of(engine, true);
    json!(all.iter().map(|listed| rows.row(listed)).collect::<Vec<_>>())
}

/// A container as it was at one moment.
struct Listed {
    record: Arc<Record>,
    status: Arc<Status>,
    sandbox: Option<Arc<Sandbox>>,
}

impl Listed {
    fn now(container: Arc<Container>) -> Self {
        Self { record: container.record(), status: container.status(), sandbox: container.sandbox() }
    }
}

/// What the rows of one list have in common. A row is written from what is borrowed: of a thousand, each allocation counts.
struct Rows<'a> {
    engine: &'a Engine,
    links: Links,
    size: bool,
    now_ns: i64,
    /// The ids of images by the names that containers have for them, as far as they have been asked for.
    images: RefCell<HashMap<String, Option<String>>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Row<'a> {
    id: &'a str,
    names: Vec<String>,
    image: &'a str,
    #[serde(rename = "ImageID")]
    image_id: &'a str,
    command: String,
    created: i64,
    ports: Vec<Port>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size_rw: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size_root_fs: Option<u64>,
    labels: &'a BTreeMap<String, String>,
    state: &'a str,
    status: String,
    host_config: RowHostConfig<'a>,
    network_settings: RowNetworks<'a>,
    mounts: &'a [MountPoint],
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct RowHostConfig<'a> {
    network_mode: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<&'a BTreeMap<String, String>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct RowNetworks<'a> {
    networks: Networks<'a>,
}

impl<'a> Rows<'a> {
    fn of(engine: &'a Engine, size: bool) -> Self {
        let (links, now_ns) = (Links::of(engine), crate::clock::now_ns());
        Self { engine, links, size, now_ns, images: RefCell::default() }
    }

    fn row<'r>(&self, listed: &'r Listed) -> Row<'r> {
        let Listed { record, status, sandbox, .. } = listed;
        let sandbox = sandbox.as_deref();
        let sizes = self.size.then(|| inspect::sizes(self.engine, record));
        let host = &record.host_config;
        Row {
            id: &record.id,
            names: self.links.names(record),
            image: self.image(record),
            image_id: &record.image,
            command: command(record),
            created: record.created_ns / 1_000_000_000,
            ports: port_list(record, sandbox),
            size_rw: sizes.map(|(rw, _)| rw).filter(|rw| *rw > 0),
            size_root_fs: sizes.map(|(_, root)| root),
            labels: record.labels(),
            state: status.state.status(),
            status: describe(status, self.now_ns),
            host_config: RowHostConfig {
                network_mode: &host.network_mode,
                annotations: host.annotations.as_ref().filter(|annotations| !annotations.is_empty()),
            },
            network_settings: RowNetworks {
                networks: Networks { record, sandbox, running: status.state.is_running(), full: false },
            },
            mounts: &record.mounts,
        }
    }

    /// The image's name as given, unless it means another image by now.
    fn image<'r>(&self, record: &'r Record) -> &'r str {
        let name = &record.config.image;
        let mut known = self.images.borrow_mut();
        if !known.contains_key(name) {
            let id = self.engine.store.resolve(name).ok().map(|id| id.to_string());
            known.insert(name.clone(), id);
        }
        let means = known.get(name).and_then(Option::as_ref);
        if means == Some(&record.image) { name } else { &record.image }
    }
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

    fn matches(&self, listed: &Listed) -> bool {
        let Listed { record, status, sandbox } = listed;
        let filters = self.filters;
        let exited_as_wanted = self.exited.is_empty()
            || status
                .state
                .exit()
                .is_some_and(|e| !status.state.is_running() && self.exited.contains(&e.code));
        (self.ids.is_empty() || self.ids.iter().any(|pattern| pattern.matches(&record.id)))
            && (self.names.is_empty() || self.names.iter().any(|pattern| pattern.matches_name(&record.name)))
            && filters.labels(record.labels())
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
            && self.ports_match(sandbox.as_deref(), record)
    }

    fn ports_match(&self, sandbox: Option<&Sandbox>, record: &Record) -> bool {
        let within = |wanted: &[(u16, u16, String)], port: u16, protocol: &str| {
            wanted.iter().any(|(first, last, p)| (*first..=*last).contains(&port) && p == protocol)
        };
        let [publish, expose] = &self.ports;
        let mut bound = sandbox.into_iter().flat_map(|s| s.endpoints.iter().flat_map(|e| e.ports.iter()));
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
