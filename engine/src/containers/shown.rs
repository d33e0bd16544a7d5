//! What lists and inspect share: networks, ports and durations in Docker's form. From snapshots only.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Serialize, Serializer};
use serde_json::{Value, json};
use wherry_netd::protocol::{BoundPort, Endpoint, Sandbox};

use super::config::EndpointIpam;
use super::network::{names, parse_port};
use super::record::{Attachment, Record};
use crate::id::of_both;

/// `Networks`: what was asked of each endpoint, and what it became while the container runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Networks<'a> {
    pub(super) record: &'a Record,
    pub(super) sandbox: Option<&'a Sandbox>,
    pub(super) running: bool,
    /// With what only inspect shows.
    pub(super) full: bool,
}

impl Serialize for Networks<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.record.networks.iter().map(|(name, attachment)| {
            let mut endpoints = self.sandbox.into_iter().flat_map(|s| s.endpoints.iter());
            let endpoint = endpoints.find(|e| e.spec.network == attachment.network_id);
            let mut network = Network::new(self.record, name, attachment, endpoint, self.full);
            if self.running && matches!(name.as_str(), "host" | "none") {
                // netd does nothing for these.
                network.endpoint_id = of_both(&self.record.id, &attachment.network_id).into();
            }
            (name, network)
        }))
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Network<'a> {
    #[serde(rename = "IPAMConfig")]
    ipam_config: &'a Option<EndpointIpam>,
    links: Option<&'a Vec<String>>,
    aliases: Option<&'a Vec<String>>,
    mac_address: &'a str,
    driver_opts: Option<&'a BTreeMap<String, String>>,
    gw_priority: i32,
    #[serde(rename = "NetworkID")]
    network_id: &'a str,
    #[serde(rename = "EndpointID")]
    endpoint_id: Cow<'a, str>,
    gateway: Text<Ipv4Addr>,
    #[serde(rename = "IPAddress")]
    address: Text<Ipv4Addr>,
    #[serde(rename = "IPPrefixLen")]
    prefix: u8,
    #[serde(rename = "IPv6Gateway")]
    gateway_v6: Text<Ipv6Addr>,
    #[serde(rename = "GlobalIPv6Address")]
    address_v6: Text<Ipv6Addr>,
    #[serde(rename = "GlobalIPv6PrefixLen")]
    prefix_v6: u8,
    #[serde(rename = "DNSNames")]
    dns_names: Option<Vec<String>>,
}

impl<'a> Network<'a> {
    fn new(
        record: &'a Record,
        name: &str,
        attachment: &'a Attachment,
        endpoint: Option<&'a Endpoint>,
        full: bool,
    ) -> Self {
        let settings = &attachment.settings;
        let user_defined = !matches!(name, "bridge" | "host" | "none");
        let joined_before = !attachment.network_id.is_empty();
        let address = endpoint.and_then(|e| e.ipv4);
        let address_v6 = endpoint.and_then(|e| e.ipv6);
        Self {
            ipam_config: &settings.ipam_config,
            links: settings.links.as_ref().filter(|_| full),
            aliases: settings.aliases.as_ref().filter(|_| full),
            mac_address: match endpoint {
                Some(endpoint) => &endpoint.mac,
                None if joined_before => "",
                None => &settings.mac_address,
            },
            driver_opts: settings.driver_opts.as_ref().filter(|_| full),
            gw_priority: settings.gw_priority,
            network_id: &attachment.network_id,
            endpoint_id: endpoint.map_or("", |e| e.spec.id.as_str()).into(),
            gateway: Text(endpoint.and_then(|e| e.gateway)),
            address: Text(address.map(|a| a.ip())),
            prefix: address.map_or(0, |a| a.prefix()),
            gateway_v6: Text(endpoint.and_then(|e| e.gateway_v6)),
            address_v6: Text(address_v6.map(|a| a.ip())),
            prefix_v6: address_v6.map_or(0, |a| a.prefix()),
            dns_names: (full && user_defined && (joined_before || attachment.connected))
                .then(|| names(record, attachment)),
        }
    }
}

/// A value in words; without one, the empty text.
#[derive(Debug)]
struct Text<T>(Option<T>);

impl<T: std::fmt::Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Some(value) => serializer.collect_str(value),
            None => serializer.serialize_str(""),
        }
    }
}

/// All published ports of a running container.
fn bound(sandbox: Option<&Sandbox>) -> impl Iterator<Item = &BoundPort> {
    sandbox.into_iter().flat_map(|s| s.endpoints.iter().flat_map(|e| e.ports.iter()))
}

/// Whether a bridge leads out of it.
fn leads_out(sandbox: Option<&Sandbox>) -> bool {
    let mut endpoints = sandbox.into_iter().flat_map(|s| s.endpoints.iter());
    endpoints.any(|e| !e.host_interface.is_empty() && (e.default_route || e.default_route_v6))
}

/// `NetworkSettings.Ports` of inspect: of a running container the exposed ports, each with where it is published.
pub(super) fn port_map(record: &Record, sandbox: Option<&Sandbox>) -> Value {
    let mut shown: BTreeMap<String, Option<Vec<Value>>> = BTreeMap::new();
    // Elsewhere nothing can be published.
    if leads_out(sandbox) {
        for port in record.config.exposed_ports.iter().flatten().map(|(port, _)| port) {
            shown.insert(port.clone(), None);
        }
    }
    for port in bound(sandbox) {
        // Of a network whose containers are reached by their own addresses, none of the host's ports is taken.
        let host_port = if port.host_port == 0 { String::new() } else { port.host_port.to_string() };
        let place = json!({ "HostIp": port.host_ip.to_string(), "HostPort": host_port });
        let key = format!("{}/{}", port.container_port, port.protocol);
        shown.entry(key).or_default().get_or_insert_default().push(place);
    }
    json!(shown)
}

/// One of `Ports` of the list.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Port {
    #[serde(rename = "IP", skip_serializing_if = "Option::is_none")]
    host_ip: Option<IpAddr>,
    private_port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    public_port: Option<u16>,
    #[serde(rename = "Type")]
    protocol: String,
}

/// `Ports` of the list.
pub(super) fn port_list(record: &Record, sandbox: Option<&Sandbox>) -> Vec<Port> {
    let mut ports: Vec<Port> = Vec::new();
    for port in bound(sandbox) {
        ports.push(Port {
            host_ip: Some(port.host_ip),
            private_port: port.container_port,
            public_port: Some(port.host_port),
            protocol: port.protocol.to_string(),
        });
    }
    if leads_out(sandbox) {
        let exposed = record.config.exposed_ports.iter().flatten().map(|(port, _)| port);
        for (private_port, protocol) in exposed.filter_map(|port| parse_port(port).ok()) {
            let protocol = protocol.to_string();
            if !ports.iter().any(|port| port.private_port == private_port && port.protocol == protocol) {
                ports.push(Port { host_ip: None, private_port, public_port: None, protocol });
            }
        }
    }
    ports.sort_by(|a, b| (a.private_port, &a.protocol).cmp(&(b.private_port, &b.protocol)));
    ports
}

/// How long something takes, as `docker ps` says it.
pub(super) fn human_duration(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match seconds {
        ..1 => "Less than a second".into(),
        1 => "1 second".into(),
        2..60 => format!("{seconds} seconds"),
        _ if minutes == 1 => "About a minute".into(),
        _ if minutes < 60 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".into(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", seconds / 3600 / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::human_duration;

    #[test]
    fn durations_are_said_as_go_units_says_them() {
        let cases = [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (3599, "59 minutes"),
            (3600, "About an hour"),
            (5400, "2 hours"),
            (47 * 3600, "47 hours"),
            (48 * 3600, "2 days"),
            (14 * 24 * 3600, "2 weeks"),
            (61 * 24 * 3600, "2 months"),
            (800 * 24 * 3600, "2 years"),
        ];
        for (seconds, text) in cases {
            assert_eq!(human_duration(seconds), text, "{seconds}");
        }
    }
}
