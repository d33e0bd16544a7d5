//! Reading a blob, over several connections if need be.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Response, StatusCode};
use wherry_image_ref::Digest;

use crate::http::{Ask, transport};
use crate::repository::content_length;
use crate::{Error, Repository, Result, TransportError};

/// A connection that gives nothing for so long is broken.
const STALL: Duration = Duration::from_secs(60);

/// The bytes of a blob as they come.
#[derive(Debug)]
pub struct Blob {
    repository: Repository,
    digest: Digest,
    /// None until the first request, and after a failure.
    body: Option<Incoming>,
    /// All bytes that there are, if the registry said.
    size: Option<u64>,
    offset: u64,
    /// Came after what was skipped, in the same piece.
    pending: Bytes,
}

impl Repository {
    /// A blob, to be read from its first byte. The caller checks the digest: it reads as it comes.
    #[must_use]
    pub fn blob(&self, digest: &Digest) -> Blob {
        let repository = self.clone();
        Blob { repository, digest: *digest, body: None, size: None, offset: 0, pending: Bytes::new() }
    }
}

impl Blob {
    /// How many bytes have come.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next bytes; `None` at the end. After a failure the next call asks again, from where the bytes ended.
    ///
    /// # Errors
    /// [`Error::Transport`] when the connection broke or stood still, or what the registry answers.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            if self.body.is_none() {
                self.open().await?;
            }
            if !self.pending.is_empty() {
                self.offset += self.pending.len() as u64;
                return Ok(Some(std::mem::take(&mut self.pending)));
            }
            let Some(body) = self.body.as_mut() else { continue };
            let broken = match tokio::time::timeout(STALL, body.frame()).await {
                Ok(Some(Ok(frame))) => {
                    let Ok(bytes) = frame.into_data() else { continue };
                    self.offset += bytes.len() as u64;
                    return Ok(Some(bytes));
                }
                Ok(None) if self.size.is_none_or(|size| self.offset >= size) => return Ok(None),
                Ok(None) => TransportError::Truncated,
                Ok(Some(Err(error))) => broken_body(error),
                Err(_) => TransportError::Stalled,
            };
            self.body = None;
            return Err(self.failure(broken));
        }
    }

    async fn open(&mut self) -> Result<()> {
        let response = self.repository.open_blob(&self.digest, self.offset).await?;
        let goes_on = response.status() == StatusCode::PARTIAL_CONTENT;
        if goes_on && !continues(&response, self.offset) {
            return Err(self.failure(TransportError::WrongRange));
        }
        if !goes_on {
            self.size = content_length(response.headers());
        }
        let mut body = response.into_body();
        if !goes_on {
            self.skip(&mut body).await?;
        }
        self.body = Some(body);
        Ok(())
    }

    /// Reads over what we had, for registries that do not know ranges.
    async fn skip(&mut self, body: &mut Incoming) -> Result<()> {
        let mut left = self.offset;
        while left > 0 {
            let frame = tokio::time::timeout(STALL, body.frame()).await;
            let frame = match frame.map_err(|_| self.failure(TransportError::Stalled))? {
                Some(frame) => frame.map_err(|error| self.failure(broken_body(error)))?,
                None => return Err(self.failure(TransportError::Truncated)),
            };
            let Ok(mut data) = frame.into_data() else { continue };
            let known = usize::try_from(left).unwrap_or(usize::MAX).min(data.len());
            left -= known as u64;
            self.pending = data.split_off(known);
        }
        Ok(())
    }

    fn failure(&self, source: TransportError) -> Error {
        let ask: Ask = self.repository.ask(hyper::Method::GET, &format!("blobs/{}", self.digest));
        transport(&ask, source)
    }
}

/// Whether a part begins where it was asked for.
fn continues(response: &Response<Incoming>, offset: u64) -> bool {
    let range = response.headers().get(hyper::header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
    let start = range.and_then(|range| range.strip_prefix("bytes ")?.split_once('-')?.0.parse::<u64>().ok());
    start == Some(offset)
}

fn broken_body(error: hyper::Error) -> TransportError {
    if error.is_incomplete_message() { TransportError::Truncated } else { error.into() }
}
