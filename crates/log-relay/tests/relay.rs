//! The relay between a socket pair, as a monitor has it, and a server with the certificates of the registry client's tests.
#![allow(clippy::unwrap_used, reason = "a test that cannot prepare has failed")]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use wherry_log_relay::{Error, run};
use wherry_monitor_api::TlsServer;

type Stream = StreamOwned<ServerConnection, std::net::TcpStream>;

fn certificate(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../registry/tests/certificates")).join(name)
}

/// How a relay knows its server, but for the port.
fn server(answers: bool) -> TlsServer {
    TlsServer {
        program: PathBuf::new(),
        container: String::new(),
        address: ([127, 0, 0, 1], 0).into(),
        name: "127.0.0.1".into(),
        authorities: Some(certificate("ca.crt")),
        identity: None,
        verify: true,
        answers,
    }
}

/// A server for one client, the relay for it, and the monitor's end.
fn start<T: Send + 'static>(
    answers: bool,
    serve: impl FnOnce(Stream) -> T + Send + 'static,
) -> (JoinHandle<T>, JoinHandle<Result<(), Error>>, UnixStream) {
    let chain = vec![CertificateDer::from_pem_file(certificate("server.crt")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(certificate("server.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = TlsServer { address: listener.local_addr().unwrap(), ..server(answers) };
    let (ours, theirs) = UnixStream::pair().unwrap();
    let serving = std::thread::spawn(move || {
        let (socket, _) = listener.accept().unwrap();
        serve(StreamOwned::new(ServerConnection::new(config).unwrap(), socket))
    });
    (serving, std::thread::spawn(move || run(&server, theirs)), ours)
}

fn number(monitor: &mut UnixStream) -> u32 {
    let mut bytes = [0; 4];
    monitor.read_exact(&mut bytes).unwrap();
    u32::from_be_bytes(bytes)
}

#[test]
fn all_is_sent_and_counted() {
    let (serving, relay, mut monitor) = start(false, |mut stream| {
        // What it says is nothing that a monitor wants to hear.
        stream.write_all(b"hello").unwrap();
        let mut text = Vec::new();
        stream.read_to_end(&mut text).unwrap();
        text
    });
    assert_eq!(number(&mut monitor), 0, "it is there");
    let text: Vec<u8> = (0..3_000_000u32).map(|at| (at % 251) as u8).collect();
    let mut writer = monitor.try_clone().unwrap();
    let written = text.clone();
    let writing = std::thread::spawn(move || writer.write_all(&written).unwrap());
    let mut counted = 0;
    while counted < text.len() {
        counted += number(&mut monitor) as usize;
    }
    writing.join().unwrap();
    drop(monitor);
    relay.join().unwrap().unwrap();
    assert!(serving.join().unwrap() == text);
}

#[test]
fn answers_come_back_where_they_are_wanted() {
    let (serving, relay, mut monitor) = start(true, |mut stream| {
        let mut question = [0; 5];
        stream.read_exact(&mut question).unwrap();
        stream.write_all(&[b"I have ", &question[..]].concat()).unwrap();
        stream
    });
    assert_eq!(number(&mut monitor), 0);
    monitor.write_all(b"chunk").unwrap();
    let mut answer = [0; 12];
    monitor.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"I have chunk");
    // The server goes: so does the relay, which the monitor sees.
    drop(serving.join().unwrap());
    assert!(relay.join().unwrap().is_err());
    assert_eq!(monitor.read(&mut answer).unwrap(), 0);
}

#[test]
fn a_monitor_that_dies_while_the_server_does_not_read_ends_it() {
    let (serving, relay, monitor) = start(false, |mut stream| {
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).unwrap();
        }
        stream
    });
    monitor.set_nonblocking(true).unwrap();
    let stream = serving.join().unwrap();
    let mut sent = 0;
    let full = std::time::Instant::now() + std::time::Duration::from_secs(1);
    while std::time::Instant::now() < full {
        sent += (&monitor).write(&[0; 65536]).unwrap_or(0);
    }
    assert!(sent > 100_000);
    drop(monitor);
    relay.join().unwrap().unwrap();
    drop(stream);
}

#[test]
fn a_handshake_without_end_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = TlsServer { address: listener.local_addr().unwrap(), ..server(false) };
    let begun = Instant::now();
    std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        // The head of a long message, and then a byte now and then until nobody reads.
        socket.write_all(&[0x16, 3, 3, 0x40, 0]).unwrap();
        while socket.write_all(&[0]).is_ok() {
            std::thread::sleep(Duration::from_millis(500));
        }
    });
    let (_monitor, theirs) = UnixStream::pair().unwrap();
    assert!(run(&server, theirs).is_err());
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
}
