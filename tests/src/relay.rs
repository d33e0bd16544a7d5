//! Relays on a private host that watch HTTP go by, break it off, and act as a proxy.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use crate::Host;

#[derive(Debug, Default)]
struct Shared {
    requests: Vec<String>,
    /// Each connection breaks after so many bytes of answers.
    cut: Option<usize>,
    /// While true, answers are held back.
    held: bool,
}

/// Passes connections on, and notes the requests in them.
#[derive(Debug, Clone)]
pub struct Relay {
    shared: Arc<Mutex<Shared>>,
}

/// Where a connection goes.
#[derive(Debug, Clone, Copy)]
enum Way {
    To(SocketAddr),
    /// Where the client says, as HTTP proxies do. Names all mean this address.
    AsProxy(SocketAddr),
}

impl Relay {
    /// Passes what comes to `at` on to `to`.
    pub fn start(host: &Host, at: SocketAddr, to: SocketAddr) -> Relay {
        Relay::listen(host, at, Way::To(to))
    }

    /// An HTTP proxy at `at`, in whose world there is one server, `all`.
    pub fn proxy(host: &Host, at: SocketAddr, all: SocketAddr) -> Relay {
        Relay::listen(host, at, Way::AsProxy(all))
    }

    fn listen(host: &Host, at: SocketAddr, way: Way) -> Relay {
        let listener = host.in_network(|| TcpListener::bind(at)).expect("bind the relay");
        let pid = host.inner_network();
        let relay = Relay { shared: Arc::default() };
        let shared = Arc::clone(&relay.shared);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (shared, pid) = (Arc::clone(&shared), pid.clone());
                std::thread::spawn(move || pass(client, way, &shared, &pid));
            }
        });
        relay
    }

    /// First lines of all requests so far.
    ///
    /// # Panics
    /// Never: its threads do not fail.
    pub fn requests(&self) -> Vec<String> {
        self.shared.lock().expect("no thread fails").requests.clone()
    }

    /// Forgets the requests so far.
    ///
    /// # Panics
    /// Never: its threads do not fail.
    pub fn forget(&self) {
        self.shared.lock().expect("no thread fails").requests.clear();
    }

    /// From now on a connection breaks after so many bytes of answers.
    ///
    /// # Panics
    /// Never: its threads do not fail.
    pub fn cut(&self, after: Option<usize>) {
        self.shared.lock().expect("no thread fails").cut = after;
    }

    /// Holds answers of more than 100 kB back, or lets them go on.
    ///
    /// # Panics
    /// Never: its threads do not fail.
    pub fn hold(&self, held: bool) {
        self.shared.lock().expect("no thread fails").held = held;
    }
}

fn pass(mut client: TcpStream, way: Way, shared: &Arc<Mutex<Shared>>, network: &crate::host::Network) {
    let mut first = [0; 16 << 10];
    let Ok(read @ 1..) = client.read(&mut first) else { return };
    let first = &first[..read];
    note(first, shared);
    let to = match way {
        Way::To(to) | Way::AsProxy(to) => to,
    };
    let Ok(mut server) = network.within(|| TcpStream::connect(to)) else { return };
    if matches!(way, Way::AsProxy(_)) && first.starts_with(b"CONNECT ") {
        let _ = client.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
    } else if server.write_all(first).is_err() {
        return;
    }
    let (up_from, up_to) = (client.try_clone().expect("dup"), server.try_clone().expect("dup"));
    let noting = Arc::clone(shared);
    std::thread::spawn(move || {
        copy(up_from, up_to, |bytes, _| {
            note(bytes, &noting);
            true
        })
    });
    copy(server, client, |_, total| {
        while total > 100_000 && shared.lock().expect("no thread fails").held {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        shared.lock().expect("no thread fails").cut.is_none_or(|cut| total < cut)
    });
}

/// Notes the first lines of requests.
fn note(bytes: &[u8], shared: &Mutex<Shared>) {
    let text = String::from_utf8_lossy(bytes);
    let lines = text.lines().filter(|line| {
        line.strip_suffix(" HTTP/1.1").is_some_and(|line| line.starts_with(|c: char| c.is_ascii_uppercase()))
    });
    let mut shared = shared.lock().expect("no thread fails");
    shared.requests.extend(lines.map(|line| line.trim_end_matches(" HTTP/1.1").to_owned()));
}

/// Copies until one end closes, or `go_on` says no to the bytes and how many there have been.
fn copy(mut from: TcpStream, mut to: TcpStream, go_on: impl Fn(&[u8], usize) -> bool) {
    let (mut buffer, mut total) = ([0; 16 << 10], 0);
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        total += read;
        if !go_on(&buffer[..read], total) || to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
