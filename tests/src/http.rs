//! A client for HTTP/1.1 that hides nothing: for tests of headers, framing and hijacked connections.

use std::io::{BufRead, BufReader, Read, Write};

use serde_json::Value;

/// An answer, whole.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The reason phrase.
    pub reason: String,
    /// Names in lower case, in order.
    pub headers: Vec<(String, String)>,
    /// The body without its transfer encoding; empty for a head only.
    pub body: Vec<u8>,
}

impl Response {
    /// The value of a header, or an empty text.
    pub fn header(&self, name: &str) -> &str {
        let name = name.to_ascii_lowercase();
        self.headers.iter().find(|(n, _)| *n == name).map_or("", |(_, value)| value)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; null if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// Dockerd's text of an error.
    pub fn message(&self) -> String {
        self.json()["message"].as_str().unwrap_or_default().to_owned()
    }

    /// Requires this status.
    ///
    /// # Panics
    /// Otherwise, showing the body.
    #[track_caller]
    pub fn expect(self, status: u16) -> Response {
        assert!(self.status == status, "expected status {status}, got {}: {}", self.status, self.text());
        self
    }
}

/// A connection that is kept for several requests.
#[derive(Debug)]
pub struct Connection<S> {
    stream: BufReader<S>,
}

impl<S: Read + Write> Connection<S> {
    /// Over a connected socket.
    pub fn new(stream: S) -> Connection<S> {
        Connection { stream: BufReader::new(stream) }
    }

    /// Sends a request and reads the whole answer; `None` if the connection or the answer is broken.
    pub fn try_request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Option<Response> {
        let mut answer = self.try_open(method, path, headers, body)?;
        answer.body = self.read_body(method, &answer)?;
        Some(answer)
    }

    /// As [`Connection::try_request`], of a peer that must answer.
    ///
    /// # Panics
    /// If it does not.
    pub fn request(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        self.try_request(method, path, headers, body)
            .unwrap_or_else(|| panic!("{method} {path}: no answer, or a broken one"))
    }

    /// A request with a body of JSON, or none if it is null.
    pub fn json(&mut self, method: &str, path: &str, body: &Value) -> Response {
        match body {
            Value::Null => self.request(method, path, &[], b""),
            body => self.request(
                method,
                path,
                &[("Content-Type", "application/json")],
                body.to_string().as_bytes(),
            ),
        }
    }

    /// Sends a request and reads the answer's head only: what follows is the caller's.
    ///
    /// # Panics
    /// If there is no answer.
    pub fn open(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        self.try_open(method, path, headers, body).unwrap_or_else(|| panic!("{method} {path}: no answer"))
    }

    fn try_open(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Option<Response> {
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: docker\r\n");
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        if !body.is_empty() || method == "POST" {
            request += &format!("Content-Length: {}\r\n", body.len());
        }
        request += "\r\n";
        let mut bytes = request.into_bytes();
        bytes.extend_from_slice(body);
        self.stream.get_mut().write_all(&bytes).ok()?;
        let status_line = self.line()?;
        let mut parts = status_line.splitn(3, ' ');
        let status = parts.nth(1)?.parse().ok()?;
        let reason = parts.next().unwrap_or_default().to_owned();
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        Some(Response { status, reason, headers, body: Vec::new() })
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line).ok().filter(|n| *n > 0)?;
        Some(line.trim_end().to_owned())
    }

    fn read_body(&mut self, method: &str, head: &Response) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        if method == "HEAD" || head.status == 204 || head.status == 304 {
            return Some(body);
        }
        if head.header("transfer-encoding") == "chunked" {
            while let Some(chunk) = self.chunk()? {
                body.extend(chunk);
            }
        } else if let Ok(length) = head.header("content-length").parse() {
            body.resize(length, 0);
            self.stream.read_exact(&mut body).ok()?;
        } else {
            self.stream.read_to_end(&mut body).ok()?;
        }
        Some(body)
    }

    /// The next chunk of a chunked body; `Some(None)` at its end, `None` if it is broken.
    pub fn chunk(&mut self) -> Option<Option<Vec<u8>>> {
        let size = usize::from_str_radix(&self.line()?, 16).ok()?;
        let mut data = vec![0; size];
        self.stream.read_exact(&mut data).ok()?;
        self.line()?;
        Some(Some(data).filter(|_| size > 0))
    }

    /// What comes after the head, for hijacked connections.
    pub fn stream(&mut self) -> &mut BufReader<S> {
        &mut self.stream
    }

    /// Reads one frame of a multiplexed stream: 1 for standard output, 2 for standard error; `None` at the end.
    pub fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut header = [0; 8];
        self.stream.read_exact(&mut header).ok()?;
        let size = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
        let mut data = vec![0; size as usize];
        self.stream.read_exact(&mut data).ok()?;
        Some((header[0], data))
    }
}
