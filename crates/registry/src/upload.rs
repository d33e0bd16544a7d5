//! Putting blobs and manifests into a repository.

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION};
use hyper::{Method, Response, StatusCode};
use wherry_image_ref::Digest;

use crate::auth::query_escape;
use crate::http::{Ask, absolute, transport};
use crate::outgoing::Pieces;
use crate::repository::content_length;
use crate::{Error, Repository, Result, TransportError};

const BYTES: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// What became of the wish to add a blob.
#[derive(Debug)]
pub enum Started {
    /// The registry had it in the other repository: nothing is to be sent.
    Mounted,
    /// It is to be sent.
    Upload(Upload),
}

/// An upload that has begun.
#[derive(Debug)]
pub struct Upload {
    repository: Repository,
    /// Where the next request goes; each answer names it anew.
    location: String,
}

impl Repository {
    /// The size in bytes of a blob that the repository has.
    ///
    /// # Errors
    /// The failures of a request; that there is none is no failure.
    pub async fn blob_size(&self, digest: &Digest) -> Result<Option<u64>> {
        let mut ask = self.ask(Method::HEAD, &format!("blobs/{digest}"));
        let response = self.authorized(&mut ask).await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let response = self.good(response, &ask).await?;
        Ok(content_length(response.headers()))
    }

    /// Begins to add a blob. With `mount`, the registry takes it from another of its repositories (its path) if it can.
    ///
    /// # Errors
    /// The failures of a request, a refusal among them.
    pub async fn start_upload(&self, mount: Option<(&Digest, &str)>) -> Result<Started> {
        let path = match mount {
            Some((digest, from)) => {
                let digest = digest.to_string();
                format!("blobs/uploads/?from={}&mount={}", query_escape(from), query_escape(&digest))
            }
            None => "blobs/uploads/".to_owned(),
        };
        let mut ask = self.ask(Method::POST, &path);
        let response = match mount {
            Some((_, from)) => self.authorized_for(&mut ask, from).await?,
            None => self.authorized(&mut ask).await?,
        };
        match response.status() {
            StatusCode::CREATED => Ok(Started::Mounted),
            StatusCode::ACCEPTED => {
                let location = location(&ask, response.headers())?;
                Ok(Started::Upload(Upload { repository: self.clone(), location }))
            }
            _ => Err(self.refusal(response, &ask).await),
        }
    }

    /// Adds a small blob, in one request after the one that begins.
    ///
    /// # Errors
    /// The failures of a request.
    pub async fn put_blob(&self, digest: &Digest, bytes: Bytes) -> Result<()> {
        match self.start_upload(None).await? {
            Started::Mounted => Ok(()),
            Started::Upload(upload) => upload.finish(digest, bytes).await,
        }
    }

    /// Puts a manifest under a tag or digest.
    ///
    /// # Errors
    /// The failures of a request.
    pub async fn put_manifest(&self, name: &str, media_type: &'static str, manifest: Bytes) -> Result<()> {
        let mut ask = self.ask(Method::PUT, &format!("manifests/{name}"));
        ask.headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        ask.body = manifest;
        let response = self.authorized(&mut ask).await?;
        self.good(response, &ask).await?;
        Ok(())
    }

    async fn refusal(&self, response: Response<Incoming>, ask: &Ask) -> Error {
        match self.good(response, ask).await {
            Err(error) => error,
            // A success that says nothing of an upload.
            Ok(response) => Error::Status(response.status()),
        }
    }
}

impl Upload {
    /// Sends bytes in one request while they are made. They follow those that were sent before.
    ///
    /// # Errors
    /// The failures of a request; [`Error::UploadUnknown`] when the registry has forgotten the upload.
    pub async fn send(&mut self, pieces: Pieces) -> Result<()> {
        let mut ask = self.repository.ask(Method::PATCH, &self.location);
        ask.headers.insert(CONTENT_TYPE, BYTES);
        let response = self.repository.authorized_pieces(&mut ask, pieces).await?;
        let response = self.checked(response, &ask).await?;
        self.location = location(&ask, response.headers())?;
        Ok(())
    }

    /// Ends the upload, perhaps with the last, or all, bytes. The registry compares the digest.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn finish(self, digest: &Digest, last: Bytes) -> Result<()> {
        let separator = if self.location.contains('?') { '&' } else { '?' };
        let escaped = query_escape(&digest.to_string());
        let path = format!("{}{separator}digest={escaped}", self.location);
        let mut ask = self.repository.ask(Method::PUT, &path);
        ask.headers.insert(CONTENT_TYPE, BYTES);
        ask.body = last;
        let response = self.repository.authorized(&mut ask).await?;
        self.checked(response, &ask).await?;
        Ok(())
    }

    /// Tells the registry to forget it.
    ///
    /// # Errors
    /// The failures of a request. Registries also forget by themselves.
    pub async fn cancel(self) -> Result<()> {
        let mut ask = self.repository.ask(Method::DELETE, &self.location);
        let response = self.repository.authorized(&mut ask).await?;
        match self.checked(response, &ask).await {
            Ok(_) | Err(Error::UploadUnknown) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn checked(&self, response: Response<Incoming>, ask: &Ask) -> Result<Response<Incoming>> {
        if response.status() == StatusCode::NOT_FOUND {
            return Err(Error::UploadUnknown);
        }
        self.repository.good(response, ask).await
    }
}

/// Where an upload goes on.
fn location(ask: &Ask, headers: &HeaderMap) -> Result<String> {
    let location = headers.get(LOCATION).and_then(|value| value.to_str().ok());
    let target = location.and_then(|location| absolute(&ask.url, location));
    target.ok_or_else(|| transport(ask, TransportError::Url))
}
