//! The nftables backend: the same packets as with iptables, in tables of our own that are kept as they should be.

use std::net::Ipv4Addr;

use wherry_netd::protocol::{FirewallBackend, GatewayMode, NetworkSpec, Protocol, Settings};

use crate::support::*;

fn nftables() -> Settings {
    Settings { firewall: FirewallBackend::Nftables, ..settings() }
}

/// Our tables, with the handles of their rules, which change when a rule is replaced.
fn tables() -> String {
    out("nft -s -a list table ip docker-bridges; nft -s -a list table ip6 docker-bridges")
}

/// The same without handles, and in an order that does not depend on what was made first.
fn rules() -> String {
    out(
        "(nft -s list table ip docker-bridges; nft -s list table ip6 docker-bridges) | tr -d '{},' | sed 's/elements = //; s/^[ \t]*//; s/ *$//' | sort",
    )
}

fn own_rules_of_iptables() -> String {
    out("iptables-save; ip6tables-save")
        .lines()
        .filter(|l| l.contains("DOCKER") || l.contains("docker0"))
        .collect()
}

#[test]
fn ports_are_reached_as_with_iptables() {
    for test in [
        "a_port_on_all_addresses_is_reached_from_everywhere",
        "other_machines_reach_what_is_published_and_nothing_else",
        "one_address_ranges_and_ephemeral_ports",
        "datagrams_go_there_and_back_and_follow_a_new_container",
    ] {
        again_with_nftables(&format!("ports::{test}"));
    }
}

#[test]
fn networks_are_kept_apart_as_with_iptables() {
    again_with_nftables("sandboxes::networks_are_isolated_from_each_other");
    again_with_nftables("sandboxes::odd_names_of_bridges");
}

#[test]
fn what_is_right_stays_and_what_is_lost_comes_back() {
    alone("nftables::what_is_right_stays_and_what_is_lost_comes_back", |host| {
        sh("nft add table inet mine; nft add chain inet mine c; nft add rule inet mine c counter accept");
        host.client.configure(nftables()).unwrap();
        host.network("plain");
        let odd = NetworkSpec {
            ipv6: true,
            icc: false,
            gateway_mode_v6: GatewayMode::Routed,
            bridge: Some("odd;{*".into()),
            subnets: vec![subnet("10.9.0.0/31"), subnet("fd00:9::/64")],
            ..network_spec("odd")
        };
        host.create(odd);
        host.create(NetworkSpec { internal: true, ipv6: true, ..network_spec("inside") });
        let ports = [port(Protocol::Tcp, None, 8080, 80), port(Protocol::Udp, Some("127.0.0.1"), 8053, 53)];
        let web = host.publisher("web", &ports);
        serve(&web.netns, 80, "web");
        assert!(greeting(HOST_IP, 8080).unwrap().starts_with("web"));
        let (before, changes) = (tables(), rule_changes());
        host.client.configure(nftables()).unwrap();
        assert_eq!(rule_changes(), changes, "what is right already is not touched: {before}");
        assert_eq!(tables(), before);
        let before = rules();
        for damage in [
            "nft delete table ip docker-bridges; nft delete table ip6 docker-bridges",
            "nft flush chain ip docker-bridges filter-FORWARD",
            "nft flush chain ip docker-bridges filter-forward-in__docker0",
            "nft flush map ip docker-bridges published",
            "nft delete element ip docker-bridges bridges '{ \"docker0\" }'",
            "nft add rule ip docker-bridges filter-FORWARD accept",
            "nft flush ruleset",
        ] {
            sh(damage);
            eventually(damage, || rules() == before);
            assert!(greeting(HOST_IP, 8080).unwrap().starts_with("web"), "{damage}");
            let changes = rule_changes();
            host.client.configure(nftables()).unwrap();
            assert_eq!(rule_changes(), changes, "{damage}: all is in order again");
        }
        // Somebody's own rules are no reason to do anything, and are not touched.
        sh("nft add table inet mine; nft add chain inet mine c; nft add rule inet mine c counter accept");
        let (own, changes) = (out("nft -a list table inet mine"), rule_changes());
        std::thread::sleep(std::time::Duration::from_millis(500));
        assert_eq!(rule_changes(), changes);
        host.client.release_sandbox(&web.id).unwrap();
        for network in ["plain", "odd", "inside"] {
            host.client.remove_network(&id(network)).unwrap();
        }
        eventually("what was published is gone", || translations_of_nftables().is_empty());
        let left = rules();
        assert!(!left.contains("br-") && !left.contains("odd") && left.contains("docker0"), "{left}");
        assert_eq!(out("nft -a list table inet mine"), own);
    });
}

fn translations_of_nftables() -> String {
    let lists = ["map {} published", "map {} published-at", "set {} open", "set {} published-locally"]
        .map(|list| sh(&format!("nft list {}", list.replace("{}", "ip docker-bridges"))));
    lists.concat().lines().filter(|l| l.contains("elements")).collect()
}

#[test]
fn a_network_whose_rules_are_damaged_leaves_nothing() {
    alone("nftables::a_network_whose_rules_are_damaged_leaves_nothing", |host| {
        let spec = || NetworkSpec { subnets: vec![subnet("10.9.0.0/24")], ..network_spec("net") };
        let rules_of_iptables = || out("iptables-save | grep -v '^#' | sed 's/\\[.*//'");
        for backend in [FirewallBackend::Iptables, FirewallBackend::Nftables] {
            host.client.configure(Settings { firewall: backend, ..settings() }).unwrap();
            let all = || rules_of_iptables() + &rules();
            let before = all();
            let network = host.create(spec());
            assert_ne!(all(), before);
            let damage = match backend {
                FirewallBackend::Iptables => {
                    "iptables -t nat -D POSTROUTING -s 10.9.0.0/24 ! -o br-6e6574000000 -j MASQUERADE"
                }
                FirewallBackend::Nftables => {
                    "nft delete element ip docker-bridges bridges '{ \"br-6e6574000000\" }'"
                }
            };
            sh(damage);
            // At once: what is to be removed is not all there, so that everything is compared.
            host.client.remove_network(&network.spec.id).unwrap();
            assert_eq!(all(), before, "{backend:?}");
            // Its subnet can be used again.
            host.create(NetworkSpec { id: id("again"), ..spec() });
            host.client.remove_network(&id("again")).unwrap();
            assert_eq!(all(), before, "{backend:?}");
        }
    });
}

#[test]
fn switching_leaves_nothing_of_the_other_one() {
    alone("nftables::switching_leaves_nothing_of_the_other_one", |host| {
        let web = host.publisher("web", &[port(Protocol::Tcp, None, 8080, 80)]);
        serve(&web.netns, 80, "web");
        let works = || {
            for to in [HOST_IP, Ipv4Addr::LOCALHOST] {
                assert!(greeting(to, 8080).unwrap().starts_with("web"), "{to}");
            }
        };
        works();
        sh("iptables -A FORWARD -d 192.0.2.1 -j DROP");
        let (first, forward) = (out("iptables-save | grep ^-"), out("iptables -S FORWARD | head -1"));
        assert_eq!(forward, "-P FORWARD DROP\n");
        host.client.configure(nftables()).unwrap();
        assert_eq!(own_rules_of_iptables(), "");
        assert_eq!(out("iptables -S FORWARD"), "-P FORWARD ACCEPT\n-A FORWARD -d 192.0.2.1/32 -j DROP\n");
        assert!(rules().contains("hook forward priority filter; policy drop;"), "{}", rules());
        works();
        // A netd that starts anew knows which one it was.
        let pid = host.netd_pid();
        sh(&format!("kill -9 {pid}"));
        eventually("another netd", || host.client.hello().is_ok_and(|h| h.1 as i32 != pid));
        host.client.configure(settings()).unwrap();
        assert!(!out("nft list tables").contains("docker-bridges"));
        assert_eq!(out("iptables-save | grep ^-"), first);
        works();
        // What an administrator has put into DOCKER-USER goes on working.
        sh("iptables -A DOCKER-USER -d 192.0.2.2 -j DROP");
        host.client.configure(nftables()).unwrap();
        assert_eq!(
            own_rules_of_iptables(),
            ":DOCKER-USER - [0:0]-A FORWARD -j DOCKER-USER-A DOCKER-USER -d 192.0.2.2/32 -j DROP"
        );
        works();
    });
}

#[test]
fn switching_leaves_what_another_engine_has_in_the_table() {
    alone("nftables::switching_leaves_what_another_engine_has_in_the_table", |host| {
        host.client.configure(nftables()).unwrap();
        let web = host.publisher("web", &[port(Protocol::Tcp, None, 8080, 80)]);
        serve(&web.netns, 80, "web");
        sh(
            "nft add element ip docker-bridges bridges '{ \"br7\" }'; nft add chain ip docker-bridges filter-forward-in__br7",
        );
        host.client.configure(settings()).unwrap();
        let left = rules();
        assert!(left.contains("br7") && left.contains("chain filter-forward-in__br7"), "{left}");
        assert!(!left.contains("docker0") && !left.contains("8080"), "{left}");
        assert!(greeting(HOST_IP, 8080).unwrap().starts_with("web"));
        // What is alone in the other family's table takes it along.
        assert!(!out("nft list tables").contains("ip6 docker-bridges"));
    });
}

#[test]
fn a_crowd_is_small_and_quick_to_check() {
    alone("nftables::a_crowd_is_small_and_quick_to_check", |host| {
        host.client.configure(nftables()).unwrap();
        let before = rules();
        let networks: Vec<_> = (0..20).map(|n| host.network(&format!("n{n}"))).collect();
        let mut made = Vec::new();
        for (number, network) in networks.iter().enumerate() {
            for container in 0..3 {
                let mut spec = sandbox_spec(&format!("c{number}-{container}"), &[network]);
                spec.endpoints[0].ports = vec![port(Protocol::Tcp, None, 0, 80)];
                made.push(host.client.create_sandbox(spec).unwrap());
            }
        }
        let changes = rule_changes();
        let begun = std::time::Instant::now();
        host.client.configure(nftables()).unwrap();
        println!("20 networks and 60 ports compared in {} ms", begun.elapsed().as_millis());
        assert_eq!(rule_changes(), changes, "nothing to change");
        made.iter().for_each(|sandbox| host.client.release_sandbox(&sandbox.id).unwrap());
        networks.iter().for_each(|network| host.client.remove_network(&network.spec.id).unwrap());
        eventually("nothing is left", || rules() == before);
    });
}

#[test]
fn a_missing_program_is_named() {
    alone("nftables::a_missing_program_is_named", |host| {
        let client = host.without_programs();
        let failure = client.configure(nftables()).unwrap_err().to_string();
        assert!(failure.contains("run nft: not found in PATH; install the package nftables"), "{failure}");
    });
}
