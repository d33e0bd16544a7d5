//! The firewall rules as values, and how they are written. The text of a rule is exactly what
//! iptables-save prints for it, so that what is there can be compared with what is wanted.
//!
//! Chains and their order are dockerd's, which host administrators know and hang their own rules on. One
//! thing differs, so that no connection to a published port depends on a process of ours: connections from the
//! host's loopback and from the containers' own bridges are translated in the kernel, too, where
//! dockerd sends them through docker-proxy.

use std::net::{IpAddr, Ipv4Addr};

use ipnetwork::Ipv4Network;

use crate::protocol::BoundPort;

/// iptables' tables, in the order in which packets meet them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Table {
    Raw,
    Nat,
    Filter,
}

impl Table {
    pub(crate) const ALL: [Self; 3] = [Self::Raw, Self::Nat, Self::Filter];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Nat => "nat",
            Self::Filter => "filter",
        }
    }

    /// The chains of ours in it.
    pub(crate) fn chains(self) -> &'static [&'static str] {
        match self {
            Self::Raw => &[],
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Before all others; of several such, the first one stays first.
    Top,
    /// Behind all others.
    Bottom,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) table: Table,
    pub(crate) chain: &'static str,
    pub(crate) place: Place,
    /// As iptables-save prints it behind `-A CHAIN `.
    pub(crate) spec: String,
}

fn rule(table: Table, chain: &'static str, place: Place, spec: impl Into<String>) -> Rule {
    Rule { table, chain, place, spec: spec.into() }
}

/// The rules that do not belong to a network.
pub(crate) fn base() -> Vec<Rule> {
    use Place::{Bottom, Top};
    use Table::{Filter, Nat};
    vec![
        rule(Nat, "PREROUTING", Bottom, "-m addrtype --dst-type LOCAL -j DOCKER"),
        rule(Nat, "OUTPUT", Bottom, "-m addrtype --dst-type LOCAL -j DOCKER"),
        rule(Filter, "FORWARD", Top, "-j DOCKER-USER"),
        rule(Filter, "FORWARD", Top, "-j DOCKER-FORWARD"),
        rule(Filter, "DOCKER-FORWARD", Top, "-j DOCKER-CT"),
        rule(Filter, "DOCKER-FORWARD", Top, "-j DOCKER-ISOLATION-STAGE-1"),
        rule(Filter, "DOCKER-FORWARD", Top, "-j DOCKER-BRIDGE"),
        // A published port is open to other networks' containers as it is to all.
        rule(Filter, "DOCKER-ISOLATION-STAGE-2", Top, "-m conntrack --ctstate DNAT -j RETURN"),
    ]
}

/// What the rules of a bridge depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BridgeRules {
    pub(crate) bridge: String,
    pub(crate) subnet: Ipv4Network,
    pub(crate) internal: bool,
    pub(crate) icc: bool,
    pub(crate) masquerade: bool,
}

/// The rules of a bridge network.
pub(crate) fn bridge(network: &BridgeRules) -> Vec<Rule> {
    use Place::Bottom;
    use Table::Filter;
    let br = &network.bridge;
    let subnet = Ipv4Network::new(network.subnet.network(), network.subnet.prefix())
        .map_or_else(|_| network.subnet.to_string(), |n| n.to_string());
    if network.internal {
        let inside = if network.icc { "ACCEPT" } else { "DROP" };
        return vec![
            rule(Filter, "DOCKER-FORWARD", Bottom, format!("-i {br} -o {br} -j {inside}")),
            rule(Filter, "DOCKER-ISOLATION-STAGE-1", Bottom, format!("! -s {subnet} -o {br} -j DROP")),
            rule(Filter, "DOCKER-ISOLATION-STAGE-1", Bottom, format!("! -d {subnet} -i {br} -j DROP")),
        ];
    }
    let mut rules = translation(br, &subnet, network.masquerade);
    rules.push(rule(Filter, "DOCKER", Bottom, format!("! -i {br} -o {br} -j DROP")));
    rules.push(rule(Filter, "DOCKER-BRIDGE", Bottom, format!("-o {br} -j DOCKER")));
    rules.push(rule(
        Filter,
        "DOCKER-CT",
        Bottom,
        format!("-o {br} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"),
    ));
    if network.icc {
        rules.push(rule(Filter, "DOCKER-FORWARD", Bottom, format!("-i {br} -j ACCEPT")));
    } else {
        let published = format!("-i {br} -o {br} -m conntrack --ctstate DNAT -j ACCEPT");
        rules.push(rule(Filter, "DOCKER-FORWARD", Bottom, published));
        rules.push(rule(Filter, "DOCKER-FORWARD", Bottom, format!("-i {br} -o {br} -j DROP")));
        rules.push(rule(Filter, "DOCKER-FORWARD", Bottom, format!("-i {br} ! -o {br} -j ACCEPT")));
    }
    let others = format!("-i {br} ! -o {br} -j DOCKER-ISOLATION-STAGE-2");
    rules.push(rule(Filter, "DOCKER-ISOLATION-STAGE-1", Bottom, others));
    rules.push(rule(Filter, "DOCKER-ISOLATION-STAGE-2", Bottom, format!("-o {br} -j DROP")));
    rules
}

fn translation(br: &str, subnet: &str, masquerade: bool) -> Vec<Rule> {
    use Place::Bottom;
    use Table::{Nat, Raw};
    let mut rules = vec![
        // Containers' own addresses are for the host and the bridge only; what is published goes by the host's
        // addresses, of which the gateway is one.
        rule(
            Raw,
            "PREROUTING",
            Bottom,
            format!("-d {subnet} ! -i {br} -m addrtype ! --dst-type LOCAL -j DROP"),
        ),
        // The bridge routes loopback addresses, for published ports on them; containers must not use that.
        rule(Raw, "PREROUTING", Bottom, format!("-d 127.0.0.0/8 -i {br} -j DROP")),
        rule(Raw, "PREROUTING", Bottom, format!("-s 127.0.0.0/8 -i {br} -j DROP")),
        rule(Nat, "POSTROUTING", Bottom, format!("-s 127.0.0.0/8 -o {br} -j MASQUERADE")),
        // A container that comes to its neighbour, or to itself, by a published port must get the answer from the
        // host, which knows about the translation.
        rule(
            Nat,
            "POSTROUTING",
            Bottom,
            format!("-s {subnet} -o {br} -m conntrack --ctstate DNAT -j MASQUERADE"),
        ),
    ];
    if masquerade {
        rules.push(rule(Nat, "POSTROUTING", Bottom, format!("-s {subnet} ! -o {br} -j MASQUERADE")));
    }
    rules
}

/// The rules of one published port: none for those on IPv6 addresses, which the relay serves.
pub(crate) fn port(bridge: &str, ip: Ipv4Addr, port: &BoundPort) -> Vec<Rule> {
    use Place::{Bottom, Top};
    use Table::{Filter, Nat, Raw};
    let IpAddr::V4(host_ip) = port.host_ip else { return Vec::new() };
    let BoundPort { protocol, container_port, host_port, .. } = port;
    let matching = |number: &u16| format!("-p {protocol} -m {protocol} --dport {number}");
    let to_host = matching(host_port);
    let mut rules = Vec::new();
    let destination = match host_ip {
        Ipv4Addr::UNSPECIFIED => String::new(),
        specific => format!("-d {specific}/32 "),
    };
    if host_ip.is_loopback() {
        // The translation comes before the kernel would refuse the address; the comment says whose rule it is.
        rules.push(rule(
            Raw,
            "PREROUTING",
            Bottom,
            format!("{destination}! -i lo {to_host} -m comment --comment {bridge} -j DROP"),
        ));
    }
    rules.push(rule(
        Nat,
        "DOCKER",
        Bottom,
        format!("{destination}{to_host} -j DNAT --to-destination {ip}:{container_port}"),
    ));
    let to_container = matching(container_port);
    rules.push(rule(
        Filter,
        "DOCKER",
        Top,
        format!("-d {ip}/32 ! -i {bridge} -o {bridge} {to_container} -j ACCEPT"),
    ));
    rules
}

/// The rules of all published ports of an endpoint, each once.
pub(crate) fn ports(bridge: &str, ip: Ipv4Addr, ports: &[BoundPort]) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    for rule in ports.iter().flat_map(|p| port(bridge, ip, p)) {
        if !rules.contains(&rule) {
            rules.push(rule);
        }
    }
    rules
}

/// A change of the rules: one input for iptables-restore.
#[derive(Debug, Default)]
pub(crate) struct Change<'a> {
    /// Chains to be made.
    pub(crate) chains: Vec<(Table, &'a str)>,
    /// Whether forwarded packets that no rule accepts are dropped from now on.
    pub(crate) forward_drop: bool,
    /// Rules to be removed: table, chain, spec.
    pub(crate) remove: Vec<(Table, &'a str, &'a str)>,
    /// Rules to be added.
    pub(crate) add: Vec<&'a Rule>,
}

impl Change<'_> {
    /// The text, or `None` if there is nothing to do.
    pub(crate) fn render(&self) -> Option<String> {
        let tables = Table::ALL.map(|table| self.table(table));
        let text = tables.concat();
        (!text.is_empty()).then_some(text)
    }

    fn table(&self, table: Table) -> String {
        let mut lines = String::new();
        if table == Table::Filter && self.forward_drop {
            lines.push_str(":FORWARD DROP [0:0]\n");
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
        if lines.is_empty() {
            return lines;
        }
        format!("*{}\n{lines}COMMIT\n", table.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Protocol;

    fn network(internal: bool, icc: bool) -> Vec<Rule> {
        bridge(&BridgeRules {
            bridge: "br0".into(),
            subnet: "172.18.0.0/16".parse().unwrap(),
            internal,
            icc,
            masquerade: true,
        })
    }

    #[track_caller]
    fn golden(rules: &[Rule], expect: &str) {
        let change = Change { add: rules.iter().collect(), ..Change::default() };
        assert_eq!(change.render().unwrap(), expect);
    }

    #[test]
    fn base_rules() {
        golden(
            &base(),
            "*nat
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT -m addrtype --dst-type LOCAL -j DOCKER
COMMIT
*filter
-I DOCKER-ISOLATION-STAGE-2 1 -m conntrack --ctstate DNAT -j RETURN
-I DOCKER-FORWARD 1 -j DOCKER-BRIDGE
-I DOCKER-FORWARD 1 -j DOCKER-ISOLATION-STAGE-1
-I DOCKER-FORWARD 1 -j DOCKER-CT
-I FORWARD 1 -j DOCKER-FORWARD
-I FORWARD 1 -j DOCKER-USER
COMMIT
",
        );
    }

    #[test]
    fn a_bridge() {
        golden(
            &network(false, true),
            "*raw
-A PREROUTING -d 172.18.0.0/16 ! -i br0 -m addrtype ! --dst-type LOCAL -j DROP
-A PREROUTING -d 127.0.0.0/8 -i br0 -j DROP
-A PREROUTING -s 127.0.0.0/8 -i br0 -j DROP
COMMIT
*nat
-A POSTROUTING -s 127.0.0.0/8 -o br0 -j MASQUERADE
-A POSTROUTING -s 172.18.0.0/16 -o br0 -m conntrack --ctstate DNAT -j MASQUERADE
-A POSTROUTING -s 172.18.0.0/16 ! -o br0 -j MASQUERADE
COMMIT
*filter
-A DOCKER ! -i br0 -o br0 -j DROP
-A DOCKER-BRIDGE -o br0 -j DOCKER
-A DOCKER-CT -o br0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A DOCKER-FORWARD -i br0 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i br0 ! -o br0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-2 -o br0 -j DROP
COMMIT
",
        );
    }

    #[test]
    fn an_internal_network_and_one_without_talk_between_containers() {
        golden(
            &network(true, true),
            "*filter
-A DOCKER-FORWARD -i br0 -o br0 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 ! -s 172.18.0.0/16 -o br0 -j DROP
-A DOCKER-ISOLATION-STAGE-1 ! -d 172.18.0.0/16 -i br0 -j DROP
COMMIT
",
        );
        let rules = network(false, false);
        let forward = rules.iter().filter(|r| r.chain == "DOCKER-FORWARD").map(|r| r.spec.as_str());
        assert_eq!(
            forward.collect::<Vec<_>>(),
            [
                "-i br0 -o br0 -m conntrack --ctstate DNAT -j ACCEPT",
                "-i br0 -o br0 -j DROP",
                "-i br0 ! -o br0 -j ACCEPT"
            ]
        );
    }

    #[test]
    fn published_ports() {
        let bound = |protocol, host_ip: &str, host_port| BoundPort {
            protocol,
            container_port: 80,
            host_ip: host_ip.parse().unwrap(),
            host_port,
        };
        let list = [
            bound(Protocol::Tcp, "0.0.0.0", 8080),
            bound(Protocol::Tcp, "::", 8080),
            bound(Protocol::Tcp, "127.0.0.1", 8081),
            bound(Protocol::Udp, "192.0.2.1", 53),
        ];
        golden(
            &ports("br0", Ipv4Addr::new(172, 18, 0, 2), &list),
            "*raw
-A PREROUTING -d 127.0.0.1/32 ! -i lo -p tcp -m tcp --dport 8081 -m comment --comment br0 -j DROP
COMMIT
*nat
-A DOCKER -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.18.0.2:80
-A DOCKER -d 127.0.0.1/32 -p tcp -m tcp --dport 8081 -j DNAT --to-destination 172.18.0.2:80
-A DOCKER -d 192.0.2.1/32 -p udp -m udp --dport 53 -j DNAT --to-destination 172.18.0.2:80
COMMIT
*filter
-I DOCKER 1 -d 172.18.0.2/32 ! -i br0 -o br0 -p udp -m udp --dport 80 -j ACCEPT
-I DOCKER 1 -d 172.18.0.2/32 ! -i br0 -o br0 -p tcp -m tcp --dport 80 -j ACCEPT
COMMIT
",
        );
    }

    #[test]
    fn nothing_to_do_is_nothing_to_run() {
        assert_eq!(Change::default().render(), None);
        let change = Change { forward_drop: true, ..Change::default() };
        assert_eq!(change.render().unwrap(), "*filter\n:FORWARD DROP [0:0]\nCOMMIT\n");
    }
}
