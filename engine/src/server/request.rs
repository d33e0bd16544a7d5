//! A request as handlers see it.

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::HeaderMap;
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use serde::de::DeserializeOwned;

use super::{Query, json};
use crate::error::Error;

/// The most bytes of a JSON body.
const MAX_JSON: usize = 4 << 20;

/// A version of the API, such as 1.44.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ApiVersion(pub(crate) u32, pub(crate) u32);

impl ApiVersion {
    /// The newest that we serve, and what requests without a prefix get.
    pub(crate) const MAX: Self = Self(1, 51);
    /// The oldest that we serve.
    pub(crate) const MIN: Self = Self(1, 24);

    /// Reads `1.44`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once('.')?;
        Some(Self(major.parse().ok()?, minor.parse().ok()?))
    }
}

/// A request, its path already taken apart by the router.
#[derive(Debug)]
pub(crate) struct Request {
    /// Of the path's prefix; [`ApiVersion::MAX`] without one.
    pub(crate) version: ApiVersion,
    /// The URL's parameters.
    pub(crate) query: Query,
    /// The headers.
    pub(crate) headers: HeaderMap,
    /// The body, unread.
    pub(crate) body: Incoming,
}

impl Request {
    /// A header as text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|v| v.to_str().ok())
    }

    /// The whole body, of at most `limit` bytes.
    ///
    /// # Errors
    /// 400 when it is longer or breaks off.
    pub(crate) async fn bytes(&mut self, limit: usize) -> Result<Bytes, Error> {
        let mut bytes = BytesMut::new();
        while let Some(frame) = self.body.frame().await {
            let frame =
                frame.map_err(|e| Error::InvalidParameter(format!("reading the request's body: {e}")))?;
            let Ok(data) = frame.into_data() else { continue };
            if bytes.len() + data.len() > limit {
                return Err(Error::InvalidParameter("http: request body too large".into()));
            }
            bytes.extend_from_slice(&data);
        }
        Ok(bytes.freeze())
    }

    /// The body as a JSON document.
    ///
    /// # Errors
    /// 400 with dockerd's texts for a missing body, another content type, malformed JSON and trailing content.
    pub(crate) async fn json<T: DeserializeOwned>(&mut self) -> Result<T, Error> {
        let bytes = self.json_bytes().await?;
        if bytes.is_empty() {
            return Err(Error::InvalidParameter("invalid JSON: got EOF while reading request body".into()));
        }
        json::parse(&bytes)
    }

    /// As [`Self::json`], with `None` for an empty body.
    ///
    /// # Errors
    /// As [`Self::json`].
    pub(crate) async fn optional_json<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Error> {
        let bytes = self.bytes(MAX_JSON).await?;
        if bytes.is_empty() { Ok(None) } else { json::parse(&bytes).map(Some) }
    }

    /// As [`Self::json`], with `None` for an empty body; any other must say that it is JSON.
    ///
    /// # Errors
    /// As [`Self::json`].
    pub(crate) async fn typed_optional_json<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Error> {
        let bytes = self.json_bytes().await?;
        if bytes.is_empty() { Ok(None) } else { json::parse(&bytes).map(Some) }
    }

    async fn json_bytes(&mut self) -> Result<Bytes, Error> {
        let kind = self.header(CONTENT_TYPE.as_str()).unwrap_or("").to_owned();
        let bytes = self.bytes(MAX_JSON).await?;
        let base = kind.split(';').next().unwrap_or("").trim();
        if base.eq_ignore_ascii_case("application/json") || (kind.is_empty() && bytes.is_empty()) {
            return Ok(bytes);
        }
        if base.is_empty() {
            return Err(Error::InvalidParameter(format!(
                "malformed Content-Type header ({kind}): mime: no media type"
            )));
        }
        Err(Error::InvalidParameter(format!(
            "unsupported Content-Type header ({kind}): must be 'application/json'"
        )))
    }
}
