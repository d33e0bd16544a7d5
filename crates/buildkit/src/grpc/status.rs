//! How a call ends.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use http::header::{HeaderMap, HeaderValue};
use prost::Message as _;

use crate::pb::{Any, RpcStatus};

/// Why a call failed, as gRPC counts reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "gRPC's own names")]
pub enum Code {
    Ok = 0,
    Cancelled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    Unauthenticated = 16,
}

impl Code {
    /// The code of a number; unknown ones are [`Code::Unknown`].
    fn of(number: i32) -> Self {
        match number {
            0 => Self::Ok,
            1 => Self::Cancelled,
            3 => Self::InvalidArgument,
            5 => Self::NotFound,
            6 => Self::AlreadyExists,
            7 => Self::PermissionDenied,
            8 => Self::ResourceExhausted,
            9 => Self::FailedPrecondition,
            12 => Self::Unimplemented,
            13 => Self::Internal,
            14 => Self::Unavailable,
            16 => Self::Unauthenticated,
            _ => Self::Unknown,
        }
    }
}

/// A call's failure: code, text, and what BuildKit's clients read from the details (see [`crate::errdefs`]).
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Status {
    /// The reason.
    pub code: Code,
    /// For people.
    pub message: String,
    /// For programs.
    pub details: Vec<Any>,
}

impl Status {
    /// A failure without details.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: Vec::new() }
    }

    /// A failure of a build: BuildKit gives those no code of their own.
    pub fn unknown(message: impl Into<String>) -> Self {
        Self::new(Code::Unknown, message)
    }

    /// The same as a message, as the history keeps it.
    #[must_use]
    pub fn to_message(&self) -> RpcStatus {
        RpcStatus { code: self.code as i32, message: self.message.clone(), details: self.details.clone() }
    }

    /// A status that came as a message.
    #[must_use]
    pub fn from_message(status: RpcStatus) -> Self {
        Self { code: Code::of(status.code), message: status.message, details: status.details }
    }

    /// The trailers that end a failed call.
    pub(super) fn trailers(&self) -> HeaderMap {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from(self.code as i32));
        if let Ok(text) = HeaderValue::from_str(&percent_encode(&self.message)) {
            trailers.insert("grpc-message", text);
        }
        if !self.details.is_empty() {
            let encoded = STANDARD_NO_PAD.encode(self.to_message().encode_to_vec());
            if let Ok(details) = HeaderValue::from_str(&encoded) {
                trailers.insert("grpc-status-details-bin", details);
            }
        }
        trailers
    }

    /// How a call ended by the trailers, or by the headers when there was nothing else.
    ///
    /// # Errors
    /// The status, unless it is OK.
    pub(super) fn check(trailers: &HeaderMap) -> Result<(), Self> {
        let code =
            trailers.get("grpc-status").and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<i32>().ok());
        if code == Some(0) {
            return Ok(());
        }
        let message = trailers.get("grpc-message").map_or_else(String::new, |v| percent_decode(v.as_bytes()));
        let details = trailers.get("grpc-status-details-bin").and_then(|v| {
            let bytes = STANDARD_NO_PAD.decode(v.to_str().ok()?.trim_end_matches('=')).ok()?;
            RpcStatus::decode(bytes.as_slice()).ok()
        });
        Err(Self {
            code: code.map_or(Code::Unknown, Code::of),
            message,
            details: details.map(|d| d.details).unwrap_or_default(),
        })
    }
}

impl From<h2::Error> for Status {
    fn from(error: h2::Error) -> Self {
        let code = if error.is_reset() { Code::Cancelled } else { Code::Unavailable };
        Self::new(code, format!("the connection broke: {error}"))
    }
}

/// gRPC's encoding of texts in headers: visible ASCII without `%` as it is.
fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if (0x20..=0x7e).contains(&byte) && byte != b'%' {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// The reverse; what is no encoding stays as it is.
fn percent_decode(text: &[u8]) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        let pair = after.get(..2).and_then(|p| std::str::from_utf8(p).ok());
        match pair.filter(|_| byte == b'%').and_then(|p| u8::from_str_radix(p, 16).ok()) {
            Some(decoded) => {
                out.push(decoded);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                out.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_survive_headers() {
        for text in ["", "plain", "100% of\nit", "naïve ✓", "%41"] {
            assert_eq!(percent_decode(percent_encode(text).as_bytes()), text);
        }
        assert_eq!(percent_encode("a\nb%"), "a%0Ab%25");
        assert_eq!(percent_decode(b"50%, %zz %4"), "50%, %zz %4");
    }

    #[test]
    fn a_status_survives_trailers() {
        let status = Status {
            code: Code::NotFound,
            message: "no such\nthing".into(),
            details: vec![Any { type_url: "x+json".into(), value: b"{}".to_vec() }],
        };
        assert_eq!(Status::check(&status.trailers()), Err(status));
        let mut ok = HeaderMap::new();
        ok.insert("grpc-status", HeaderValue::from_static("0"));
        assert_eq!(Status::check(&ok), Ok(()));
        assert_eq!(Status::check(&HeaderMap::new()).map_err(|s| s.code), Err(Code::Unknown));
    }
}
