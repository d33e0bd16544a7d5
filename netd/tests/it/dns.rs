//! Names, as programs in containers ask for them.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::*;

const RESOLVER: (Ipv4Addr, u16) = (Ipv4Addr::new(127, 0, 0, 11), 53);
pub(crate) const A: u16 = 1;
const PTR: u16 = 12;
const MX: u16 = 15;
const AAAA: u16 = 28;

/// A query's bytes.
pub(crate) fn query(name: &str, kind: u16) -> Vec<u8> {
    let mut bytes = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&[0, 1]);
    bytes
}

/// Code, and the data of the answers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) code: u8,
    pub(crate) records: Vec<Vec<u8>>,
}

pub(crate) fn read_answer(bytes: &[u8], question: usize) -> Answer {
    assert_eq!(bytes[..2], [0x12, 0x34]);
    assert_eq!(bytes[2] & 0x80, 0x80);
    let mut records = Vec::new();
    let mut rest = &bytes[question..];
    for _ in 0..u16::from_be_bytes([bytes[6], bytes[7]]) {
        let length = usize::from(u16::from_be_bytes([rest[10], rest[11]]));
        records.push(rest[12..12 + length].to_vec());
        rest = &rest[12 + length..];
    }
    records.sort();
    Answer { code: bytes[3] & 15, records }
}

pub(crate) fn ask(netns: &Path, name: &str, kind: u16) -> std::io::Result<Answer> {
    inside(netns, || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_read_timeout(Some(Duration::from_secs(8)))?;
        socket.connect(RESOLVER)?;
        let query = query(name, kind);
        socket.send(&query)?;
        let mut buffer = [0; 4096];
        let length = socket.recv(&mut buffer)?;
        Ok(read_answer(&buffer[..length], query.len()))
    })
}

fn ask_by_tcp(netns: &Path, name: &str, kind: u16) -> Answer {
    inside(netns, || {
        let mut connection = TcpStream::connect(RESOLVER).unwrap();
        let query = query(name, kind);
        connection.write_all(&[&(query.len() as u16).to_be_bytes()[..], &query].concat()).unwrap();
        let mut length = [0; 2];
        connection.read_exact(&mut length).unwrap();
        let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
        connection.read_exact(&mut answer).unwrap();
        read_answer(&answer, query.len())
    })
}

fn addresses(list: &[Ipv4Addr]) -> Answer {
    Answer { code: 0, records: list.iter().map(|ip| ip.octets().to_vec()).collect() }
}

/// A resolver on the host: knows `pkgs.test`, answers others with "no such name", counts.
pub(crate) fn upstream(ip: impl Into<IpAddr>) -> Arc<AtomicUsize> {
    let count = Arc::new(AtomicUsize::new(0));
    let ip = ip.into();
    let udp = UdpSocket::bind((ip, 53)).unwrap();
    let tcp = TcpListener::bind((ip, 53)).unwrap();
    let counted = count.clone();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((length, from)) = udp.recv_from(&mut buffer) {
            counted.fetch_add(1, Ordering::SeqCst);
            // A name that is never answered.
            if !buffer[12..].starts_with(b"\x06silent") {
                udp.send_to(&upstream_answer(&buffer[..length]), from).unwrap();
            }
        }
    });
    std::thread::spawn(move || {
        for connection in tcp.incoming() {
            let mut connection = connection.unwrap();
            let mut length = [0; 2];
            connection.read_exact(&mut length).unwrap();
            let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
            connection.read_exact(&mut query).unwrap();
            let answer = upstream_answer(&query);
            connection.write_all(&[&(answer.len() as u16).to_be_bytes()[..], &answer].concat()).unwrap();
        }
    });
    count
}

fn upstream_answer(query: &[u8]) -> Vec<u8> {
    let known = query[12..].starts_with(b"\x04pkgs\x04test\0");
    let mut answer = query.to_vec();
    answer[2] = 0x81;
    answer[3] = if known { 0x80 } else { 0x83 };
    if known {
        answer[7] = 1;
        answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 198, 51, 100, 73]);
    }
    answer
}

#[test]
fn containers_find_each_other_by_name() {
    alone("dns::containers_find_each_other_by_name", |host| {
        upstream(HOST_IP);
        let (net, other) = (host.network("aws-net"), host.network("other"));
        let es = host.sandbox("es", &[&net]);
        let mut spec = sandbox_spec("es2", &[&net]);
        spec.endpoints[0].names.push("search".into());
        spec.endpoints[0].links.insert("db".into(), id("es"));
        let es2 = host.client.create_sandbox(spec).unwrap();
        let stranger = host.sandbox("stranger", &[&other]);
        let nothing = Answer { code: 0, records: Vec::new() };
        let missing = Answer { code: 3, records: Vec::new() };
        for (asker, name, kind, expect) in [
            (&es2, "es", A, addresses(&[ip(&es)])),
            (&es2, "ES", A, addresses(&[ip(&es)])),
            (&es2, "es.aws-net", A, addresses(&[ip(&es)])),
            (&es2, &id("es")[..12], A, addresses(&[ip(&es)])),
            (&es2, "db", A, addresses(&[ip(&es)])),
            (&es, "search", A, addresses(&[ip(&es2)])),
            (&es, "es", A, addresses(&[ip(&es)])),
            (&es, "db", A, missing),
            (&es, "es2", AAAA, nothing),
            (&es, "es2", MX, Answer { code: 0, records: Vec::new() }),
            (&stranger, "es", A, Answer { code: 3, records: Vec::new() }),
        ] {
            assert_eq!(ask(&asker.netns, name, kind).unwrap(), expect, "{name}");
            assert_eq!(ask_by_tcp(&asker.netns, name, kind), expect, "{name} by TCP");
        }
        let reverse = ask(&es2.netns, "2.0.18.172.in-addr.arpa", PTR).unwrap();
        assert_eq!(reverse.records, [b"\x02es\x07aws-net\0".to_vec()]);
        // A second container of that alias; a rename; a second network; an end.
        let mut spec = sandbox_spec("es3", &[&net]);
        spec.endpoints[0].names.push("search".into());
        let es3 = host.client.create_sandbox(spec).unwrap();
        assert_eq!(ask(&es.netns, "search", A).unwrap(), addresses(&[ip(&es2), ip(&es3)]));
        host.client.set_names(&es3.id, &net.spec.id, vec!["renamed".into()], "es3").unwrap();
        assert_eq!(ask(&es.netns, "renamed", A).unwrap(), addresses(&[ip(&es3)]));
        assert_eq!(ask(&es.netns, "search", A).unwrap(), addresses(&[ip(&es2)]));
        host.client.connect_endpoint(&stranger.id, endpoint("stranger", &net)).unwrap();
        assert_eq!(ask(&stranger.netns, "es", A).unwrap(), addresses(&[ip(&es)]));
        host.client.release_sandbox(&es2.id).unwrap();
        assert_eq!(ask(&es.netns, "es2", A).unwrap().code, 3);
    });
}

#[test]
fn other_names_are_passed_on_from_the_host() {
    alone("dns::other_names_are_passed_on_from_the_host", |host| {
        let asked = upstream(HOST_IP);
        let net = host.network("net");
        let a = host.sandbox("a", &[&net]);
        let pkgs = addresses(&[HOST_IP]);
        assert_eq!(ask(&a.netns, "pkgs.test", A).unwrap(), pkgs);
        assert_eq!(ask_by_tcp(&a.netns, "pkgs.test", A), pkgs);
        assert_eq!(ask(&a.netns, "nobody-has-this", A).unwrap().code, 3);
        assert_eq!(ask(&a.netns, "4.4.8.8.in-addr.arpa", PTR).unwrap().code, 3);
        // A resolver on the host's loopback; one of the sandbox's own.
        std::fs::write("/mnt/resolv.conf", "nameserver 127.0.0.53\n").unwrap();
        let on_loopback = upstream(Ipv4Addr::new(127, 0, 0, 53));
        assert_eq!(ask(&a.netns, "pkgs.test", A).unwrap(), pkgs);
        assert_eq!(on_loopback.load(Ordering::SeqCst), 1);
        let mut spec = sandbox_spec("b", &[&net]);
        spec.upstreams = vec![HOST_IP.into()];
        let b = host.client.create_sandbox(spec).unwrap();
        let before = asked.load(Ordering::SeqCst);
        assert_eq!(ask(&b.netns, "pkgs.test", A).unwrap(), pkgs);
        assert_eq!(asked.load(Ordering::SeqCst), before + 1);
        // Nobody answers: a failure, in time, while others are served.
        let begun = Instant::now();
        std::thread::scope(|scope| {
            let silent = scope.spawn(|| ask(&a.netns, "silent.test", A).unwrap());
            assert_eq!(ask(&a.netns, "pkgs.test", A).unwrap(), pkgs);
            assert!(begun.elapsed() < Duration::from_secs(1));
            assert_eq!(silent.join().unwrap().code, 2);
        });
        assert!(begun.elapsed() < Duration::from_secs(5), "before the client gives up");
        // An internal network asks nobody.
        let mut spec = network_spec("inner");
        spec.internal = true;
        let inner = host.create(spec);
        let c = host.sandbox("c", &[&inner]);
        let before = asked.load(Ordering::SeqCst) + on_loopback.load(Ordering::SeqCst);
        assert_eq!(ask(&c.netns, "pkgs.test", A).unwrap().code, 2);
        assert_eq!(ask(&c.netns, "c", A).unwrap(), addresses(&[ip(&c)]));
        assert_eq!(asked.load(Ordering::SeqCst) + on_loopback.load(Ordering::SeqCst), before);
    });
}

#[test]
fn a_container_may_listen_on_port_53_and_slow_clients_block_nobody() {
    alone("dns::a_container_may_listen_on_port_53_and_slow_clients_block_nobody", |host| {
        let net = host.network("net");
        let a = host.sandbox("a", &[&net]);
        inside(&a.netns, || {
            drop(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 53)).unwrap());
            drop(TcpListener::bind((Ipv4Addr::UNSPECIFIED, 53)).unwrap());
        });
        let slow: Vec<TcpStream> =
            inside(&a.netns, || (0..40).map(|_| TcpStream::connect(RESOLVER).unwrap()).collect());
        assert_eq!(ask(&a.netns, "a", A).unwrap(), addresses(&[ip(&a)]), "datagrams are answered");
        let b = host.sandbox("b", &[&net]);
        assert_eq!(ask_by_tcp(&b.netns, "a", A), addresses(&[ip(&a)]), "other sandboxes are answered");
        drop(slow);
        eventually("connections are accepted again", || {
            std::panic::catch_unwind(|| ask_by_tcp(&a.netns, "a", A)).is_ok()
        });
        // Rubbish is answered with a refusal, or not at all, and does no harm.
        inside(&a.netns, || {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
            for length in 0..64 {
                socket.send_to(&vec![0xff; length], RESOLVER).unwrap();
                socket.send_to(&vec![0x01; length], RESOLVER).unwrap();
            }
        });
        assert_eq!(ask(&a.netns, "b", A).unwrap(), addresses(&[ip(&b)]));
    });
}

#[test]
fn a_container_of_the_default_bridge_gets_names_with_its_first_network() {
    alone("dns::a_container_of_the_default_bridge_gets_names_with_its_first_network", |host| {
        let net = host.network("net");
        let a = host.sandbox("a", &[&host.default_bridge()]);
        let b = host.sandbox("b", &[&net]);
        assert!(inside(&a.netns, || TcpStream::connect(RESOLVER)).is_err(), "no resolver yet");
        let after = host.client.connect_endpoint(&a.id, endpoint("a", &net)).unwrap();
        assert!(after.spec.resolver);
        assert_eq!(ask(&a.netns, "b", A).unwrap(), addresses(&[ip(&b)]));
    });
}
