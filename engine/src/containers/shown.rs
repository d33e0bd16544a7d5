//! What lists and inspect share: networks, ports and durations in Docker's form. From snapshots only.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use wherry_netd::protocol::{BoundPort, Endpoint, Sandbox};

use super::network::{names, parse_port};
use super::record::{Attachment, Record};

/// `Networks`: what was asked of each endpoint, and what it became while the container runs. `full` adds what only
/// inspect shows.
pub(super) fn networks(record: &Record, sandbox: Option<&Sandbox>, full: bool) -> Value {
    let mut shown = Map::new();
    for (name, attachment) in &record.networks {
        let endpoint =
            sandbox.and_then(|s| s.endpoints.iter().find(|e| e.spec.network == attachment.network_id));
        shown.insert(name.clone(), network(record, name, attachment, endpoint, full));
    }
    Value::Object(shown)
}

fn network(
    record: &Record,
    name: &str,
    attachment: &Attachment,
    endpoint: Option<&Endpoint>,
    full: bool,
) -> Value {
    let settings = &attachment.settings;
    let user_defined = !matches!(name, "bridge" | "host" | "none");
    let joined_before = !attachment.network_id.is_empty();
    let dns_names = (full && user_defined && joined_before).then(|| names(record, attachment));
    let address = endpoint.and_then(|e| e.ipv4);
    let address_v6 = endpoint.and_then(|e| e.ipv6);
    json!({
        "IPAMConfig": settings.ipam_config,
        "Links": settings.links.as_ref().filter(|_| full),
        "Aliases": settings.aliases.as_ref().filter(|_| full),
        "MacAddress": endpoint.map_or(settings.mac_address.as_str(), |e| e.mac.as_str()),
        "DriverOpts": settings.driver_opts.as_ref().filter(|_| full),
        "GwPriority": settings.gw_priority,
        "NetworkID": attachment.network_id,
        "EndpointID": endpoint.map_or("", |e| e.spec.id.as_str()),
        "Gateway": endpoint.and_then(|e| e.gateway).map_or(String::new(), |g| g.to_string()),
        "IPAddress": address.map_or(String::new(), |a| a.ip().to_string()),
        "IPPrefixLen": address.map_or(0, |a| a.prefix()),
        "IPv6Gateway": endpoint.and_then(|e| e.gateway_v6).map_or(String::new(), |g| g.to_string()),
        "GlobalIPv6Address": address_v6.map_or(String::new(), |a| a.ip().to_string()),
        "GlobalIPv6PrefixLen": address_v6.map_or(0, |a| a.prefix()),
        "DNSNames": dns_names,
    })
}

/// All published ports of a running container.
fn bound(sandbox: Option<&Sandbox>) -> impl Iterator<Item = &BoundPort> {
    sandbox.into_iter().flat_map(|s| s.endpoints.iter().flat_map(|e| e.ports.iter()))
}

/// `NetworkSettings.Ports` of inspect: of a running container the exposed ports, each with where it is published.
pub(super) fn port_map(record: &Record, sandbox: Option<&Sandbox>) -> Value {
    let mut shown: BTreeMap<String, Option<Vec<Value>>> = BTreeMap::new();
    // Only bridges publish.
    if sandbox.is_some_and(|s| s.endpoints.iter().any(|e| !e.host_interface.is_empty())) {
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

/// `Ports` of the list.
pub(super) fn port_list(record: &Record, sandbox: Option<&Sandbox>) -> Vec<Value> {
    let mut rows: Vec<(u16, String, Value)> = Vec::new();
    for port in bound(sandbox) {
        let row = json!({
            "IP": port.host_ip.to_string(), "PrivatePort": port.container_port,
            "PublicPort": port.host_port, "Type": port.protocol.to_string(),
        });
        rows.push((port.container_port, port.protocol.to_string(), row));
    }
    let exposed = record.config.exposed_ports.iter().flatten().map(|(port, _)| port);
    for (number, protocol) in exposed.filter_map(|port| parse_port(port).ok()) {
        let published = rows.iter().any(|(n, p, _)| *n == number && *p == protocol.to_string());
        if sandbox.is_some_and(|s| !s.endpoints.is_empty()) && !published {
            let row = json!({ "PrivatePort": number, "Type": protocol.to_string() });
            rows.push((number, protocol.to_string(), row));
        }
    }
    rows.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    rows.into_iter().map(|(_, _, row)| row).collect()
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
