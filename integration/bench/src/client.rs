//! A client that keeps its connection, as far as the engine lets it.

use std::os::unix::net::UnixStream;

use serde_json::Value;
use wherry_tests::Engine;
use wherry_tests::http::{Connection, Response};

/// Requests to one engine, one after another.
#[derive(Debug, Default)]
pub struct Client {
    connection: Option<Connection<UnixStream>>,
}

impl Client {
    /// Sends a request; a status of 400 and more is the end.
    pub fn request(&mut self, engine: &Engine, method: &str, path: &str, body: &Value) -> Response {
        let path = format!("/v1.41{path}");
        let mut connection = self.connection.take().unwrap_or_else(|| engine.connect());
        let answer = connection.json(method, &path, body);
        assert!(answer.status < 400, "{method} {path}: {} {}", answer.status, answer.text());
        // An engine that hands the socket on to another process closes it after the answer.
        if !answer.header("connection").eq_ignore_ascii_case("close") {
            self.connection = Some(connection);
        }
        answer
    }
}
