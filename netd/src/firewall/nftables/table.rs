//! Our table of one family as a value, and how it is written. A line is exactly what `nft -s list table` prints for it, so that what is
//! there can be compared with what is wanted.
//!
//! Tables, base chains and the chains of a bridge are named as dockerd 29 names its own. Their rules do what the iptables backend's do.
//! One thing differs from both: published ports are elements of maps and not rules, so that a packet is looked up once however many
//! ports there are, and a port comes and goes without anything else being touched.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::firewall::wanted::{BridgeRules, Family, LinkRules, Part, PortRules};
use crate::protocol::{BoundPort, GatewayMode};

/// The table's name, in the families `ip` and `ip6`.
pub(super) const NAME: &str = "docker-bridges";

/// The sets of the bridges of networks with a way out, and of those of internal ones.
pub(super) const BRIDGES: [&str; 2] = ["bridges", "internal-bridges"];

/// Where a chain is asked, as its declaration says it; `None` for a chain that others jump to.
pub(super) type Hook = Option<String>;

/// A chain's declaration and rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) hook: Hook,
    pub(super) rules: Vec<String>,
}

/// A set's or map's declaration and elements.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Set {
    /// `set` or `map`.
    pub(super) kind: String,
    /// The lines between its name and its elements.
    pub(super) declaration: Vec<String>,
    pub(super) elements: BTreeSet<String>,
}

/// A table, or a part of one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) sets: BTreeMap<String, Set>,
    pub(super) chains: BTreeMap<String, Chain>,
}

impl Table {
    /// All of it: the base chains and what is in them.
    pub(super) fn whole(part: &Part, family: Family, forward_drop: bool) -> Self {
        let mut table = Self::default();
        declare(&mut table, family);
        base(&mut table, family, forward_drop);
        table.fill(part, family);
        table
    }

    /// What some networks and ports add to it.
    pub(super) fn of(part: &Part, family: Family) -> Self {
        let mut table = Self::default();
        table.fill(part, family);
        table
    }

    fn fill(&mut self, part: &Part, family: Family) {
        part.networks_of(family).for_each(|network| bridge(self, network));
        part.ports_of(family).for_each(|ports| publish(self, ports));
        part.links_of(family).for_each(|opened| link(self, opened));
    }

    fn element(&mut self, set: &str, element: String) {
        self.sets.entry(set.into()).or_default().elements.insert(element);
    }

    fn chain(&mut self, name: String, rules: Vec<String>) {
        self.chains.insert(name, Chain { hook: None, rules });
    }

    fn hooked(&mut self, name: &str, hook: &str, rules: &[String]) {
        let hook = Some(format!("type {hook};"));
        self.chains.insert(name.into(), Chain { hook, rules: rules.to_vec() });
    }
}

/// The words in which the two families differ.
struct Words {
    /// The protocol's name in rules: `ip` or `ip6`.
    ip: &'static str,
    /// The type of its addresses.
    address: &'static str,
    loopback: &'static str,
}

fn words(family: Family) -> Words {
    match family {
        Family::V4 => Words { ip: "ip", address: "ipv4_addr", loopback: "127.0.0.0/8" },
        Family::V6 => Words { ip: "ip6", address: "ipv6_addr", loopback: "::1" },
    }
}

fn declare(table: &mut Table, family: Family) {
    let address = words(family).address;
    let port = "inet_proto . inet_service";
    let mut set = |name: &str, kind: &str, lines: &[String]| {
        let set = Set { kind: kind.into(), declaration: lines.to_vec(), elements: BTreeSet::new() };
        table.sets.insert(name.into(), set);
    };
    for name in BRIDGES {
        set(name, "set", &["type ifname".into()]);
    }
    // Host ports, on all addresses or on one, and where they lead.
    set("published", "map", &[format!("type {port} : {address} . inet_service")]);
    set("published-at", "map", &[format!("type {address} . {port} : {address} . inet_service")]);
    // Those of a loopback address, which others must not reach.
    set("published-locally", "set", &[format!("type {address} . {port}")]);
    // Containers' ports that are open.
    set("open", "set", &[format!("type {address} . {port}")]);
    // What links open between containers: from, to, the port there.
    set("linked", "set", &[format!("type {address} . {address} . {port}")]);
    for name in ["filter-forward-in-jumps", "nat-postrouting-in-jumps"] {
        set(name, "map", &["type ifname : verdict".into()]);
    }
    for name in ["raw-prerouting-in-jumps", "nat-postrouting-out-jumps"] {
        set(name, "map", &[format!("type {address} : verdict"), "flags interval".into()]);
    }
}

fn base(table: &mut Table, family: Family, forward_drop: bool) {
    let Words { ip, loopback, .. } = words(family);
    let v4 = family == Family::V4;
    let mut raw = vec![
        format!("{ip} daddr vmap @raw-prerouting-in-jumps"),
        format!("iifname != \"lo\" {ip} daddr . meta l4proto . th dport @published-locally counter drop"),
    ];
    if v4 {
        // Bridges route loopback addresses, for published ports on them; containers must not use that.
        raw.push(format!("ip daddr {loopback} iifname @bridges counter drop"));
        raw.push(format!("ip saddr {loopback} iifname @bridges counter drop"));
    }
    table.hooked("raw-PREROUTING", "filter hook prerouting priority raw; policy accept", &raw);

    let translate = "fib daddr type local jump nat-prerouting-and-output".to_string();
    let from_host = if v4 { translate.clone() } else { format!("ip6 daddr != {loopback} {translate}") };
    table.hooked("nat-PREROUTING", "nat hook prerouting priority dstnat; policy accept", &[translate]);
    // (Only later versions of nft know the priority's name here, too.)
    table.hooked("nat-OUTPUT", "nat hook output priority -100; policy accept", &[from_host]);
    // Answers to link-local addresses would have to leave by an interface that the container cannot name.
    let from = if v4 { "" } else { "ip6 saddr != fe80::/10 " };
    table.chain(
        "nat-prerouting-and-output".into(),
        vec![
            format!("{from}dnat {ip} to {ip} daddr . meta l4proto . th dport map @published-at"),
            format!("{from}dnat {ip} to meta l4proto . th dport map @published"),
        ],
    );
    let mut postrouting = Vec::new();
    if v4 {
        postrouting.push(format!("ip saddr {loopback} oifname @bridges counter masquerade"));
    }
    postrouting.push("oifname vmap @nat-postrouting-in-jumps".into());
    postrouting.push(format!("{ip} saddr vmap @nat-postrouting-out-jumps"));
    table.hooked("nat-POSTROUTING", "nat hook postrouting priority srcnat; policy accept", &postrouting);

    let policy = if forward_drop { "drop" } else { "accept" };
    let forward = [
        "iifname @internal-bridges oifname != @internal-bridges counter drop".into(),
        "oifname vmap @filter-forward-in-jumps".into(),
        "iifname @bridges counter accept".to_string(),
    ];
    let hook = format!("filter hook forward priority filter; policy {policy}");
    table.hooked("filter-FORWARD", &hook, &forward);
    // Networks do not reach each other, but for what is published.
    table.chain("isolation".into(), vec!["ct status dnat return".into(), "counter drop".into()]);
}

fn bridge(table: &mut Table, network: &BridgeRules) {
    let name = interface(&network.bridge);
    let forward_in = chain_of("filter-forward-in", &network.bridge);
    table.element("filter-forward-in-jumps", format!("{name} : jump {forward_in}"));
    if network.internal {
        let inside = if network.icc { "accept" } else { "drop" };
        table.element("internal-bridges", name.clone());
        let rules = [format!("iifname != {name} counter drop"), format!("counter {inside}")];
        return table.chain(forward_in, rules.to_vec());
    }
    table.element("bridges", name.clone());
    table.chain(forward_in, forwarded(network, &name));
    protect(table, network, &name);
    masquerade(table, network, &name);
}

/// What becomes of packets that leave by the bridge.
fn forwarded(network: &BridgeRules, name: &str) -> Vec<String> {
    let Words { ip, .. } = words(network.family());
    let mut rules = vec!["ct state established,related counter accept".to_string()];
    if network.mode == GatewayMode::Routed {
        let icmp = if network.family() == Family::V4 { "ip protocol icmp" } else { "meta l4proto ipv6-icmp" };
        rules.push(format!("{icmp} counter accept"));
    } else {
        rules.push(format!("iifname != {name} iifname @bridges jump isolation"));
    }
    if network.mode == GatewayMode::NatUnprotected {
        rules.push(format!("iifname != {name} counter accept"));
    } else {
        let published = format!("{ip} daddr . meta l4proto . th dport @open");
        rules.push(format!("iifname != {name} {published} counter accept"));
        rules.push(format!("iifname != {name} counter drop"));
    }
    if network.icc {
        rules.push("counter accept".into());
    } else {
        let linked = format!("{ip} saddr . {ip} daddr . meta l4proto . th dport @linked counter accept");
        rules.extend([linked, "ct status dnat counter accept".into(), "counter drop".into()]);
    }
    rules
}

/// Containers' own addresses are for the host and the bridge only; what is published goes by the host's
/// addresses, of which the gateway is one.
fn protect(table: &mut Table, network: &BridgeRules, name: &str) {
    if network.mode != GatewayMode::Nat || network.direct {
        return;
    }
    let chain = chain_of("raw-prerouting-in", &network.bridge);
    let trusted = network.trusted.iter().map(|from| format!("iifname {} counter accept", interface(from)));
    let rest = format!("iifname != {name} fib daddr type != local counter drop");
    table.element("raw-prerouting-in-jumps", format!("{} : jump {chain}", subnet(network)));
    table.chain(chain, trusted.chain([rest]).collect());
}

fn masquerade(table: &mut Table, network: &BridgeRules, name: &str) {
    if network.mode == GatewayMode::Routed {
        return;
    }
    let Words { ip, .. } = words(network.family());
    let from = subnet(network);
    // A container that comes to its neighbour, or to itself, by a published port must get the answer from the
    // host, which knows about the translation.
    let inward = chain_of("nat-postrouting-in", &network.bridge);
    table.element("nat-postrouting-in-jumps", format!("{name} : jump {inward}"));
    table.chain(inward, vec![format!("{ip} saddr {from} ct status dnat counter masquerade")]);
    if network.masquerade {
        let outward = chain_of("nat-postrouting-out", &network.bridge);
        table.element("nat-postrouting-out-jumps", format!("{from} : jump {outward}"));
        table.chain(outward, vec![format!("oifname != {name} counter masquerade")]);
    }
}

fn publish(table: &mut Table, endpoint: &PortRules) {
    for BoundPort { protocol, container_port, host_ip, host_port } in &endpoint.ports {
        let ip = endpoint.ip;
        table.element("open", format!("{ip} . {protocol} . {container_port}"));
        if endpoint.mode == GatewayMode::Routed {
            continue;
        }
        let target = format!("{ip} . {container_port}");
        if host_ip.is_unspecified() {
            table.element("published", format!("{protocol} . {host_port} : {target}"));
            continue;
        }
        let at = format!("{host_ip} . {protocol} . {host_port}");
        if host_ip.is_loopback() && matches!(host_ip, IpAddr::V4(_)) {
            // The translation comes before the kernel would refuse the address.
            // The comment says whose it is.
            table.element("published-locally", format!("{at} comment \"{}\"", endpoint.bridge));
        }
        table.element("published-at", format!("{at} : {target}"));
    }
}

/// (Answers are accepted as all answers are.)
fn link(table: &mut Table, link: &LinkRules) {
    let LinkRules { from, to, ports, .. } = link;
    for (protocol, port) in ports {
        table.element("linked", format!("{from} . {to} . {protocol} . {port}"));
    }
}

/// A subnet as an element of a map.
fn subnet(network: &BridgeRules) -> String {
    let whole = if matches!(network.subnet, IpNetwork::V4(_)) { 32 } else { 128 };
    if network.subnet.prefix() == whole { network.subnet.ip().to_string() } else { network.subnet() }
}

/// An interface's name, quoted. A star at its end would stand for anything.
pub(super) fn interface(name: &str) -> String {
    match name.strip_suffix('*') {
        Some(start) => format!("\"{start}\\*\""),
        None => format!("\"{name}\""),
    }
}

fn chain_of(kind: &str, bridge: &str) -> String {
    format!("{kind}{}", mark_of(bridge))
}

/// How the names of a bridge's chains end. Interfaces may have characters in their names that chains may not.
pub(super) fn mark_of(bridge: &str) -> String {
    let mut name = String::from("__");
    for c in bridge.chars() {
        match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '.' => name.push(c),
            other => name += &format!("_{:x}", u32::from(other)),
        }
    }
    name
}

#[cfg(test)]
mod tests;
