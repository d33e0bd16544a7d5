//! Ports published on IPv6 addresses.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use serde_json::json;
use wherry_tests::{Host, Remote, poll, poll_value};

use crate::web::{get, serve};

#[test]
fn from_every_side() {
    let host = Host::new();
    let remote = Remote::new(&host);
    check_every_side(&host, &remote);
    let rules = host.exec("ip6tables-save").ok();
    let forward = rules.stdout.replace(&bridge_exception(&host, "six"), "");
    for line in [
        "-A DOCKER ! -s fe80::/10 -p tcp -m tcp --dport 8080 -j DNAT --to-destination [fd00:1::2]:80",
        "-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER",
        "-A OUTPUT ! -d ::1/128 -m addrtype --dst-type LOCAL -j DOCKER",
    ] {
        assert!(forward.lines().any(|l| l == line), "{line}: {rules}");
    }
    host.docker("rm -f web").ok();
    assert!(get(&host, Ipv6Addr::LOCALHOST, 8080).is_none(), "nothing listens any more");
    poll("the end of its rules", 5, || !host.exec("ip6tables-save").ok().stdout.contains("--dport 8080"));
}

/// Who reaches the published port of a container `web` in the network `six`, which this makes.
pub(crate) fn check_every_side(host: &Host, remote: &Remote<'_>) {
    host.docker("network create --ipv6 --subnet fd00:1::/64 six").ok();
    host.docker("network create --ipv6 other").ok();
    serve(host, "web", "--network six -p 8080:80");
    let gateway: Ipv6Addr = "fd00:1::1".parse().unwrap();
    for address in [Ipv6Addr::LOCALHOST, Remote::HOST_V6, gateway] {
        poll("the page", 10, || get(host, address, 8080).as_deref() == Some("web"));
    }
    let by_host = format!("http://[{}]:8080", Remote::HOST_V6);
    assert_eq!(remote.get(&by_host).as_deref(), Some("web"));
    for line in ["run --rm --network other busybox", "run --rm --network six busybox", "exec web"] {
        let mut words = line.split_whitespace().collect::<Vec<_>>();
        words.extend(["timeout", "5", "wget", "-q", "-O-", &by_host]);
        host.docker(words.as_slice()).prints("web");
    }
    host.docker("port web").prints("80/tcp -> 0.0.0.0:8080\n80/tcp -> [::]:8080");
    // Not past the published port.
    remote.route("fd00:1::/64");
    assert_eq!(remote.get("http://[fd00:1::2]:80"), None);
    assert!(!remote.pings("fd00:1::2"));
}

/// What a user-land proxy's rule has more: the network's own containers do not come by it.
fn bridge_exception(host: &Host, network: &str) -> String {
    format!(" ! -i br-{}", &host.inspect(network)["Id"].as_str().unwrap()[..12])
}

#[test]
fn the_clients_address_is_kept() {
    let host = Host::new();
    let remote = Remote::new(&host);
    host.docker("network create --ipv6 six").ok();
    host.docker("run -d --name box --network six -p 8080:80 busybox sleep 600").ok();
    let listener = host.in_container("box", || TcpListener::bind((Ipv6Addr::UNSPECIFIED, 80)).unwrap());
    listener.set_nonblocking(true).unwrap();
    let seen = |url: &str| -> IpAddr {
        let (_, peer) = poll_value("a connection", 30, || {
            // The listener answers nothing: who asks gives up.
            assert_eq!(remote.get(url), None);
            listener.accept().ok()
        });
        while listener.accept().is_ok() {}
        peer.ip().to_canonical()
    };
    assert_eq!(seen(&format!("http://[{}]:8080", Remote::HOST_V6)), IpAddr::V6(Remote::V6));
    assert_eq!(seen(&format!("http://{}:8080", Remote::HOST_V4)), IpAddr::V4(Remote::V4));
}

#[test]
fn of_certain_addresses_and_containers() {
    let host = Host::new();
    let remote = Remote::new(&host);
    host.docker("network create --ipv6 six").ok();
    host.docker("network create --ipv6 --ipv4=false only").ok();
    serve(&host, "local", "--network six -p [::1]:8081:80");
    poll("the page", 10, || get(&host, Ipv6Addr::LOCALHOST, 8081).as_deref() == Some("local"));
    assert_eq!(remote.get(&format!("http://[{}]:8081", Remote::HOST_V6)), None, "on the loopback alone");
    host.docker("port local").prints("80/tcp -> [::1]:8081");
    serve(&host, "outside", &format!("--network six -p [{}]:8082:80", Remote::HOST_V6));
    poll("the page", 10, || {
        remote.get(&format!("http://[{}]:8082", Remote::HOST_V6)).as_deref() == Some("outside")
    });
    assert!(get(&host, Ipv6Addr::LOCALHOST, 8082).is_none());
    // A container without IPv4 has no ports on IPv4 addresses.
    serve(&host, "alone", "--network only -p 8083:80 -p 127.0.0.1:8084:80");
    assert_eq!(
        host.inspect("alone")["NetworkSettings"]["Ports"],
        json!({"80/tcp": [{"HostIp": "::", "HostPort": "8083"}]})
    );
    poll("the page", 10, || get(&host, Ipv6Addr::LOCALHOST, 8083).as_deref() == Some("alone"));
    assert_eq!(remote.get(&format!("http://[{}]:8083", Remote::HOST_V6)).as_deref(), Some("alone"));
    // One without IPv6 is reached by the host's IPv6 addresses all the same.
    serve(&host, "plain", "-p [::]:8085:80");
    host.docker("port plain").prints("80/tcp -> [::]:8085");
    poll("the page", 10, || get(&host, Ipv6Addr::LOCALHOST, 8085).as_deref() == Some("plain"));
    assert_eq!(remote.get(&format!("http://[{}]:8085", Remote::HOST_V6)).as_deref(), Some("plain"));
    let clash = host.docker("run --rm --network six -p [::1]:8083:80 busybox true");
    assert!(clash.code == 125 && clash.stderr.contains(":8083 failed: port is already allocated"), "{clash}");
}

#[test]
fn without_a_user_land_proxy() {
    let host = Host::with_arguments(&["--userland-proxy=false"]);
    let remote = Remote::new(&host);
    host.docker("network create --ipv6 six").ok();
    serve(&host, "web", "--network six -p 8080:80");
    let by_host = format!("http://[{}]:8080", Remote::HOST_V6);
    poll("the page", 10, || remote.get(&by_host).as_deref() == Some("web"));
    host.docker("exec web timeout 5 wget -q -O- http://198.51.100.73:8080").prints("web");
    serve(&host, "plain", "-p 8081:80");
    host.docker("port plain").prints("80/tcp -> 0.0.0.0:8081");
}

#[test]
fn established_connections_outlive_a_flush_and_rules_come_back() {
    let host = Host::new();
    let remote = Remote::new(&host);
    host.docker("network create --ipv6 --subnet fd00:1::/64 six").ok();
    serve(&host, "web", "--network six -p 8080:80");
    let by_host = format!("http://[{}]:8080", Remote::HOST_V6);
    poll("the page", 10, || remote.get(&by_host).as_deref() == Some("web"));
    let listener = host.in_container("web", || TcpListener::bind((Ipv6Addr::UNSPECIFIED, 81)).unwrap());
    let mut client: TcpStream = host.connect_to(SocketAddr::new("fd00:1::2".parse().unwrap(), 81)).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    server.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    if std::env::var_os("ENGINE").is_some_and(|engine| engine.to_string_lossy().contains("dockerd")) {
        // dockerd does not notice.
        return;
    }
    for line in ["ip6tables -F", "ip6tables -t nat -F", "ip6tables -t mangle -F"] {
        host.exec(line).ok();
    }
    poll("the rules", 10, || host.exec("ip6tables-save").stdout.contains("--dport 8080 -j DNAT"));
    poll("the page", 10, || remote.get(&by_host).as_deref() == Some("web"));
    remote.route("fd00:1::/64");
    assert!(!remote.pings("fd00:1::2"));
    client.write_all(b"still").unwrap();
    let mut heard = [0; 5];
    server.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"still");
}
