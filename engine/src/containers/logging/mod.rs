//! Logging drivers: their options, checked when a container is made, and what its monitor is told when it starts.
//!
//! Every driver but `none` keeps a file that `docker logs` reads: json-file its own, `local` another, and those that send entries
//! elsewhere a cache (dockerd's "dual logging"), unless it is switched off. Logs are bounded unless somebody asks otherwise:
//! see `files.rs`.

mod address;
mod attributes;
mod fluentd;
mod gelf;
mod journald;
mod local;
mod reach;
mod syslog;
mod tag;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use wherry_monitor_api::{LogDriver, LogSpec, RemoteLog, WhenFull};

use super::config::LogConfig;
use super::record::Record;
use crate::config::Config;
use crate::error::Error;
use crate::text::{BINARY, go_bool, go_quote, go_size};

/// The drivers that containers may have, besides `none`.
pub(crate) const DRIVERS: [&str; 6] = ["fluentd", "gelf", "journald", "json-file", "local", "syslog"];
/// Those of dockerd that we do not have.
const ABSENT: [&str; 3] = ["awslogs", "gcplogs", "splunk"];
/// Options that every driver has.
const COMMON: [&str; 6] =
    ["mode", "max-buffer-size", "cache-disabled", "cache-max-size", "cache-max-file", "cache-compress"];
/// Which attributes are told.
const ATTRIBUTES: [&str; 5] = ["env", "env-regex", "labels", "labels-regex", "tag"];
/// So much waits for a log server in mode `blocking` before the container waits, too.
const BLOCKING_BYTES: u64 = 256 << 10;
/// And so much in mode `non-blocking`, unless `max-buffer-size` says otherwise.
const BUFFER_BYTES: u64 = 1 << 20;

type Options = BTreeMap<String, String>;

/// What is wrong with a driver's options, in dockerd's words.
type Reason = String;

/// Checks where output is to go.
///
/// # Errors
/// 400 with dockerd's texts; drivers that we lack are named as such.
pub(crate) fn check(log: &LogConfig) -> Result<(), Error> {
    check_options(&log.driver, &log.config).map_err(Error::InvalidParameter)
}

fn check_options(driver: &str, options: &Options) -> Result<(), Reason> {
    if driver == "none" {
        return Ok(());
    }
    if ABSENT.contains(&driver) {
        return Err(format!("logging driver {} is not supported", go_quote(driver)));
    }
    if !DRIVERS.contains(&driver) {
        return Err(format!(
            "error looking up logging plugin {driver}: plugin {} not found",
            go_quote(driver)
        ));
    }
    let mode = options.get("mode").map_or("", String::as_str);
    if !matches!(mode, "" | "blocking" | "non-blocking") {
        return Err(format!("logger: logging mode not supported: {mode}"));
    }
    if let Some(size) = options.get("max-buffer-size") {
        if mode != "non-blocking" {
            return Err("logger: max-buffer-size option is only supported with 'mode=non-blocking'".into());
        }
        go_size(size, BINARY).map_err(|reason| format!("error parsing option max-buffer-size: {reason}"))?;
    }
    if let Some(value) = options.get("cache-disabled")
        && go_bool(value).is_none()
    {
        return Err(format!("invalid value for option cache-disabled: {value}"));
    }
    let own: Options = options
        .iter()
        .filter(|(name, _)| !COMMON.contains(&name.as_str()))
        .map(|(n, v)| (n.clone(), v.clone()))
        .collect();
    match driver {
        "json-file" => known(&own, &["max-file", "max-size", "compress"], |name| {
            format!("unknown log opt '{name}' for json-file log driver")
        }),
        "local" => {
            let foreign =
                own.keys().find(|name| !matches!(name.as_str(), "max-file" | "max-size" | "compress"));
            foreign.map_or(Ok(()), |name| Err(format!("unknown log opt '{name}' for log driver local")))
        }
        "journald" => known(&own, &[], |name| format!("unknown log opt '{name}' for journald log driver")),
        "syslog" => syslog::check(&own),
        "gelf" => gelf::check(&own),
        _ => fluentd::check(&own),
    }
}

/// Refuses options that are neither in the list nor about attributes.
fn known(options: &Options, own: &[&str], text: impl Fn(&str) -> Reason) -> Result<(), Reason> {
    let is_known = |name: &str| ATTRIBUTES.contains(&name) || own.contains(&name);
    options.keys().find(|name| !is_known(name)).map_or(Ok(()), |name| Err(text(name)))
}

/// The file that `docker logs` reads; `None` if nothing is kept.
pub(crate) fn file(record: &Record, data_root: &Path) -> Option<PathBuf> {
    let log = &record.host_config.log_config;
    let disabled = log.config.get("cache-disabled").and_then(|value| go_bool(value)).unwrap_or(false);
    match log.driver.as_str() {
        "none" => None,
        "json-file" => Some(record.log_path(data_root)),
        "local" => Some(record.dir(data_root).join("local.log")),
        _ if disabled => None,
        _ => Some(record.dir(data_root).join("container-cached.log")),
    }
}

/// What the monitor is told. Blocking: names are looked up, and servers that must be there are tried.
///
/// # Errors
/// 500 `failed to create task for container: failed to initialize logging driver: …`.
pub(crate) fn spec(record: &Record, config: &Config) -> Result<LogSpec, Error> {
    build(record, config).map_err(|reason| {
        Error::server(format!(
            "failed to create task for container: failed to initialize logging driver: {reason}"
        ))
    })
}

fn build(record: &Record, config: &Config) -> Result<LogSpec, Reason> {
    let log = &record.host_config.log_config;
    let options = &log.config;
    let driver = match file(record, &config.data_root) {
        Some(path) => LogDriver::JsonFile(path),
        None => LogDriver::None,
    };
    let mut limits = local::Limits::of_cache(options);
    let mut attributes = BTreeMap::new();
    let mut remote = None;
    match log.driver.as_str() {
        "none" => {}
        "json-file" => {
            limits = local::Limits::of_json_file(options)?;
            attributes = attributes::of(record)?;
            let tag = tag::render(record, "")?;
            if !tag.is_empty() {
                attributes.insert("tag".into(), tag);
            }
        }
        "local" => limits = local::Limits::of_local(options)?,
        "journald" => remote = Some(journald::remote(record)?),
        "syslog" => remote = Some(syslog::remote(record)?),
        "gelf" => remote = Some(gelf::remote(record)?),
        _ => remote = Some(fluentd::remote(record)?),
    }
    if let Some(remote) = &mut remote {
        apply_mode(remote, options)?;
    }
    let local::Limits { max_bytes, max_files, compress } = limits;
    Ok(LogSpec { driver, max_bytes, max_files, compress, attributes, remote })
}

/// What happens when the server takes less than there is.
fn apply_mode(remote: &mut RemoteLog, options: &Options) -> Result<(), Reason> {
    if options.get("mode").is_some_and(|mode| mode == "non-blocking") {
        remote.when_full = WhenFull::Drop;
        remote.buffer_bytes =
            options.get("max-buffer-size").map_or(Ok(BUFFER_BYTES), |size| go_size(size, BINARY))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
