//! The firewall rules as values, and how they are written. The text of a rule is exactly what
//! iptables-save (or ip6tables-save) prints for it, so that what is there can be compared with what is wanted.
//!
//! Chains and their order are dockerd's, which host administrators know and hang their own rules on. One
//! thing differs, so that no connection to a published port depends on a process of ours: connections from the
//! host's loopback and from the containers' own bridges are translated in the kernel, too, where
//! dockerd sends them through docker-proxy. (Only IPv6's loopback cannot be translated: the kernel routes it nowhere else.)
//!
//! Every packet of the host meets the rules in `raw`, about 50 ns each, those between two containers too. So there are two, however
//! many networks and containers there are, where dockerd has one for each container: loopback addresses have a chain, and what is sent
//! to containers' own addresses from outside is dropped when a connection's first packet is forwarded (in `mangle`, before any rule of an
//! administrator's that accepts it).

use std::collections::HashSet;
use std::net::IpAddr;

use crate::firewall::wanted::{BridgeRules, Family, LinkRules, Part, PortRules};
use crate::protocol::{BoundPort, GatewayMode};

/// The chain for packets that have an address of the loopback network.
const LOOPBACK: &str = "DOCKER-LOOPBACK";

/// The chain for connections that are not known yet, nor translated.
const DIRECT: &str = "DOCKER-DIRECT";

/// iptables' tables, in the order in which packets meet them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Table {
    Raw,
    Mangle,
    Nat,
    Filter,
}

impl Table {
    pub(super) const ALL: [Self; 4] = [Self::Raw, Self::Mangle, Self::Nat, Self::Filter];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Mangle => "mangle",
            Self::Nat => "nat",
            Self::Filter => "filter",
        }
    }

    /// The chains of ours in it.
    pub(super) fn chains(self, family: Family) -> &'static [&'static str] {
        match self {
            Self::Raw if family == Family::V6 => &[],
            Self::Raw => &[LOOPBACK],
            Self::Mangle => &[DIRECT],
            Self::Nat => &["DOCKER"],
            Self::Filter => &[
                "DOCKER",
                "DOCKER-BRIDGE",
                "DOCKER-CT",
                "DOCKER-FORWARD",
                "DOCKER-ISOLATION-STAGE-1",
                "DOCKER-ISOLATION-STAGE-2",
                "DOCKER-USER",
            ],
        }
    }
}

/// Where a rule goes in its chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Place {
    /// Before all others; of several such, the first one stays first.
    Top,
    /// Behind all others.
    Bottom,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Rule {
    pub(super) family: Family,
    pub(super) table: Table,
    pub(super) chain: &'static str,
    pub(super) place: Place,
    /// As iptables-save prints it behind `-A CHAIN `.
    pub(super) spec: String,
}

/// Rules of one family, in the making.
struct Rules {
    family: Family,
    made: Vec<Rule>,
}

impl Rules {
    fn new(family: Family) -> Self {
        Self { family, made: Vec::new() }
    }

    fn add(&mut self, table: Table, chain: &'static str, place: Place, spec: impl Into<String>) {
        self.made.push(Rule { family: self.family, table, chain, place, spec: spec.into() });
    }

    fn bottom(&mut self, table: Table, chain: &'static str, spec: impl Into<String>) {
        self.add(table, chain, Place::Bottom, spec);
    }
}

/// The rules that do not belong to a network.
pub(super) fn base(family: Family) -> Vec<Rule> {
    use Place::Top;
    use Table::{Filter, Mangle, Nat, Raw};
    let mut rules = Rules::new(family);
    if family == Family::V4 {
        rules.bottom(Raw, "PREROUTING", format!("-s 127.0.0.0/8 -j {LOOPBACK}"));
        rules.bottom(Raw, "PREROUTING", format!("-d 127.0.0.0/8 -j {LOOPBACK}"));
        rules.add(Raw, LOOPBACK, Top, "-i lo -j RETURN");
    }
    let unknown = format!("-m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j {DIRECT}");
    rules.bottom(Mangle, "FORWARD", unknown);
    rules.bottom(Nat, "PREROUTING", "-m addrtype --dst-type LOCAL -j DOCKER");
    let own = match family {
        Family::V4 => "",
        Family::V6 => "! -d ::1/128 ",
    };
    rules.bottom(Nat, "OUTPUT", format!("{own}-m addrtype --dst-type LOCAL -j DOCKER"));
    rules.add(Filter, "FORWARD", Top, "-j DOCKER-USER");
    rules.add(Filter, "FORWARD", Top, "-j DOCKER-FORWARD");
    rules.add(Filter, "DOCKER-FORWARD", Top, "-j DOCKER-CT");
    rules.add(Filter, "DOCKER-FORWARD", Top, "-j DOCKER-ISOLATION-STAGE-1");
    rules.add(Filter, "DOCKER-FORWARD", Top, "-j DOCKER-BRIDGE");
    // A published port is open to other networks' containers as it is to all.
    rules.add(Filter, "DOCKER-ISOLATION-STAGE-2", Top, "-m conntrack --ctstate DNAT -j RETURN");
    rules.made
}

/// The rules of a bridge network.
pub(super) fn bridge(network: &BridgeRules) -> Vec<Rule> {
    use Table::Filter;
    let br = &network.bridge;
    let mut rules = Rules::new(network.family());
    if network.internal {
        internal(network, &mut rules);
        return rules.made;
    }
    translation(network, &mut rules);
    match network.mode {
        GatewayMode::NatUnprotected => {
            rules.bottom(Filter, "DOCKER", format!("! -i {br} -o {br} -j ACCEPT"));
        }
        GatewayMode::Routed => {
            let icmp = if rules.family == Family::V4 { "icmp" } else { "ipv6-icmp" };
            rules.bottom(Filter, "DOCKER", format!("-o {br} -p {icmp} -j ACCEPT"));
            rules.bottom(Filter, "DOCKER", format!("! -i {br} -o {br} -j DROP"));
        }
        GatewayMode::Nat | GatewayMode::Isolated => {
            rules.bottom(Filter, "DOCKER", format!("! -i {br} -o {br} -j DROP"));
        }
    }
    direct_access(network, &mut rules);
    rules.bottom(Filter, "DOCKER-BRIDGE", format!("-o {br} -j DOCKER"));
    rules.bottom(
        Filter,
        "DOCKER-CT",
        format!("-o {br} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"),
    );
    if network.icc {
        rules.bottom(Filter, "DOCKER-FORWARD", format!("-i {br} -j ACCEPT"));
    } else {
        let published = format!("-i {br} -o {br} -m conntrack --ctstate DNAT -j ACCEPT");
        rules.bottom(Filter, "DOCKER-FORWARD", published);
        rules.bottom(Filter, "DOCKER-FORWARD", format!("-i {br} -o {br} -j DROP"));
        rules.bottom(Filter, "DOCKER-FORWARD", format!("-i {br} ! -o {br} -j ACCEPT"));
    }
    isolation(network, &mut rules);
    rules.made
}

fn internal(network: &BridgeRules, rules: &mut Rules) {
    use Table::Filter;
    let (br, subnet) = (&network.bridge, network.subnet());
    let inside = if network.icc { "ACCEPT" } else { "DROP" };
    rules.bottom(Filter, "DOCKER-FORWARD", format!("-i {br} -o {br} -j {inside}"));
    // Neighbour discovery between IPv6's link-local addresses stays within the bridge.
    let (not_in, not_out) = match rules.family {
        Family::V4 => (String::new(), String::new()),
        Family::V6 => (format!("! -i {br} "), format!("! -o {br} ")),
    };
    rules.bottom(Filter, "DOCKER-ISOLATION-STAGE-1", format!("! -s {subnet} {not_in}-o {br} -j DROP"));
    rules.bottom(Filter, "DOCKER-ISOLATION-STAGE-1", format!("! -d {subnet} -i {br} {not_out}-j DROP"));
}

/// Networks do not reach each other, but for what is published; one whose containers are reached by their own addresses is
/// open as far as its published ports go.
fn isolation(network: &BridgeRules, rules: &mut Rules) {
    use Table::Filter;
    let br = &network.bridge;
    if network.mode == GatewayMode::Routed {
        let answers = format!("-i {br} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT");
        rules.add(Filter, "DOCKER-ISOLATION-STAGE-1", Place::Top, answers);
        rules.add(Filter, "DOCKER-ISOLATION-STAGE-1", Place::Top, format!("-o {br} -j RETURN"));
    }
    let others = format!("-i {br} ! -o {br} -j DOCKER-ISOLATION-STAGE-2");
    rules.bottom(Filter, "DOCKER-ISOLATION-STAGE-1", others);
    rules.bottom(Filter, "DOCKER-ISOLATION-STAGE-2", format!("-o {br} -j DROP"));
}

/// Containers' own addresses are for the host and the bridge only; what is published goes by the host's addresses, and is translated.
fn direct_access(network: &BridgeRules, rules: &mut Rules) {
    if network.mode != GatewayMode::Nat || network.direct {
        return;
    }
    let br = &network.bridge;
    for interface in &network.trusted {
        rules.add(Table::Mangle, DIRECT, Place::Top, format!("-i {interface} -o {br} -j RETURN"));
    }
    rules.bottom(Table::Mangle, DIRECT, format!("! -i {br} -o {br} -j DROP"));
}

fn translation(network: &BridgeRules, rules: &mut Rules) {
    use Table::{Nat, Raw};
    let (br, subnet) = (&network.bridge, network.subnet());
    if rules.family == Family::V4 {
        // The bridge routes loopback addresses, for published ports on them; containers must not use that.
        rules.bottom(Raw, LOOPBACK, format!("-i {br} -j DROP"));
    }
    if network.mode == GatewayMode::Routed {
        return;
    }
    if rules.family == Family::V4 {
        rules.bottom(Nat, "POSTROUTING", format!("-s 127.0.0.0/8 -o {br} -j MASQUERADE"));
    }
    // A container that comes to its neighbour, or to itself, by a published port must get the answer from the
    // host, which knows about the translation.
    rules.bottom(
        Nat,
        "POSTROUTING",
        format!("-s {subnet} -o {br} -m conntrack --ctstate DNAT -j MASQUERADE"),
    );
    if network.masquerade {
        rules.bottom(Nat, "POSTROUTING", format!("-s {subnet} ! -o {br} -j MASQUERADE"));
    }
}

/// The rules of one published port.
fn port(endpoint: &PortRules, port: &BoundPort) -> Vec<Rule> {
    use Place::Top;
    use Table::{Filter, Nat, Raw};
    let family = endpoint.family();
    let mut rules = Rules::new(family);
    let (bridge, ip, host_ip) = (&endpoint.bridge, endpoint.ip, port.host_ip);
    let BoundPort { protocol, container_port, host_port, .. } = port;
    let matching = |number: &u16| format!("-p {protocol} -m {protocol} --dport {number}");
    let to_container = matching(container_port);
    let length = if family == Family::V4 { 32 } else { 128 };
    if endpoint.mode != GatewayMode::Routed {
        let to_host = matching(host_port);
        let destination =
            if host_ip.is_unspecified() { String::new() } else { format!("-d {host_ip}/{length} ") };
        if host_ip.is_loopback() && family == Family::V4 {
            // The translation comes before the kernel would refuse the address; the comment says whose rule it is.
            rules.bottom(
                Raw,
                LOOPBACK,
                format!("{destination}! -i lo {to_host} -m comment --comment {} -j DROP", comment(bridge)),
            );
        }
        // Answers to link-local addresses would have to leave by an interface that the container cannot name.
        let (source, to) = match ip {
            IpAddr::V4(ip) => ("", format!("{ip}:{container_port}")),
            IpAddr::V6(ip) => ("! -s fe80::/10 ", format!("[{ip}]:{container_port}")),
        };
        rules.bottom(
            Nat,
            "DOCKER",
            match family {
                Family::V4 => format!("{destination}{to_host} -j DNAT --to-destination {to}"),
                Family::V6 => format!("{source}{destination}{to_host} -j DNAT --to-destination {to}"),
            },
        );
    }
    rules.add(
        Filter,
        "DOCKER",
        Top,
        format!("-d {ip}/{length} ! -i {bridge} -o {bridge} {to_container} -j ACCEPT"),
    );
    rules.made
}

/// The rules of a link, there and back.
fn link(link: &LinkRules) -> Vec<Rule> {
    let LinkRules { bridge, from, to, ports } = link;
    let family = Family::of(*to);
    let length = if family == Family::V4 { 32 } else { 128 };
    let mut rules = Rules::new(family);
    for (protocol, port) in ports {
        for (source, destination, end) in [(from, to, "dport"), (to, from, "sport")] {
            rules.bottom(
                Table::Filter,
                "DOCKER",
                format!(
                    "-s {source}/{length} -d {destination}/{length} -i {bridge} -o {bridge} \
                     -p {protocol} -m {protocol} --{end} {port} -j ACCEPT"
                ),
            );
        }
    }
    rules.made
}

/// A comment as iptables-save prints it: in quotes if there is more in it than letters, digits, dashes and underscores.
pub(super) fn comment(text: &str) -> String {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')) {
        return text.into();
    }
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\'', "\\'");
    format!("\"{escaped}\"")
}

/// The rules of a part in one family, each once (several host ports may lead to one of the container's).
pub(super) fn of(part: &Part, family: Family) -> Vec<Rule> {
    let mut rules = part.networks_of(family).flat_map(bridge).collect::<Vec<_>>();
    for endpoint in part.ports_of(family) {
        let mut seen = HashSet::new();
        let all = endpoint.ports.iter().flat_map(|bound| port(endpoint, bound));
        rules.extend(all.filter(|rule| seen.insert(rule.clone())));
    }
    rules.extend(part.links_of(family).flat_map(link));
    rules
}

/// A change of the rules of one family: one input for iptables-restore.
#[derive(Debug, Default)]
pub(super) struct Change<'a> {
    /// Chains to be made.
    pub(super) chains: Vec<(Table, &'a str)>,
    /// Whether forwarded packets that no rule accepts are dropped from now on.
    pub(super) forward_drop: bool,
    /// Whether they are let through again.
    pub(super) forward_accept: bool,
    /// Chains to be removed, with all that is in them.
    pub(super) gone: Vec<(Table, &'a str)>,
    /// Rules to be removed: table, chain, spec.
    pub(super) remove: Vec<(Table, &'a str, &'a str)>,
    /// Rules to be added.
    pub(super) add: Vec<&'a Rule>,
}

impl Change<'_> {
    /// The text, or `None` if there is nothing to do.
    pub(super) fn render(&self) -> Option<String> {
        let tables = Table::ALL.map(|table| self.table(table));
        let text = tables.concat();
        (!text.is_empty()).then_some(text)
    }

    fn table(&self, table: Table) -> String {
        let mut lines = String::new();
        if table == Table::Filter && self.forward_drop {
            lines.push_str(":FORWARD DROP [0:0]\n");
        }
        if table == Table::Filter && self.forward_accept {
            lines.push_str(":FORWARD ACCEPT [0:0]\n");
        }
        for (_, chain) in self.chains.iter().filter(|c| c.0 == table) {
            lines += &format!(":{chain} - [0:0]\n");
        }
        for (_, chain, spec) in self.remove.iter().filter(|r| r.0 == table) {
            lines += &format!("-D {chain} {spec}\n");
        }
        let (top, bottom): (Vec<&Rule>, Vec<&Rule>) =
            self.add.iter().filter(|r| r.table == table).partition(|r| r.place == Place::Top);
        // Each one is put before those that were put there, so the first comes last.
        for rule in top.iter().rev() {
            lines += &format!("-I {} 1 {}\n", rule.chain, rule.spec);
        }
        for rule in bottom {
            lines += &format!("-A {} {}\n", rule.chain, rule.spec);
        }
        // All are emptied before the first one goes: they refer to each other.
        for option in ["-F", "-X"] {
            for (_, chain) in self.gone.iter().filter(|c| c.0 == table) {
                lines += &format!("{option} {chain}\n");
            }
        }
        if lines.is_empty() {
            return lines;
        }
        format!("*{}\n{lines}COMMIT\n", table.name())
    }
}

#[cfg(test)]
mod tests;
