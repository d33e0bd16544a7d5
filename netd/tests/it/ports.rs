//! Published ports: from everywhere they can be reached, and from where they cannot.

use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use wherry_netd::client::ClientError;
use wherry_netd::protocol::{Failure, Protocol};

use crate::support::*;

/// Another machine, behind a link to the host: its namespace.
pub(crate) fn outside() -> &'static Path {
    sh(
        "mkdir -p /run/netns && ip netns add outside && ip link add out0 type veth peer name out1 netns outside",
    );
    sh("ip addr add 198.51.101.1/24 dev out0 && ip link set out0 up");
    sh(
        "ip netns exec outside sh -c 'ip addr add 198.51.101.2/24 dev out1; ip link set out1 up; ip link set lo up; ip route add default via 198.51.101.1'",
    );
    Path::new("/run/netns/outside")
}

#[test]
fn a_port_on_all_addresses_is_reached_from_everywhere() {
    alone("ports::a_port_on_all_addresses_is_reached_from_everywhere", |host| {
        for bridge_calls_iptables in ["1", "0"] {
            let _ = std::fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", bridge_calls_iptables);
            let web = host.publisher("web", &[port(Protocol::Tcp, None, 8080, 80)]);
            let bound: Vec<String> =
                web.endpoints[0].ports.iter().map(|p| format!("{}:{}", p.host_ip, p.host_port)).collect();
            assert_eq!(bound, ["0.0.0.0:8080", ":::8080"]);
            serve(&web.netns, 80, "web");
            let neighbour = host.sandbox("neighbour", &[&host.default_bridge()]);
            let stranger = host.sandbox("stranger", &[&host.network("other")]);
            let get = |to: Ipv4Addr| greeting(to, 8080).unwrap();
            assert_eq!(get(Ipv4Addr::LOCALHOST), "web 172.17.0.1");
            assert_eq!(get(HOST_IP), "web 198.51.100.73");
            assert_eq!(get(Ipv4Addr::UNSPECIFIED), "web 172.17.0.1");
            assert_eq!(greeting(Ipv6Addr::LOCALHOST, 8080).unwrap(), "web 172.17.0.1", "by the relay");
            let gateway = Ipv4Addr::new(172, 17, 0, 1);
            assert_eq!(inside(&neighbour.netns, || get(HOST_IP)), "web 172.17.0.1");
            assert_eq!(inside(&neighbour.netns, || get(gateway)), "web 172.17.0.1");
            assert_eq!(inside(&web.netns, || get(HOST_IP)), "web 172.17.0.1", "its own port");
            assert_eq!(inside(&stranger.netns, || get(HOST_IP)), "web 172.17.0.1", "from another network");
            assert_eq!(inside(&stranger.netns, || get(gateway)), "web 172.17.0.1");
            for sandbox in [&web, &neighbour, &stranger] {
                host.client.release_sandbox(&sandbox.id).unwrap();
            }
            host.client.remove_network(&id("other")).unwrap();
            eventually("the rule is gone", || translations().is_empty());
            assert!(greeting(Ipv4Addr::LOCALHOST, 8080).is_err());
        }
    });
}

#[test]
fn other_machines_reach_what_is_published_and_nothing_else() {
    alone("ports::other_machines_reach_what_is_published_and_nothing_else", |host| {
        let outside = outside();
        let ports = [port(Protocol::Tcp, None, 80, 80), port(Protocol::Tcp, Some("127.0.0.1"), 81, 80)];
        let web = host.publisher("web", &ports);
        let plain = host.sandbox("plain", &[&host.default_bridge()]);
        serve(&web.netns, 80, "web");
        serve(&plain.netns, 80, "plain");
        assert_eq!(inside(outside, || greeting(HOST_IP, 80)).unwrap(), "web 198.51.101.2");
        assert!(inside(outside, || greeting(ip(&web), 80)).is_err(), "not by its own address");
        assert!(inside(outside, || greeting(ip(&plain), 80)).is_err());
        assert!(greeting(ip(&plain), 80).is_ok(), "but from the host");
        assert_eq!(greeting(Ipv4Addr::LOCALHOST, 81).unwrap(), "web 172.17.0.1");
        assert!(greeting(HOST_IP, 81).is_err());
        // A machine that claims the loopback's address is nearby.
        sh(
            "ip netns exec outside sh -c 'ip addr del 127.0.0.1/8 dev lo; sysctl -qw net.ipv4.conf.all.route_localnet=1; ip route add 127.0.0.1 via 198.51.101.1 src 198.51.101.2 table main; ip rule add pref 0 lookup main; ip route del local 127.0.0.0/8 table local' 2>/dev/null || true",
        );
        assert!(inside(outside, || greeting(Ipv4Addr::LOCALHOST, 81)).is_err());
        assert!(inside(&plain.netns, || greeting(Ipv4Addr::new(172, 17, 0, 1), 81)).is_err());
        // A container out to the other machine: behind the host's address.
        let server = inside(outside, || std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, 9000)).unwrap());
        let from = inside(&plain.netns, || {
            std::net::TcpStream::connect((Ipv4Addr::new(198, 51, 101, 2), 9000)).map(drop)
        });
        from.unwrap();
        assert_eq!(server.accept().unwrap().1.ip().to_string(), "198.51.101.1");
    });
}

#[test]
fn one_address_ranges_and_ephemeral_ports() {
    alone("ports::one_address_ranges_and_ephemeral_ports", |host| {
        let own = host.publisher("own", &[port(Protocol::Tcp, Some("198.51.100.73"), 80, 80)]);
        serve(&own.netns, 80, "own");
        assert!(greeting(HOST_IP, 80).is_ok());
        assert!(greeting(Ipv4Addr::LOCALHOST, 80).is_err());
        assert_eq!(translations(), ["tcp 198.51.100.73:80 172.17.0.2:80"]);
        let local = host.publisher("local", &[port(Protocol::Tcp, Some("127.0.0.1"), 80, 80)]);
        serve(&local.netns, 80, "local");
        assert_eq!(greeting(Ipv4Addr::LOCALHOST, 80).unwrap(), "local 172.17.0.1");
        let mut any = sandbox_spec("any", &[&host.default_bridge()]);
        any.endpoints[0].ports = vec![port(Protocol::Tcp, None, 80, 80)];
        let refused = |spec| match host.client.create_sandbox(spec) {
            Err(ClientError::Refused(failure)) => failure,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            refused(any.clone()).to_string(),
            "Bind for 198.51.100.73:80 failed: port is already allocated"
        );
        any.endpoints[0].ports = vec![port(Protocol::Tcp, Some("198.51.100.99"), 80, 80)];
        let failure = refused(any.clone());
        let text = "failed to bind host port for 198.51.100.99:80:172.17.0.4:80/tcp: cannot assign requested address";
        assert_eq!(failure.to_string(), text);
        let other_program = std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8777)).unwrap();
        any.endpoints[0].ports =
            vec![port(Protocol::Tcp, None, 8776, 80), port(Protocol::Tcp, None, 8777, 80)];
        assert!(matches!(refused(any.clone()), Failure::PortBind { port: 8777, .. }));
        drop(other_program);
        let held = host.client.create_sandbox(any.clone()).expect("nothing of the failed one is left");
        assert!(std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8777)).is_err(), "we hold it now");
        assert_eq!(translations().len(), 4);
        host.client.release_sandbox(&held.id).unwrap();
        drop(std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8777)).expect("free at once"));
        any.endpoints[0].ports = vec![port(Protocol::Tcp, None, 0, 80), port(Protocol::Tcp, None, 0, 81)];
        let any = host.client.create_sandbox(any).unwrap();
        let numbers: Vec<u16> = any.endpoints[0].ports.iter().map(|p| p.host_port).collect();
        assert_eq!(numbers, [32768, 32768, 32769, 32769]);
        eventually("three rules fewer, two more", || translations().len() == 4);
    });
}

pub(crate) fn pong(netns: &Path, port: u16, word: &'static str) {
    let socket = inside(netns, || UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)).unwrap());
    std::thread::spawn(move || {
        let mut buffer = [0; 99];
        while let Ok((_, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(word.as_bytes(), from);
        }
    });
}

pub(crate) fn ping(
    socket: &UdpSocket,
    to: impl Into<std::net::IpAddr>,
    port: u16,
) -> std::io::Result<String> {
    let to = std::net::SocketAddr::new(to.into(), port);
    socket.send_to(b"ping", to)?;
    let mut buffer = [0; 99];
    let (length, from) = socket.recv_from(&mut buffer)?;
    assert_eq!(from, to, "who was asked answers");
    Ok(String::from_utf8_lossy(&buffer[..length]).into())
}

pub(crate) fn udp(any: impl Into<std::net::IpAddr>) -> UdpSocket {
    let socket = UdpSocket::bind((any.into(), 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    socket
}

#[test]
fn datagrams_go_there_and_back_and_follow_a_new_container() {
    alone("ports::datagrams_go_there_and_back_and_follow_a_new_container", |host| {
        let first = host.publisher("first", &[port(Protocol::Udp, None, 8053, 53)]);
        pong(&first.netns, 53, "first");
        assert_eq!(translations(), ["udp 0.0.0.0:8053 172.17.0.2:53"]);
        let client = udp(Ipv4Addr::UNSPECIFIED);
        assert_eq!(ping(&client, HOST_IP, 8053).unwrap(), "first");
        assert_eq!(ping(&client, Ipv4Addr::LOCALHOST, 8053).unwrap(), "first");
        let client6 = udp(Ipv6Addr::UNSPECIFIED);
        assert_eq!(ping(&client6, Ipv6Addr::LOCALHOST, 8053).unwrap(), "first", "by the relay");
        assert_eq!(ping(&client6, Ipv6Addr::LOCALHOST, 8053).unwrap(), "first", "the same client again");
        host.client.release_sandbox(&first.id).unwrap();
        let _other = host.sandbox("other", &[&host.default_bridge()]);
        let second = host.publisher("second", &[port(Protocol::Udp, None, 8053, 53)]);
        assert_eq!(ip(&second).to_string(), "172.17.0.3");
        pong(&second.netns, 53, "second");
        assert_eq!(ping(&client, HOST_IP, 8053).unwrap(), "second", "the old translation is forgotten");
    });
}

#[test]
fn without_iptables_the_relay_carries_all() {
    alone("ports::without_iptables_the_relay_carries_all", |host| {
        let mut plain = settings();
        plain.iptables = false;
        host.client.configure(plain).unwrap();
        sh(
            "iptables -P FORWARD ACCEPT; iptables -F; iptables -t nat -F; iptables -t raw -F; iptables -t mangle -F",
        );
        let ports = [port(Protocol::Tcp, None, 8080, 80), port(Protocol::Udp, None, 8053, 53)];
        let web = host.publisher("web", &ports);
        serve(&web.netns, 80, "web");
        pong(&web.netns, 53, "web");
        assert_eq!(greeting(Ipv4Addr::LOCALHOST, 8080).unwrap(), "web 172.17.0.1");
        assert_eq!(greeting(HOST_IP, 8080).unwrap(), "web 172.17.0.1");
        assert_eq!(inside(&web.netns, || greeting(HOST_IP, 8080)).unwrap(), "web 172.17.0.1");
        assert_eq!(ping(&udp(Ipv4Addr::UNSPECIFIED), HOST_IP, 8053).unwrap(), "web");
        assert_eq!(out("iptables-save | grep -c -- '-A'"), "0\n");
    });
}
