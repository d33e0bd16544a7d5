//! Networks, addresses, isolation, clean-up.

use std::net::Ipv4Addr;

use wherry_netd::client::ClientError;
use wherry_netd::protocol::{Driver, Failure, FirewallBackend, NetworkSpec, Protocol, SubnetSpec};

use crate::support::*;

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, ClientError>) -> Failure {
    match result.unwrap_err() {
        ClientError::Refused(failure) => failure,
        other => panic!("{other}"),
    }
}

#[test]
fn two_containers_reach_each_other_and_leave_nothing() {
    alone("sandboxes::two_containers_reach_each_other_and_leave_nothing", |host| {
        let bridge = host.default_bridge();
        assert_eq!(bridge.spec.subnets[0].subnet.unwrap().to_string(), "172.17.0.0/16");
        let rules_before = out("iptables-save | grep -v '^[#:]'");
        let links_before = sh("ip -o link | wc -l");
        let a = host.sandbox("a", &[&bridge]);
        let b = host.sandbox("b", &[&bridge]);
        assert_eq!((ip(&a), ip(&b)), (Ipv4Addr::new(172, 17, 0, 2), Ipv4Addr::new(172, 17, 0, 3)));
        serve(&b.netns, 80, "b");
        assert_eq!(inside(&a.netns, || greeting(ip(&b), 80)).unwrap(), "b 172.17.0.2");
        assert_eq!(greeting(ip(&b), 80).unwrap(), "b 172.17.0.1", "the host reaches it, too");
        let addresses =
            inside(&a.netns, || sh("ip -o addr; ip route; cat /proc/sys/net/ipv6/conf/eth0/disable_ipv6"));
        assert!(addresses.contains("127.0.0.1/8") && addresses.contains("::1/128"), "{addresses}");
        assert!(addresses.contains("172.17.0.2/16 brd 172.17.255.255 scope global eth0"), "{addresses}");
        assert!(addresses.contains("default via 172.17.0.1 dev eth0"), "{addresses}");
        assert!(!addresses.contains("fe80") && addresses.ends_with("1\n"), "{addresses}");
        assert_eq!(
            rules_before,
            out("iptables-save | grep -v '^[#:]'"),
            "no rule for containers without ports"
        );
        for sandbox in [&a, &b] {
            host.client.release_sandbox(&sandbox.id).unwrap();
        }
        assert_eq!(ip(&host.sandbox("c", &[&bridge])), ip(&a), "the address is free at once");
        host.client.release_sandbox(&id("c")).unwrap();
        host.client.release_sandbox(&id("c")).unwrap();
        eventually("namespaces are gone", || host.namespaces().is_empty());
        eventually("links are gone", || sh("ip -o link | wc -l") == links_before);
        assert!(host.client.sandboxes().unwrap().is_empty());
        assert!(host.default_bridge().endpoints.is_empty());
    });
}

#[test]
fn a_new_container_is_reached_by_those_who_knew_its_address() {
    alone("sandboxes::a_new_container_is_reached_by_those_who_knew_its_address", |host| {
        let bridge = host.default_bridge();
        let client = host.sandbox("client", &[&bridge]);
        for round in 0..20 {
            let server = host.sandbox("server", &[&bridge]);
            serve(&server.netns, 80, "server");
            let begun = std::time::Instant::now();
            let said = inside(&client.netns, || greeting(ip(&server), 80));
            assert_eq!(said.unwrap(), "server 172.17.0.2", "round {round}");
            assert!(greeting(ip(&server), 80).is_ok(), "from the host, round {round}");
            assert!(
                begun.elapsed().as_millis() < 900,
                "no packet was lost, round {round}: {:?}",
                begun.elapsed()
            );
            host.client.release_sandbox(&server.id).unwrap();
        }
    });
}

#[test]
fn networks_are_isolated_from_each_other() {
    alone("sandboxes::networks_are_isolated_from_each_other", |host| {
        let (one, two) = (host.network("one"), host.network("two"));
        assert_eq!(one.spec.subnets[0].subnet.unwrap().to_string(), "172.18.0.0/16");
        assert_eq!(two.spec.subnets[0].gateway.unwrap().to_string(), "172.19.0.1");
        assert_eq!(one.spec.metadata["labels"]["a"], "b");
        let a = host.sandbox("a", &[&one]);
        let b = host.sandbox("b", &[&two]);
        let c = host.sandbox("c", &[&host.default_bridge()]);
        serve(&a.netns, 80, "a");
        assert!(inside(&b.netns, || greeting(ip(&a), 80)).is_err());
        assert!(inside(&c.netns, || greeting(ip(&a), 80)).is_err());
        assert_eq!(greeting(ip(&a), 80).unwrap(), "a 172.18.0.1");
        let after = host.client.connect_endpoint(&b.id, endpoint("b", &one)).unwrap();
        assert_eq!(after.endpoints[1].interface, "eth1");
        assert_eq!(inside(&b.netns, || greeting(ip(&a), 80)).unwrap(), "a 172.18.0.3");
        assert!(
            inside(&b.netns, || sh("ip route")).contains("default via 172.18.0.1"),
            "one comes before two"
        );
        let again = refused(host.client.connect_endpoint(&b.id, {
            let mut other = endpoint("b", &one);
            other.id = id("other");
            other
        }));
        assert_eq!(again.to_string(), "endpoint with name b already exists in network one");
        let in_use = refused(host.client.remove_network(&one.spec.id));
        assert_eq!(in_use.to_string(), "network one has active endpoints");
        let after = host.client.disconnect_endpoint(&b.id, &one.spec.id).unwrap();
        assert_eq!(after.endpoints.len(), 1);
        assert!(inside(&b.netns, || greeting(ip(&a), 80)).is_err());
        assert!(inside(&b.netns, || sh("ip route")).contains("default via 172.19.0.1"));
        for sandbox in [&a, &b, &c] {
            host.client.release_sandbox(&sandbox.id).unwrap();
        }
        for network in [&one, &two] {
            host.client.remove_network(&network.spec.id).unwrap();
        }
        assert_eq!(sh("ip -o link show type bridge | wc -l"), "1\n");
        let left = out("iptables-save | grep -c br-");
        assert_eq!(left, "0\n", "rules are left");
    });
}

#[test]
fn internal_networks_and_those_without_talk() {
    alone("sandboxes::internal_networks_and_those_without_talk", |host| {
        let mut spec = network_spec("inner");
        spec.internal = true;
        let inner = host.create(spec);
        let mut spec = network_spec("quiet");
        spec.icc = false;
        let quiet = host.create(spec);
        let (a, b) = (host.sandbox("a", &[&inner]), host.sandbox("b", &[&inner]));
        let (c, d) = (host.sandbox("c", &[&quiet]), host.sandbox("d", &[&quiet]));
        for (sandbox, name) in [(&a, "a"), (&c, "c")] {
            serve(&sandbox.netns, 80, name);
        }
        assert!(inside(&b.netns, || greeting(ip(&a), 80)).is_ok());
        assert_eq!(a.endpoints[0].gateway, None);
        assert!(!inside(&a.netns, || sh("ip route")).contains("default"));
        assert!(inside(&d.netns, || greeting(ip(&a), 80)).is_err());
        assert!(inside(&d.netns, || greeting(ip(&c), 80)).is_err(), "icc is off");
        let server = std::net::TcpListener::bind((HOST_IP, 7000)).unwrap();
        assert!(inside(&d.netns, || std::net::TcpStream::connect((HOST_IP, 7000))).is_ok());
        assert!(inside(&b.netns, || std::net::TcpStream::connect((HOST_IP, 7000))).is_err());
        drop(server);
    });
}

#[test]
fn addresses_as_asked() {
    alone("sandboxes::addresses_as_asked", |host| {
        let mut spec = network_spec("sub");
        spec.subnets = vec![SubnetSpec {
            ip_range: Some("10.77.1.0/24".parse().unwrap()),
            gateway: Some("10.77.0.254".parse().unwrap()),
            ..subnet("10.77.0.0/16")
        }];
        let sub = host.create(spec.clone());
        assert_eq!(sub, host.create(spec), "the same order twice is one network");
        let fixed = |name: &str, ip: &str| {
            let mut spec = sandbox_spec(name, &[&sub]);
            spec.endpoints[0].ipv4 = Some(ip.parse().unwrap());
            spec.endpoints[0].mac = Some("02:42:0a:4d:01:09".into());
            host.client.create_sandbox(spec)
        };
        let a = fixed("a", "10.77.1.9").unwrap();
        assert_eq!(a.endpoints[0].ipv4.unwrap().to_string(), "10.77.1.9/16");
        let link = inside(&a.netns, || sh("ip link show eth0; ip route"));
        assert!(link.contains("02:42:0a:4d:01:09") && link.contains("default via 10.77.0.254"), "{link}");
        assert_eq!(refused(fixed("b", "10.77.1.9")), Failure::AddressInUse);
        assert_eq!(refused(fixed("b", "10.77.255.255")), Failure::AddressInUse);
        assert!(matches!(refused(fixed("b", "10.78.1.9")), Failure::BadAddress(_)));
        assert_eq!(ip(&host.sandbox("b", &[&sub])).to_string(), "10.77.1.0");
        let mut overlapping = network_spec("sub2");
        overlapping.subnets = vec![subnet("10.77.3.0/24")];
        let failure = refused(host.client.create_network(overlapping));
        assert_eq!(failure.to_string(), "Pool overlaps with other one on this address space");
        let mut taken = network_spec("sub");
        taken.id = id("another");
        assert_eq!(
            refused(host.client.create_network(taken)).to_string(),
            "network with name sub already exists"
        );
        let mut small = network_spec("small");
        small.subnets = vec![subnet("10.8.0.0/29")];
        let small = host.create(small);
        for index in 0..5 {
            host.sandbox(&format!("s{index}"), &[&small]);
        }
        let full = refused(host.client.create_sandbox(sandbox_spec("s5", &[&small])));
        let text = "no available IPv4 addresses on this network's address pools: small (";
        assert!(full.to_string().starts_with(text), "{full}");
        assert_eq!(host.client.sandboxes().unwrap().len(), 7, "what failed is not there");
        let on_default = {
            let mut spec = sandbox_spec("x", &[&host.default_bridge()]);
            spec.endpoints[0].ipv4 = Some("172.17.0.9".parse().unwrap());
            refused(host.client.create_sandbox(spec))
        };
        assert!(
            on_default.to_string().starts_with("user specified IP address is supported only"),
            "{on_default}"
        );
    });
}

#[test]
fn drivers_host_and_null_sysctls_and_unknown_things() {
    alone("sandboxes::drivers_host_and_null_sysctls_and_unknown_things", |host| {
        let networks = host.client.networks().unwrap();
        let by = |driver| networks.iter().find(|n| n.spec.driver == driver).unwrap();
        let none = host.sandbox("none", &[by(Driver::Null)]);
        assert_eq!(inside(&none.netns, || sh("ip -o link | wc -l")), "1\n");
        let on_host = host.sandbox("host", &[by(Driver::Host)]);
        assert_eq!(on_host.netns.as_os_str(), "");
        let networks = host.client.networks().unwrap();
        let count = |driver| networks.iter().find(|n| n.spec.driver == driver).unwrap().endpoints.len();
        assert_eq!((count(Driver::Host), count(Driver::Null)), (1, 1));
        let mut spec = sandbox_spec("tuned", &[]);
        spec.sysctls.insert("net.ipv4.ip_unprivileged_port_start".into(), "0".into());
        let tuned = host.client.create_sandbox(spec.clone()).unwrap();
        let value = inside(&tuned.netns, || sh("cat /proc/sys/net/ipv4/ip_unprivileged_port_start"));
        assert_eq!(value, "0\n");
        assert_eq!(sh("cat /proc/sys/net/ipv4/ip_unprivileged_port_start"), "1024\n");
        spec.id = id("wrong");
        spec.sysctls.insert("net.ipv4.nosuch".into(), "0".into());
        assert!(matches!(refused(host.client.create_sandbox(spec)), Failure::System { .. }));
        assert_eq!(host.namespaces().len(), 2, "the failed one is gone");
        let missing = id("missing");
        assert_eq!(refused(host.client.remove_network(&missing)), Failure::NoSuchNetwork(missing.clone()));
        let bridge = host.default_bridge();
        let failure = refused(host.client.connect_endpoint(&missing, endpoint("x", &bridge)));
        assert_eq!(failure, Failure::NoSuchSandbox(missing));
        let failure = refused(host.client.remove_network(&bridge.spec.id));
        assert_eq!(failure.to_string(), "bridge is a pre-defined network and cannot be removed");
    });
}

#[test]
fn rules_that_somebody_flushes_come_back() {
    alone("sandboxes::rules_that_somebody_flushes_come_back", |host| {
        let web = host.publisher("web", &[port(Protocol::Tcp, None, 8080, 80)]);
        serve(&web.netns, 80, "web");
        let saved = || out("iptables-save | grep -v '^#' | sed 's/\\[.*//'");
        let before = saved();
        for flush in [
            "iptables -t nat -F; iptables -t nat -X",
            "iptables -F; iptables -X; iptables -P FORWARD ACCEPT",
            "iptables -t raw -D DOCKER-LOOPBACK 2; iptables -t mangle -D DOCKER-DIRECT 1",
            "for t in raw mangle nat filter; do iptables-restore </dev/null; iptables -t $t -F; iptables -t $t -X; done",
        ] {
            sh(flush);
            eventually(flush, || saved() == before);
            assert!(greeting(HOST_IP, 8080).unwrap().starts_with("web"));
        }
        // An administrator's own rule is no reason to do anything.
        sh("iptables -A DOCKER-USER -d 192.0.2.1 -j DROP");
        let with_own = saved();
        std::thread::sleep(std::time::Duration::from_millis(500));
        assert_eq!(saved(), with_own);
    });
}

/// Interfaces may be called almost anything; rules about them are told apart from others, and found again.
#[test]
fn odd_names_of_bridges() {
    alone("sandboxes::odd_names_of_bridges", |host| {
        let before = rules();
        let names = ["br.x", "a*", "!x", "-j", "a,b", "a\\b", "a;b", "#b", "$(x)", "a@b{"];
        let made: Vec<_> = names
            .iter()
            .enumerate()
            .map(|(number, bridge)| {
                let name = format!("net{number}");
                let net = host.create(NetworkSpec { bridge: Some((*bridge).into()), ..network_spec(&name) });
                let mut spec = sandbox_spec(&format!("c{number}"), &[&net]);
                let host_port = 8080 + u16::try_from(number).unwrap();
                spec.endpoints[0].ports = vec![port(Protocol::Tcp, Some("127.0.0.1"), host_port, 80)];
                (net, host.client.create_sandbox(spec).unwrap(), host_port)
            })
            .collect();
        let with_all = rules();
        host.client.configure(settings()).unwrap();
        assert_eq!(rules(), with_all, "all are known again");
        for (net, sandbox, host_port) in &made {
            serve(&sandbox.netns, 80, "odd");
            let bridge = net.spec.bridge.as_deref().unwrap();
            assert!(greeting(Ipv4Addr::LOCALHOST, *host_port).unwrap().starts_with("odd"), "{bridge}");
            let other = &made[usize::from(bridge == "br.x")].1;
            assert!(inside(&other.netns, || greeting(ip(sandbox), 80)).is_err(), "{bridge} is apart");
        }
        for (net, sandbox, _) in made {
            host.client.release_sandbox(&sandbox.id).unwrap();
            host.client.remove_network(&net.spec.id).unwrap();
        }
        eventually("the rules are gone", || rules() == before);
        for bridge in ["br%d", "br+", "a\"b", "a'b", "a b", "a/b", "waytoolongbridgename"] {
            let odd = NetworkSpec { bridge: Some(bridge.into()), ..network_spec("odd") };
            assert!(matches!(refused(host.client.create_network(odd)), Failure::Invalid(_)), "{bridge}");
        }
    });
}

/// What the backend has made, in no order.
fn rules() -> Vec<String> {
    let text = match backend() {
        FirewallBackend::Iptables => out("iptables-save | grep -e ^-A"),
        FirewallBackend::Nftables => out("nft -s list table ip docker-bridges"),
    };
    let mut lines =
        text.lines().flat_map(|line| line.split(", ")).map(|l| l.trim().to_owned()).collect::<Vec<_>>();
    lines.sort();
    lines
}

#[test]
fn two_daemons_share_a_host() {
    alone("sandboxes::two_daemons_share_a_host", |host| {
        let other_dir = tempfile::tempdir().unwrap();
        let other = launch(other_dir.path());
        let mut others = settings();
        others.default_bridge.as_mut().unwrap().interface = "other0".into();
        other.configure(others.clone()).unwrap();
        let bridge = other.networks().unwrap().into_iter().find(|n| n.default_bridge).unwrap();
        assert_eq!(
            bridge.spec.subnets[0].subnet.unwrap().to_string(),
            "172.18.0.0/16",
            "not in the first one's way"
        );
        let a = host.publisher("a", &[port(Protocol::Tcp, None, 8080, 80)]);
        let mut spec = sandbox_spec("b", &[&bridge]);
        spec.endpoints[0].ports = vec![port(Protocol::Tcp, None, 8081, 80)];
        let b = other.create_sandbox(spec.clone()).unwrap();
        serve(&a.netns, 80, "a");
        serve(&b.netns, 80, "b");
        host.client.configure(settings()).unwrap();
        other.configure(others).unwrap();
        assert!(greeting(HOST_IP, 8080).unwrap().starts_with("a "));
        assert!(greeting(HOST_IP, 8081).unwrap().starts_with("b "));
        assert!(inside(&b.netns, || greeting(ip(&a), 80)).is_err(), "isolated from each other, too");
        spec.id = id("c");
        spec.endpoints[0].ports = vec![port(Protocol::Tcp, None, 8080, 80)];
        assert!(matches!(refused(other.create_sandbox(spec)), Failure::PortBind { port: 8080, .. }));
        other.release_sandbox(&b.id).unwrap();
        assert!(greeting(HOST_IP, 8080).unwrap().starts_with("a "));
        other.shutdown().unwrap();
        let folder = other_dir.path().join("exec/netns");
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0, "the end took the namespace down");
    });
}

#[test]
fn forwarding_and_rules_are_set_and_mended() {
    alone("sandboxes::forwarding_and_rules_are_set_and_mended", |host| {
        assert_eq!(sh("cat /proc/sys/net/ipv4/ip_forward"), "1\n");
        let saved = || out("iptables-save | grep -v '^#' | sed 's/\\[.*//'");
        let before = saved();
        assert!(before.contains(":FORWARD DROP"), "{before}");
        host.client.configure(settings()).unwrap();
        assert_eq!(saved(), before, "what is right stays as it is");
        sh(
            "iptables -t nat -F; iptables -t nat -X DOCKER; iptables -F DOCKER-FORWARD; iptables -D FORWARD -j DOCKER-USER",
        );
        host.client.configure(settings()).unwrap();
        assert_eq!(saved(), before, "what was lost is back, in order");
        // An administrator's own rules are his.
        sh(
            "iptables -A DOCKER-USER -i docker0 -d 192.0.2.1 -j DROP; iptables -t nat -A POSTROUTING -o docker0 -d 10.0.0.1 -j MASQUERADE",
        );
        let with_own = saved();
        host.client.configure(settings()).unwrap();
        assert_eq!(saved(), with_own);
        let mut unmasked = settings();
        unmasked.ip_masq = false;
        host.client.configure(unmasked).unwrap();
        assert!(!saved().contains("-s 172.17.0.0/16 ! -o docker0 -j MASQUERADE"));
    });
}
