use super::*;
use crate::firewall::wanted::{Part, PortRules};
use crate::protocol::{BoundPort, Protocol};

fn network(bridge: &str, subnet: &str) -> BridgeRules {
    BridgeRules::plain(bridge, subnet)
}

fn part(host_ports: &[u16]) -> Part {
    let network = network("br0", "172.18.0.0/16");
    let bound = |host_port: &u16| BoundPort {
        protocol: Protocol::Tcp,
        container_port: 80,
        host_ip: "0.0.0.0".parse().unwrap(),
        host_port: *host_port,
    };
    let bound = host_ports.iter().map(bound).collect::<Vec<_>>();
    let ports = PortRules::new(&network, "172.18.0.2".parse().unwrap(), &bound).into_iter().collect();
    Part { networks: vec![network], ports, ..Part::default() }
}

fn whole(part: &Part) -> Table {
    Table::whole(part, Family::V4, true)
}

/// A table as nft lists it.
fn listed(table: &Table) -> String {
    let mut text = String::from("table ip docker-bridges {\n");
    for (name, set) in &table.sets {
        text += &format!("\t{} {name} {{\n\t\t{}\n", set.kind, set.declaration.join("\n\t\t"));
        if !set.elements.is_empty() {
            let elements = set.elements.iter().cloned().collect::<Vec<_>>();
            text += &format!("\t\telements = {{ {} }}\n", elements.join(",\n\t\t\t     "));
        }
        text += "\t}\n\n";
    }
    for (name, chain) in &table.chains {
        let lines = chain.hook.iter().chain(&chain.rules).map(|line| format!("\t\t{line}\n"));
        text += &format!("\tchain {name} {{\n{}\t}}\n\n", lines.collect::<String>());
    }
    text + "}\n"
}

fn mend(existing: &Table, wanted: &Part) -> String {
    let networks = wanted.networks.iter().collect::<Vec<_>>();
    Change::between(Some(existing), &whole(wanted), &networks)
        .render(Family::V4)
        .replace(" ip docker-bridges ", " ")
}

#[test]
fn what_is_right_stays() {
    let part = part(&[8080, 8081]);
    let table = whole(&part);
    assert_eq!(parse(&listed(&table)), table);
    assert_eq!(mend(&parse(&listed(&table)), &part), "");
    // Later versions of nft have a name for this.
    let later = listed(&table).replace("output priority -100", "output priority dstnat");
    assert_eq!(mend(&parse(&later), &part), "");
}

#[test]
fn only_what_differs_is_changed() {
    let mut existing = whole(&part(&[8080]));
    existing.chains.get_mut("filter-forward-in__br0").unwrap().rules.pop();
    existing.chains.insert("nat-postrouting-in__br9".into(), Chain::default());
    let jumps = &mut existing.sets.get_mut("nat-postrouting-in-jumps").unwrap().elements;
    jumps.insert("\"br9\" : jump nat-postrouting-in__br9".into());
    existing.sets.get_mut("published").unwrap().elements.insert("tcp . 9 : 172.18.0.9 . 9".into());
    existing.sets.get_mut("published").unwrap().elements.insert("tcp . 7 : 10.0.0.9 . 9".into());
    existing.sets.remove("open");
    let rules = "add rule filter-forward-in__br0 ";
    let text = mend(&existing, &part(&[8081]));
    assert_eq!(
        text,
        format!(
            "delete element published {{ tcp . 8080 : 172.18.0.2 . 80 }}
delete element published {{ tcp . 9 : 172.18.0.9 . 9 }}
add chain filter-forward-in__br0
flush chain filter-forward-in__br0
add set open {{ type ipv4_addr . inet_proto . inet_service; }}
{rules}ct state established,related counter accept
{rules}iifname != \"br0\" iifname @bridges jump isolation
{rules}iifname != \"br0\" ip daddr . meta l4proto . th dport @open counter accept
{rules}iifname != \"br0\" counter drop
{rules}counter accept
add element open {{ 172.18.0.2 . tcp . 80 }}
add element published {{ tcp . 8081 : 172.18.0.2 . 80 }}
"
        )
    );
}

#[test]
fn what_has_left_goes_with_what_was_its() {
    let (gone, stays) = (network("br0", "172.18.0.0/16"), network("br1", "172.19.0.0/16"));
    let existing = whole(&Part { networks: vec![gone.clone(), stays.clone()], ..part(&[8080]) });
    let wanted = whole(&Part { networks: vec![stays.clone()], ..Part::default() });
    let unknown = Change::between(Some(&existing), &wanted, &[&stays]).render(Family::V4);
    assert_eq!(unknown, "", "what nobody has told us of may be somebody else's");
    let text = Change::between(Some(&existing), &wanted, &[&stays, &gone]).render(Family::V4);
    let left = "delete element ip docker-bridges raw-prerouting-in-jumps { 172.18.0.0/16 : jump raw-prerouting-in__br0 }";
    assert!(
        text.contains(left) && text.contains("delete chain ip docker-bridges filter-forward-in__br0"),
        "{text}"
    );
    assert!(text.contains("delete element ip docker-bridges published {") && !text.contains("br1"), "{text}");
}

#[test]
fn a_table_goes_unless_somebody_shares_it() {
    let (ours, theirs) = (network("br0", "172.18.0.0/16"), network("br1", "172.19.0.0/16"));
    let both = Part { networks: vec![ours.clone(), theirs.clone()], ..part(&[8080]) };
    let text = Change::clear(&whole(&both), &[&ours, &theirs]).render(Family::V4);
    assert_eq!(text, "add table ip docker-bridges\ndelete table ip docker-bridges\n");
    let text = Change::clear(&whole(&both), &[&ours]).render(Family::V4);
    let whole_of_ours = Table::of(&part(&[8080]), Family::V4);
    let gone = Change::difference(&whole_of_ours, &Table::default()).render(Family::V4);
    assert_eq!(text, gone, "ours goes, as if networks had been removed");
}

#[test]
fn another_bases_table_is_made_anew_and_a_policy_is_set() {
    let wanted = part(&[8080]);
    let open = Table::whole(&wanted, Family::V4, false);
    assert_eq!(
        mend(&open, &wanted).lines().next(),
        Some("add chain filter-FORWARD { type filter hook forward priority filter; policy drop; }")
    );
    let networks = wanted.networks.iter().collect::<Vec<_>>();
    let dropping = Change::between(Some(&whole(&wanted)), &open, &networks);
    assert_eq!(dropping, Change::default(), "what drops goes on dropping");
    let mut other = whole(&wanted);
    other.sets.get_mut("bridges").unwrap().declaration = vec!["type ipv4_addr".into()];
    assert!(mend(&other, &wanted).contains("delete table ip docker-bridges\n"));
}

#[test]
fn a_network_goes_with_its_chains() {
    let (all, none) = (Table::of(&part(&[8080]), Family::V4), Table::default());
    let text = Change::difference(&all, &none).render(Family::V4);
    let position =
        |line: &str| text.lines().position(|l| l == line).unwrap_or_else(|| panic!("{line}:\n{text}"));
    let jump = "{ \"br0\" : jump filter-forward-in__br0 }";
    let element = position(&format!("delete element ip docker-bridges filter-forward-in-jumps {jump}"));
    assert!(element < position("flush chain ip docker-bridges filter-forward-in__br0"));
    position("delete chain ip docker-bridges filter-forward-in__br0");
    position("delete element ip docker-bridges published { tcp . 8080 : 172.18.0.2 . 80 }");
    // A container that starts again at once: what it had and has is not touched.
    let text =
        Change::difference(&Table::of(&Part { networks: Vec::new(), ..part(&[8080]) }, Family::V4), &none);
    assert!(!text.render(Family::V4).contains("chain"));
}
