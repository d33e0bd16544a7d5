//! Whose namespaces a container shares, and what cannot be asked for together.

use super::super::config::{Config, HostConfig};
use super::invalid;
use crate::error::Error;

/// Checks the modes by themselves.
///
/// # Errors
/// 400 with dockerd's texts.
pub(super) fn check(host: &HostConfig) -> Result<(), Error> {
    let joins = |mode: &str| mode.strip_prefix("container:").is_some_and(|name| !name.is_empty());
    let refuse = |what: &str, mode: &str| Err(invalid(format!("invalid {what} mode: {mode}")));
    if !matches!(host.pid_mode.as_str(), "" | "host") && !joins(&host.pid_mode) {
        return refuse("PID", &host.pid_mode);
    }
    if !matches!(host.ipc_mode.as_str(), "" | "none" | "private" | "shareable" | "host")
        && !joins(&host.ipc_mode)
    {
        return refuse("IPC", &host.ipc_mode);
    }
    if !matches!(host.uts_mode.as_str(), "" | "host") {
        return refuse("UTS", &host.uts_mode);
    }
    if !matches!(host.cgroupns_mode.as_str(), "" | "private" | "host") {
        return refuse("cgroup namespace", &host.cgroupns_mode);
    }
    Ok(())
}

/// Checks what program and host ask for together.
///
/// # Errors
/// 400 `conflicting options: …`.
pub(crate) fn check_pair(config: &Config, host: &HostConfig) -> Result<(), Error> {
    let mode = host.network_mode.as_str();
    if matches!(mode, "container" | "container:") {
        return Err(invalid("invalid network mode: invalid container format container:<name|id>"));
    }
    let joins = mode.starts_with("container:");
    let some = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|l| !l.is_empty());
    let conflicts = [
        (joins && !config.hostname.is_empty(), "hostname and the network mode"),
        (
            joins && some(&host.links),
            "container type network can't be used with links. This would result in undefined behavior",
        ),
        (
            mode == "host" && some(&host.links),
            "host type networking can't be used with links. This would result in undefined behavior",
        ),
        (joins && some(&host.dns), "dns and the network mode"),
        (joins && some(&host.extra_hosts), "custom host-to-IP mapping and the network mode"),
        (
            joins && (host.publish_all_ports || host.port_bindings.as_ref().is_some_and(|p| !p.is_empty())),
            "port publishing and the container type network mode",
        ),
        (
            joins && config.exposed_ports.as_ref().is_some_and(|p| !p.is_empty()),
            "port exposing and the container type network mode",
        ),
        (host.uts_mode == "host" && !config.hostname.is_empty(), "hostname and the UTS mode"),
    ];
    match conflicts.iter().find(|(conflict, _)| *conflict) {
        Some((_, what)) => Err(invalid(format!("conflicting options: {what}"))),
        None => Ok(()),
    }
}
