//! `GET /containers/{id}/json`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use hyper::StatusCode;
use serde_json::{Map, Value, json};
use wherry_monitor_api as monitor_api;
use wherry_monitor_api::{HealthState, HealthStatus, Reply as Answer, Request as Ask};
use wherry_netd::protocol::Sandbox;

use super::files::EtcPaths;
use super::lifecycle;
use super::record::Record;
use super::shown;
use super::state::Status;
use super::table::Container;
use crate::clock::rfc3339;
use crate::engine::{Engine, blocking};
use crate::error::Error;
use crate::server::{ApiVersion, Reply, Request, response};

/// Shows all of a container, from snapshots.
pub(crate) async fn inspect(engine: &Arc<Engine>, name: &str, request: &Request) -> Result<Reply, Error> {
    let container = engine.containers.find(name)?;
    let mut value = show(engine, &container);
    if let Some(health) = present_health(engine, &container).await {
        value["State"]["Health"] = show_health(&health);
    }
    if request.version < ApiVersion(1, 45) {
        add_old_aliases(&container.record(), &mut value);
    }
    if request.query.flag("size") {
        let (task_engine, record) = (engine.clone(), container.record());
        let (rw, root) = blocking(move || Ok(sizes(&task_engine, &record))).await?;
        value["SizeRw"] = json!(rw);
        value["SizeRootFs"] = json!(root);
    }
    Ok(response::json(StatusCode::OK, &value).into())
}

/// The probe's results as its monitor has them now: only a new verdict is told without being asked for.
/// Of a container that has ended they say unhealthy, as dockerd does.
async fn present_health(engine: &Arc<Engine>, container: &Container) -> Option<HealthState> {
    let status = container.status();
    status.health.as_ref()?;
    if !status.state.is_running() {
        let path = container.record().state_path(&engine.config().data_root);
        let left =
            blocking(move || Ok(wherry_durable::read_json::<monitor_api::State>(&path).ok().flatten()));
        let health = left.await.ok().flatten().and_then(|state| state.health).or(status.health.clone());
        return health.map(|health| HealthState { status: HealthStatus::Unhealthy, ..health });
    }
    let monitor = lifecycle::monitor(container).await?;
    match monitor.call(Ask::State, &[]).await {
        Ok(Answer::State(state)) => state.health,
        _ => None,
    }
}

/// Before API 1.45 the short id and the hostname were told as aliases, which they had been.
fn add_old_aliases(record: &Record, value: &mut Value) {
    let networks = value.pointer_mut("/NetworkSettings/Networks").and_then(Value::as_object_mut);
    for (name, network) in networks.into_iter().flatten() {
        if matches!(name.as_str(), "bridge" | "host" | "none") {
            continue;
        }
        let mut aliases = network["Aliases"].as_array().cloned().unwrap_or_default();
        for own in [record.short_id(), &record.config.hostname] {
            if !aliases.iter().any(|alias| alias == own) {
                aliases.push(own.into());
            }
        }
        network["Aliases"] = aliases.into();
    }
}

/// Bytes of the writable layer, and of it with the image. Blocking.
pub(super) fn sizes(engine: &Engine, record: &Record) -> (u64, u64) {
    let rw = engine.store.writable_size(&record.id).unwrap_or(0);
    let image = engine.store.resolve(&record.image).and_then(|id| engine.store.image(&id));
    (rw, rw + image.map_or(0, |image| image.size_bytes))
}

fn show(engine: &Engine, container: &Container) -> Value {
    let (record, status, sandbox) = (container.record(), container.status(), container.sandbox());
    let config = engine.config();
    let paths = started_paths(&record, &config.data_root);
    let execs = container.execs.running();
    let mut value = json!({
        "Id": record.id,
        "Created": rfc3339(record.created_ns),
        "Path": record.path,
        "Args": record.args,
        "State": state(&record, &status),
        "Image": record.image,
        "ResolvConfPath": paths[0],
        "HostnamePath": paths[1],
        "HostsPath": paths[2],
        "LogPath": paths[3],
        "Name": format!("/{}", record.name),
        "RestartCount": status.restart_count,
        "Driver": "overlay2",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": apparmor_profile(&record),
        "ExecIDs": if execs.is_empty() { Value::Null } else { json!(execs) },
        "HostConfig": host_config(&record),
        "GraphDriver": graph_driver(engine, &record),
        "Mounts": record.mounts,
        "Config": record.config,
        "NetworkSettings": network_settings(&record, &status, sandbox.as_deref()),
    });
    if value["Mounts"].is_null() {
        value["Mounts"] = json!([]);
    }
    value
}

/// As asked for, where the kernel has AppArmor.
fn apparmor_profile(record: &Record) -> &str {
    if !Path::new("/sys/kernel/security/apparmor").exists() {
        return "";
    }
    let options = record.host_config.security_opt.iter().flatten();
    options
        .filter_map(|option| option.strip_prefix("apparmor")?.strip_prefix(['=', ':']))
        .next_back()
        .unwrap_or("")
}

/// The files that exist from the first start on: resolv.conf, hostname, hosts, log.
fn started_paths(record: &Record, data_root: &Path) -> [String; 4] {
    if !record.started_before {
        return std::array::from_fn(|_| String::new());
    }
    let etc = EtcPaths::of(data_root, &record.id);
    let log = match record.host_config.log_config.driver.as_str() {
        "json-file" => record.log_path(data_root).display().to_string(),
        _ => String::new(),
    };
    let text = |path: &Path| path.display().to_string();
    [text(&etc.resolv_conf), text(&etc.hostname), text(&etc.hosts), log]
}

fn state(record: &Record, status: &Status) -> Value {
    let state = &status.state;
    let failure = record.start_failure.as_ref();
    let exit = state.exit();
    let started_at_ns = match state {
        super::state::State::Running { started_at_ns, .. } => *started_at_ns,
        _ => exit.map_or(0, |e| e.started_at_ns),
    };
    let word = state.status();
    let mut shown = json!({
        "Status": word,
        "Running": state.is_running(),
        "Paused": word == "paused",
        "Restarting": word == "restarting",
        "OOMKilled": exit.is_some_and(|e| e.oom_killed),
        "Dead": word == "dead",
        "Pid": state.pid(),
        "ExitCode": failure.map_or(exit.map_or(0, |e| e.code), |f| f.code),
        "Error": failure.map_or("", |f| f.error.as_str()),
        "StartedAt": rfc3339(started_at_ns),
        "FinishedAt": rfc3339(exit.map_or(0, |e| e.finished_at_ns)),
    });
    if let Some(health) = &status.health {
        shown["Health"] = show_health(health);
    }
    shown
}

/// The probe's verdict in Docker's word.
pub(super) fn health_word(status: HealthStatus) -> &'static str {
    match status {
        HealthStatus::Starting => "starting",
        HealthStatus::Healthy => "healthy",
        HealthStatus::Unhealthy => "unhealthy",
    }
}

fn show_health(health: &HealthState) -> Value {
    let log: Vec<Value> = health
        .log
        .iter()
        .map(|entry| {
            json!({
                "Start": rfc3339(entry.start_ns), "End": rfc3339(entry.end_ns),
                "ExitCode": entry.code, "Output": entry.output,
            })
        })
        .collect();
    json!({ "Status": health_word(health.status), "FailingStreak": health.failing_streak, "Log": log })
}

/// As stored, with links in the form that dockerd shows. Those to containers of other networks are their endpoints'.
fn host_config(record: &Record) -> Value {
    let mut host = record.host_config.clone();
    if !super::network::has_legacy_links(record) {
        host.links = None;
    }
    if let Some(links) = &mut host.links {
        for link in links.iter_mut() {
            let (source, alias) = super::network::parse_link(link);
            *link = format!("/{source}:/{}/{alias}", record.name);
        }
    }
    json!(host)
}

/// Where the layers are. `MergedDir` is where the container sees them joined; the host has no such mount.
fn graph_driver(engine: &Engine, record: &Record) -> Value {
    let data: Map<String, Value> = match engine.store.writable(&record.id) {
        Ok(writable) => {
            let lower: Vec<String> = writable.lower.iter().map(|dir| dir.display().to_string()).collect();
            let merged = writable.upper.with_file_name("merged");
            let pairs = [
                ("ID", record.id.clone()),
                ("LowerDir", lower.join(":")),
                ("MergedDir", merged.display().to_string()),
                ("UpperDir", writable.upper.display().to_string()),
                ("WorkDir", writable.work.display().to_string()),
            ];
            pairs.into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect()
        }
        Err(_) => Map::new(),
    };
    json!({ "Data": data, "Name": "overlay2" })
}

fn network_settings(record: &Record, status: &Status, sandbox: Option<&Sandbox>) -> Value {
    let running = status.state.is_running();
    let networks = json!(shown::Networks { record, sandbox, running, full: true });
    // The top level repeats the default bridge's endpoint, as clients of old expect.
    let empty = json!({});
    let bridge = networks.get("bridge").unwrap_or(&empty);
    let of_bridge = |name: &str, absent: Value| bridge.get(name).cloned().unwrap_or(absent);
    let on_host = running && record.networks.contains_key("host");
    let (id, key) = match sandbox {
        Some(sandbox) => (sandbox.id.as_str(), sandbox.netns.display().to_string()),
        None if on_host => (record.id.as_str(), format!("/proc/{}/ns/net", status.state.pid())),
        None => ("", String::new()),
    };
    let mut settings = json!({
        "Bridge": "",
        "SandboxID": id,
        "SandboxKey": key,
        "Ports": shown::port_map(record, sandbox),
        "HairpinMode": false,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": null,
        "SecondaryIPv6Addresses": null,
    });
    let legacy: BTreeMap<&str, Value> = BTreeMap::from([
        ("EndpointID", json!("")),
        ("Gateway", json!("")),
        ("GlobalIPv6Address", json!("")),
        ("GlobalIPv6PrefixLen", json!(0)),
        ("IPAddress", json!("")),
        ("IPPrefixLen", json!(0)),
        ("IPv6Gateway", json!("")),
        ("MacAddress", json!("")),
    ]);
    for (name, absent) in legacy {
        settings[name] = of_bridge(name, absent);
    }
    settings["Networks"] = networks;
    settings
}
