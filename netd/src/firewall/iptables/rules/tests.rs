use super::*;
use crate::protocol::Protocol;

fn ports(network: &BridgeRules, ip: &str, bound: &[BoundPort]) -> Vec<Rule> {
    let ip = ip.parse().unwrap();
    let ports = PortRules::new(network, ip, bound).into_iter().collect();
    of(&Part { ports, ..Part::default() }, Family::of(ip))
}

fn plain(subnet: &str) -> BridgeRules {
    BridgeRules::plain("br0", subnet)
}

fn network(internal: bool, icc: bool) -> Vec<Rule> {
    bridge(&BridgeRules { internal, icc, ..plain("172.18.0.0/16") })
}

#[track_caller]
fn golden(rules: &[Rule], expect: &str) {
    let change = Change { add: rules.iter().collect(), ..Change::default() };
    assert_eq!(change.render().unwrap(), expect);
}

#[test]
fn base_rules() {
    golden(
        &base(Family::V4),
        "*raw
-I DOCKER-LOOPBACK 1 -i lo -j RETURN
-A PREROUTING -s 127.0.0.0/8 -j DOCKER-LOOPBACK
-A PREROUTING -d 127.0.0.0/8 -j DOCKER-LOOPBACK
COMMIT
*mangle
-A FORWARD -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DOCKER-DIRECT
COMMIT
*nat
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
-A DOCKER-LOOPBACK -i br0 -j DROP
COMMIT
*mangle
-A DOCKER-DIRECT ! -i br0 -o br0 -j DROP
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
        &ports(&plain("172.18.0.0/16"), "172.18.0.2", &list),
        "*raw
-A DOCKER-LOOPBACK -d 127.0.0.1/32 ! -i lo -p tcp -m tcp --dport 8081 -m comment --comment br0 -j DROP
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
fn ipv6() {
    assert_eq!(base(Family::V6)[2].spec, "! -d ::1/128 -m addrtype --dst-type LOCAL -j DOCKER");
    golden(
        &bridge(&plain("fd00:1::/64"))[..2],
        "*nat
-A POSTROUTING -s fd00:1::/64 -o br0 -m conntrack --ctstate DNAT -j MASQUERADE
-A POSTROUTING -s fd00:1::/64 ! -o br0 -j MASQUERADE
COMMIT
",
    );
    golden(
        &bridge(&BridgeRules { internal: true, ..plain("fd00:1::/64") }),
        "*filter
-A DOCKER-FORWARD -i br0 -o br0 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 ! -s fd00:1::/64 ! -i br0 -o br0 -j DROP
-A DOCKER-ISOLATION-STAGE-1 ! -d fd00:1::/64 -i br0 ! -o br0 -j DROP
COMMIT
",
    );
    let bound = |host_ip: &str| BoundPort {
        protocol: Protocol::Tcp,
        container_port: 80,
        host_ip: host_ip.parse().unwrap(),
        host_port: 8080,
    };
    golden(
        &ports(&plain("fd00:1::/64"), "fd00:1::2", &[bound("0.0.0.0"), bound("::"), bound("2001:db8::1")]),
        "*nat
-A DOCKER ! -s fe80::/10 -p tcp -m tcp --dport 8080 -j DNAT --to-destination [fd00:1::2]:80
-A DOCKER ! -s fe80::/10 -d 2001:db8::1/128 -p tcp -m tcp --dport 8080 -j DNAT --to-destination [fd00:1::2]:80
COMMIT
*filter
-I DOCKER 1 -d fd00:1::2/128 ! -i br0 -o br0 -p tcp -m tcp --dport 80 -j ACCEPT
COMMIT
",
    );
}

#[test]
fn gateway_modes_and_trusted_interfaces() {
    let specs = |rules: BridgeRules, chain: &str| {
        let all = bridge(&rules).into_iter().filter(|r| r.chain == chain);
        all.map(|r| r.spec).collect::<Vec<_>>()
    };
    let routed = BridgeRules { mode: GatewayMode::Routed, ..plain("172.18.0.0/16") };
    assert_eq!(specs(routed.clone(), "DOCKER"), ["-o br0 -p icmp -j ACCEPT", "! -i br0 -o br0 -j DROP"]);
    assert!(specs(routed.clone(), "POSTROUTING").is_empty());
    assert_eq!(
        specs(routed.clone(), "DOCKER-ISOLATION-STAGE-1"),
        [
            "-i br0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            "-o br0 -j RETURN",
            "-i br0 ! -o br0 -j DOCKER-ISOLATION-STAGE-2"
        ]
    );
    let port = BoundPort {
        protocol: Protocol::Tcp,
        container_port: 80,
        host_ip: "0.0.0.0".parse().unwrap(),
        host_port: 0,
    };
    let opened = ports(&routed, "172.18.0.2", &[port]);
    assert_eq!(opened.len(), 1);
    assert_eq!(opened[0].spec, "-d 172.18.0.2/32 ! -i br0 -o br0 -p tcp -m tcp --dport 80 -j ACCEPT");
    let open = BridgeRules { mode: GatewayMode::NatUnprotected, ..plain("172.18.0.0/16") };
    assert_eq!(specs(open.clone(), "DOCKER"), ["! -i br0 -o br0 -j ACCEPT"]);
    assert!(specs(open, "DOCKER-DIRECT").is_empty());
    let trusting = BridgeRules { trusted: vec!["eth1".into()], ..plain("172.18.0.0/16") };
    assert_eq!(specs(trusting, "DOCKER-DIRECT"), ["-i eth1 -o br0 -j RETURN", "! -i br0 -o br0 -j DROP"]);
}

#[test]
fn comments_are_in_quotes_where_they_are_printed_so() {
    for (text, expect) in [("br-0_a", "br-0_a"), ("br.x", "\"br.x\""), ("a\\b", "\"a\\\\b\""), ("", "\"\"")] {
        assert_eq!(comment(text), expect);
    }
}

#[test]
fn nothing_to_do_is_nothing_to_run() {
    assert_eq!(Change::default().render(), None);
    let change = Change { forward_drop: true, ..Change::default() };
    assert_eq!(change.render().unwrap(), "*filter\n:FORWARD DROP [0:0]\nCOMMIT\n");
}

#[test]
fn a_link_where_containers_do_not_talk() {
    let (from, to) = ("172.18.0.3".parse().unwrap(), "172.18.0.2".parse().unwrap());
    let links = vec![LinkRules { bridge: "br0".into(), from, to, ports: vec![(Protocol::Tcp, 80)] }];
    golden(
        &of(&Part { links, ..Part::default() }, Family::V4),
        "*filter
-A DOCKER -s 172.18.0.3/32 -d 172.18.0.2/32 -i br0 -o br0 -p tcp -m tcp --dport 80 -j ACCEPT
-A DOCKER -s 172.18.0.2/32 -d 172.18.0.3/32 -i br0 -o br0 -p tcp -m tcp --sport 80 -j ACCEPT
COMMIT
",
    );
}
