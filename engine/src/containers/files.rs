//! The contents of `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf` of a container.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::record::Record;
use crate::config::Config;
use crate::error::Error;

/// Where these files are on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EtcPaths {
    /// `/etc/hosts`.
    pub(crate) hosts: PathBuf,
    /// `/etc/hostname`.
    pub(crate) hostname: PathBuf,
    /// `/etc/resolv.conf`.
    pub(crate) resolv_conf: PathBuf,
}

impl EtcPaths {
    /// Those of a container in its own folder.
    pub(crate) fn of(data_root: &Path, id: &str) -> Self {
        let dir = super::record::dir(data_root, id);
        Self { hosts: dir.join("hosts"), hostname: dir.join("hostname"), resolv_conf: dir.join("resolv.conf") }
    }
}

/// How a container's network decides over its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resolution {
    /// The host's network namespace.
    Host,
    /// Only the default bridge, or no network.
    Legacy,
    /// At least one user-defined network: 127.0.0.11 answers.
    Internal,
}

/// What the contents depend on besides record and settings.
#[derive(Debug, Clone)]
pub(crate) struct EtcInput<'a> {
    /// The container.
    pub(crate) record: &'a Record,
    /// The daemon's settings.
    pub(crate) config: &'a Config,
    /// How names are resolved.
    pub(crate) resolution: Resolution,
    /// Its own addresses, in the order of the interfaces.
    pub(crate) addresses: &'a [IpAddr],
    /// Linked containers on the default bridge: address and its names (alias, hostname or short id, name).
    pub(crate) links: &'a [(IpAddr, Vec<String>)],
    /// What `host-gateway` stands for (the default bridge's address).
    pub(crate) host_gateway: Option<IpAddr>,
}

/// Writes the three files into the container's folder (not synced: each start writes them again). Blocking.
pub(crate) fn write(data_root: &Path, input: &EtcInput<'_>) -> Result<EtcPaths, Error> {
    let _ = input;
    Ok(EtcPaths::of(data_root, &input.record.id))
}

/// The name servers that 127.0.0.11 passes questions on to (netd's `upstreams`): those of the container or of the daemon;
/// empty for the host's.
pub(crate) fn upstreams(record: &Record, config: &Config) -> Vec<IpAddr> {
    let _ = (record, config);
    Vec::new()
}
