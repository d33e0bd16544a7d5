//! A token server for a registry: it lets one user in, and signs what the registry trusts.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::distribution::Authority;
use crate::{Host, Output};

/// The name and password that it lets in.
pub const USER: (&str, &str) = ("vinod1", "vinod1");

/// A running token server; it serves until the process ends.
#[derive(Debug, Clone)]
pub struct Tokens {
    port: u16,
    folder: PathBuf,
    authority: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Tokens {
    /// Serves on 127.0.0.1:`port` of the host.
    ///
    /// # Panics
    /// If the port is taken.
    pub fn start(host: &Host, authority: &Authority, port: u16) -> Tokens {
        let listener = host.in_network(|| TcpListener::bind((Ipv4Addr::LOCALHOST, port))).expect("bind");
        authority.issue(host, "tokens", "DNS:tokens");
        let folder = PathBuf::from(authority.path(""));
        let tokens = Tokens { port, folder, authority: authority.path("ca.crt"), requests: Arc::default() };
        let serving = tokens.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let serving = serving.clone();
                std::thread::spawn(move || serving.answer(&stream));
            }
        });
        tokens
    }

    /// The lines of configuration by which a registry believes it.
    pub fn configuration(&self) -> String {
        format!(
            "auth: {{token: {{realm: \"http://127.0.0.1:{}/token\", service: registry, issuer: tokens, rootcertbundle: {}}}}}",
            self.port, self.authority
        )
    }

    /// The paths of all requests so far.
    ///
    /// # Panics
    /// Never: its threads do not fail.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("no thread fails").clone()
    }

    fn answer(&self, mut stream: &TcpStream) {
        let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
        let Some(request) = lines.next() else { return };
        let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
        let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
        self.requests.lock().expect("no thread fails").push(path.clone());
        let credentials = head.iter().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("authorization").then(|| value.to_owned())
        });
        let good = format!("Basic {}", STANDARD.encode(format!("{}:{}", USER.0, USER.1)));
        let (status, body) = match credentials {
            Some(other) if other != good => {
                ("401 Unauthorized", json!({"details": "incorrect username or password"}))
            }
            known => {
                let access = access(&path, known.is_some());
                let token = self.sign(&access);
                ("200 OK", json!({"token": token, "expires_in": 300, "refresh_token": "lasting"}))
            }
        };
        let body = body.to_string();
        let _ = stream.write_all(
            format!(
                "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            )
            .as_bytes(),
        );
    }

    fn sign(&self, access: &[Value]) -> String {
        let pem = fs::read_to_string(self.folder.join("tokens.crt")).expect("the certificate");
        let der: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        let header = json!({"typ": "JWT", "alg": "RS256", "x5c": [der]});
        let claims = json!({"iss": "tokens", "sub": USER.0, "aud": "registry", "exp": now + 300, "nbf": now - 10,
            "iat": now, "jti": "1", "access": access});
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let payload = format!("{}.{}", encode(&header), encode(&claims));
        let file = self.folder.join(format!("payload-{:?}", std::thread::current().id()));
        fs::write(&file, &payload).expect("write the payload");
        let mut openssl = Command::new("openssl");
        openssl.args(["dgst", "-sha256", "-sign"]).arg(self.folder.join("tokens.key")).arg("-out");
        openssl.arg(file.with_extension("signature")).arg(&file);
        Output::of(openssl).ok();
        let signature = fs::read(file.with_extension("signature")).expect("the signature");
        format!("{payload}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// What the scopes of a request ask for, as far as it goes: strangers only pull.
fn access(path: &str, known: bool) -> Vec<Value> {
    let query = path.split_once('?').map_or("", |(_, query)| query);
    let scopes = query.split('&').filter_map(|pair| pair.strip_prefix("scope="));
    scopes
        .filter_map(|scope| {
            let scope = scope.replace("%3A", ":").replace("%2F", "/").replace("%2C", ",");
            let (kind, rest) = scope.split_once(':')?;
            let (name, actions) = rest.rsplit_once(':')?;
            let actions: Vec<&str> = actions.split(',').filter(|action| known || *action == "pull").collect();
            Some(json!({"type": kind, "name": name, "actions": actions}))
        })
        .collect()
}
