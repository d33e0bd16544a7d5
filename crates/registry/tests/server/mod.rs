//! A small HTTP server on the loopback whose answers a test makes up.
#![allow(clippy::unwrap_used, reason = "a test that cannot prepare has failed")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// A request that came in.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

pub(crate) struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    cut: Option<usize>,
}

impl Answer {
    pub(crate) fn bytes(status: u16, body: Vec<u8>) -> Self {
        Self { status, headers: Vec::new(), body, cut: None }
    }

    pub(crate) fn text(status: u16, body: &str) -> Self {
        Self::bytes(status, body.as_bytes().to_vec())
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The connection breaks after so many bytes of the body, if it has more.
    pub(crate) fn cut(mut self, after: usize) -> Self {
        self.cut = Some(after).filter(|after| *after < self.body.len());
        self
    }
}

type Handler = dyn Fn(&Seen) -> Answer + Send + Sync;

struct Shared {
    handler: Box<Handler>,
    seen: Mutex<Vec<Seen>>,
    connections: AtomicUsize,
    stopped: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

pub(crate) struct Server {
    address: std::net::SocketAddr,
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(handler: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            handler: Box::new(handler),
            seen: Mutex::default(),
            connections: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
            open: Mutex::default(),
        });
        let accepting = shared.clone();
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if accepting.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (stream, shared) = (stream.unwrap(), accepting.clone());
                shared.connections.fetch_add(1, Ordering::SeqCst);
                shared.open.lock().unwrap().push(stream.try_clone().unwrap());
                std::thread::spawn(move || while serve(&stream, &shared).is_some() {});
            }
        });
        Self { address, shared, thread: Some(thread) }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address); // wakes the accepting thread
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
        for stream in self.shared.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// Answers one request; `None` when the connection is over.
fn serve(stream: &TcpStream, shared: &Shared) -> Option<()> {
    let mut reader = BufReader::new(stream);
    if reader.fill_buf().ok()?.first() == Some(&0x16) {
        // TLS: as all HTTP servers do.
        let mut out = stream;
        out.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTPS request").ok();
        out.shutdown(Shutdown::Both).ok();
        return None;
    }
    let mut line = String::new();
    if reader.read_line(&mut line).ok()? == 0 {
        return None;
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let mut seen = Seen { method: words.next()?, path: words.next()?, headers: Vec::new(), body: Vec::new() };
    let mut length = 0;
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.parse().ok()?;
        }
        seen.headers.push((name.to_lowercase(), value.to_owned()));
    }
    if seen.header("transfer-encoding") == Some("chunked") {
        seen.body = read_chunks(&mut reader)?;
    } else {
        reader.take(length).read_to_end(&mut seen.body).ok()?;
    }
    shared.seen.lock().unwrap().push(seen.clone());
    let answer = (shared.handler)(&seen);
    let mut head = format!(
        "HTTP/1.1 {} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n",
        answer.status,
        answer.body.len()
    );
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    let mut out = stream;
    out.write_all(head.as_bytes()).ok()?;
    if seen.method == "HEAD" {
        return Some(());
    }
    match answer.cut {
        Some(after) => {
            out.write_all(&answer.body[..after]).ok()?;
            out.shutdown(Shutdown::Both).ok();
            None
        }
        None => out.write_all(&answer.body).ok(),
    }
}

/// The content of chunks; `None` if the last one does not come.
fn read_chunks(reader: &mut impl BufRead) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let size = u64::from_str_radix(line.trim_end(), 16).ok()?;
        reader.by_ref().take(size).read_to_end(&mut body).ok()?;
        reader.read_line(&mut line).ok()?;
        if size == 0 {
            return Some(body);
        }
    }
}
