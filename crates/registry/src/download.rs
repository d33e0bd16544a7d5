//! Files beside registries, such as what `docker import` is given an address of.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::header::HeaderValue;
use hyper::{Method, Response, StatusCode, body::Incoming};

use crate::http::{self, Ask, transport};
use crate::repository::content_length;
use crate::{Client, Result, TransportError};

/// A connection that gives nothing for so long is broken.
const STALL: Duration = Duration::from_secs(60);
/// The longest text of a failed request that is read, in bytes.
const MAX_TEXT: usize = 64 << 10;

/// A file that is being fetched.
#[derive(Debug)]
pub struct Download {
    ask: Ask,
    response: Response<Incoming>,
}

impl Client {
    /// Begins to fetch `url`; redirections are followed, certificates checked.
    ///
    /// # Errors
    /// [`crate::Error::Transport`]. Any status is fine.
    pub async fn download(&self, url: &str) -> Result<Download> {
        self.download_as(url, None).await
    }

    /// As [`Client::download`], for who this `Authorization` says; other hosts do not get it.
    ///
    /// # Errors
    /// As [`Client::download`].
    pub async fn download_as(&self, url: &str, authorization: Option<HeaderValue>) -> Result<Download> {
        let mut ask = Ask::new(Method::GET, url, true);
        ask.authorize(authorization);
        let response = self.send(&ask).await?;
        Ok(Download { ask, response })
    }
}

impl Download {
    /// What the server says.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// How many bytes there are, if the server says so.
    #[must_use]
    pub fn length(&self) -> Option<u64> {
        content_length(self.response.headers())
    }

    /// A header of the answer, as text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name).and_then(|value| value.to_str().ok())
    }

    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// [`crate::Error::Transport`].
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            let frame = tokio::time::timeout(STALL, self.response.body_mut().frame()).await;
            return match frame.map_err(|_| transport(&self.ask, TransportError::Timeout))? {
                None => Ok(None),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) => Ok(Some(bytes)),
                    Err(_) => continue,
                },
                Some(Err(error)) => Err(transport(&self.ask, TransportError::Http(error))),
            };
        }
    }

    /// All of it as text, for an answer that is an error.
    ///
    /// # Errors
    /// [`crate::Error::Transport`], [`crate::Error::TooLarge`].
    pub async fn text(self) -> Result<String> {
        let bytes = http::read(&self.ask, self.response, MAX_TEXT).await?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}
