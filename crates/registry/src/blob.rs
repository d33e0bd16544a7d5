//! Reading a blob, over several connections if need be.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Response, StatusCode};
use wherry_image_ref::Digest;

use crate::http::{Ask, transport};
use crate::repository::content_length;
use crate::{Repository, Result, TransportError};

/// How often a broken transfer is taken up again without a byte of progress.
const MAX_RETRIES: u32 = 5;
/// The wait before the first retry; it doubles.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// A connection that gives nothing for so long is broken.
const STALL: Duration = Duration::from_secs(60);

/// The bytes of a blob as they come. A connection that breaks is followed by another that goes on
/// where it ended.
#[derive(Debug)]
pub struct Blob {
    repository: Repository,
    digest: Digest,
    body: Incoming,
    /// All bytes that there are, if the registry said.
    size: Option<u64>,
    offset: u64,
    /// Came after what was skipped, in the same piece.
    pending: Bytes,
    retries: u32,
}

impl Blob {
    pub(crate) fn new(repository: Repository, digest: Digest, response: Response<Incoming>) -> Self {
        let size = content_length(response.headers());
        Self {
            repository,
            digest,
            body: response.into_body(),
            size,
            offset: 0,
            pending: Bytes::new(),
            retries: 0,
        }
    }

    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// [`crate::Error::Transport`] when all retries were in vain, or what the registry answers to them.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            if !self.pending.is_empty() {
                self.offset += self.pending.len() as u64;
                return Ok(Some(std::mem::take(&mut self.pending)));
            }
            let broken = match tokio::time::timeout(STALL, self.body.frame()).await {
                Ok(Some(Ok(frame))) => {
                    let Ok(bytes) = frame.into_data() else { continue };
                    self.offset += bytes.len() as u64;
                    self.retries = 0;
                    return Ok(Some(bytes));
                }
                Ok(None) if self.size.is_none_or(|size| self.offset >= size) => return Ok(None),
                Ok(None) => None,
                Ok(Some(Err(error))) => Some(TransportError::Http(error)),
                Err(_) => Some(TransportError::Timeout),
            };
            if self.retries == MAX_RETRIES {
                let url = format!("blobs/{}", self.digest);
                return Err(transport(
                    &Ask::new(hyper::Method::GET, url, true),
                    broken.unwrap_or(TransportError::Timeout),
                ));
            }
            tracing::info!(blob = %self.digest, offset = self.offset, error = ?broken, "transfer broke; it goes on");
            self.resume().await?;
        }
    }

    async fn resume(&mut self) -> Result<()> {
        tokio::time::sleep(FIRST_WAIT * 2_u32.saturating_pow(self.retries)).await;
        self.retries += 1;
        let response = self.repository.open_blob(&self.digest, self.offset).await?;
        let from_start = response.status() != StatusCode::PARTIAL_CONTENT;
        self.body = response.into_body();
        if from_start {
            self.skip(self.offset).await?;
        }
        Ok(())
    }

    /// Reads over what we had, for registries that do not know ranges.
    async fn skip(&mut self, mut left: u64) -> Result<()> {
        let ask = Ask::new(hyper::Method::GET, format!("blobs/{}", self.digest), true);
        while left > 0 {
            let frame = tokio::time::timeout(STALL, self.body.frame()).await;
            let frame = match frame.map_err(|_| transport(&ask, TransportError::Timeout))? {
                Some(frame) => frame.map_err(|e| transport(&ask, TransportError::Http(e)))?,
                None => return Err(transport(&ask, TransportError::Timeout)),
            };
            let Ok(mut data) = frame.into_data() else { continue };
            let known = usize::try_from(left).unwrap_or(usize::MAX).min(data.len());
            left -= known as u64;
            self.pending = data.split_off(known);
        }
        Ok(())
    }
}
