//! What netd relays itself, because the kernel does not translate it.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use wherry_netd::protocol::{NetworkSpec, Protocol};

use crate::dns::{A, ask};
use crate::ports::{outside, ping, pong, udp};
use crate::support::*;

#[test]
fn datagrams_are_answered_from_the_address_that_was_asked() {
    alone("relay::datagrams_are_answered_from_the_address_that_was_asked", |host| {
        let outside = outside();
        sh("ip netns exec outside ip addr add 2001:db8::9/64 dev out1 nodad");
        for address in ["2001:db8::1", "2001:db8::2", "2001:db8::3"] {
            sh(&format!("ip addr add {address}/64 dev out0 nodad"));
        }
        // A container without IPv6.
        let plain = host.publisher("plain", &[port(Protocol::Udp, None, 8053, 53)]);
        pong(&plain.netns, 53, "plain");
        let (client, own) = (inside(outside, || udp(Ipv6Addr::UNSPECIFIED)), udp(Ipv6Addr::UNSPECIFIED));
        for address in ["2001:db8::1", "2001:db8::2", "2001:db8::3"] {
            let address: Ipv6Addr = address.parse().unwrap();
            assert_eq!(ping(&client, address, 8053).unwrap(), "plain", "{address}");
            assert_eq!(ping(&own, address, 8053).unwrap(), "plain", "{address}");
        }
        // One with IPv6, by the loopback, which the kernel does not translate.
        let six = host.create(NetworkSpec { ipv6: true, ..network_spec("six") });
        let mut spec = sandbox_spec("both", &[&six]);
        spec.endpoints[0].ports = vec![port(Protocol::Udp, None, 8054, 53)];
        let both = host.client.create_sandbox(spec).unwrap();
        pong(&both.netns, 53, "both");
        assert_eq!(ping(&own, Ipv6Addr::LOCALHOST, 8054).unwrap(), "both");
        host.client.release_sandbox(&both.id).unwrap();
        host.client.remove_network(&six.spec.id).unwrap();
    });
}

/// Clients come as many as like to; what containers need is not theirs to take.
#[test]
fn a_crowd_of_clients_leaves_descriptors_for_containers() {
    alone("relay::a_crowd_of_clients_leaves_descriptors_for_containers", |host| {
        let net = host.network("net");
        let client = host.with_descriptors(240);
        let ports = [port(Protocol::Tcp, None, 8080, 80), port(Protocol::Udp, None, 8053, 53)];
        let web = host.publisher("web", &ports);
        serve(&web.netns, 80, "web");
        let to = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), 8080);
        let crowd: Vec<_> =
            (0..100).map(|_| TcpStream::connect_timeout(&to, Duration::from_secs(5)).unwrap()).collect();
        let datagrams: Vec<_> = (0..200)
            .map(|_| {
                let socket = udp(Ipv6Addr::UNSPECIFIED);
                socket.send_to(b"ping", (Ipv6Addr::LOCALHOST, 8053)).unwrap();
                socket
            })
            .collect();
        // Some are served, the others wait.
        let mut first = BufReader::new(crowd[0].try_clone().unwrap());
        first.get_ref().set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut line = String::new();
        first.read_line(&mut line).unwrap();
        assert!(line.starts_with("web "), "{line}");
        // Questions to a resolver that says nothing, as many as a container likes to ask.
        let mut curious = sandbox_spec("curious", &[&net]);
        curious.upstreams = (77..80).map(|last| Ipv4Addr::new(172, 18, 0, last).into()).collect();
        let curious = client.create_sandbox(curious).unwrap();
        let questions = inside(&curious.netns, || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            for id in 0..300u16 {
                let mut message = id.to_be_bytes().to_vec();
                message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, b'x', 1, b'y', 0, 0, 1, 0, 1]);
                socket.send_to(&message, "127.0.0.11:53").unwrap();
            }
            socket
        });
        for number in 0..8 {
            let name = format!("c{number}");
            let made = client.create_sandbox(sandbox_spec(&name, &[&net])).unwrap();
            let found = ask(&curious.netns, &name, A).unwrap();
            assert_eq!(found.records, [ip(&made).octets().to_vec()]);
        }
        drop((crowd, first, datagrams, questions));
        eventually("those that waited are gone", || {
            greeting(Ipv6Addr::LOCALHOST, 8080).is_ok_and(|line| line.starts_with("web "))
        });
    });
}

/// Whoever sends datagrams, and from as many ports as he likes, is remembered for a while; connections have theirs all the same.
#[test]
fn many_who_send_datagrams_leave_room_for_connections() {
    alone("relay::many_who_send_datagrams_leave_room_for_connections", |host| {
        host.with_descriptors(240);
        let web = host
            .publisher("web", &[port(Protocol::Tcp, None, 8080, 80), port(Protocol::Udp, None, 8053, 53)]);
        serve(&web.netns, 80, "web");
        pong(&web.netns, 53, "web");
        let mut answered = 0;
        for _ in 0..200 {
            let socket = udp(Ipv6Addr::UNSPECIFIED);
            socket
                .set_read_timeout(Some(Duration::from_millis(if answered < 20 { 2000 } else { 20 })))
                .unwrap();
            answered += usize::from(ping(&socket, Ipv6Addr::LOCALHOST, 8053).is_ok());
        }
        assert!((20..200).contains(&answered), "{answered}");
        assert!(greeting(Ipv6Addr::LOCALHOST, 8080).unwrap().starts_with("web "));
    });
}
