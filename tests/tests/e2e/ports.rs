//! Published ports: who reaches them, how they look, what goes with them.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};
use serde_json::json;
use wherry_tests::engine::Binary;
use wherry_tests::{HOST_ADDRESS, Host, poll, poll_value};

use crate::web::{get, serve};

#[test]
fn from_every_side() {
    check_every_side(&Host::new());
}

/// Who reaches a published port.
pub(crate) fn check_every_side(host: &Host) {
    serve(host, "web", "-p 8080:80");
    for address in [Ipv4Addr::LOCALHOST, HOST_ADDRESS, Ipv4Addr::new(172, 17, 0, 1)] {
        let page = poll_value("the page", 10, || get(host, address, 8080));
        assert_eq!(page, "web", "{address}");
    }
    // Past the published port, directly.
    assert_eq!(get(host, Ipv4Addr::new(172, 17, 0, 2), 80).as_deref(), Some("web"));
    let fetch = |network: &str, url: &str| {
        host.docker(&[
            "run",
            "--rm",
            "--network",
            network,
            "busybox",
            "timeout",
            "5",
            "wget",
            "-q",
            "-O-",
            url,
        ])
    };
    host.docker("network create net").ok();
    for network in ["bridge", "net"] {
        fetch(network, "http://198.51.100.73:8080").prints("web");
    }
    fetch("host", "http://127.0.0.1:8080").prints("web");
    // Also to itself, by the host's address.
    host.docker("exec web timeout 5 wget -q -O- http://198.51.100.73:8080").prints("web");
    host.docker("port web").prints("80/tcp -> 0.0.0.0:8080\n80/tcp -> [::]:8080");
    host.docker("port web 80").contains("0.0.0.0:8080");
    host.docker("port web 81").fails(1, "No public port '81' published for web");
    host.docker("rm -f web").ok();
    assert!(host.connect_to((Ipv4Addr::LOCALHOST, 8080)).is_err(), "nothing listens any more");
}

#[test]
fn forms() {
    check_forms(&Host::new());
}

/// The forms of publishing.
pub(crate) fn check_forms(host: &Host) {
    serve(host, "web", "-p 127.0.0.1:8081:80 -p 127.0.0.1::80 -p 8082-8083:80-81 -p 53:53/udp");
    let ports = host.inspect("web")["NetworkSettings"]["Ports"].take();
    assert_eq!(
        ports["53/udp"],
        json!([{"HostIp": "0.0.0.0", "HostPort": "53"}, {"HostIp": "::", "HostPort": "53"}])
    );
    assert_eq!(
        ports["81/tcp"],
        json!([{"HostIp": "0.0.0.0", "HostPort": "8083"}, {"HostIp": "::", "HostPort": "8083"}])
    );
    let bindings: Vec<(String, u16)> = ports["80/tcp"]
        .as_array()
        .unwrap()
        .iter()
        .map(|b| (b["HostIp"].as_str().unwrap().to_owned(), b["HostPort"].as_str().unwrap().parse().unwrap()))
        .collect();
    assert_eq!(bindings.len(), 4, "{bindings:?}");
    let ephemeral = bindings.iter().find(|(ip, port)| ip == "127.0.0.1" && *port != 8081).unwrap().1;
    assert!(ephemeral >= 32768, "{ephemeral}");
    poll("the page", 10, || get(host, Ipv4Addr::LOCALHOST, 8081).as_deref() == Some("web"));
    assert_eq!(get(host, Ipv4Addr::LOCALHOST, ephemeral).as_deref(), Some("web"));
    assert_eq!(get(host, HOST_ADDRESS, 8082).as_deref(), Some("web"));
    assert!(get(host, HOST_ADDRESS, 8081).is_none(), "bound to loopback only");
    host.docker("rm -f web").ok();

    host.load_image("exposing:1", r#"{"Cmd":["httpd","-f","-p","80"],"ExposedPorts":{"80/tcp":{}}}"#);
    host.docker("run -d -P --name all --expose 90 exposing:1").ok();
    let ports = host.inspect("all")["NetworkSettings"]["Ports"].take();
    assert_eq!(ports.as_object().unwrap().keys().collect::<Vec<_>>(), ["80/tcp", "90/tcp"]);
    host.docker("run --rm -p 70000:80 busybox true").fails(125, "invalid");
    host.docker("run --rm -p 1-2:80 busybox true").ok();
}

#[test]
fn conflicts() {
    let host = Host::new();
    serve(&host, "web", "-p 8080:80");
    let clash = host.docker("run -d --name late -p 8080:80 busybox sleep 600");
    assert!(clash.code == 125 && clash.out().len() == 64, "{clash}");
    assert!(clash.stderr.contains("failed to set up container networking: driver failed programming external connectivity on endpoint late ("), "{clash}");
    assert!(clash.stderr.contains(":8080 failed: port is already allocated"), "{clash}");
    assert_eq!(host.inspect("late")["State"]["Status"], "created");
    // Told is what has it.
    serve(&host, "local", "-p 127.0.0.1:8081:80 -p [::1]:8081:80");
    for (asked, told) in [
        ("127.0.0.1:8080", "0.0.0.0:8080"),
        ("198.51.100.73:8080", "0.0.0.0:8080"),
        ("[::1]:8080", ":::8080"),
        ("[::]:8080", ":::8080"),
        ("127.0.0.1:8081", "127.0.0.1:8081"),
        ("0.0.0.0:8081", "127.0.0.1:8081"),
        ("[::]:8081", "::1:8081"),
    ] {
        host.docker(&format!("run --rm -p {asked}:80 busybox true"))
            .fails(125, &format!(": Bind for {told} failed: port is already allocated"));
    }
    // Nothing else is said, though the client was waiting for an exit, too.
    for _ in 0..7 {
        let refused = host.docker("run -d -p 8080:80 busybox true").exits(125);
        assert_eq!(refused.stderr.matches("rror").count(), 1, "{refused}");
        let refused = host.docker("run -d busybox no-such-program").exits(127);
        assert!(!refused.stderr.contains("waiting for container"), "{refused}");
    }
    host.docker("rm -f local web").ok();
    host.docker("start late").ok();
    host.docker("rm -f late").ok();
    let other = host.in_network(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8777)).unwrap());
    let clash = host.docker("run -d -p 8777:80 busybox sleep 600");
    assert!(clash.code == 125 && clash.stderr.contains("address already in use"), "{clash}");
    drop(other);
}

#[test]
fn they_follow_the_container() {
    let host = Host::new();
    serve(&host, "web", "-p 8080:80 -p 80");
    let first = host.inspect("web")["NetworkSettings"]["Ports"]["80/tcp"].clone();
    poll("the page", 10, || get(&host, Ipv4Addr::LOCALHOST, 8080).is_some());
    host.docker("stop -t 0 web").ok();
    assert!(host.connect_to((Ipv4Addr::LOCALHOST, 8080)).is_err());
    assert_eq!(host.inspect("web")["NetworkSettings"]["Ports"], json!({}));
    host.docker("start web").ok();
    poll("the page, again", 10, || get(&host, Ipv4Addr::LOCALHOST, 8080).is_some());
    host.docker("restart -t 0 web").ok();
    poll("the page, after a restart", 10, || get(&host, Ipv4Addr::LOCALHOST, 8080).is_some());
    assert_eq!(first.as_array().map(Vec::len), Some(4));
}

#[test]
fn they_come_with_the_first_way_out() {
    let host = Host::new();
    host.docker("network create --internal inside").ok();
    host.docker("run -d --name other -p 8080:80 busybox sleep 600").ok();
    serve(&host, "web", "--network inside -p 8080:80");
    host.docker("port web").prints("");
    let seen = || host.docker("exec web sh -c 'ls /sys/class/net; ip route'").ok().stdout;
    let before = seen();
    let clash = host.docker("network connect bridge web");
    assert!(clash.code == 1 && clash.stderr.contains(":8080 failed: port is already allocated"), "{clash}");
    host.docker("rm -f other").ok();
    if Binary::from_environment().is_reference() {
        // There the interface stays, and with the next start it is connected all the same.
        host.docker("restart -t 0 web").ok();
        host.docker("network disconnect bridge web").ok();
    }
    assert_eq!(seen(), before);
    host.docker("network connect bridge web").ok();
    poll("the page", 10, || get(&host, Ipv4Addr::LOCALHOST, 8080).as_deref() == Some("web"));
    host.docker("port web").prints("80/tcp -> 0.0.0.0:8080\n80/tcp -> [::]:8080");
    host.docker("network disconnect bridge web").ok();
    assert!(host.connect_to((Ipv4Addr::LOCALHOST, 8080)).is_err());
    host.docker("port web").prints("");
}

#[test]
fn rules_are_dockers() {
    let host = Host::new();
    serve(&host, "web", "-p 8080:80");
    let nat = host.exec("iptables -t nat -S").ok();
    // (`! -i docker0` where a user-land proxy serves the bridge's own containers)
    let forward = nat.stdout.replace(" ! -i docker0", "");
    assert!(
        forward.contains("-A DOCKER -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80"),
        "{nat}"
    );
    assert!(nat.stdout.contains("-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER"), "{nat}");
    let filter = host.exec("iptables -S").ok();
    for line in [
        "-P FORWARD DROP",
        "-N DOCKER-USER",
        "-N DOCKER-FORWARD",
        "-A FORWARD -j DOCKER-USER",
        "-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT",
    ] {
        assert!(filter.stdout.lines().any(|l| l == line), "{line}: {filter}");
    }
    // What an operator put into DOCKER-USER stays and is obeyed.
    host.exec("iptables -I DOCKER-USER -j DROP").ok();
    host.docker("run --rm busybox ping -c 1 -W 1 198.51.100.1").fails(1, "");
    host.exec("iptables -D DOCKER-USER -j DROP").ok();
    host.docker("rm -f web").ok();
    // Nobody waits for them to go.
    poll("its rules to go", 10, || !host.exec("iptables -t nat -S").ok().stdout.contains("--dport 8080"));
}

#[test]
fn datagrams() {
    let host = Host::new();
    host.docker("run -d --name box -p 5353:53/udp busybox sleep 600").ok();
    let server = host.in_container("box", || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 53)).unwrap());
    let client = host.in_network(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap());
    for socket in [&server, &client] {
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    }
    let mut packet = [0; 100];
    for address in [HOST_ADDRESS, Ipv4Addr::LOCALHOST] {
        client.send_to(b"question", (address, 5353)).unwrap();
        let (n, peer) = server.recv_from(&mut packet).unwrap();
        assert_eq!(&packet[..n], b"question", "{address}");
        server.send_to(b"answer", peer).unwrap();
        let (n, from) = client.recv_from(&mut packet).unwrap();
        assert_eq!((&packet[..n], from), (b"answer".as_slice(), (address, 5353).into()));
    }
    host.exec("iptables -t nat -S DOCKER")
        .contains("-p udp -m udp --dport 5353 -j DNAT --to-destination 172.17.0.2:53");
}

/// Whether or not the kernel has the protocol: what is forwarded is the kernel's, too.
#[test]
fn sctp() {
    if Binary::from_environment().is_reference() {
        // Without the protocol in the kernel it refuses.
        return;
    }
    let host = Host::new();
    host.docker("run -d --name box -p 9000:9001/sctp busybox sleep 600").ok();
    host.docker("port box").prints("9001/sctp -> 0.0.0.0:9000\n9001/sctp -> [::]:9000");
    host.docker("ps --format {{.Ports}}").prints("0.0.0.0:9000->9001/sctp, [::]:9000->9001/sctp");
    host.exec("iptables -t nat -S DOCKER")
        .contains("-p sctp -m sctp --dport 9000 -j DNAT --to-destination 172.17.0.2:9001");
    host.docker("run --rm -p 9000:9000/sctp busybox true").fails(125, "port is already allocated");
    host.docker("run --rm -p 9000:9000/tcp busybox true").ok();
    // A client that opens an association is led into the container.
    let receiver = host.in_container("box", raw_sctp);
    receiver.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    host.in_network(|| raw_sctp().send_to(&sctp_init(9000), (HOST_ADDRESS, 0)).unwrap());
    let mut packet = [0; 100];
    let length = receiver.recv(&mut packet).unwrap();
    // Behind the header of IP.
    assert_eq!((length, &packet[20..24]), (52, [0x30, 0x39, 0x23, 0x29].as_slice()), "from 12345 to 9001");
}

/// A socket for whole packets of the protocol, which needs nothing of the kernel's but IP.
fn raw_sctp() -> UdpSocket {
    let (family, kind) = (AddressFamily::INET, SocketType::RAW);
    socket_with(family, kind, SocketFlags::CLOEXEC, Some(ipproto::SCTP)).unwrap().into()
}

/// The first packet of an association from port 12345 (RFC 9260, sections 3.1 and 3.3.2).
fn sctp_init(port: u16) -> Vec<u8> {
    let mut packet = [&12345u16.to_be_bytes()[..], &port.to_be_bytes(), &[0; 8]].concat();
    packet.extend([1, 0, 0, 20, 0, 0, 0, 7, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
    let mut sum = !0u32;
    for byte in &packet {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = (sum >> 1) ^ (0x82f6_3b78 & 0u32.wrapping_sub(sum & 1));
        }
    }
    packet[8..12].copy_from_slice(&(!sum).to_le_bytes());
    packet
}
