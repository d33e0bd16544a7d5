//! Log drivers that send entries through TLS, which a program beside the container's monitor speaks.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use wherry_tests::distribution::Authority;
use wherry_tests::engine::Binary;
use wherry_tests::{Host, poll};

const COUNT: &str = "'i=0; while [ $i -lt 400 ]; do echo line-$i; i=$((i+1)); usleep 10000; done'";

/// A log server; what all its connections have said is in `said`.
struct Server {
    said: Arc<Mutex<Vec<u8>>>,
    gone: Arc<AtomicBool>,
    accepting: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    /// Listens on the host, with `NAME.crt` and `NAME.key` of the authority; wants certificates from it if `asks`.
    fn start(host: &Host, authority: &Authority, name: &str, port: u16, asks: bool) -> Server {
        let chain: Vec<_> = CertificateDer::pem_file_iter(authority.path(&format!("{name}.crt")))
            .and_then(Iterator::collect)
            .expect("a certificate");
        let key = PrivateKeyDer::from_pem_file(authority.path(&format!("{name}.key"))).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().expect("versions");
        let builder = if asks {
            let mut roots = RootCertStore::empty();
            let own = CertificateDer::from_pem_file(authority.path("ca.crt")).expect("a certificate");
            roots.add(own).expect("an authority");
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
        } else {
            builder.with_no_client_auth()
        };
        let config = Arc::new(builder.with_single_cert(chain, key).expect("a pair"));
        let listener = host.in_network(|| TcpListener::bind(("127.0.0.1", port)).expect("bind"));
        listener.set_nonblocking(true).expect("set");
        let (said, gone) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let shared = (Arc::clone(&said), Arc::clone(&gone));
        let accepting = std::thread::spawn(move || accept(&listener, &config, &shared.0, &shared.1));
        Server { said, gone, accepting: Some(accepting) }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.said.lock().expect("no panic")).into_owned()
    }

    /// The numbers of the lines so far.
    fn numbers(&self) -> Vec<usize> {
        let text = self.text();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole
            .lines()
            .map(|line| line.rsplit_once("line-").expect("a line").1.parse().expect("a number"))
            .collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.gone.store(true, Ordering::SeqCst);
        self.accepting.take().map(std::thread::JoinHandle::join);
    }
}

fn accept(
    listener: &TcpListener,
    config: &Arc<ServerConfig>,
    said: &Arc<Mutex<Vec<u8>>>,
    gone: &Arc<AtomicBool>,
) {
    let mut connections = Vec::new();
    while !gone.load(Ordering::SeqCst) {
        let Ok((stream, _)) = listener.accept() else {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        };
        let shared = (Arc::clone(config), Arc::clone(said), Arc::clone(gone));
        connections.push(std::thread::spawn(move || listen_to(stream, shared.0, &shared.1, &shared.2)));
    }
    for connection in connections {
        connection.join().expect("no panic");
    }
}

/// Clients that do not trust us, or only look whether somebody is there, say nothing.
fn listen_to(stream: TcpStream, config: Arc<ServerConfig>, said: &Mutex<Vec<u8>>, gone: &AtomicBool) {
    stream.set_nonblocking(false).expect("set");
    stream.set_read_timeout(Some(Duration::from_millis(20))).expect("set");
    let mut stream = StreamOwned::new(ServerConnection::new(config).expect("settings"), stream);
    let mut buffer = [0; 4096];
    while !gone.load(Ordering::SeqCst) {
        match stream.read(&mut buffer) {
            Ok(length @ 1..) => {
                said.lock().expect("no panic").extend_from_slice(&buffer[..length]);
                if let Some(answer) = acknowledgement(&buffer[..length]) {
                    stream.write_all(&answer).and_then(|()| stream.flush()).expect("the client waits for it");
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            _ => return,
        }
    }
}

/// What Fluentd answers to a record whose options want it: `{"ack": THE_CHUNK}`.
fn acknowledgement(record: &[u8]) -> Option<Vec<u8>> {
    let at = record.windows(7).rposition(|window| window == b"\xa5chunk\xb0")?;
    Some([b"\x81\xa3ack\xb0", record.get(at + 7..at + 23)?].concat())
}

fn run(options: &str, script: &str) -> String {
    format!("run --network none --log-driver syslog {options} busybox sh -c {script}")
}

#[test]
fn syslog() {
    let host = Host::new();
    let authority = Authority::new(&host);
    authority.issue(&host, "server", "IP:127.0.0.1");
    let server = Server::start(&host, &authority, "server", 6514, false);
    let trusting = format!(
        "--log-opt syslog-address=tcp+tls://127.0.0.1:6514 --log-opt syslog-tls-ca-cert={}",
        authority.path("ca.crt")
    );
    let script = "'echo one; sleep 0.3; echo two >&2'";
    // The last one has its length before each line, as RFC 5425 wants it.
    for (format, version, between) in [("", "", "]: "), ("rfc3164", "", "]: "), ("rfc5424", "1 ", " t - ")] {
        server.said.lock().expect("no panic").clear();
        let options = format!("--name box {trusting} --log-opt tag=t --log-opt syslog-format={format}");
        host.docker(run(&options, script).as_str()).ok();
        poll("both lines", 10, || server.text().ends_with("two\n"));
        let text = server.text();
        for (line, (priority, word)) in text.split_inclusive('\n').zip([(30, "one"), (27, "two")]) {
            let message = match version {
                "" => line,
                _ => {
                    line.split_once(' ')
                        .filter(|(length, rest)| *length == rest.len().to_string())
                        .expect(line)
                        .1
                }
            };
            assert!(message.starts_with(&format!("<{priority}>{version}")), "{line}");
            assert!(message.contains(" t") && message.ends_with(&format!("{between}{word}\n")), "{line}");
        }
        assert_eq!(text.lines().count(), 2, "{text}");
        let logs = host.docker("logs box").ok();
        assert_eq!((logs.stdout.as_str(), logs.stderr.as_str()), ("one\n", "two\n"));
        host.docker("rm box").ok();
    }
}

#[test]
fn who_is_trusted() {
    let host = Host::new();
    let authority = Authority::new(&host);
    authority.issue(&host, "server", "IP:127.0.0.1");
    authority.issue(&host, "other", "DNS:other.example");
    authority.issue(&host, "client", "DNS:client");
    // As Docker's manual makes one: it calls itself an authority.
    let (own, own_key) = (authority.path("own.crt"), authority.path("own.key"));
    let made = format!(
        "openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=own -addext subjectAltName=IP:127.0.0.1 -keyout \
         {own_key} -out {own}"
    );
    host.exec(made.as_str()).ok();
    let _plain = Server::start(&host, &authority, "server", 6514, false);
    let _other = Server::start(&host, &authority, "other", 6515, false);
    let asking = Server::start(&host, &authority, "server", 6516, true);
    let _own = Server::start(&host, &authority, "own", 6517, false);
    let (junk, none) = (authority.path("extensions"), authority.path("none"));
    let (ca, client, key) =
        (authority.path("ca.crt"), authority.path("client.crt"), authority.path("client.key"));
    let x509 = "tls: failed to verify certificate: x509:";
    let pair = "Could not load X509 key pair:";
    let unknown = format!("{x509} certificate signed by unknown authority");
    let (trust, show) = (format!("ca-cert={ca}"), format!("cert={client}"));
    for (port, options, failure) in [
        (6514, vec![], unknown.clone()),
        (6514, vec![format!("ca-cert={own}")], unknown.clone()),
        (
            6514,
            vec![format!("ca-cert={none}")],
            format!("could not read CA certificate \"{none}\": open {none}: no such file or directory"),
        ),
        (
            6514,
            vec![format!("ca-cert={junk}")],
            format!("failed to append certificates from PEM file: \"{junk}\""),
        ),
        // Whatever its value is.
        (6514, vec![format!("ca-cert={none}"), "skip-verify=false".into()], String::new()),
        (
            6515,
            vec![trust.clone()],
            format!(
                "{x509} cannot validate certificate for 127.0.0.1 because it doesn't contain any IP SANs"
            ),
        ),
        (6516, vec![trust.clone(), show.clone()], format!("{pair} open : no such file or directory")),
        (
            6516,
            vec![trust.clone(), show.clone(), format!("key={junk}")],
            format!("{pair} no valid private key found"),
        ),
        (
            6516,
            vec![trust.clone(), format!("cert={junk}"), format!("key={key}")],
            format!("{pair} tls: failed to find any PEM data in certificate input"),
        ),
        (6516, vec![trust.clone(), show.clone(), format!("key={key}")], String::new()),
        (6517, vec![format!("ca-cert={own}")], String::new()),
        (6518, vec![trust.clone()], "dial tcp 127.0.0.1:6518: connect: connection refused".into()),
    ] {
        let options: String =
            options.iter().map(|option| format!(" --log-opt syslog-tls-{option}")).collect();
        let line = run(
            &format!("--rm --log-opt syslog-address=tcp+tls://127.0.0.1:{port}{options}"),
            "'echo hello'",
        );
        let output = host.docker(line.as_str());
        if failure.is_empty() {
            output.prints("hello");
        } else {
            // So the client tells of all failures that say this.
            let code = if failure.contains("no such file or directory") { 127 } else { 125 };
            output.fails(code, &format!("failed to initialize logging driver: {failure}"));
        }
    }
    poll("what the client with a certificate says", 10, || asking.text().ends_with("hello\n"));
    // Who does not speak TLS.
    let listener = host.in_network(|| TcpListener::bind(("127.0.0.1", 6520)).expect("bind"));
    let speaking =
        std::thread::spawn(move || listener.accept().expect("a client").0.write_all(b"no TLS here\n"));
    let line = run("--rm --log-opt syslog-address=tcp+tls://127.0.0.1:6520", "true");
    host.docker(line.as_str()).fails(125, "driver: tls: first record does not look like a TLS handshake");
    speaking.join().expect("no panic").expect("write");
}

#[test]
fn nothing_is_lost_when_engine_relay_or_server_end() {
    // With dockerd the lines end with dockerd, and those are lost for which there was no server.
    if Binary::from_environment().is_reference() {
        return;
    }
    let host = Host::new();
    let authority = Authority::new(&host);
    authority.issue(&host, "server", "IP:127.0.0.1");
    let options = format!(
        "-d --name box --log-opt syslog-address=tcp+tls://127.0.0.1:6514 --log-opt syslog-tls-ca-cert={}",
        authority.path("ca.crt")
    );
    let server = Server::start(&host, &authority, "server", 6514, false);
    host.docker(run(&options, COUNT).as_str()).ok();
    let reaches = |server: &Server, number: usize| {
        poll("more lines", 20, || server.numbers().last().is_some_and(|last| *last >= number));
    };
    reaches(&server, 20);
    // The engine's end changes nothing.
    host.kill();
    reaches(&server, 60);
    assert!(server.numbers().into_iter().eq(0..server.numbers().len()), "{:?}", server.numbers());
    host.start();
    // The relay's end: another one sends what is not known to have been sent.
    let relays = || {
        let mut servants = host.servants();
        servants.retain(|(_, line)| line.contains("log-relay"));
        servants
    };
    let [(relay, _)] = relays()[..] else { panic!("one relay: {:?}", relays()) };
    let relay = rustix::process::Pid::from_raw(relay.cast_signed()).expect("a process");
    rustix::process::kill_process(relay, rustix::process::Signal::KILL).expect("kill the relay");
    reaches(&server, 150);
    let mut arrived = server.numbers();
    arrived.sort_unstable();
    arrived.dedup();
    assert!(arrived.iter().copied().eq(0..arrived.len()), "{arrived:?}");
    // The server's: lines wait until it is there again.
    drop(server);
    let before = host.docker("logs box").ok().stdout.lines().count();
    poll("lines that nobody takes", 20, || host.docker("logs box").ok().stdout.lines().count() > before + 30);
    let server = Server::start(&host, &authority, "server", 6514, false);
    reaches(&server, 399);
    let late = server.numbers();
    assert!(
        late[0] <= before + 1 && late.windows(2).all(|pair| pair[1] == pair[0] + 1),
        "{before}: {late:?}"
    );
    host.docker("wait box").prints("0");
    let logs = host.docker("logs box").ok();
    assert!(logs.stdout.lines().enumerate().all(|(at, line)| line == format!("line-{at}")), "{logs}");
    assert_eq!(logs.stdout.lines().count(), 400);
    poll("the relay to end with its monitor", 10, || relays().is_empty());
}

#[test]
fn fluentd() {
    let host = Host::new();
    let authority = Authority::new(&host);
    authority.issue(&host, "server", "IP:127.0.0.1");
    let server = Server::start(&host, &authority, "server", 24225, false);
    let line = "run --rm --network none --log-driver fluentd --log-opt fluentd-address=tls://127.0.0.1:24225 busybox echo hello";
    host.docker(line).fails(125, "x509: certificate signed by unknown authority");
    host.docker(line.replace("24225", "24225/x").as_str())
        .fails(125, "invalid fluentd-address (tls://127.0.0.1:24225/x): should not contain a path element");
    // The reference has a root of its own, and its authorities there.
    if Binary::from_environment().is_reference() {
        return;
    }
    // It has no option for authorities: the host's are asked.
    host.stop();
    let bundle = authority.path("bundle.crt");
    let trusted = format!(
        "cat /etc/ssl/certs/ca-certificates.crt {} >{bundle}; mount --bind {bundle} \
         /etc/ssl/certs/ca-certificates.crt",
        authority.path("ca.crt")
    );
    host.exec(&["sh", "-c", &trusted]).ok();
    host.start();
    host.docker(line).prints("hello");
    poll("the record", 10, || server.text().contains("log\u{fffd}hello"));
    // Each of these waits for the server's word about the one before.
    let asking = line.replace("busybox echo hello", "--log-opt fluentd-request-ack=true busybox sh -c")
        + " 'echo one; echo two; echo three'";
    host.docker(asking.as_str()).prints("one\ntwo\nthree");
    poll("all three records", 10, || server.text().contains("log\u{fffd}three"));
    let text = server.text();
    for word in ["one", "two", "three"] {
        assert_eq!(text.matches(&format!("log\u{fffd}{word}")).count(), 1, "{word}");
    }
    host.exec("umount /etc/ssl/certs/ca-certificates.crt").ok();
}
