//! The daemon's settings: flags, daemon.json, defaults.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

/// All settings, defaults filled in.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// What lasts: images, containers, volumes, networks (`/var/lib/wherry`).
    pub(crate) data_root: PathBuf,
    /// What is gone after a boot: sockets, namespaces (`/run/wherry`).
    pub(crate) exec_root: PathBuf,
    /// Our process id is written there.
    pub(crate) pidfile: PathBuf,
    /// Where we listen, as given (`unix://…`, `tcp://…`, `fd://`).
    pub(crate) hosts: Vec<String>,
    /// Group of the Unix socket.
    pub(crate) group: String,
    /// Whether debugging is on.
    pub(crate) debug: bool,
    /// `debug`, `info`, `warn`, `error`, `fatal`.
    pub(crate) log_level: String,
    /// Mirrors of docker.io, in order.
    pub(crate) registry_mirrors: Vec<String>,
    /// Registries (hosts or CIDRs) that may be spoken to without TLS; 127.0.0.0/8 always.
    pub(crate) insecure_registries: Vec<String>,
    /// Daemon-wide network settings.
    pub(crate) network: wherry_netd::protocol::Settings,
    /// Default resolvers of containers.
    pub(crate) dns: Vec<IpAddr>,
    /// Default resolv.conf options of containers.
    pub(crate) dns_opts: Vec<String>,
    /// Default search domains of containers.
    pub(crate) dns_search: Vec<String>,
    /// Default logging driver.
    pub(crate) log_driver: String,
    /// Its options.
    pub(crate) log_opts: BTreeMap<String, String>,
    /// Default ulimits: name → (soft, hard).
    pub(crate) default_ulimits: BTreeMap<String, (i64, i64)>,
    /// The daemon's labels, `key=value`.
    pub(crate) labels: Vec<String>,
    /// Whether cgroups are made through systemd.
    pub(crate) systemd_cgroup: bool,
    /// Parent of containers' cgroups; empty for the default (`/docker`, or `system.slice`).
    pub(crate) cgroup_parent: String,
    /// Whether containers go on when we are told to stop (SIGTERM). They always do when we crash.
    pub(crate) live_restore: bool,
    /// Seconds that containers get to stop when we are told to stop.
    pub(crate) shutdown_timeout_s: u64,
    /// Default size of /dev/shm, in bytes.
    pub(crate) default_shm_bytes: u64,
    /// Whether containers get an init process by default.
    pub(crate) init: bool,
}
