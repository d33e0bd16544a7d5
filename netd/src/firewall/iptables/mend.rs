//! Comparing what iptables-save prints with what is wanted. Pure.

use std::net::IpAddr;

use super::rules::{Change, Rule, Table, bridge, comment};
use crate::firewall::wanted::{BridgeRules, Family};
use crate::protocol::GatewayMode;

/// What the host has.
#[derive(Debug, Default)]
pub(super) struct Existing<'a> {
    chains: Vec<(Table, &'a str)>,
    rules: Vec<(Table, &'a str, &'a str)>,
    forward_policy: &'a str,
}

/// Reads iptables-save's output. Tables that are none of ours are passed over.
pub(super) fn parse(saved: &str) -> Existing<'_> {
    let mut existing = Existing::default();
    let mut table = None;
    for line in saved.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = Table::ALL.into_iter().find(|t| t.name() == name.trim());
        }
        let Some(table) = table else { continue };
        if let Some(chain) = line.strip_prefix(':') {
            let mut words = chain.split(' ');
            let (name, policy) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            existing.chains.push((table, name));
            if table == Table::Filter && name == "FORWARD" {
                existing.forward_policy = policy;
            }
        } else if let Some((chain, spec)) = line.strip_prefix("-A ").and_then(|rule| rule.split_once(' ')) {
            existing.rules.push((table, chain, spec.trim_end()));
        }
    }
    existing
}

/// What to do so that what is `wanted` of one family is there once, and nothing of ours besides.
pub(super) fn compare<'a>(
    existing: &Existing<'a>,
    family: Family,
    wanted: &'a [Rule],
    networks: &[BridgeRules],
    forward_drop: bool,
) -> Change<'a> {
    let owned = Owned::new(family, networks);
    let mut missing = wanted.iter().map(Some).collect::<Vec<_>>();
    let any_wanted = !missing.is_empty();
    let mut change =
        Change { forward_drop: forward_drop && existing.forward_policy != "DROP", ..Change::default() };
    for &(table, chain, spec) in &existing.rules {
        let same = |r: &Rule| r.table == table && r.chain == chain && r.spec == spec;
        match missing.iter_mut().find(|slot| slot.is_some_and(same)) {
            Some(slot) => *slot = None,
            None if owned.has(table, chain, spec) => change.remove.push((table, chain, spec)),
            None => {}
        }
    }
    change.add = missing.into_iter().flatten().collect();
    if any_wanted {
        let all = Table::ALL.into_iter().flat_map(|t| t.chains(family).iter().map(move |c| (t, *c)));
        change.chains = all.filter(|c| !existing.chains.contains(c)).collect();
    }
    change
}

/// What to do so that nothing of ours is there: neither the rules of these networks nor, if nobody else's are in our chains, the
/// chains and the `base` that leads to them. DOCKER-USER is the administrator's: it stays, and is asked, unless it is empty.
pub(super) fn clear<'a>(
    existing: &Existing<'a>,
    family: Family,
    base: &[Rule],
    networks: &[BridgeRules],
    was_dropping: bool,
) -> Change<'a> {
    let mut change = compare(existing, family, &[], networks, false);
    let is_base = |table: Table, chain: &str, spec: &str| {
        base.iter().any(|r| r.table == table && r.chain == chain && r.spec == spec)
    };
    let own = |table: Table, chain: &str| table.chains(family).contains(&chain);
    let others = existing.rules.iter().any(|&(table, chain, spec)| {
        own(table, chain)
            && chain != "DOCKER-USER"
            && !is_base(table, chain, spec)
            && !change.remove.contains(&(table, chain, spec))
    });
    if others {
        return change;
    }
    let user_is_empty = !existing.rules.iter().any(|rule| rule.1 == "DOCKER-USER");
    let goes = |chain: &str| chain != "DOCKER-USER" || user_is_empty;
    change.remove.extend(existing.rules.iter().filter(|&&(table, chain, spec)| {
        let leads_to = spec.rsplit(' ').next().unwrap_or_default();
        is_base(table, chain, spec) && goes(leads_to)
    }));
    let chains = existing.chains.iter().filter(|(table, chain)| own(*table, chain) && goes(chain));
    change.gone = chains.copied().collect();
    change.forward_accept = was_dropping && existing.forward_policy == "DROP";
    change
}

/// How to recognise a rule of ours that is not wanted any more.
struct Owned<'a> {
    family: Family,
    networks: &'a [BridgeRules],
    /// Rules in the host's own chains that our networks have under some settings.
    variants: Vec<Rule>,
}

impl<'a> Owned<'a> {
    fn new(family: Family, networks: &'a [BridgeRules]) -> Self {
        let open = |n: &BridgeRules| BridgeRules {
            internal: false,
            icc: true,
            masquerade: true,
            mode: GatewayMode::Nat,
            direct: false,
            ..n.clone()
        };
        Self { family, networks, variants: networks.iter().flat_map(|n| bridge(&open(n))).collect() }
    }

    /// Whether a rule is ours: in our chains (but for the administrator's) all that are about our bridges; in
    /// the host's chains only such as we make, since others may have rules about our bridges there.
    fn has(&self, table: Table, chain: &str, spec: &str) -> bool {
        if chain == "DOCKER-USER" {
            return false;
        }
        let in_own_chain = table.chains(self.family).contains(&chain);
        let is_bridge = |name: &str| self.networks.iter().any(|n| n.bridge == name);
        let is_marked = |text: &str| self.networks.iter().any(|n| comment(&n.bridge) == text);
        let mut words = spec.split(' ');
        while let Some(word) = words.next() {
            let about_us = match word {
                "-i" | "-o" if in_own_chain => words.next().is_some_and(is_bridge),
                "--comment" => words.next().is_some_and(is_marked),
                "--to-destination" if in_own_chain => {
                    let ip = words.next().and_then(translated_to);
                    ip.is_some_and(|ip| self.networks.iter().any(|n| n.subnet.contains(ip)))
                }
                _ => false,
            };
            if about_us {
                return true;
            }
        }
        self.variants.iter().any(|r| r.table == table && r.chain == chain && r.spec == spec)
    }
}

/// The address of `IP:PORT` or `[IP]:PORT`.
fn translated_to(text: &str) -> Option<IpAddr> {
    match text.strip_prefix('[') {
        Some(rest) => rest.split(']').next()?.parse().ok(),
        None => text.split(':').next()?.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::rules::{Place, base};
    use super::*;

    const SAVED: &str = "\
# Generated by iptables-save v1.8.9 (nf_tables) on Sun Nov 22 01:42:16 2026
*mangle
:DOCKER - [0:0]
-A DOCKER -o br0 -j DROP
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [10:20]
:DOCKER - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A DOCKER-USER -i br0 -j DROP
-A DOCKER -d 172.18.0.9/32 ! -i br0 -o br0 -p tcp -m tcp --dport 80 -j ACCEPT
-A DOCKER ! -i br0 -o br0 -j DROP
-A DOCKER ! -i other -o other -j DROP
COMMIT
*nat
:DOCKER - [0:0]
-A DOCKER -p tcp -m tcp --dport 80 -j DNAT --to-destination 172.18.0.9:80
-A DOCKER -p tcp -m tcp --dport 81 -j DNAT --to-destination 10.0.0.9:80
-A POSTROUTING -o br0 -j MASQUERADE
-A POSTROUTING -s 172.18.0.0/16 ! -o br0 -j MASQUERADE
COMMIT
";

    fn networks() -> [BridgeRules; 1] {
        [BridgeRules {
            bridge: "br0".into(),
            subnet: "172.18.0.0/16".parse().unwrap(),
            internal: false,
            icc: true,
            masquerade: false,
            mode: GatewayMode::Nat,
            direct: false,
            trusted: Vec::new(),
        }]
    }

    #[test]
    fn only_what_differs_is_changed_and_only_ours_is_removed() {
        let existing = parse(SAVED);
        let mut wanted = base(Family::V4);
        wanted.push(Rule {
            family: Family::V4,
            table: Table::Filter,
            chain: "DOCKER",
            place: Place::Bottom,
            spec: "! -i br0 -o br0 -j DROP".into(),
        });
        let change = compare(&existing, Family::V4, &wanted, &networks(), true);
        assert_eq!(
            change.render().unwrap(),
            "*raw
:DOCKER-LOOPBACK - [0:0]
-I DOCKER-LOOPBACK 1 -i lo -j RETURN
-A PREROUTING -s 127.0.0.0/8 -j DOCKER-LOOPBACK
-A PREROUTING -d 127.0.0.0/8 -j DOCKER-LOOPBACK
COMMIT
*mangle
:DOCKER-DIRECT - [0:0]
-A FORWARD -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DOCKER-DIRECT
COMMIT
*nat
-D DOCKER -p tcp -m tcp --dport 80 -j DNAT --to-destination 172.18.0.9:80
-D POSTROUTING -s 172.18.0.0/16 ! -o br0 -j MASQUERADE
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT -m addrtype --dst-type LOCAL -j DOCKER
COMMIT
*filter
:FORWARD DROP [0:0]
:DOCKER-BRIDGE - [0:0]
:DOCKER-CT - [0:0]
:DOCKER-FORWARD - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
-D DOCKER -d 172.18.0.9/32 ! -i br0 -o br0 -p tcp -m tcp --dport 80 -j ACCEPT
-I DOCKER-ISOLATION-STAGE-2 1 -m conntrack --ctstate DNAT -j RETURN
-I DOCKER-FORWARD 1 -j DOCKER-BRIDGE
-I DOCKER-FORWARD 1 -j DOCKER-ISOLATION-STAGE-1
-I DOCKER-FORWARD 1 -j DOCKER-CT
-I FORWARD 1 -j DOCKER-FORWARD
COMMIT
"
        );
    }

    #[test]
    fn the_same_state_needs_no_change_and_a_duplicate_goes() {
        let saved = "*nat\n:DOCKER - [0:0]\n-A DOCKER -i br0 -j RETURN\n-A DOCKER -i br0 -j RETURN\nCOMMIT\n";
        let wanted = [Rule {
            family: Family::V4,
            table: Table::Nat,
            chain: "DOCKER",
            place: Place::Bottom,
            spec: "-i br0 -j RETURN".into(),
        }];
        let change = compare(&parse(saved), Family::V4, &wanted, &networks(), false);
        assert_eq!(change.remove, [(Table::Nat, "DOCKER", "-i br0 -j RETURN")]);
        assert!(change.add.is_empty());
        assert_eq!(compare(&parse(saved), Family::V4, &[], &[], false).render(), None);
    }

    #[test]
    fn nothing_of_ours_is_left_when_another_backend_takes_over() {
        let saved = "*filter\n:FORWARD DROP [0:0]\n:DOCKER - [0:0]\n:DOCKER-FORWARD - [0:0]\n:DOCKER-USER - [0:0]\n:OTHER - [0:0]\n\
                     -A FORWARD -j DOCKER-USER\n-A FORWARD -j DOCKER-FORWARD\n-A FORWARD -j OTHER\n-A DOCKER ! -i br0 -o br0 -j DROP\nCOMMIT\n";
        let change = clear(&parse(saved), Family::V4, &base(Family::V4), &networks(), true);
        assert_eq!(
            change.render().unwrap(),
            "*filter\n:FORWARD ACCEPT [0:0]\n-D DOCKER ! -i br0 -o br0 -j DROP\n-D FORWARD -j DOCKER-USER\n-D FORWARD -j DOCKER-FORWARD\n\
             -F DOCKER\n-F DOCKER-FORWARD\n-F DOCKER-USER\n-X DOCKER\n-X DOCKER-FORWARD\n-X DOCKER-USER\nCOMMIT\n"
        );
        // An administrator's rules stay where they are, and work on.
        let saved = saved.replace("COMMIT", "-A DOCKER-USER -s 192.0.2.1/32 -j DROP\nCOMMIT");
        let text = clear(&parse(&saved), Family::V4, &base(Family::V4), &networks(), false).render().unwrap();
        assert!(!text.contains("DOCKER-USER") && !text.contains("ACCEPT"), "{text}");
        assert!(text.contains("-X DOCKER\n"), "{text}");
        // Somebody else's bridge in our chains: they stay, too.
        let saved = saved.replace("COMMIT", "-A DOCKER ! -i br7 -o br7 -j DROP\nCOMMIT");
        let text = clear(&parse(&saved), Family::V4, &base(Family::V4), &networks(), true).render();
        assert_eq!(text.as_deref(), Some("*filter\n-D DOCKER ! -i br0 -o br0 -j DROP\nCOMMIT\n"));
    }

    #[test]
    fn where_a_translation_leads() {
        assert_eq!(translated_to("172.18.0.2:80"), "172.18.0.2".parse().ok());
        assert_eq!(translated_to("[fd00::2]:80"), "fd00::2".parse().ok());
        assert_eq!(translated_to("nonsense"), None);
    }
}
