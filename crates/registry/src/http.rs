//! Requests over connections that are kept for the next ones.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{
    AUTHORIZATION, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION, PROXY_AUTHORIZATION, USER_AGENT,
};
use hyper::{Method, Request, Response, Uri};

use crate::connection::{Connection, Peer};
use crate::outgoing::{Outgoing, Pieces};
use crate::proxy::Proxies;
use crate::{Error, Result, TransportError};

/// How long a server may think before its answer's head comes. Registries that mirror others fetch first.
const HEAD_TIMEOUT: Duration = Duration::from_secs(300);
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
    proxies: Proxies,
    /// Sent with each request.
    headers: HeaderMap,
    idle: Mutex<HashMap<Peer, Vec<Connection>>>,
}

/// How a [`Client`] presents itself, and which way it takes.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// What it calls itself.
    pub user_agent: String,
    /// The folder that has registries' certificates in `HOST/` (dockerd: `/etc/docker/certs.d`).
    pub certificates: PathBuf,
    /// The proxies to use.
    pub proxies: Proxies,
    /// More headers of each request, such as `X-Meta-…`.
    pub headers: HeaderMap,
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
    /// How long the answer's head may take to come.
    pub(crate) timeout: Duration,
}

impl Ask {
    pub(crate) fn new(method: Method, url: impl Into<String>, verify: bool) -> Self {
        let (headers, body) = (HeaderMap::new(), Bytes::new());
        Self { method, url: url.into(), headers, body, verify, timeout: HEAD_TIMEOUT }
    }

    /// Gives it this `Authorization`, in place of another.
    pub(crate) fn authorize(&mut self, header: Option<HeaderValue>) {
        if let Some(header) = header {
            self.headers.insert(AUTHORIZATION, header);
        }
    }
}

impl Client {
    /// A client with these settings.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let user_agent = HeaderValue::from_str(&settings.user_agent);
        Self {
            inner: Arc::new(Inner {
                user_agent: user_agent.unwrap_or(HeaderValue::from_static("docker")),
                certificates: settings.certificates,
                proxies: settings.proxies,
                headers: settings.headers,
                idle: Mutex::default(),
            }),
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
        headers: &[(HeaderName, HeaderValue)],
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
            if origin(&target) != origin(&ask.url) {
                ask.headers.remove(AUTHORIZATION);
            }
            ask.url = target;
        }
        Err(transport(&ask, TransportError::Redirects))
    }

    /// Sends a request with a body that is made meanwhile. It is sent once, and not elsewhere.
    pub(crate) async fn send_pieces(&self, ask: &Ask, pieces: Pieces) -> Result<Response<Incoming>> {
        let sent = async {
            let (uri, peer) = target(ask)?;
            let mut fresh = peer.connect(&self.inner.proxies, &self.inner.certificates).await?;
            let request = self.request(ask, &uri, &fresh, Outgoing::Pieces(pieces))?;
            // As long as it takes: whoever wants it knows when it has been enough.
            let response = fresh.sender.send_request(request).await?;
            self.keep(peer, fresh);
            Ok(response)
        };
        sent.await.map_err(|source| transport(ask, source))
    }

    async fn send_once(&self, ask: &Ask) -> std::result::Result<Response<Incoming>, TransportError> {
        match tokio::time::timeout(ask.timeout, self.send_unlimited(ask)).await {
            Ok(answer) => answer,
            Err(_) => Err(TransportError::Timeout),
        }
    }

    async fn send_unlimited(&self, ask: &Ask) -> std::result::Result<Response<Incoming>, TransportError> {
        let (uri, peer) = target(ask)?;
        // A kept connection may have been closed by the other side just now: then a new one is made.
        while let Some(mut kept) = self.take_idle(&peer) {
            if kept.sender.ready().await.is_ok()
                && let Ok(response) = self.exchange(&mut kept, ask, &uri).await
            {
                self.keep(peer, kept);
                return Ok(response);
            }
        }
        let mut fresh = peer.connect(&self.inner.proxies, &self.inner.certificates).await?;
        let response = self.exchange(&mut fresh, ask, &uri).await?;
        self.keep(peer, fresh);
        Ok(response)
    }

    async fn exchange(
        &self,
        connection: &mut Connection,
        ask: &Ask,
        uri: &Uri,
    ) -> std::result::Result<Response<Incoming>, TransportError> {
        let request = self.request(ask, uri, connection, Outgoing::Whole(ask.body.clone()))?;
        Ok(connection.sender.send_request(request).await?)
    }

    fn request(
        &self,
        ask: &Ask,
        uri: &Uri,
        connection: &Connection,
        body: Outgoing,
    ) -> std::result::Result<Request<Outgoing>, TransportError> {
        let path = uri.path_and_query().map_or("/", |p| p.as_str());
        let mut request = Request::builder().method(ask.method.clone());
        request = if connection.proxy.is_some() { request.uri(ask.url.as_str()) } else { request.uri(path) };
        if let Some(headers) = request.headers_mut() {
            headers.extend(self.inner.headers.clone());
            headers.extend(ask.headers.clone());
            headers.insert(USER_AGENT, self.inner.user_agent.clone());
            let host = uri.authority().and_then(|a| HeaderValue::from_str(a.as_str()).ok());
            headers.insert(HOST, host.ok_or(TransportError::Url)?);
            let for_proxy = connection.proxy.clone().flatten();
            headers.extend(for_proxy.map(|value| (PROXY_AUTHORIZATION, value)));
        }
        request.body(body).map_err(|_| TransportError::Url)
    }

    /// A kept connection that is not busy with an earlier answer's body.
    fn take_idle(&self, peer: &Peer) -> Option<Connection> {
        let mut idle = self.inner.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let connections = idle.get_mut(peer)?;
        connections.retain(|connection| !connection.sender.is_closed());
        let free = connections.iter().position(|connection| connection.sender.is_ready())?;
        Some(connections.swap_remove(free))
    }

    fn keep(&self, peer: Peer, connection: Connection) {
        let mut idle = self.inner.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.entry(peer).or_default().push(connection);
    }

    /// Closes connections that nobody uses.
    pub fn close_idle(&self) {
        let mut idle = self.inner.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.clear();
    }
}

fn target(ask: &Ask) -> std::result::Result<(Uri, Peer), TransportError> {
    let uri: Uri = ask.url.parse().map_err(|_| TransportError::Url)?;
    let peer = Peer::of(&uri, ask.verify).ok_or(TransportError::Url)?;
    Ok((uri, peer))
}

/// Reads an answer's body.
pub(crate) async fn read(ask: &Ask, response: Response<Incoming>, limit: usize) -> Result<Bytes> {
    match Limited::new(response.into_body(), limit).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) => match error.downcast::<hyper::Error>() {
            Ok(error) => Err(transport(ask, (*error).into())),
            Err(_) => Err(Error::TooLarge(limit)),
        },
    }
}

pub(crate) fn transport(ask: &Ask, source: TransportError) -> Error {
    let method = match ask.method {
        Method::HEAD => "Head",
        Method::POST => "Post",
        Method::PUT => "Put",
        Method::PATCH => "Patch",
        Method::DELETE => "Delete",
        _ => "Get",
    };
    Error::Transport { method, url: ask.url.clone(), source }
}

/// Scheme, host and port as written: what credentials are for.
pub(crate) fn origin(url: &str) -> &str {
    let after_scheme = url.find("://").map_or(0, |at| at + 3);
    let end = url.get(after_scheme..).and_then(|rest| rest.find(['/', '?']));
    end.and_then(|end| url.get(..after_scheme + end)).unwrap_or(url)
}

/// The target of a redirection, which may be relative.
pub(crate) fn absolute(base: &str, location: &str) -> Option<String> {
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
