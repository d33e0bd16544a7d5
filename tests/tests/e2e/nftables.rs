//! `--firewall-backend=nftables`, which the reference does not have yet: what iptables' rules do is expected of these.

use std::net::Ipv4Addr;

use wherry_tests::{HOST_ADDRESS, Host, Remote, poll};

use crate::web::serve;
use crate::{links, network, network_daemon, network_options, ports, ports_ipv6};

const NFTABLES: &str = "--firewall-backend=nftables";

fn host() -> Host {
    Host::with_arguments(&[NFTABLES])
}

fn driver(host: &Host) -> String {
    host.docker("info --format {{.FirewallBackend.Driver}}").ok().out().to_owned()
}

/// Rules of ours that iptables knows.
fn of_iptables(host: &Host) -> Vec<String> {
    let all = host.exec("iptables-save").ok().stdout + &host.exec("ip6tables-save").ok().stdout;
    all.lines().filter(|l| l.contains("DOCKER") || l.contains("docker0")).map(str::to_owned).collect()
}

#[test]
fn published_ports() {
    let host = host();
    assert_eq!(driver(&host), "nftables");
    ports::check_every_side(&host);
    ports::check_forms(&host);
    assert_eq!(of_iptables(&host), [""; 0]);
}

#[test]
fn published_ports_of_ipv6() {
    let host = host();
    let remote = Remote::new(&host);
    ports_ipv6::check_every_side(&host, &remote);
    host.exec("nft list map ip6 docker-bridges published").contains("tcp . 8080 : fd00:1::2 . 80");
    host.docker("rm -f web").ok();
    let published = || host.exec("nft list map ip6 docker-bridges published").ok().stdout;
    poll("the end of its rules", 5, || !published().contains("8080"));
}

#[test]
fn gateway_modes() {
    network_options::check_gateway_modes(&host());
}

#[test]
fn containers_own_addresses_are_open_to_others() {
    network_daemon::check_direct_routing(&Host::with_arguments(&[NFTABLES, "--allow-direct-routing"]));
}

#[test]
fn talk_between_containers_and_trusted_interfaces() {
    network_options::check_talk_and_trust(&host());
}

#[test]
fn traffic_between_containers() {
    let host = host();
    network::check_traffic(&host);
    // A container's packets leave with the host's address: the other host knows no way back but to that.
    let remote = Remote::new(&host);
    host.docker("exec a1 ping -c 1 -W 2 203.0.113.9").ok();
    // And from there nobody comes in.
    let address = host.inspect("a1")["NetworkSettings"]["Networks"]["one"]["IPAddress"].clone();
    remote.route(address.as_str().unwrap());
    assert!(!remote.pings(address.as_str().unwrap()));
}

#[test]
fn a_flush_is_mended_under_a_connection() {
    let host = host();
    serve(&host, "web", "-p 8080:80");
    let get = || host.http_get((HOST_ADDRESS, 8080), "/").is_some_and(|page| page.text() == "web\n");
    poll("the page", 10, get);
    host.exec("nft flush ruleset").ok();
    poll("the rules", 10, || host.exec("nft list tables").stdout.contains("table ip docker-bridges"));
    poll("the page", 10, get);
    host.docker("exec web ping -c 1 -W 2 198.51.100.73").ok();
}

#[test]
fn changing_the_backend_moves_everything() {
    let mut host = Host::with_arguments(&["--live-restore"]);
    host.docker("network create net").ok();
    serve(&host, "web", "--network net -p 8080:80");
    let works = |host: &Host| {
        poll("the page", 10, || host.http_get((Ipv4Addr::LOCALHOST, 8080), "/").is_some());
        poll("the page", 10, || host.http_get((HOST_ADDRESS, 8080), "/").is_some());
        host.docker("exec web timeout 5 wget -q -O- http://198.51.100.73:8080").prints("web");
    };
    works(&host);
    assert_eq!(driver(&host), "iptables");
    assert!(of_iptables(&host).iter().any(|rule| rule.contains("--dport 8080")));
    host.restart_with(&["--live-restore", NFTABLES]);
    assert_eq!(driver(&host), "nftables");
    assert_eq!(of_iptables(&host), [""; 0]);
    assert!(!host.exec("iptables -S FORWARD").ok().stdout.contains("DROP"), "our policy is gone, too");
    works(&host);
    host.restart_with(&["--live-restore"]);
    assert!(!host.exec("nft list tables").ok().stdout.contains("docker-bridges"));
    assert!(of_iptables(&host).iter().any(|rule| rule.contains("--dport 8080")));
    works(&host);
}

#[test]
fn another_value_is_refused() {
    let host = Host::new();
    let engine = host.command_line();
    host.exec(&["sh", "-c", &format!("{engine} --firewall-backend=ufw")])
        .fails(1, "invalid firewall-backend: allowed values are \"iptables\" and \"nftables\"");
}

#[test]
fn links_where_containers_do_not_talk() {
    let host = Host::with_arguments(&[NFTABLES, "--icc=false"]);
    host.docker("run -d --name db --expose 8000 busybox sleep 600").ok();
    links::check_what_links_open(&host);
    let open = || host.exec("nft list set ip docker-bridges linked").ok().stdout;
    assert!(!open().contains("8000"), "{}", open());
}
