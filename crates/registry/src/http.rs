//! Requests over connections that are kept for the next ones.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderValue, LOCATION, USER_AGENT};
use hyper::{Method, Request, Response, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;

use crate::{Error, Result, TransportError, dial, tls};

/// How long a server may think before its answer's head comes.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// How long setting up TLS may take.
const TLS_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_REDIRECTS: usize = 10;

/// Makes requests, and keeps connections. Clones share them.
#[derive(Debug, Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    user_agent: HeaderValue,
    certificates: PathBuf,
    idle: Mutex<HashMap<Peer, Vec<SendRequest<Full<Bytes>>>>>,
}

/// To whom a connection leads, and whether it was checked that it does.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Peer {
    https: bool,
    host: String,
    port: u16,
    verified: bool,
}

/// One request. It has no body, or a small one.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) method: Method,
    pub(crate) url: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// Whether certificates are checked.
    pub(crate) verify: bool,
}

impl Ask {
    pub(crate) fn new(method: Method, url: impl Into<String>, verify: bool) -> Self {
        Self { method, url: url.into(), headers: HeaderMap::new(), body: Bytes::new(), verify }
    }
}

impl Client {
    /// A client that calls itself `user_agent` and finds registries' certificates in
    /// `certificates/HOST` (dockerd: `/etc/docker/certs.d`).
    #[must_use]
    pub fn new(user_agent: &str, certificates: impl Into<PathBuf>) -> Self {
        let user_agent = HeaderValue::from_str(user_agent).unwrap_or(HeaderValue::from_static("docker"));
        Self {
            inner: Arc::new(Inner { user_agent, certificates: certificates.into(), idle: Mutex::default() }),
        }
    }

    /// Reads a whole document of at most `limit` bytes by GET, for services beside registries.
    /// `verify` says whether certificates are checked.
    ///
    /// # Errors
    /// [`Error::Transport`] or [`Error::TooLarge`]. Any status is fine.
    pub async fn get(
        &self,
        url: &str,
        headers: &[(hyper::header::HeaderName, HeaderValue)],
        verify: bool,
        limit: usize,
    ) -> Result<(hyper::StatusCode, Bytes)> {
        let mut ask = Ask::new(Method::GET, url, verify);
        ask.headers.extend(headers.iter().cloned());
        let response = self.send(&ask).await?;
        let status = response.status();
        Ok((status, read(&ask, response, limit).await?))
    }

    /// Sends a request, and follows redirections. Credentials stay with the host they are for.
    pub(crate) async fn send(&self, ask: &Ask) -> Result<Response<Incoming>> {
        let mut ask = ask.clone();
        for _ in 0..=MAX_REDIRECTS {
            let response = self.send_once(&ask).await.map_err(|source| transport(&ask, source))?;
            let redirected = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
            let location = response.headers().get(LOCATION).and_then(|l| l.to_str().ok());
            let Some(location) = location.filter(|_| redirected) else { return Ok(response) };
            let target = absolute(&ask.url, location).ok_or_else(|| transport(&ask, TransportError::Url))?;
            if authority(&target) != authority(&ask.url) {
                ask.headers.remove(AUTHORIZATION);
            }
            ask.url = target;
        }
        Err(transport(&ask, TransportError::Redirects))
    }

    async fn send_once(&self, ask: &Ask) -> std::result::Result<Response<Incoming>, TransportError> {
        let uri: Uri = ask.url.parse().map_err(|_| TransportError::Url)?;
        let peer = Peer::of(&uri, ask.verify).ok_or(TransportError::Url)?;
        // A kept connection may have been closed by the other side just now: then a new one is made.
        while let Some(mut kept) = self.take_idle(&peer) {
            if kept.ready().await.is_ok()
                && let Ok(response) = self.exchange(&mut kept, ask, &uri).await
            {
                self.keep(peer, kept);
                return Ok(response);
            }
        }
        let mut fresh = self.connect(&peer).await?;
        let response = self.exchange(&mut fresh, ask, &uri).await?;
        self.keep(peer, fresh);
        Ok(response)
    }

    async fn exchange(
        &self,
        connection: &mut SendRequest<Full<Bytes>>,
        ask: &Ask,
        uri: &Uri,
    ) -> std::result::Result<Response<Incoming>, TransportError> {
        let path = uri.path_and_query().map_or("/", |p| p.as_str());
        let mut request = Request::builder().method(ask.method.clone()).uri(path);
        if let Some(headers) = request.headers_mut() {
            headers.extend(ask.headers.clone());
            headers.insert(USER_AGENT, self.inner.user_agent.clone());
            let host = uri.authority().and_then(|a| HeaderValue::from_str(a.as_str()).ok());
            headers.insert(HOST, host.ok_or(TransportError::Url)?);
        }
        let request = request.body(Full::new(ask.body.clone())).map_err(|_| TransportError::Url)?;
        match tokio::time::timeout(HEAD_TIMEOUT, connection.send_request(request)).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(TransportError::Timeout),
        }
    }

    /// A kept connection that is not busy with an earlier answer's body.
    fn take_idle(&self, peer: &Peer) -> Option<SendRequest<Full<Bytes>>> {
        let mut idle = self.inner.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let connections = idle.get_mut(peer)?;
        connections.retain(|connection| !connection.is_closed());
        let free = connections.iter().position(SendRequest::is_ready)?;
        Some(connections.swap_remove(free))
    }

    fn keep(&self, peer: Peer, connection: SendRequest<Full<Bytes>>) {
        let mut idle = self.inner.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.entry(peer).or_default().push(connection);
    }

    /// Closes connections that nobody uses.
    pub fn close_idle(&self) {
        let mut idle = self.inner.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.clear();
    }

    async fn connect(&self, peer: &Peer) -> std::result::Result<SendRequest<Full<Bytes>>, TransportError> {
        let stream = dial::dial(&peer.host, peer.port).await?;
        if !peer.https {
            return serve(TokioIo::new(stream)).await;
        }
        let name = ServerName::try_from(peer.host.clone()).map_err(|_| TransportError::Url)?;
        let folder = self.inner.certificates.join(peer.registry());
        let config = tls::config(Some(&folder), peer.verified);
        let connecting = TlsConnector::from(config).connect(name, stream);
        let connected = tokio::time::timeout(TLS_TIMEOUT, connecting).await;
        let stream = connected.map_err(|_| TransportError::TlsTimeout)?;
        let stream = stream.map_err(|error| tls::failure(error, &peer.host))?;
        serve(TokioIo::new(stream)).await
    }
}

impl Peer {
    fn of(uri: &Uri, verified: bool) -> Option<Self> {
        let https = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let host = uri.host()?.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
        Some(Self { https, host, port, verified })
    }

    /// As the registry is called in `certs.d`.
    fn registry(&self) -> String {
        if self.port == 443 { self.host.clone() } else { format!("{}:{}", self.host, self.port) }
    }
}

/// Runs the connection's work in a task that ends with it.
async fn serve<S>(stream: S) -> std::result::Result<SendRequest<Full<Bytes>>, TransportError>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (sender, connection) = handshake(stream).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a registry's connection ended");
        }
    });
    Ok(sender)
}

/// Reads an answer's body.
pub(crate) async fn read(ask: &Ask, response: Response<Incoming>, limit: usize) -> Result<Bytes> {
    match Limited::new(response.into_body(), limit).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) => match error.downcast::<hyper::Error>() {
            Ok(error) => Err(transport(ask, TransportError::Http(*error))),
            Err(_) => Err(Error::TooLarge(limit)),
        },
    }
}

pub(crate) fn transport(ask: &Ask, source: TransportError) -> Error {
    let method = match ask.method {
        Method::HEAD => "Head",
        Method::POST => "Post",
        Method::PUT => "Put",
        _ => "Get",
    };
    Error::Transport { method, url: ask.url.clone(), source }
}

fn authority(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    rest.split(['/', '?']).next()
}

/// The target of a redirection, which may be relative.
fn absolute(base: &str, location: &str) -> Option<String> {
    if location.starts_with("http://") || location.starts_with("https://") {
        return Some(location.to_owned());
    }
    let (scheme, rest) = base.split_once("://")?;
    if let Some(other) = location.strip_prefix("//") {
        return Some(format!("{scheme}://{other}"));
    }
    let host = rest.split(['/', '?']).next()?;
    if location.starts_with('/') {
        return Some(format!("{scheme}://{host}{location}"));
    }
    let path = rest.split('?').next()?;
    let folder = path.rsplit_once('/').map_or(host, |(folder, _)| folder);
    Some(format!("{scheme}://{folder}/{location}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirections_may_be_relative() {
        let check = |location: &str, expect: &str| {
            assert_eq!(absolute("https://a:1/b/c?d=/e", location).as_deref(), Some(expect), "{location}");
        };
        check("http://x/y", "http://x/y");
        check("//x/y", "https://x/y");
        check("/y", "https://a:1/y");
        check("y", "https://a:1/b/y");
    }
}
