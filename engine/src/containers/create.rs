//! `POST /containers/create`: from a request to a container on disk.

mod defaults;
mod endpoints;
mod merge;

use std::collections::BTreeMap;
use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use hyper::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use wherry_image_store::Image;

use super::config::{Config, HostConfig, NetworkingConfig};
use super::record::{self, Attachment, Record};
use super::state::{State, Status};
use super::table::Container;
use super::{mounts, names, validate};
use crate::engine::{Engine, blocking};
use crate::error::Error;
use crate::server::{ApiVersion, Reply, Request, response};
use crate::text::go_quote;

pub(super) use defaults::fill as fill_defaults;
pub(super) use endpoints::check as check_endpoint;
pub(super) use merge::inherit;

/// What a client asked for.
#[derive(Debug)]
struct Asked {
    /// The name, if one was given.
    name: Option<String>,
    config: Config,
    host: HostConfig,
    networking: NetworkingConfig,
    /// `os[/architecture[/variant]]` that the image must have.
    platform: Option<String>,
    version: ApiVersion,
}

/// A container that passed all checks.
struct Plan {
    name: Option<String>,
    image: Arc<Image>,
    config: Config,
    host: HostConfig,
    networks: BTreeMap<String, Attachment>,
    warnings: Vec<String>,
}

/// Makes a container.
///
/// # Errors
/// 400 for settings that make no sense, 404 `No such image: x`, 409 when the name is taken; nothing is left behind then.
pub(crate) async fn create(engine: Arc<Engine>, mut request: Request) -> Result<Reply, Error> {
    let name = request.query.get("name").map(str::to_owned);
    let platform = request.query.get("platform").map(str::to_owned);
    let body: Value = request.json().await?;
    let asked = read(body, name, platform, request.version)?;
    let plan = plan(&engine, asked).await?;
    let warnings = plan.warnings.clone();
    let (task_engine, plan) = (engine.clone(), plan);
    let container = blocking(move || carry_out(&task_engine, plan)).await?;
    super::publish(&engine, &container, "create");
    let answer = json!({ "Id": container.id, "Warnings": warnings });
    Ok(response::json(StatusCode::CREATED, &answer).into())
}

/// Makes a container for a step of a build, which nobody has named.
///
/// # Errors
/// As [`create`].
pub(super) async fn for_step(
    engine: &Arc<Engine>,
    config: Config,
    host: HostConfig,
) -> Result<Arc<Container>, Error> {
    let networking = NetworkingConfig::default();
    let asked = Asked { name: None, config, host, networking, platform: None, version: ApiVersion::MAX };
    let plan = plan(engine, asked).await?;
    let task_engine = engine.clone();
    let container = blocking(move || carry_out(&task_engine, plan)).await?;
    super::publish(engine, &container, "create");
    Ok(container)
}

/// Takes the body apart.
fn read(
    mut body: Value,
    name: Option<String>,
    platform: Option<String>,
    version: ApiVersion,
) -> Result<Asked, Error> {
    strip_nulls(&mut body);
    let mut fields = match body {
        Value::Object(fields) => fields,
        Value::Null => Map::new(),
        other => return Err(not_an_object(&other)),
    };
    let host = part(fields.remove("HostConfig"))?;
    let networking = part(fields.remove("NetworkingConfig"))?;
    if fields.is_empty() {
        return Err(Error::InvalidParameter("config cannot be empty in order to create a container".into()));
    }
    let config = part(Some(Value::Object(fields)))?;
    Ok(Asked { name, config, host, networking, platform, version })
}

/// The configuration in a body that may have more than that, as `commit` takes it; `None` if it has none.
///
/// # Errors
/// 400 in Go's words.
pub(super) fn read_config(mut body: Value) -> Result<Option<Config>, Error> {
    strip_nulls(&mut body);
    let mut fields = match body {
        Value::Object(fields) => fields,
        other => return Err(not_an_object(&other)),
    };
    fields.remove("HostConfig");
    fields.remove("NetworkingConfig");
    if fields.is_empty() { Ok(None) } else { part(Some(Value::Object(fields))).map(Some) }
}

/// As Go's decoder says it.
fn not_an_object(value: &Value) -> Error {
    let kind = match value {
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Bool(_) => "bool",
        _ => "number",
    };
    Error::InvalidParameter(format!(
        "invalid JSON: json: cannot unmarshal {kind} into Go value of type container.CreateRequest"
    ))
}

fn part<T: DeserializeOwned + Default>(value: Option<Value>) -> Result<T, Error> {
    let Some(value) = value else { return Ok(T::default()) };
    crate::server::json::typed(value)
}

/// Fields whose value is a map with keys of the user's: there a null is an entry, and means its type's zero value.
type Zero = fn() -> Value;
const MAPS: [(&str, Zero); 9] = [
    ("PortBindings", || Value::Null),
    ("EndpointsConfig", || Value::Null),
    ("ExposedPorts", || json!({})),
    ("Volumes", || json!({})),
    ("Labels", || json!("")),
    ("Annotations", || json!("")),
    ("Sysctls", || json!("")),
    ("Tmpfs", || json!("")),
    ("DriverOpts", || json!("")),
];

/// A request's body without its nulls.
///
/// # Errors
/// 400 in Go's words.
pub(super) async fn read_body<T: DeserializeOwned>(request: &mut Request) -> Result<T, Error> {
    let mut body =
        request.typed_optional_json::<Value>().await?.unwrap_or_else(|| Value::Object(Default::default()));
    strip_nulls(&mut body);
    crate::server::json::typed(body)
}

/// Removes nulls, since Go takes null for any type's zero value.
fn strip_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            for (name, field) in fields {
                let zero = MAPS.iter().find(|(map, _)| map == name).map(|(_, zero)| zero);
                match (zero, field) {
                    (Some(zero), Value::Object(entries)) => {
                        for entry in entries.values_mut() {
                            if entry.is_null() {
                                *entry = zero();
                            } else {
                                strip_nulls(entry);
                            }
                        }
                    }
                    (_, field) => strip_nulls(field),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(strip_nulls),
        _ => {}
    }
}

/// Checks everything, and fills in what image and daemon add.
async fn plan(engine: &Arc<Engine>, asked: Asked) -> Result<Plan, Error> {
    let Asked { name, mut config, mut host, networking, platform, version } = asked;
    validate::check_pair(&config, &host)?;
    let warnings = validate::warnings(&config, &mut host, engine.cgroup_v2, version);
    let images = host.mounts.iter().flatten().any(|mount| mount.kind == "image");
    if images && version < ApiVersion(1, 48) {
        return Err(Error::InvalidParameter("Mount type \"Image\" needs API v1.48 or newer".into()));
    }
    let networks = endpoints::attachments(engine, &mut host, &mut config, networking, version).await?;
    if !config.working_dir.is_empty() {
        config.working_dir = mounts::clean_path(&config.working_dir);
    }
    validate::check_config(&config)?;
    validate::check_host_config(&host)?;
    super::runtimes::check(&host, &engine.config())?;
    let image = find_image(engine, &config.image, platform.as_deref())?;
    merge::inherit(&mut config, image.config());
    if command(&config).is_none() {
        return Err(Error::InvalidParameter("no command specified".into()));
    }
    let daemon = engine.config();
    defaults::fill(&mut host, &daemon, engine.cgroup_v2, version);
    super::logging::check(&host.log_config)?;
    defaults::check_late(&host)?;
    resolve_joined(engine, &mut host, &mut config)?;
    super::spec::security::parse(host.security_opt.as_deref())?;
    if let Some(name) = &name {
        validate::check_name(name)?;
    }
    Ok(Plan { name, image, config, host, networks, warnings })
}

/// Replaces the names of containers whose namespaces are shared by their ids; who shares a network shares the host's name in it. A missing one may come to be before the start
/// where it is the network that is shared.
fn resolve_joined(engine: &Engine, host: &mut HostConfig, config: &mut Config) -> Result<(), Error> {
    let id = |mode: &str| mode.strip_prefix("container:").map(|other| engine.containers.find(other));
    for mode in [&mut host.pid_mode, &mut host.ipc_mode] {
        if let Some(found) = id(mode) {
            let other = found.map_err(|e| Error::InvalidParameter(e.to_string()))?;
            *mode = format!("container:{}", other.id);
        }
    }
    if let Some(Ok(other)) = id(&host.network_mode) {
        let peer = other.record();
        config.hostname.clone_from(&peer.config.hostname);
        config.domainname.clone_from(&peer.config.domainname);
        host.network_mode = format!("container:{}", other.id);
    }
    Ok(())
}

/// Notes, as dockerd does, that a volume with labels but no name got one more label.
fn label_anonymous(host: &mut HostConfig) {
    let unnamed =
        host.mounts.iter_mut().flatten().filter(|mount| mount.kind == "volume" && mount.source.is_empty());
    for options in unnamed.filter_map(|mount| mount.volume_options.as_mut()) {
        if let Some(labels) = options.labels.as_mut().filter(|labels| !labels.is_empty()) {
            labels.insert(crate::volumes::ANONYMOUS.into(), String::new());
        }
    }
}

fn find_image(engine: &Engine, name: &str, platform: Option<&str>) -> Result<Arc<Image>, Error> {
    if name.is_empty() {
        return Err(Error::InvalidParameter("no command specified".into()));
    }
    let image = engine.store.image(&engine.store.resolve(name)?)?;
    let Some(wanted) = platform else { return Ok(image) };
    let parts: Vec<&str> = wanted.split('/').collect();
    if parts.len() > 3 || parts.iter().any(|p| p.is_empty()) {
        let wanted = go_quote(wanted);
        return Err(Error::InvalidParameter(format!(
            "{wanted}: cannot parse platform specifier: invalid argument"
        )));
    }
    let document = &image.document;
    let matches =
        |place: usize, actual: &str| parts.get(place).is_none_or(|part| *part == actual || actual.is_empty());
    let fits = if parts.len() == 1 {
        matches(0, &document.os) || matches(0, &document.architecture)
    } else {
        matches(0, &document.os) && matches(1, &document.architecture) && matches(2, &document.variant)
    };
    if fits {
        return Ok(image);
    }
    let actual = format!("{}/{}", document.os, document.architecture);
    Err(Error::NotFound(format!(
        "image with reference {name} was found but its platform ({actual}) does not match the specified platform ({wanted})"
    )))
}

/// Program and arguments: the entry point's, then the command's.
fn command(config: &Config) -> Option<(String, Vec<String>)> {
    let mut words = config.entrypoint.iter().flatten().chain(config.cmd.iter().flatten()).cloned();
    Some((words.next()?, words.collect()))
}

/// Makes it. Blocking. A guard undoes each step when a later one fails.
fn carry_out(engine: &Engine, plan: Plan) -> Result<Arc<Container>, Error> {
    let daemon = engine.config();
    let id = crate::id::hex64();
    let mut undo = Undo { engine, id: &id, name: None, writable: false, folder: false };
    let name = match plan.name {
        Some(name) => {
            let name = name.trim_start_matches('/').to_owned();
            engine.containers.reserve_name(&name, &id)?;
            name
        }
        None => names::reserve_random(&engine.containers, &id)?,
    };
    undo.name = Some(name.clone());
    let mut config = plan.config;
    if config.hostname.is_empty() {
        config.hostname = hostname(&plan.host, &id);
    }
    let mut host = plan.host;
    let mounts = mounts::resolve(engine, &id, &config, &host)?;
    label_anonymous(&mut host);
    engine.store.create_writable(&id, &plan.image.id)?;
    undo.writable = true;
    let (path, args) = command(&config).unwrap_or_default();
    let record = Record {
        version: record::VERSION,
        id: id.clone(),
        name,
        created_ns: crate::clock::now_ns(),
        image: plan.image.id.to_string(),
        path,
        args,
        config,
        host_config: host,
        mounts: mounts.mounts,
        mount_extras: mounts.extras,
        networks: plan.networks,
        start_failure: None,
        started_before: false,
    };
    undo.folder = true;
    save_new(&record, &daemon.data_root)?;
    let status = Status {
        state: State::Created,
        restart_count: 0,
        manually_stopped: false,
        health: None,
        last_code: 0,
    };
    let container = engine.containers.insert(Container::new(record, status));
    mounts.volumes.keep();
    undo.commit();
    Ok(container)
}

/// The host's name where its network is shared, else the short id.
fn hostname(host: &HostConfig, id: &str) -> String {
    if host.network_mode == "host" {
        return rustix::system::uname().nodename().to_string_lossy().into_owned();
    }
    id.get(..12).unwrap_or(id).to_owned()
}

/// Writes the record into a folder of its own, durably.
///
/// Not through a temporary name as later changes are: what a crash leaves half-written is a container that nobody was told
/// of, and the next start removes it. So one commit of the file system's journal has it all, and syncing the folders
/// finds nothing left to do; with a rename in between it would be two (8 ms here in place of 3).
fn save_new(record: &Record, data_root: &Path) -> Result<(), Error> {
    let dir = record.dir(data_root);
    let made = DirBuilder::new().mode(0o710).create(&dir);
    made.map_err(Error::io("create", dir.display()))?;
    let path = dir.join("config.json");
    let bytes = serde_json::to_vec(record).map_err(|e| Error::io("write", path.display())(e.into()))?;
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        wherry_durable::sync_parent(&path)?;
        wherry_durable::sync_parent(&dir)
    };
    write().map_err(Error::io("write", path.display()))
}

/// What has been made of a container that is not there yet.
struct Undo<'a> {
    engine: &'a Engine,
    id: &'a str,
    name: Option<String>,
    writable: bool,
    folder: bool,
}

impl Undo<'_> {
    fn commit(mut self) {
        self.name = None;
        (self.writable, self.folder) = (false, false);
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        let warn = |what: &str, error: &dyn std::fmt::Display| {
            tracing::warn!(container = %self.id, %error, "{what} of a container that was not created stays behind");
        };
        if self.folder {
            let dir = record::dir(&self.engine.config().data_root, self.id);
            match std::fs::remove_dir_all(dir) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => warn("the folder", &e),
                _ => {}
            }
        }
        if self.writable
            && let Err(e) = self.engine.store.remove_writable(self.id)
        {
            warn("the layer", &e);
        }
        if let Some(name) = &self.name {
            self.engine.containers.release_name(name, self.id);
        }
    }
}

#[cfg(test)]
mod tests;
