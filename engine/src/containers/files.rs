//! The contents of `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf` of a container, as dockerd writes them.

mod resolv_conf;

use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::record::Record;
use crate::config::Config;
use crate::error::Error;

const HOST_HOSTS: &str = "/etc/hosts";

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
        Self {
            hosts: dir.join("hosts"),
            hostname: dir.join("hostname"),
            resolv_conf: dir.join("resolv.conf"),
        }
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
    /// What `host-gateway` stands for.
    pub(crate) host_gateways: &'a [IpAddr],
}

/// Writes the three files into the container's folder (not synced: each start writes them again; in place, so that
/// a running container, which has them mounted, sees it). Blocking.
///
/// # Errors
/// I/O errors with the file's name.
pub(crate) fn write(data_root: &Path, input: &EtcInput<'_>) -> Result<EtcPaths, Error> {
    let paths = EtcPaths::of(data_root, &input.record.id);
    let host_resolv_conf = resolv_conf::of_host();
    let contents = [
        (&paths.hosts, hosts(input)),
        (&paths.hostname, format!("{}\n", input.record.config.hostname)),
        (&paths.resolv_conf, resolv_conf::render(input, &host_resolv_conf)),
    ];
    for (path, content) in contents {
        fs::write(path, content).map_err(Error::io("write", path.display()))?;
    }
    Ok(paths)
}

/// The name servers that 127.0.0.11 passes questions on to (netd's `upstreams`): those of the container or of the daemon;
/// empty for the host's.
pub(crate) fn upstreams(record: &Record, config: &Config) -> Vec<IpAddr> {
    let given = record.host_config.dns.as_deref().unwrap_or_default();
    let own: Vec<IpAddr> = given.iter().filter_map(|server| server.parse().ok()).collect();
    if own.is_empty() { config.dns.clone() } else { own }
}

/// Whether an option `ndots` is given, whatever its value: then, as with dockerd, 127.0.0.11 asks nobody outside for names of
/// one label, and the container's own resolver tries its search domains.
pub(crate) fn single_labels_stay(record: &Record, config: &Config) -> bool {
    let own = record.host_config.dns_options.as_deref().filter(|own| !own.is_empty());
    match own.or(Some(&config.dns_opts[..]).filter(|all| !all.is_empty())) {
        Some(options) => resolv_conf::ndots(options).is_some(),
        None => resolv_conf::of_host().ndots().is_some(),
    }
}

/// `/etc/hosts`.
fn hosts(input: &EtcInput<'_>) -> String {
    let extra = input.record.host_config.extra_hosts.as_deref().unwrap_or_default();
    if input.resolution == Resolution::Host && extra.is_empty() {
        // A host without the file has no names to tell.
        return fs::read_to_string(HOST_HOSTS).unwrap_or_default();
    }
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\n\
         ff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
    );
    extra_hosts(input, &mut text);
    let mut line = |address: &str, names: &str| {
        let _ = writeln!(text, "{address}\t{names}"); // writing to a String cannot fail
    };
    for (address, names) in input.links {
        line(&address.to_string(), &names.join(" "));
    }
    let config = &input.record.config;
    let mut own_names = config.hostname.clone();
    if !config.domainname.is_empty() {
        own_names = format!("{own_names}.{}", config.domainname);
    }
    // The bare name besides, however the full one was given.
    if let Some((bare, _)) = own_names.split_once('.') {
        own_names = format!("{own_names} {bare}");
    }
    for address in input.addresses {
        line(&address.to_string(), &own_names);
    }
    text
}

/// `/etc/hosts` of a build's step, as BuildKit has it.
pub(crate) fn step_hosts(input: &EtcInput<'_>) -> String {
    let name = &input.record.config.hostname;
    let mut text = format!("127.0.0.1\tlocalhost {name}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    extra_hosts(input, &mut text);
    text
}

/// The lines that `--add-host` asks for.
fn extra_hosts(input: &EtcInput<'_>, text: &mut String) {
    let mut line = |address: &str, name: &str| {
        let _ = writeln!(text, "{address}\t{name}"); // writing to a String cannot fail
    };
    for entry in input.record.host_config.extra_hosts.iter().flatten() {
        // The first colon, since IPv6 addresses have them, too.
        let Some((name, address)) = entry.split_once(':') else { continue };
        if address == "host-gateway" {
            input.host_gateways.iter().for_each(|gateway| line(&gateway.to_string(), name));
        } else {
            line(address.trim_start_matches('[').trim_end_matches(']'), name);
        }
    }
}

#[cfg(test)]
mod tests;
