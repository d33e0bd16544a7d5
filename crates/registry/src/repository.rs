//! A repository in a registry: tags, manifests, blobs.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, CONTENT_LENGTH, HeaderMap, HeaderValue, LINK};
use hyper::{Method, Response, StatusCode};
use serde::Deserialize;
use tokio::sync::Mutex;
use wherry_image_ref::Digest;

use crate::auth::{Challenge, Grant};
use crate::http::{Ask, origin, read};
use crate::outgoing::Pieces;
use crate::refusal::failure;
use crate::{Client, Credentials, Endpoint, Error, Result, manifest};

const MAX_MANIFEST_BYTES: usize = 4 << 20;
pub(crate) const MAX_LIST_BYTES: usize = 16 << 20;
pub(crate) const MAX_ERROR_BYTES: usize = 1 << 20;
/// How often a small blob is asked for, and the wait after the first time; it doubles.
const SMALL_ATTEMPTS: u32 = 5;
const FIRST_WAIT: Duration = Duration::from_millis(250);

/// A repository that answers. Clones share connection and token.
#[derive(Debug, Clone)]
pub struct Repository {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    client: Client,
    endpoint: Endpoint,
    path: String,
    credentials: Credentials,
    challenge: Challenge,
    /// `repository:PATH:pull` or `…:push,pull`.
    scope: String,
    grant: Mutex<Option<Grant>>,
}

/// What is to be done in a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading only.
    Pull,
    /// Reading and writing.
    Push,
}

/// What a tag means now.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// Digest of the manifest or list.
    pub digest: Digest,
    /// The document, if it had to be read to know the digest.
    pub body: Option<Bytes>,
}

impl Repository {
    /// Reaches the registry at `endpoint` and learns what it wants.
    ///
    /// # Errors
    /// [`Error::Transport`], [`Error::Status`] for a server that is not well.
    pub async fn connect(
        client: &Client,
        endpoint: &Endpoint,
        path: &str,
        credentials: &Credentials,
        access: Access,
    ) -> Result<Self> {
        let challenge = ping(client, endpoint).await?;
        let actions = match access {
            Access::Pull => "pull",
            Access::Push => "push,pull",
        };
        Ok(Self {
            inner: Arc::new(Inner {
                client: client.clone(),
                endpoint: endpoint.clone(),
                path: path.to_owned(),
                credentials: credentials.clone(),
                challenge,
                scope: format!("repository:{path}:{actions}"),
                grant: Mutex::new(None),
            }),
        })
    }

    /// Asks what a tag means, without reading the manifest if the registry gives its digest.
    ///
    /// # Errors
    /// [`Error::Api`] (`MANIFEST_UNKNOWN`, …) and the other failures of a request.
    pub async fn resolve(&self, tag: &str) -> Result<Resolved> {
        let head = self.send(Method::HEAD, &format!("manifests/{tag}"), manifest::ACCEPT).await?;
        if head.status().is_success()
            && let Some(digest) = digest_header(head.headers())
        {
            return Ok(Resolved { digest, body: None });
        }
        let body = self.document(&format!("manifests/{tag}"), MAX_MANIFEST_BYTES).await?;
        Ok(Resolved { digest: Digest::of(&body), body: Some(body) })
    }

    /// Reads a manifest or list, and checks that it is what was asked for.
    ///
    /// # Errors
    /// As [`Self::resolve`]; [`Error::ManifestDigest`].
    pub async fn manifest(&self, digest: &Digest) -> Result<Bytes> {
        let body = self.document(&format!("manifests/{digest}"), MAX_MANIFEST_BYTES).await?;
        if Digest::of(&body) == *digest { Ok(body) } else { Err(Error::ManifestDigest(*digest)) }
    }

    /// All tags, sorted as the registry does.
    ///
    /// # Errors
    /// As [`Self::resolve`].
    pub async fn tags(&self) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Tags {
            #[serde(default)]
            tags: Option<Vec<String>>,
        }
        let mut all = Vec::new();
        let mut page = Some("tags/list".to_owned());
        while let Some(path) = page.take() {
            let response = self.get(&path, "application/json").await?;
            page = next_page(response.headers());
            let ask = self.ask(Method::GET, &path);
            let body = read(&ask, response, MAX_LIST_BYTES).await?;
            let tags: Tags = serde_json::from_slice(&body).map_err(|e| Error::Manifest(e.to_string()))?;
            let tags = tags.tags.unwrap_or_default();
            if tags.is_empty() {
                break;
            }
            all.extend(tags);
        }
        Ok(all)
    }

    /// Reads a blob of at most `limit` bytes, and checks its digest. Passing failures are tried again.
    ///
    /// # Errors
    /// As [`Self::resolve`]; [`Error::TooLarge`], [`Error::ConfigDigest`].
    pub async fn small_blob(&self, digest: &Digest, limit: usize) -> Result<Bytes> {
        let (mut attempts, mut wait) = (0, FIRST_WAIT);
        loop {
            let failure = match self.try_small_blob(digest, limit).await {
                Ok(body) if Digest::of(&body) == *digest => return Ok(body),
                Ok(_) => return Err(Error::ConfigDigest(*digest)),
                Err(failure) => failure,
            };
            attempts += 1;
            if attempts == SMALL_ATTEMPTS || !failure.is_passing() {
                return Err(Error::Attempts { attempts, last: Box::new(failure) });
            }
            tokio::time::sleep(wait).await;
            wait *= 2;
        }
    }

    async fn try_small_blob(&self, digest: &Digest, limit: usize) -> Result<Bytes> {
        let response = self.open_blob(digest, 0).await?;
        read(&self.ask(Method::GET, &format!("blobs/{digest}")), response, limit).await
    }

    /// A blob from byte `offset` on.
    pub(crate) async fn open_blob(&self, digest: &Digest, offset: u64) -> Result<Response<Incoming>> {
        let path = format!("blobs/{digest}");
        let mut ask = self.ask(Method::GET, &path);
        if offset > 0 {
            let range = HeaderValue::from_str(&format!("bytes={offset}-"));
            ask.headers.extend(range.ok().map(|range| (hyper::header::RANGE, range)));
        }
        let response = self.authorized(&mut ask).await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Err(Error::BlobUnknown);
        }
        self.good(response, &ask).await
    }

    async fn document(&self, path: &str, limit: usize) -> Result<Bytes> {
        let response = self.get(path, manifest::ACCEPT).await?;
        read(&self.ask(Method::GET, path), response, limit).await
    }

    async fn get(&self, path: &str, accept: &'static str) -> Result<Response<Incoming>> {
        let response = self.send(Method::GET, path, accept).await?;
        self.good(response, &self.ask(Method::GET, path)).await
    }

    async fn send(&self, method: Method, path: &str, accept: &'static str) -> Result<Response<Incoming>> {
        let mut ask = self.ask(method, path);
        ask.headers.insert(ACCEPT, HeaderValue::from_static(accept));
        self.authorized(&mut ask).await
    }

    /// Turns an answer that is a failure into one.
    pub(crate) async fn good(&self, response: Response<Incoming>, ask: &Ask) -> Result<Response<Incoming>> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let headers = response.headers().clone();
        let body = read(ask, response, MAX_ERROR_BYTES).await.unwrap_or_default();
        Err(failure(status, &headers, &body))
    }

    /// Sends with the leave that we have; when it is refused, once more with a new one.
    pub(crate) async fn authorized(&self, ask: &mut Ask) -> Result<Response<Incoming>> {
        let (had, grant) = self.authorize(ask, None).await?;
        let response = self.inner.client.send(ask).await?;
        if response.status() != StatusCode::UNAUTHORIZED || !had {
            return Ok(response);
        }
        self.authorize(ask, grant.as_ref()).await?;
        self.inner.client.send(ask).await
    }

    /// As [`Self::authorized`], for a body that can be sent only once.
    pub(crate) async fn authorized_pieces(
        &self,
        ask: &mut Ask,
        pieces: Pieces,
    ) -> Result<Response<Incoming>> {
        self.authorize(ask, None).await?;
        self.inner.client.send_pieces(ask, pieces).await
    }

    /// As [`Self::authorized`], with leave to read another repository, too.
    pub(crate) async fn authorized_for(&self, ask: &mut Ask, from: &str) -> Result<Response<Incoming>> {
        let inner = &self.inner;
        let scopes = [inner.scope.clone(), format!("repository:{from}:pull")];
        let grant = inner
            .challenge
            .authorize(&inner.client, &inner.credentials, &scopes, inner.endpoint.verify)
            .await;
        let grant = grant.map_err(|error| error.of(ask))?;
        ask.authorize(grant.header);
        inner.client.send(ask).await
    }

    /// Gives the request its header, from the first request on; anew if `stale` is the one that we have. Also
    /// says whether it had been there before. Other hosts get none: they know their own redirections.
    async fn authorize(
        &self,
        ask: &mut Ask,
        stale: Option<&HeaderValue>,
    ) -> Result<(bool, Option<HeaderValue>)> {
        let inner = &self.inner;
        if origin(&ask.url) != origin(&inner.endpoint.url) {
            return Ok((false, None));
        }
        // Held while a token is fetched: whoever else needs it waits for the same one.
        let mut kept = inner.grant.lock().await;
        let fresh = kept
            .as_ref()
            .filter(|grant| grant.holds() && (stale.is_none() || grant.header.as_ref() != stale));
        let (had, grant) = match fresh {
            Some(grant) => (true, grant.clone()),
            None => {
                let scopes = std::slice::from_ref(&inner.scope);
                let (client, verify) = (&inner.client, inner.endpoint.verify);
                let fetched = inner.challenge.authorize(client, &inner.credentials, scopes, verify).await;
                let grant = fetched.map_err(|error| error.of(ask))?;
                *kept = Some(grant.clone());
                (false, grant)
            }
        };
        ask.authorize(grant.header.clone());
        Ok((had, grant.header))
    }

    /// A request below the repository, or at an absolute path or address.
    pub(crate) fn ask(&self, method: Method, path: &str) -> Ask {
        let endpoint = &self.inner.endpoint;
        let url = if path.starts_with("http://") || path.starts_with("https://") {
            path.to_owned()
        } else if path.starts_with('/') {
            origin_and_path(endpoint, path)
        } else {
            format!("{}/v2/{}/{path}", endpoint.url, self.inner.path)
        };
        Ask::new(method, url, endpoint.verify)
    }
}

/// An absolute path at a registry.
pub(crate) fn origin_and_path(endpoint: &Endpoint, path: &str) -> String {
    format!("{}{path}", origin(&endpoint.url))
}

/// How long a registry may take to say what it wants.
pub(crate) const PING_TIMEOUT: Duration = Duration::from_secs(15);

/// Asks a registry whether it is one, and what it wants.
pub(crate) async fn ping(client: &Client, endpoint: &Endpoint) -> Result<Challenge> {
    let mut ask = Ask::new(Method::GET, format!("{}/v2/", endpoint.url), endpoint.verify);
    ask.timeout = PING_TIMEOUT;
    let response = client.send(&ask).await?;
    let challenge = Challenge::of(response.status(), response.headers());
    read(&ask, response, MAX_ERROR_BYTES).await?;
    Ok(challenge)
}

fn digest_header(headers: &HeaderMap) -> Option<Digest> {
    headers.get("docker-content-digest")?.to_str().ok()?.parse().ok()
}

/// The path of the next page of a list: `Link: </v2/…>; rel="next"`.
pub(crate) fn next_page(headers: &HeaderMap) -> Option<String> {
    let link = headers.get(LINK)?.to_str().ok()?;
    let (path, rest) = link.strip_prefix('<')?.split_once('>')?;
    (rest.contains("next") && path.starts_with('/')).then(|| path.to_owned())
}

/// The length that an answer announces.
pub(crate) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_followed_within_the_registry() {
        let page = |link: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(LINK, HeaderValue::from_static(link));
            next_page(&headers)
        };
        assert_eq!(
            page("</v2/a/tags/list?last=b&n=5>; rel=\"next\"").as_deref(),
            Some("/v2/a/tags/list?last=b&n=5")
        );
        assert_eq!(page("<http://elsewhere/>; rel=\"next\""), None);
    }
}
