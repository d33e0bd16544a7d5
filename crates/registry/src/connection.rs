//! Connections: direct ones and those through proxies, plain or inside TLS.

use std::time::Duration;

use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{HOST, HeaderValue, PROXY_AUTHORIZATION};
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use wherry_tls::Failure;

use crate::outgoing::Outgoing;
use crate::proxy::{Proxies, Proxy};
use crate::{TransportError, dial, tls};

/// How long setting up TLS may take.
const TLS_TIMEOUT: Duration = Duration::from_secs(10);

/// To whom a connection leads, and whether it is checked that it does.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Peer {
    pub(crate) https: bool,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) verified: bool,
}

/// A connection, and how requests on it are addressed.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) sender: SendRequest<Outgoing>,
    /// A proxy that reads our requests: it wants whole addresses, and perhaps a password.
    pub(crate) proxy: Option<Option<HeaderValue>>,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl Peer {
    pub(crate) fn of(uri: &Uri, verified: bool) -> Option<Self> {
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

    fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Connects. `certificates` holds a folder for each registry that has some.
    pub(crate) async fn connect(
        &self,
        proxies: &Proxies,
        certificates: &std::path::Path,
    ) -> Result<Connection, TransportError> {
        let proxy = proxies.towards(self.https, &self.host, self.port)?;
        let stream: Box<dyn Stream> = match &proxy {
            None => Box::new(dial::dial(&self.host, self.port).await?),
            Some(proxy) => proxy.dial().await?,
        };
        if !self.https {
            return Ok(Connection {
                sender: serve(stream).await?,
                proxy: proxy.map(|proxy| proxy.authorization),
            });
        }
        let stream = match &proxy {
            None => stream,
            Some(proxy) => proxy.tunnel(stream, &self.authority()).await?,
        };
        let folder = certificates.join(self.registry());
        let stream = secure(stream, &self.host, tls::config(Some(&folder), self.verified)?).await?;
        Ok(Connection { sender: serve(stream).await?, proxy: None })
    }
}

impl Proxy {
    async fn dial(&self) -> Result<Box<dyn Stream>, TransportError> {
        let stream = dial::dial(&self.host, self.port).await.map_err(TransportError::ProxyDial)?;
        if self.https {
            return secure(stream, &self.host, tls::config(None, true)?).await;
        }
        Ok(Box::new(stream))
    }

    /// Asks the proxy for a connection to `authority` that it does not look into.
    async fn tunnel(
        &self,
        stream: Box<dyn Stream>,
        authority: &str,
    ) -> Result<Box<dyn Stream>, TransportError> {
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "a proxy's connection ended");
            }
        });
        let mut request = Request::builder().method(Method::CONNECT).uri(authority).header(HOST, authority);
        if let Some(authorization) = &self.authorization {
            request = request.header(PROXY_AUTHORIZATION, authorization);
        }
        let request = request.body(Outgoing::Whole(bytes::Bytes::new())).map_err(|_| TransportError::Url)?;
        let answered = tokio::time::timeout(TLS_TIMEOUT, sender.send_request(request)).await;
        let response = answered.map_err(|_| TransportError::Timeout)??;
        if !response.status().is_success() {
            let reason = response.status().canonical_reason().unwrap_or("Forbidden");
            return Err(TransportError::Proxy(reason.to_owned()));
        }
        let upgraded = hyper::upgrade::on(response).await?;
        Ok(Box::new(TokioIo::new(upgraded)))
    }
}

async fn secure(
    stream: impl Stream + 'static,
    host: &str,
    config: std::sync::Arc<rustls::ClientConfig>,
) -> Result<Box<dyn Stream>, TransportError> {
    let name = ServerName::try_from(host.to_owned()).map_err(|_| TransportError::Url)?;
    let connecting = TlsConnector::from(config).connect(name, stream);
    let connected = tokio::time::timeout(TLS_TIMEOUT, connecting).await;
    let stream = connected.map_err(|_| TransportError::TlsTimeout)?;
    Ok(Box::new(stream.map_err(|error| Failure::of(error, host))?))
}

/// Runs the connection's work in a task that ends with it.
async fn serve(stream: Box<dyn Stream>) -> Result<SendRequest<Outgoing>, TransportError> {
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a registry's connection ended");
        }
    });
    Ok(sender)
}
