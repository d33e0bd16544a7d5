//! What a container asks of netd: its endpoints, published ports, names and links.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use wherry_netd::protocol::{Driver, EndpointSpec, Network, PortSpec, Protocol, Sandbox, SandboxSpec};

use super::files::{self, Resolution};
use super::record::{Attachment, Record};
use super::table::Container;
use crate::engine::Engine;
use crate::error::Error;
use crate::networks;

/// The network that a container runs in.
#[derive(Debug)]
pub(super) enum Joined {
    /// The host's namespace.
    Host,
    /// The namespace of another process, by path.
    Other(PathBuf),
    /// One of its own.
    Own(Box<Sandbox>),
}

impl Joined {
    /// The namespace to enter; `None` for the host's.
    pub(super) fn netns(&self) -> Option<PathBuf> {
        match self {
            Self::Host => None,
            Self::Other(path) => Some(path.clone()),
            Self::Own(sandbox) => Some(sandbox.netns.clone()),
        }
    }
}

/// Makes the container's network, with all that its record asks for.
///
/// # Errors
/// dockerd's texts, each behind `failed to set up container networking: `.
pub(super) async fn join(engine: &Arc<Engine>, record: &Record) -> Result<Joined, Error> {
    if let Some(other) = record.host_config.network_mode.strip_prefix("container:") {
        let peer = engine.containers.find(other);
        let peer = peer.map_err(|e| Error::server(format!("joining network namespace of container: {e}")))?;
        let state = peer.status().state.clone();
        return match state.pid() {
            0 => Err(Error::Conflict(format!(
                "cannot join network namespace of a non running container: container {} is {}",
                peer.record().name,
                state.status()
            ))),
            pid => Ok(Joined::Other(PathBuf::from(format!("/proc/{pid}/ns/net")))),
        };
    }
    if record.networks.contains_key("host") {
        if record.host_config.extra_hosts.iter().flatten().any(|entry| entry.ends_with(":host-gateway")) {
            // /etc/hosts is written with what is remembered of networks.
            engine.netd.known_networks().await.map_err(set_up)?;
        }
        return Ok(Joined::Host);
    }
    let spec = sandbox_spec(engine, record).await.map_err(set_up)?;
    let sandbox = engine.netd.create_sandbox(spec).await.map_err(|error| refused(error, record))?;
    Ok(Joined::Own(Box::new(sandbox)))
}

fn set_up(error: Error) -> Error {
    Error::Docker {
        status: error.status(),
        message: format!("failed to set up container networking: {error}"),
    }
}

/// netd's refusal of a port is told as libnetwork tells it, with the endpoint that wanted it.
fn refused(error: Error, record: &Record) -> Error {
    use wherry_netd::protocol::Failure;
    match error {
        Error::Network(failure @ (Failure::PortAllocated { .. } | Failure::PortBind { .. })) => {
            let endpoint = crate::id::hex64();
            set_up(Error::server(format!(
                "driver failed programming external connectivity on endpoint {} ({endpoint}): {failure}",
                record.name
            )))
        }
        other => set_up(other),
    }
}

async fn sandbox_spec(engine: &Arc<Engine>, record: &Record) -> Result<SandboxSpec, Error> {
    let mut endpoints = Vec::new();
    let mut resolver = false;
    let without_bridge = engine.config().network.default_bridge.is_none();
    for (name, attachment) in in_order(record) {
        if name == "bridge" && without_bridge {
            // Containers of a daemon with `--bridge=none` are alone if they ask for nothing else.
            continue;
        }
        let network = networks::find(engine, name).await?;
        match network.spec.driver {
            Driver::Null | Driver::Host => {}
            Driver::Bridge | Driver::Macvlan | Driver::Ipvlan | Driver::Description => {
                resolver |= !network.default_bridge;
                endpoints.push(endpoint(engine, record, &network, attachment)?);
            }
        }
    }
    // netd publishes them where the default route goes.
    if let Some(first) = endpoints.first_mut() {
        first.ports = ports(record)?;
    }
    let sysctls = record.host_config.sysctls.iter().flatten().filter(|(name, _)| name.starts_with("net."));
    Ok(SandboxSpec {
        id: record.id.clone(),
        endpoints,
        upstreams: files::upstreams(record, &engine.config()),
        single_labels_stay: files::single_labels_stay(record, &engine.config()),
        sysctls: sysctls.map(|(n, v)| (n.clone(), v.clone())).collect(),
        resolver,
    })
}

/// The default bridge first, the others by their names, as dockerd numbers their interfaces.
pub(super) fn in_order(record: &Record) -> Vec<(&String, &Attachment)> {
    let mut all: Vec<_> = record.networks.iter().collect();
    all.sort_by_key(|(name, _)| name.as_str() != "bridge");
    all
}

/// One endpoint as netd wants it, without published ports.
///
/// # Errors
/// 400 for addresses that are none, 404 for links to nowhere.
pub(super) fn endpoint(
    engine: &Engine,
    record: &Record,
    network: &Network,
    attachment: &Attachment,
) -> Result<EndpointSpec, Error> {
    let settings = &attachment.settings;
    let ipam = settings.ipam_config.clone().unwrap_or_default();
    let link_local = ipam.link_local_ips.iter().flatten();
    let options = settings.driver_opts.clone().unwrap_or_default();
    Ok(EndpointSpec {
        network: network.spec.id.clone(),
        id: crate::id::hex64(),
        container_name: record.name.clone(),
        names: if network.default_bridge { Vec::new() } else { names(record, attachment) },
        links: if network.default_bridge { BTreeMap::new() } else { links(engine, record, attachment)? },
        ipv4: parse_address(&ipam.ipv4_address, "IPv4")?,
        ipv6: parse_address(&ipam.ipv6_address, "IPv6")?,
        link_local: link_local
            .filter_map(|ip| parse_address(ip, "link-local IP").transpose())
            .collect::<Result<_, _>>()?,
        interface: options.get(IFNAME).filter(|name| !name.is_empty()).cloned(),
        sysctls: interface_sysctls(options.get(SYSCTLS).map_or("", String::as_str))?,
        mac: Some(&settings.mac_address).filter(|mac| !mac.is_empty()).cloned(),
        ports: Vec::new(),
        exposed: if network.default_bridge { exposed(record) } else { Vec::new() },
        linked: if network.default_bridge { linked(engine, record) } else { BTreeSet::new() },
        gateway_priority: settings.gw_priority,
    })
}

/// The option with which an endpoint's interface is named.
const IFNAME: &str = "com.docker.network.endpoint.ifname";
/// The option with an interface's kernel parameters.
pub(super) const SYSCTLS: &str = "com.docker.network.endpoint.sysctls";

fn parse_address<T: std::str::FromStr>(text: &str, what: &str) -> Result<Option<T>, Error> {
    let parsed = Some(text).filter(|text| !text.is_empty()).map(str::parse);
    parsed.transpose().map_err(|_| Error::InvalidParameter(format!("invalid {what} address: {text}")))
}

/// `NAME=VALUE,…`, each of an interface that is called IFNAME.
fn interface_sysctls(text: &str) -> Result<Vec<(String, String)>, Error> {
    let each = text.split(',').filter(|one| !one.is_empty());
    each.map(|one| match one.split_once('=') {
        Some((name, value)) => Ok((name.to_string(), value.to_string())),
        None => Err(Error::InvalidParameter(format!(
            "expected sysctl '{}' to have format name=value",
            one.to_lowercase()
        ))),
    })
    .collect()
}

/// An endpoint's addresses, IPv4 first.
pub(super) fn addresses(endpoint: &wherry_netd::protocol::Endpoint) -> Vec<std::net::IpAddr> {
    let v4 = endpoint.ipv4.map(|network| network.ip().into());
    v4.into_iter().chain(endpoint.ipv6.map(|network| network.ip().into())).collect()
}

/// The names of a container in a user-defined network.
pub(super) fn names(record: &Record, attachment: &Attachment) -> Vec<String> {
    let mut names = vec![record.name.clone()];
    let aliases = attachment.settings.aliases.iter().flatten().cloned();
    let own = [record.short_id().to_owned(), record.config.hostname.clone()];
    for name in aliases.chain(own) {
        if !name.is_empty() && !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn links(
    engine: &Engine,
    record: &Record,
    attachment: &Attachment,
) -> Result<BTreeMap<String, String>, Error> {
    let mut links = BTreeMap::new();
    for link in attachment.settings.links.iter().flatten() {
        let (source, alias) = parse_link(link);
        // A name is nobody's yet, or somebody else's later; an id is known to us alone.
        let by_id = engine.containers.find(source).ok().filter(|found| found.record().name != source);
        links.insert(alias.to_owned(), by_id.map_or_else(|| source.to_owned(), |found| found.id.clone()));
    }
    for link in record.host_config.links.iter().flatten() {
        let (source, alias) = parse_link(link);
        links.insert(alias.to_owned(), engine.containers.find(source)?.id.clone());
    }
    Ok(links)
}

/// The ports that an image or a container declares, with TCP's first.
pub(super) fn exposed(record: &Record) -> Vec<(Protocol, u16)> {
    let declared = record.config.exposed_ports.iter().flatten();
    let mut ports: Vec<_> =
        declared.filter_map(|(port, _)| parse_port(port).ok()).map(|(number, p)| (p, number)).collect();
    ports.sort_by_key(|(protocol, number)| (*protocol != Protocol::Tcp, protocol.to_string(), *number));
    ports
}

/// The containers that one on the default bridge is linked to.
pub(super) fn linked(engine: &Engine, record: &Record) -> BTreeSet<String> {
    let links = record.host_config.links.iter().flatten().filter(|_| has_legacy_links(record));
    links.filter_map(|link| engine.containers.find(parse_link(link).0).ok()).map(|c| c.id.clone()).collect()
}

/// `name:alias`, or `name` alone, with or without slashes, into both parts.
pub(super) fn parse_link(link: &str) -> (&str, &str) {
    let (source, alias) = link.split_once(':').unwrap_or((link, link));
    (source.trim_start_matches('/'), alias.rsplit('/').next().unwrap_or(alias))
}

/// The published ports: those that are bound, and with `-P` the other exposed ones.
pub(super) fn ports(record: &Record) -> Result<Vec<PortSpec>, Error> {
    let mut specs = Vec::new();
    let bindings = record.host_config.port_bindings.clone().unwrap_or_default();
    for (port, hosts) in &bindings {
        let (container_port, protocol) = parse_port(port)?;
        for host in hosts.iter().flatten() {
            let host_ip = match host.host_ip.as_str() {
                "" => None,
                text => Some(
                    text.parse()
                        .map_err(|_| Error::InvalidParameter(format!("invalid IP address: {text}")))?,
                ),
            };
            let host_ports = parse_range(&host.host_port)?;
            specs.push(PortSpec { protocol, container_port, host_ip, host_ports });
        }
    }
    if record.host_config.publish_all_ports {
        for port in record.config.exposed_ports.iter().flatten().map(|(port, _)| port) {
            if bindings.get(port).is_none_or(|hosts| hosts.iter().flatten().next().is_none()) {
                let (container_port, protocol) = parse_port(port)?;
                specs.push(PortSpec { protocol, container_port, host_ip: None, host_ports: (0, 0) });
            }
        }
    }
    specs.sort_by_key(|s| (s.container_port, s.protocol));
    Ok(specs)
}

/// Reads `80/tcp`; the protocol is tcp if not given.
pub(super) fn parse_port(text: &str) -> Result<(u16, Protocol), Error> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        other => return Err(Error::InvalidParameter(format!("invalid proto: {other}"))),
    };
    let number = number.parse().map_err(|_| Error::InvalidParameter(format!("invalid port: {text}")))?;
    Ok((number, protocol))
}

fn parse_range(text: &str) -> Result<(u16, u16), Error> {
    let invalid =
        || Error::InvalidParameter(format!("invalid port specification: {}", crate::text::go_quote(text)));
    if text.is_empty() {
        return Ok((0, 0));
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = (first.parse().map_err(|_| invalid())?, last.parse().map_err(|_| invalid())?);
    if range.0 > range.1 { Err(invalid()) } else { Ok(range) }
}

/// How names are resolved in the container.
pub(super) fn resolution(joined: &Joined) -> Resolution {
    match joined {
        Joined::Host | Joined::Other(_) => Resolution::Host,
        Joined::Own(sandbox) if sandbox.spec.resolver => Resolution::Internal,
        Joined::Own(_) => Resolution::Legacy,
    }
}

/// Whether the record's links are those of the default bridge: variables and /etc/hosts instead of names.
pub(super) fn has_legacy_links(record: &Record) -> bool {
    record.host_config.links.iter().flatten().next().is_some()
        && matches!(record.host_config.network_mode.as_str(), "bridge" | "default" | "")
}

/// The address of a running container on the default bridge.
pub(super) fn bridge_address(container: &Container) -> Option<std::net::Ipv4Addr> {
    let record = container.record();
    let network = &record.networks.get("bridge")?.network_id;
    let sandbox = container.sandbox()?;
    let endpoint = sandbox.endpoints.iter().find(|endpoint| endpoint.spec.network == *network)?;
    endpoint.ipv4.map(|network| network.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_ranges_are_read_strictly() {
        assert_eq!(parse_port("53/udp").unwrap(), (53, Protocol::Udp));
        assert_eq!(parse_port("80").unwrap(), (80, Protocol::Tcp));
        assert!(parse_port("70000/tcp").is_err() && parse_port("80/icmp").is_err());
        assert_eq!(parse_range("").unwrap(), (0, 0));
        assert_eq!(parse_range("8000-8010").unwrap(), (8000, 8010));
        assert!(parse_range("9-8").is_err() && parse_range("x").is_err());
    }

    #[test]
    fn links_are_read_in_all_their_forms() {
        for (link, expected) in [("a:b", ("a", "b")), ("a", ("a", "a")), ("/a:/c/b", ("a", "b"))] {
            assert_eq!(parse_link(link), expected);
        }
    }
}
