//! 127.0.0.11 in containers, asked with packets of the test's own making: what it answers itself, what it passes on,
//! to whom and from where. dockerd answers the same (`make test-reference`).

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use wherry_tests::dns::NameServer;
use wherry_tests::engine::Binary;
use wherry_tests::{Host, poll};

const RESOLVER: (Ipv4Addr, u16) = (Ipv4Addr::new(127, 0, 0, 11), 53);
const A: u16 = 1;
const PTR: u16 = 12;
const MX: u16 = 15;
const TXT: u16 = 16;
const AAAA: u16 = 28;
const SRV: u16 = 33;
const HTTPS: u16 = 65;
const ANY: u16 = 255;
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 80);

/// A query with recursion desired.
fn query(name: &str, kind: u16) -> Vec<u8> {
    let mut bytes = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&[0, 1]);
    bytes
}

/// The flags, and the data of the answers, sorted.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    flags: u16,
    records: Vec<Vec<u8>>,
}

const FOUND: u16 = 0x8180;
const NO_SUCH_NAME: u16 = 0x8183;
const FAILURE: u16 = 0x8102;

fn answer(flags: u16, records: &[&[u8]]) -> Answer {
    Answer { flags, records: records.iter().map(|r| r.to_vec()).collect() }
}

/// Behind a name, which may be compressed or not.
fn skip_name(bytes: &[u8], mut at: usize) -> usize {
    loop {
        match bytes[at] {
            0 => return at + 1,
            pointer if pointer >= 0xc0 => return at + 2,
            length => at += 1 + usize::from(length),
        }
    }
}

fn read(bytes: &[u8]) -> Answer {
    let word = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    assert_eq!(word(0), 0x1234, "the id");
    let mut at = 12;
    for _ in 0..word(4) {
        at = skip_name(bytes, at) + 4;
    }
    let mut records = Vec::new();
    for _ in 0..word(6) {
        at = skip_name(bytes, at);
        assert_eq!(word(at + 2), 1, "the class of an answer");
        let length = usize::from(word(at + 8));
        records.push(bytes[at + 10..at + 10 + length].to_vec());
        at += 10 + length;
    }
    records.sort();
    // Whether what others say is authoritative is theirs to know.
    Answer { flags: word(2) & !0x0400, records }
}

/// The answer's bytes; `None` if there is none within the time.
fn exchange(host: &Host, container: &str, message: &[u8]) -> Option<Vec<u8>> {
    host.in_container(container, || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(if message.len() < 12 { 1 } else { 9 }))).unwrap();
        socket.send_to(message, RESOLVER).unwrap();
        let mut buffer = vec![0; 65_536];
        let length = socket.recv(&mut buffer).ok()?;
        buffer.truncate(length);
        Some(buffer)
    })
}

fn ask(host: &Host, container: &str, name: &str, kind: u16) -> Answer {
    read(&exchange(host, container, &query(name, kind)).expect("an answer"))
}

fn ask_by_tcp(host: &Host, container: &str, message: &[u8]) -> Vec<u8> {
    host.in_container(container, || {
        let mut stream = TcpStream::connect(RESOLVER).unwrap();
        let length = u16::try_from(message.len()).unwrap();
        stream.write_all(&[&length.to_be_bytes()[..], message].concat()).unwrap();
        let mut length = [0; 2];
        stream.read_exact(&mut length).unwrap();
        let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut answer).unwrap();
        answer
    })
}

fn address(host: &Host, container: &str, network: &str) -> Ipv4Addr {
    host.inspect(container)["NetworkSettings"]["Networks"][network]["IPAddress"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap()
}

fn run(host: &Host, name: &str, options: &str) {
    let line = format!("run -d --name {name} {options} busybox sleep 600");
    host.docker(line.as_str()).ok();
}

#[test]
fn a_link_is_to_whoever_has_the_name() {
    let host = Host::new();
    host.docker("network create net").ok();
    host.docker("network create other").ok();
    run(&host, "asker", "--network other");
    // Nobody has the name yet.
    host.docker("network connect --link later:upstream net asker").ok();
    host.docker(&["inspect", "-f", "{{.NetworkSettings.Networks.net.Links}}", "asker"])
        .prints("[later:upstream]");
    run(&host, "later", "--network net");
    let known = || ask(&host, "asker", "upstream", A);
    let at = |address: Ipv4Addr| answer(FOUND, &[&address.octets()]);
    let first = address(&host, "later", "net");
    assert_eq!(known(), at(first));
    // Another one has it now.
    host.docker("rm -f later").ok();
    run(&host, "between", "--network net");
    run(&host, "later", "--network net");
    let second = address(&host, "later", "net");
    assert_ne!(second, first);
    assert_eq!(known(), at(second));
    assert_eq!(ask(&host, "asker", "upstream.net", A), at(second));
}

#[test]
fn what_is_known_and_what_is_not() {
    let host = Host::new();
    let server = NameServer::start(&host, "outside.example", OUTSIDE);
    host.docker("network create net").ok();
    host.docker("network create --internal closed").ok();
    run(&host, "aa", "--network net --network-alias Svc --hostname hosty");
    run(&host, "bb", "--network net --network-alias Svc --network-alias dot.ted");
    run(&host, "inner", "--network closed");
    let (a, b, inner) =
        (address(&host, "aa", "net"), address(&host, "bb", "net"), address(&host, "inner", "closed"));
    let (a, b, inner) = (a.octets(), b.octets(), inner.octets());
    let id = host.inspect("bb")["Id"].as_str().unwrap()[..12].to_owned();
    let reverse = |ip: [u8; 4]| format!("{}.{}.{}.{}.in-addr.arpa", ip[3], ip[2], ip[1], ip[0]);
    let (reverse_b, reverse_inner) = (reverse(b), reverse(inner));
    let table: &[(&str, &str, u16, Answer)] = &[
        ("aa", "bb", A, answer(FOUND, &[&b])),
        ("aa", "BB", A, answer(FOUND, &[&b])),
        ("aa", "aa", A, answer(FOUND, &[&a])),
        ("aa", "bb.net", A, answer(FOUND, &[&b])),
        ("aa", "svc", A, answer(FOUND, &[&a, &b])),
        ("bb", "SVC.net", A, answer(FOUND, &[&a, &b])),
        ("aa", "dot.ted", A, answer(FOUND, &[&b])),
        ("aa", "dot.ted.net", A, answer(FOUND, &[&b])),
        ("bb", "hosty", A, answer(FOUND, &[&a])),
        ("aa", &id, A, answer(FOUND, &[&b])),
        ("aa", "bb", AAAA, answer(FOUND, &[])),
        ("aa", "bb", MX, answer(FOUND, &[])),
        // Other kinds are none of its business.
        ("aa", "bb", TXT, answer(NO_SUCH_NAME, &[])),
        ("aa", "bb", SRV, answer(NO_SUCH_NAME, &[])),
        ("aa", "bb", HTTPS, answer(NO_SUCH_NAME, &[])),
        ("aa", "bb", ANY, answer(NO_SUCH_NAME, &[])),
        ("aa", "bb", PTR, answer(NO_SUCH_NAME, &[])),
        ("aa", &reverse_b, PTR, answer(FOUND, &[b"\x02bb\x03net\0"])),
        ("inner", &reverse_b, PTR, answer(FAILURE, &[])),
        ("aa", &reverse_inner, PTR, answer(NO_SUCH_NAME, &[])),
        ("aa", &reverse_b, A, answer(NO_SUCH_NAME, &[])),
        ("aa", "nosuch", A, answer(NO_SUCH_NAME, &[])),
        ("aa", "nosuch.net", AAAA, answer(NO_SUCH_NAME, &[])),
        ("aa", "inner", A, answer(NO_SUCH_NAME, &[])),
        ("aa", "outside.example", A, answer(FOUND, &[&OUTSIDE.octets()])),
        ("aa", "outside.example", AAAA, answer(FOUND, &[])),
        ("inner", "inner", A, answer(FOUND, &[&inner])),
        ("inner", "inner", AAAA, answer(FOUND, &[])),
        ("inner", "outside.example", A, answer(FAILURE, &[])),
        ("inner", "inner", TXT, answer(FAILURE, &[])),
    ];
    for (asker, name, kind, expect) in table {
        assert_eq!(ask(&host, asker, name, *kind), *expect, "{asker} asks for {name}, {kind}");
    }
    let forwarded = server.questions();
    for name in ["svc", "hosty", "dot.ted", "inner.closed"] {
        assert!(!forwarded.iter().any(|q| q == name), "{name} went outside: {forwarded:?}");
    }
    assert_eq!(read(&ask_by_tcp(&host, "aa", &query("bb", A))), answer(FOUND, &[&b]), "by TCP");
}

#[test]
fn odd_messages() {
    let host = Host::new();
    let _server = NameServer::start(&host, "outside.example", OUTSIDE);
    host.docker("network create net").ok();
    run(&host, "aa", "--network net");
    let with = |at: usize, bytes: &[u8]| {
        let mut message = query("aa", A);
        message[at..at + bytes.len()].copy_from_slice(bytes);
        message
    };
    let own = address(&host, "aa", "net").octets();
    let good = answer(FOUND, &[&own]);
    let class_chaos = with(12 + 4 + 2, &[0, 3]);
    let no_recursion = with(2, &[0]);
    let checking_disabled = with(3, &[0x30]);
    for (what, message, expect) in [
        ("class CH", class_chaos, good),
        ("no recursion", no_recursion, answer(0x8080, &[&own])),
        ("AD and CD", checking_disabled, answer(0x8190, &[&own])),
        ("a dynamic update", with(2, &[0x29]), answer(0xa904, &[])),
        ("two questions", with(4, &[0, 2]), answer(0x8101, &[])),
        ("no question", vec![0x12, 0x34, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0], answer(0x8101, &[])),
    ] {
        let got = exchange(&host, "aa", &message).unwrap_or_else(|| panic!("no answer to {what}"));
        assert_eq!(read(&got), expect, "{what}");
    }
    assert_eq!(exchange(&host, "aa", &query("aa", A)[..6]), None, "half a header");
}

#[test]
fn many_addresses() {
    let host = Host::new();
    host.docker("network create net").ok();
    for i in 0..32 {
        run(&host, &format!("c{i}"), "--network net --network-alias all");
    }
    let small = exchange(&host, "c0", &query("all", A)).unwrap();
    assert!(small.len() <= 512 && small[2] & 2 != 0, "what does not fit is said to be cut");
    let mut message = query("all", A);
    message[11] = 1;
    message.extend([0, 0, 41, 0x10, 0, 0, 0, 0, 0, 0, 0]);
    let large = exchange(&host, "c0", &message).unwrap();
    assert_eq!((read(&large).records.len(), large[2] & 2), (32, 0), "EDNS makes room");
    assert_eq!(read(&ask_by_tcp(&host, "c0", &query("all", A))).records.len(), 32, "and so does TCP");
    // The first one is not always the same.
    let first = || {
        let bytes = exchange(&host, "c0", &message).unwrap();
        let at = skip_name(&bytes, skip_name(&bytes, 12) + 4) + 10;
        bytes[at..at + 4].to_vec()
    };
    let before = first();
    poll("another address to come first", 5, || first() != before);
    let ids = host.docker("ps -q").ok().stdout.replace('\n', " ");
    host.docker(format!("rm -f {ids}").as_str()).ok();
}

#[test]
fn resolvers_of_ones_own() {
    let host = Host::new();
    let hosts = NameServer::start(&host, "hosts.example", OUTSIDE);
    host.docker("network create net").ok();
    host.docker("network create --internal closed").ok();
    let serve = |container: &str, ip: IpAddr, name: &str, last: u8| {
        let socket = host.in_container(container, || UdpSocket::bind((ip, 53))).unwrap();
        NameServer::on(socket, name, Ipv4Addr::new(192, 0, 2, last))
    };
    // A resolver in another container, asked from the container's place: also in a network without a way out.
    for network in ["net", "closed"] {
        let server = format!("server-{network}");
        run(&host, &server, &format!("--network {network}"));
        let ip = address(&host, &server, network);
        let _names = serve(&server, ip.into(), "own.example", 81);
        let asker = format!("asker-{network}");
        run(&host, &asker, &format!("--network {network} --dns {ip}"));
        assert_eq!(ask(&host, &asker, "own.example", A), answer(FOUND, &[&[192, 0, 2, 81]]), "{network}");
        assert_eq!(ask(&host, &asker, &server, A), answer(FOUND, &[&ip.octets()]), "its own names first");
    }
    // The same by IPv6.
    host.docker("network create --ipv6 --subnet fd00:53::/64 six").ok();
    run(&host, "server-six", "--network six");
    let ip: std::net::Ipv6Addr = "fd00:53::2".parse().unwrap();
    let _names = serve("server-six", ip.into(), "own.example", 83);
    run(&host, "asker-six", "--network six --dns fd00:53::2");
    assert_eq!(ask(&host, "asker-six", "own.example", A), answer(FOUND, &[&[192, 0, 2, 83]]));
    // One on the container's own loopback, beside 127.0.0.11.
    run(&host, "alone", "--network net --dns 127.0.0.1");
    let _names = serve("alone", Ipv4Addr::LOCALHOST.into(), "loop.example", 82);
    assert_eq!(ask(&host, "alone", "loop.example", A), answer(FOUND, &[&[192, 0, 2, 82]]));
    // 127.0.0.11 would ask itself.
    run(&host, "circle", "--network net --dns 127.0.0.11");
    assert_eq!(ask(&host, "circle", "own.example", A), answer(FAILURE, &[]));
    assert!(hosts.questions().is_empty(), "the host's were not asked: {:?}", hosts.questions());
    // One that fails and one that does not answer are no obstacle.
    run(&host, "patient", "--network net --dns 198.51.100.250 --dns 198.51.100.73");
    assert_eq!(ask(&host, "patient", "hosts.example", A), answer(FOUND, &[&OUTSIDE.octets()]));
}

#[test]
fn short_names_stay_inside_with_ndots() {
    let host = Host::new();
    let server = NameServer::start(&host, "short", OUTSIDE);
    host.docker("network create net").ok();
    run(&host, "one", "--network net --dns-option ndots:1");
    run(&host, "none", "--network net");
    run(&host, "zero", "--network net --dns-option ndots:0");
    assert_eq!(ask(&host, "one", "short", A), answer(FOUND, &[]));
    assert_eq!(ask(&host, "one", "short", AAAA), answer(FOUND, &[]));
    assert_eq!(ask(&host, "zero", "short", A), answer(FOUND, &[]), "0 is a value, too");
    assert!(server.questions().is_empty());
    assert_eq!(ask(&host, "one", "short", TXT), answer(FOUND, &[]), "only addresses");
    assert_eq!(ask(&host, "one", "none", A).records.len(), 1);
    assert_eq!(ask(&host, "none", "short", A), answer(FOUND, &[&OUTSIDE.octets()]));
}

/// An answer to this question with so many addresses; `flags` besides those of each answer.
fn many(question: &[u8], count: u16, flags: u8) -> Vec<u8> {
    let end = skip_name(question, 12) + 4;
    let mut bytes = question[..end].to_vec();
    (bytes[2], bytes[3]) = (0x81 | flags, 0x80);
    bytes[6..8].copy_from_slice(&count.to_be_bytes());
    bytes[8..12].fill(0);
    for number in 0..count {
        bytes.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0]);
        bytes.extend(number.to_be_bytes());
    }
    bytes
}

/// A resolver on the host that says much: by datagrams only to those who have room for it.
#[test]
fn large_answers_of_others() {
    const TRUNCATED: u8 = 2;
    let host = Host::new();
    let (datagrams, streams) = host.in_network(|| {
        let address = (wherry_tests::HOST_ADDRESS, 53);
        (UdpSocket::bind(address).unwrap(), TcpListener::bind(address).unwrap())
    });
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = datagrams.recv_from(&mut buffer) {
            let question = &buffer[..length];
            let answer =
                if question[11] == 1 { many(question, 100, 0) } else { many(question, 20, TRUNCATED) };
            let _ = datagrams.send_to(&answer, from);
        }
    });
    std::thread::spawn(move || {
        for stream in streams.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut length = [0; 2];
            stream.read_exact(&mut length).unwrap();
            let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
            stream.read_exact(&mut question).unwrap();
            let answer = many(&question, 2000, 0);
            let length = u16::try_from(answer.len()).unwrap().to_be_bytes();
            let _ = stream.write_all(&[&length[..], &answer].concat());
        }
    });
    host.docker("network create net").ok();
    run(&host, "aa", "--network net");
    let small = exchange(&host, "aa", &query("large.example", A)).unwrap();
    assert_eq!((small[2] & TRUNCATED, read(&small).records.len()), (TRUNCATED, 20), "the client is told");
    assert_eq!(read(&ask_by_tcp(&host, "aa", &query("large.example", A))).records.len(), 2000);
    let mut roomy = query("large.example", A);
    roomy[11] = 1;
    roomy.extend([0, 0, 41, 0x10, 0, 0, 0, 0, 0, 0, 0]);
    let large = exchange(&host, "aa", &roomy).unwrap();
    assert_eq!((large[2] & TRUNCATED, read(&large).records.len()), (0, 100), "EDNS reaches the other one");
}

/// What comes before the answer and is none: of another id, to another question, with no question and yet with an address.
#[test]
fn forged_answers_are_passed_over() {
    if Binary::from_environment().is_reference() {
        // It believes one of them.
        return;
    }
    let host = Host::new();
    let socket = host.in_network(|| UdpSocket::bind((wherry_tests::HOST_ADDRESS, 53))).unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let good = many(&buffer[..length], 1, 0);
            let forge = |change: &dyn Fn(&mut Vec<u8>)| {
                let mut forged = many(&buffer[..length], 3, 0);
                change(&mut forged);
                let _ = socket.send_to(&forged, from);
            };
            forge(&|f| f[0] ^= 1);
            forge(&|f| f[14] = b'x');
            forge(&|f| f[2] &= 0x7f);
            forge(&|f| f.truncate(12));
            forge(&|f| {
                let end = skip_name(f, 12) + 4;
                f[5] = 0;
                f.drain(12..end);
            });
            let _ = socket.send_to(&good, from);
        }
    });
    host.docker("network create net").ok();
    run(&host, "aa", "--network net");
    assert_eq!(ask(&host, "aa", "outside.example", A), answer(FOUND, &[&[192, 0, 0, 0]]));
}
