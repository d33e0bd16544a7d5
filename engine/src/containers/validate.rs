//! Checks of what a client asks for, with dockerd's words.

mod limits;
mod modes;
mod ports;

use std::time::Duration;

use super::config::{Config, HealthConfig, HostConfig, RestartPolicy};
use super::signals::parse_signal;
use super::spec;
use crate::error::Error;
use crate::server::ApiVersion;
use crate::text::go_quote;

pub(super) use modes::check_pair;

const MIN_PROBE: Duration = Duration::from_millis(1);

/// Checks a container's name, with or without its slash.
///
/// # Errors
/// 400 `Invalid container name (x), only … are allowed`.
pub(crate) fn check_name(name: &str) -> Result<(), Error> {
    if is_name(name.strip_prefix('/').unwrap_or(name)) {
        return Ok(());
    }
    Err(invalid(format!("Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")))
}

/// Whether it is what dockerd takes as a name for most things: at least two characters of `[a-zA-Z0-9][a-zA-Z0-9_.-]`.
pub(super) fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric());
    let second = bytes.len() > 0;
    first && second && bytes.all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

fn invalid(message: impl Into<String>) -> Error {
    Error::InvalidParameter(message.into())
}

/// Checks the program's part of the settings, after `WorkingDir` has been cleaned.
///
/// # Errors
/// 400 with dockerd's texts.
pub(crate) fn check_config(config: &Config) -> Result<(), Error> {
    let dir = &config.working_dir;
    if !dir.is_empty() && !dir.starts_with('/') {
        return Err(invalid(format!(
            "the working directory '{dir}' is invalid, it needs to be an absolute path"
        )));
    }
    if !config.stop_signal.is_empty() {
        parse_signal(&config.stop_signal)?;
    }
    if let Some(variable) = config.env.iter().flatten().find(|v| v.is_empty() || v.starts_with('=')) {
        return Err(invalid(format!("invalid environment variable: {variable}")));
    }
    config.healthcheck.as_ref().map_or(Ok(()), check_probe)
}

fn check_probe(check: &HealthConfig) -> Result<(), Error> {
    let times = [
        ("Interval", check.interval),
        ("Timeout", check.timeout),
        ("StartPeriod", check.start_period),
        ("StartInterval", check.start_interval),
    ];
    for (name, nanoseconds) in times {
        if nanoseconds != 0 && nanoseconds < MIN_PROBE.as_nanos() as i64 {
            return Err(invalid(format!("{name} in Healthcheck cannot be less than 1ms")));
        }
    }
    if check.retries < 0 {
        return Err(invalid("Retries in Healthcheck cannot be negative"));
    }
    Ok(())
}

/// Checks the host's part of the settings, alone (as `docker update` does, too).
///
/// # Errors
/// 400 with dockerd's texts.
pub(crate) fn check_host_config(host: &HostConfig) -> Result<(), Error> {
    let restarts = !matches!(host.restart_policy.name.as_str(), "" | "no");
    if host.auto_remove && restarts {
        return Err(invalid("can't create 'AutoRemove' container with restart policy"));
    }
    for entry in host.extra_hosts.iter().flatten() {
        check_extra_host(entry)?;
    }
    ports::check_bindings(host)?;
    check_restart_policy(&host.restart_policy)?;
    spec::capabilities::validate(host)?;
    if !matches!(host.isolation.as_str(), "" | "default") {
        return Err(invalid(format!(
            "invalid isolation ({}): linux only supports 'default'",
            host.isolation
        )));
    }
    if host.annotations.iter().flatten().any(|(key, _)| key.is_empty()) {
        return Err(invalid("invalid Annotations: the empty string is not permitted as an annotation key"));
    }
    modes::check(host)?;
    limits::check(host)?;
    check_tmpfs(host)?;
    Ok(())
}

fn check_extra_host(entry: &str) -> Result<(), Error> {
    let parts = entry.split_once(':').filter(|(name, _)| !name.is_empty());
    let Some((_, address)) = parts else {
        return Err(invalid(format!("bad format for add-host: {}", go_quote(entry))));
    };
    if address == "host-gateway" || address.parse::<std::net::IpAddr>().is_ok() {
        return Ok(());
    }
    Err(invalid(format!("invalid IP address in add-host: {}", go_quote(address))))
}

fn check_restart_policy(policy: &RestartPolicy) -> Result<(), Error> {
    let refuse = |reason: &str| Err(invalid(format!("invalid restart policy: {reason}")));
    match policy.name.as_str() {
        "on-failure" if policy.maximum_retry_count < 0 => refuse("maximum retry count cannot be negative"),
        "on-failure" => Ok(()),
        "" | "no" | "always" | "unless-stopped" if policy.maximum_retry_count != 0 => {
            refuse("maximum retry count can only be used with 'on-failure'")
        }
        "" | "no" | "always" | "unless-stopped" => Ok(()),
        name => refuse(&format!(
            "unknown policy '{name}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        )),
    }
}

fn check_tmpfs(host: &HostConfig) -> Result<(), Error> {
    for (destination, _) in host.tmpfs.iter().flatten() {
        super::mounts::check_destination(destination).map_err(invalid)?;
    }
    Ok(())
}

/// What is unwise but allowed, in dockerd's words; and settings that this kernel cannot follow are taken back.
pub(crate) fn warnings(
    config: &Config,
    host: &mut HostConfig,
    cgroup_v2: bool,
    version: ApiVersion,
) -> Vec<String> {
    let mut warnings = Vec::new();
    if host.cpu_percent > 0 {
        host.cpu_percent = 0;
        warnings.push("linux does not support CPU percent. Percent discarded.".into());
    }
    if host.mounts.iter().flatten().any(|mount| mount.kind == "image") {
        warnings.push("Image mount is an experimental feature".into());
    }
    if host.oom_kill_disable == Some(true) && host.memory == 0 {
        warnings.push(
            "OOM killer is disabled for the container, but no memory limit is set, this can result in the system \
             running out of resources."
                .into(),
        );
    }
    if host.blkio_weight > 0 && !limits::kernel_has_block_weight(cgroup_v2) {
        host.blkio_weight = 0;
        warnings.push(
            "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded."
                .into(),
        );
    }
    if host.blkio_weight_device.as_ref().is_some_and(|w| !w.is_empty())
        && !limits::kernel_has_block_weight(cgroup_v2)
    {
        host.blkio_weight_device = Some(Vec::new());
        warnings.push(
            "Your kernel does not support Block I/O weight_device or the cgroup is not mounted. Weight-device \
             discarded."
                .into(),
        );
    }
    if host.network_mode == "host" && host.port_bindings.as_ref().is_some_and(|ports| !ports.is_empty()) {
        warnings.push("Published ports are discarded when using host network mode".into());
    }
    if !config.mac_address.is_empty() && version >= ApiVersion(1, 44) {
        warnings.push(
            "The container-wide MacAddress field is now deprecated. It should be specified in EndpointsConfig \
             instead."
                .into(),
        );
    }
    warnings
}

#[cfg(test)]
mod tests;
