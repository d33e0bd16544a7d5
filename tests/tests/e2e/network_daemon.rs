//! What the daemon is told about networks when it starts.

use std::net::Ipv4Addr;

use serde_json::json;
use wherry_tests::engine::Binary;
use wherry_tests::{HOST_ADDRESS, Host, Remote, poll};

use crate::web::{get, serve, serve_twice};

fn policy(host: &Host, program: &str) -> String {
    let rules = host.exec(&[program, "-S", "FORWARD"]).ok().stdout;
    rules.lines().next().unwrap_or_default().to_owned()
}

fn setting(host: &Host, path: &str) -> String {
    host.exec(&["cat", &format!("/proc/sys/net/{path}")]).ok().out().to_owned()
}

#[test]
fn gateways_of_the_default_bridge() {
    let host = Host::with_arguments(&[
        "--bip=172.17.0.1/16",
        "--default-gateway=172.17.0.99",
        "--ipv6",
        "--bip6=fd00:d0::7/64",
        "--default-gateway-v6=fd00:d0::99",
    ]);
    assert_eq!(
        host.inspect("bridge")["IPAM"]["Config"],
        json!([
            {"Subnet": "172.17.0.0/16", "Gateway": "172.17.0.1", "AuxiliaryAddresses": {"DefaultGatewayIPv4": "172.17.0.99"}},
            {"Subnet": "fd00:d0::/64", "Gateway": "fd00:d0::7", "AuxiliaryAddresses": {"DefaultGatewayIPv6": "fd00:d0::99"}}
        ])
    );
    host.docker("run -d --name box busybox sleep 600").ok();
    host.docker("exec box ip route").contains("default via 172.17.0.99 dev eth0");
    host.docker("exec box ip -6 route").contains("default via fd00:d0::99 dev eth0");
    let shown = host.inspect("box")["NetworkSettings"].take();
    assert_eq!((&shown["Gateway"], &shown["IPv6Gateway"]), (&json!("172.17.0.99"), &json!("fd00:d0::99")));
    host.exec("ip -6 addr show dev docker0").contains("fd00:d0::7/64");
    // Nobody else gets it.
    host.docker("network create --subnet 10.70.0.0/29 --aux-address DefaultGatewayIPv4=10.70.0.3 --aux-address x=10.70.0.4 net").ok();
    host.docker("run --rm --network net busybox ip route").contains("default via 10.70.0.3 dev eth0");
    for expect in ["10.70.0.2/29", "10.70.0.5/29", "10.70.0.6/29"] {
        let id = host.docker("run -d --network net busybox sleep 600").ok().out().to_owned();
        host.docker(&["exec", &id, "ip", "addr"]).contains(expect);
    }
    host.docker("run --rm --network net busybox true").fails(125, "no available IPv4 addresses");
}

#[test]
fn forwarding_without_dropping() {
    let host = Host::with_arguments(&["--ip-forward-no-drop"]);
    assert_eq!(
        (policy(&host, "iptables").as_str(), setting(&host, "ipv4/ip_forward").as_str()),
        ("-P FORWARD ACCEPT", "1")
    );
    host.docker("network create --ipv6 six").ok();
    assert_eq!(policy(&host, "ip6tables"), "-P FORWARD ACCEPT");
    assert_eq!(setting(&host, "ipv6/conf/all/forwarding"), "1");
}

#[test]
fn without_forwarding() {
    let host = Host::with_arguments(&["--ip-forward=false"]);
    assert_eq!(
        (policy(&host, "iptables").as_str(), setting(&host, "ipv4/ip_forward").as_str()),
        ("-P FORWARD ACCEPT", "0")
    );
}

#[test]
fn containers_own_addresses_are_open_to_others() {
    let host = Host::with_arguments(&["--allow-direct-routing"]);
    check_direct_routing(&host);
}

/// Published ports are reached by the containers' own addresses, too, and nothing else is.
pub(crate) fn check_direct_routing(host: &Host) {
    let remote = Remote::new(host);
    remote.route("10.71.0.0/16");
    host.docker("network create --subnet 10.71.0.0/24 open").ok();
    host.docker("network create --subnet 10.71.1.0/24 other").ok();
    serve_twice(host, "web", "--network open -p 8080:80");
    poll("the page", 10, || remote.get("http://10.71.0.2:80").as_deref() == Some("web"));
    assert_eq!(remote.get("http://10.71.0.2:81"), None);
    assert!(!remote.pings("10.71.0.2"));
    assert_eq!(remote.get(&format!("http://{}:8080", Remote::HOST_V4)).as_deref(), Some("web"));
    let fetch =
        "run --rm --network other busybox sh -c 'timeout 2 wget -q -O- http://10.71.0.2:80 || echo nothing'";
    assert!(host.docker(fetch).ok().stdout.contains("nothing"), "networks stay apart");
}

#[test]
fn the_default_bridge_of_ones_own() {
    let host = Host::with_arguments(&[
        "--icc=false",
        "--ip=127.0.0.1",
        "--mtu=1280",
        "--host-gateway-ip=192.0.2.7",
        "--host-gateway-ip=2001:db8::7",
        "--dns=192.0.2.53",
        "--dns-search=example.org",
        "--dns-opt=timeout:1",
    ]);
    let options = host.inspect("bridge")["Options"].take();
    for (name, value) in
        [("bridge.enable_icc", "false"), ("bridge.host_binding_ipv4", "127.0.0.1"), ("driver.mtu", "1280")]
    {
        assert_eq!(options[format!("com.docker.network.{name}")], json!(value), "{name}");
    }
    serve(&host, "web", "-p 8080:80");
    host.docker("port web").prints("80/tcp -> 127.0.0.1:8080");
    poll("the page", 10, || get(&host, Ipv4Addr::LOCALHOST, 8080).as_deref() == Some("web"));
    assert!(get(&host, HOST_ADDRESS, 8080).is_none());
    host.docker("run --rm busybox ip link show eth0").contains("mtu 1280");
    host.docker("run --rm busybox ping -c 1 -W 1 172.17.0.2").fails(1, "");
    // Networks of one's own have neither.
    host.docker("network create net").ok();
    host.docker("run -d --name peer --network net busybox sleep 600").ok();
    host.docker("run --rm --network net busybox ping -c 1 -W 3 peer").ok();
    let hosts = host.docker("run --rm --add-host gate:host-gateway busybox cat /etc/hosts").ok();
    assert!(hosts.stdout.contains("192.0.2.7\tgate\n2001:db8::7\tgate\n"), "{hosts}");
    let resolv = host.docker("run --rm busybox cat /etc/resolv.conf").ok();
    for line in ["nameserver 192.0.2.53", "search example.org", "options timeout:1"] {
        assert!(resolv.stdout.lines().any(|l| l == line), "{line:?} in {resolv}");
    }
    host.docker("run --rm --network net busybox cat /etc/resolv.conf")
        .contains("nameserver 127.0.0.11\nsearch example.org\noptions timeout:1 ndots:0");
}

#[test]
fn host_gateway_is_the_default_bridges() {
    let host = Host::with_arguments(&["--bip=10.72.0.9/24", "--ipv6", "--fixed-cidr-v6=fd00:d1::/64"]);
    for network in ["bridge", "host"] {
        let line =
            format!("run --rm --network {network} --add-host gate:host-gateway busybox cat /etc/hosts");
        let hosts = host.docker(line.as_str()).ok();
        assert!(hosts.stdout.contains("10.72.0.9\tgate\nfd00:d1::1\tgate\n"), "{hosts}");
    }
}

#[test]
fn another_bridge_and_none() {
    let mut host = Host::new();
    host.exec("ip link add mine0 type bridge").ok();
    host.exec("ip addr add 10.73.0.5/24 dev mine0").ok();
    host.exec("ip link set mine0 up").ok();
    host.restart_with(&["--bridge=mine0"]);
    assert_eq!(
        host.inspect("bridge")["IPAM"]["Config"],
        json!([{"Subnet": "10.73.0.0/24", "Gateway": "10.73.0.5"}])
    );
    host.docker("run --rm busybox ip route").contains("default via 10.73.0.5 dev eth0");
    host.restart_with(&["--bridge=none"]);
    host.docker("network ls --format {{.Name}}").prints("host\nnone");
    host.docker("run --name alone busybox ls /sys/class/net").prints("lo");
    let shown = host.inspect("alone");
    let networks =
        shown["NetworkSettings"]["Networks"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(
        (&shown["HostConfig"]["NetworkMode"], networks.as_slice()),
        (&json!("bridge"), &["bridge".to_owned()][..])
    );
    host.restart_with(&[]);
    host.exec("ip addr show dev mine0").ok().contains("10.73.0.5/24");
    host.exec("ip link del mine0").ok();
    host.docker("run --rm busybox ip route").contains("default via 172.17.0.1 dev eth0");
}

#[test]
fn without_rules() {
    let host = Host::with_arguments(&["--iptables=false", "--ip6tables=false"]);
    host.docker("network create --ipv6 six").ok();
    serve(&host, "web", "--network six -p 8080:80");
    for address in [Ipv4Addr::LOCALHOST, HOST_ADDRESS] {
        poll("the page", 10, || get(&host, address, 8080).as_deref() == Some("web"));
    }
    for program in ["iptables-save", "ip6tables-save"] {
        let rules = host.exec(program).ok().stdout;
        assert!(!rules.contains("DOCKER") && !rules.contains("br-"), "{rules}");
    }
}

#[test]
fn values_that_are_refused() {
    if Binary::from_environment().is_reference() {
        // Its program needs an environment that a command of the host has not; `dockerd --validate` says the same.
        return;
    }
    let host = Host::new();
    let engine = host.command_line();
    for (option, text) in [
        (
            "--host-gateway-ip=1.1.1.1 --host-gateway-ip=2.2.2.2",
            "only one IPv4 host gateway IP address can be specified",
        ),
        (
            "--host-gateway-ip=::1 --host-gateway-ip=::2",
            "only one IPv6 host gateway IP address can be specified",
        ),
        ("--host-gateway-ip=x", "invalid argument \"x\" for \"--host-gateway-ip\" flag"),
        ("--default-gateway=x", "invalid argument \"x\" for \"--default-gateway\" flag"),
        ("--default-gateway-v6=x", "invalid argument \"x\" for \"--default-gateway-v6\" flag"),
        ("--default-gateway-v6=10.0.0.1", "--default-gateway-v6 is an address of the other family"),
    ] {
        host.exec(&["sh", "-c", &format!("{engine} {option}")]).fails(1, text);
    }
}
