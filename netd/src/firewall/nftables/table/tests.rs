use super::*;
use crate::firewall::nftables::change::Change;
use crate::protocol::Protocol;

fn plain(subnet: &str) -> BridgeRules {
    BridgeRules::plain("br0", subnet)
}

/// What a network adds.
#[track_caller]
fn golden(network: BridgeRules, expect: &str) {
    let family = network.family();
    let part = Part { networks: vec![network], ..Part::default() };
    let text = Change::difference(&Table::default(), &Table::of(&part, family)).render(family);
    assert_eq!(without_place(&text), expect);
}

/// Without the words that stand in every line.
fn without_place(text: &str) -> String {
    text.replace(" ip docker-bridges ", " ").replace(" ip6 docker-bridges ", " ")
}

fn bound(protocol: Protocol, host_ip: &str, host_port: u16) -> BoundPort {
    BoundPort { protocol, container_port: 80, host_ip: host_ip.parse().unwrap(), host_port }
}

#[test]
fn the_table_itself() {
    let table = Table::whole(&Part::default(), Family::V4, true);
    let text = Change::between(None, &table, &[]).render(Family::V4);
    assert!(text.starts_with("add table ip docker-bridges\ndelete table ip docker-bridges\n"), "{text}");
    for line in [
        "add map ip docker-bridges published { type inet_proto . inet_service : ipv4_addr . inet_service; }",
        "add map ip docker-bridges raw-prerouting-in-jumps { type ipv4_addr : verdict; flags interval; }",
        "add chain ip docker-bridges filter-FORWARD { type filter hook forward priority filter; policy drop; }",
        "add rule ip docker-bridges nat-OUTPUT fib daddr type local jump nat-prerouting-and-output",
        "add rule ip docker-bridges nat-prerouting-and-output dnat ip to meta l4proto . th dport map @published",
    ] {
        assert!(text.lines().any(|l| l == line), "{line}:\n{text}");
    }
    let table = Table::whole(&Part::default(), Family::V6, false);
    let text = Change::between(None, &table, &[]).render(Family::V6);
    assert!(text.contains("hook forward priority filter; policy accept; }"), "{text}");
    assert!(text.contains("nat-OUTPUT ip6 daddr != ::1 fib daddr type local jump"), "{text}");
    assert!(
        text.contains("ip6 saddr != fe80::/10 dnat ip6 to meta l4proto . th dport map @published\n"),
        "{text}"
    );
    assert!(!text.contains("127.0.0.0/8"), "{text}");
}

#[test]
fn a_bridge() {
    golden(
        plain("172.18.0.0/16"),
        "add chain filter-forward-in__br0
flush chain filter-forward-in__br0
add chain nat-postrouting-in__br0
flush chain nat-postrouting-in__br0
add chain nat-postrouting-out__br0
flush chain nat-postrouting-out__br0
add chain raw-prerouting-in__br0
flush chain raw-prerouting-in__br0
add rule filter-forward-in__br0 ct state established,related counter accept
add rule filter-forward-in__br0 iifname != \"br0\" iifname @bridges jump isolation
add rule filter-forward-in__br0 iifname != \"br0\" ip daddr . meta l4proto . th dport @open counter accept
add rule filter-forward-in__br0 iifname != \"br0\" counter drop
add rule filter-forward-in__br0 counter accept
add rule nat-postrouting-in__br0 ip saddr 172.18.0.0/16 ct status dnat counter masquerade
add rule nat-postrouting-out__br0 oifname != \"br0\" counter masquerade
add rule raw-prerouting-in__br0 iifname != \"br0\" fib daddr type != local counter drop
add element bridges { \"br0\" }
add element filter-forward-in-jumps { \"br0\" : jump filter-forward-in__br0 }
add element nat-postrouting-in-jumps { \"br0\" : jump nat-postrouting-in__br0 }
add element nat-postrouting-out-jumps { 172.18.0.0/16 : jump nat-postrouting-out__br0 }
add element raw-prerouting-in-jumps { 172.18.0.0/16 : jump raw-prerouting-in__br0 }
",
    );
}

#[test]
fn an_internal_network() {
    golden(
        BridgeRules { internal: true, icc: false, ..plain("fd00:1::/64") },
        "add chain filter-forward-in__br0
flush chain filter-forward-in__br0
add rule filter-forward-in__br0 iifname != \"br0\" counter drop
add rule filter-forward-in__br0 counter drop
add element filter-forward-in-jumps { \"br0\" : jump filter-forward-in__br0 }
add element internal-bridges { \"br0\" }
",
    );
}

#[test]
fn gateway_modes_and_other_settings() {
    let of = |network: BridgeRules| {
        let family = network.family();
        Table::of(&Part { networks: vec![network], ..Part::default() }, family)
    };
    let rules =
        |table: &Table, chain: &str| table.chains.get(chain).map(|c| c.rules.clone()).unwrap_or_default();
    let routed = of(BridgeRules { mode: GatewayMode::Routed, ..plain("fd00:1::/64") });
    assert_eq!(routed.chains.keys().collect::<Vec<_>>(), ["filter-forward-in__br0"]);
    assert_eq!(
        rules(&routed, "filter-forward-in__br0"),
        [
            "ct state established,related counter accept",
            "meta l4proto ipv6-icmp counter accept",
            "iifname != \"br0\" ip6 daddr . meta l4proto . th dport @open counter accept",
            "iifname != \"br0\" counter drop",
            "counter accept",
        ]
    );
    let open = of(BridgeRules { mode: GatewayMode::NatUnprotected, ..plain("172.18.0.0/16") });
    assert!(rules(&open, "filter-forward-in__br0").contains(&"iifname != \"br0\" counter accept".into()));
    assert!(rules(&open, "raw-prerouting-in__br0").is_empty());
    let mute = of(BridgeRules { icc: false, masquerade: false, ..plain("172.18.0.0/16") });
    let last = rules(&mute, "filter-forward-in__br0");
    assert_eq!(last[last.len() - 2..], ["ct status dnat counter accept", "counter drop"]);
    assert!(!mute.chains.contains_key("nat-postrouting-out__br0"));
    let trusting = of(BridgeRules { trusted: vec!["eth1".into()], ..plain("172.18.0.0/16") });
    assert_eq!(rules(&trusting, "raw-prerouting-in__br0")[0], "iifname \"eth1\" counter accept");
}

#[test]
fn published_ports() {
    let list = [
        bound(Protocol::Tcp, "0.0.0.0", 8080),
        bound(Protocol::Tcp, "::", 8080),
        bound(Protocol::Tcp, "127.0.0.1", 8081),
        bound(Protocol::Udp, "192.0.2.1", 53),
    ];
    let elements = |network: &BridgeRules, ip: &str| {
        let ports = PortRules::new(network, ip.parse().unwrap(), &list).into_iter().collect();
        let table = Table::of(&Part { ports, ..Part::default() }, network.family());
        without_place(&Change::difference(&Table::default(), &table).render(network.family()))
    };
    assert_eq!(
        elements(&plain("172.18.0.0/16"), "172.18.0.2"),
        "add element open { 172.18.0.2 . tcp . 80 }
add element open { 172.18.0.2 . udp . 80 }
add element published { tcp . 8080 : 172.18.0.2 . 80 }
add element published-at { 127.0.0.1 . tcp . 8081 : 172.18.0.2 . 80 }
add element published-at { 192.0.2.1 . udp . 53 : 172.18.0.2 . 80 }
add element published-locally { 127.0.0.1 . tcp . 8081 comment \"br0\" }
"
    );
    assert_eq!(
        elements(&plain("fd00:1::/64"), "fd00:1::2"),
        "add element open { fd00:1::2 . tcp . 80 }\nadd element published { tcp . 8080 : fd00:1::2 . 80 }\n"
    );
    let routed = BridgeRules { mode: GatewayMode::Routed, ..plain("fd00:1::/64") };
    assert_eq!(elements(&routed, "fd00:1::2"), "add element open { fd00:1::2 . tcp . 80 }\n");
}

#[test]
fn names_that_nft_would_read_as_something_else() {
    assert_eq!(interface("br*"), "\"br\\*\"");
    assert_eq!(mark_of("br-a.1"), "__br-a.1");
    assert_eq!(mark_of("a_b;{"), "__a_5fb_3b_7b");
}

#[test]
fn a_link_where_containers_do_not_talk() {
    let network = BridgeRules { icc: false, ..plain("172.18.0.0/16") };
    let from = "172.18.0.3".parse().unwrap();
    let to = "172.18.0.2".parse().unwrap();
    let ports = vec![(Protocol::Tcp, 80), (Protocol::Udp, 53)];
    let links = vec![LinkRules { bridge: "br0".into(), from, to, ports }];
    let none = Table::default();
    let text = Change::difference(&none, &Table::of(&Part { links, ..Part::default() }, Family::V4));
    assert_eq!(
        without_place(&text.render(Family::V4)),
        "add element linked { 172.18.0.3 . 172.18.0.2 . tcp . 80 }\nadd element linked { 172.18.0.3 . 172.18.0.2 . udp . 53 }\n"
    );
    let rules = forwarded(&network, "\"br0\"");
    let place = |text: &str| rules.iter().position(|rule| rule.contains(text));
    assert!(
        place("@linked counter accept").unwrap() < rules.len() - 1
            && rules.ends_with(&["counter drop".into()])
    );
}
