//! What handlers answer.

use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{HeaderMap, StatusCode};
use serde::Serialize;
use tokio::sync::mpsc;

use super::hijack::Hijack;

/// An HTTP response.
pub(crate) type Response = hyper::Response<Body>;

/// The outcome of a handler.
pub(crate) enum Reply {
    /// An ordinary response.
    Http(Response),
    /// The handler takes the socket.
    Hijack(Hijack),
}

impl From<Response> for Reply {
    fn from(response: Response) -> Self {
        Self::Http(response)
    }
}

/// A response's body.
#[derive(Debug)]
pub(crate) enum Body {
    /// All of it (sent with Content-Length).
    Full(Bytes),
    /// Pieces as they come (sent in chunks, each flushed); the end is when the senders are gone. When the
    /// client goes, the receiver is dropped and the sender's next `send` fails.
    Stream(mpsc::Receiver<Bytes>),
    /// As `Stream`, of something that is worth nothing without its end: only an empty piece is the end. If the senders go
    /// without it, the connection breaks, so that the client notices.
    Whole(mpsc::Receiver<Bytes>),
}

/// The sender of [`Body::Whole`] went without saying that it was all.
#[derive(Debug, thiserror::Error)]
#[error("the answer ends early")]
pub(crate) struct Truncated;

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Truncated;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        match self.get_mut() {
            Self::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Stream(pieces) => pieces.poll_recv(cx).map(|piece| piece.map(|p| Ok(Frame::data(p)))),
            Self::Whole(pieces) => pieces.poll_recv(cx).map(|piece| match piece {
                Some(end) if end.is_empty() => None,
                Some(piece) => Some(Ok(Frame::data(piece))),
                None => Some(Err(Truncated)),
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Full(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream(_) | Self::Whole(_) => SizeHint::default(),
        }
    }
}

/// A response with only a status.
pub(crate) fn empty(status: StatusCode) -> Response {
    with_type(status, None, Bytes::new())
}

/// A JSON document, ended by a newline as Go's encoder does.
pub(crate) fn json<T: Serialize + ?Sized>(status: StatusCode, value: &T) -> Response {
    let mut bytes = match serde_json::to_vec(value) {
        Ok(bytes) => bytes,
        Err(e) => {
            tracing::error!(error = %e, "a response cannot be written as JSON");
            return with_type(StatusCode::INTERNAL_SERVER_ERROR, None, Bytes::new());
        }
    };
    bytes.push(b'\n');
    with_type(status, Some("application/json"), bytes.into())
}

/// Bytes of a type.
pub(crate) fn with_type(status: StatusCode, content_type: Option<&'static str>, bytes: Bytes) -> Response {
    let mut response = Response::new(Body::Full(bytes));
    *response.status_mut() = status;
    if let Some(value) = content_type {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(value));
    }
    response
}

/// A 200 whose body is sent in pieces through the returned sender. The head is sent at once.
pub(crate) fn stream(content_type: &'static str) -> (mpsc::Sender<Bytes>, Response) {
    let (sender, receiver) = mpsc::channel(16);
    let mut response = Response::new(Body::Stream(receiver));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    (sender, response)
}

/// As [`stream`], of something that must not pass for whole when it is not: see [`Body::Whole`].
pub(crate) fn whole(content_type: &'static str) -> (mpsc::Sender<Bytes>, Response) {
    let (sender, receiver) = mpsc::channel(16);
    let mut response = Response::new(Body::Whole(receiver));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    (sender, response)
}

/// Whether clients are told that we are experimental: settled once, since heads are also written where no engine is at hand.
static EXPERIMENTAL: OnceLock<bool> = OnceLock::new();

/// Settles the header `Docker-Experimental`, before the first request.
pub(crate) fn announce_experimental(experimental: bool) {
    EXPERIMENTAL.get_or_init(|| experimental);
}

/// Adds the headers that each response to a known path carries.
pub(crate) fn add_common_headers(headers: &mut HeaderMap) {
    let experimental = EXPERIMENTAL.get().is_some_and(|on| *on);
    let common = [
        ("api-version", crate::API_VERSION),
        ("docker-experimental", if experimental { "true" } else { "false" }),
        ("ostype", "linux"),
        ("server", crate::SERVER_HEADER),
    ];
    for (name, value) in common {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
}

/// The head of a response that another process will continue, or that a hijacked connection gets:
/// status line and headers, in the form `Name: value`.
pub(crate) fn render_head(status: StatusCode, reason: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {} {reason}\r\n", status.as_str());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    head.into_bytes()
}

/// A whole small response as bytes, for a connection that hyper no longer owns.
pub(crate) fn render(mut response: Response) -> Vec<u8> {
    add_common_headers(response.headers_mut());
    let body = match response.body() {
        Body::Full(bytes) => bytes.clone(),
        Body::Stream(_) | Body::Whole(_) => Bytes::new(),
    };
    let length = body.len().to_string();
    let mut headers: Vec<(&str, &str)> =
        response.headers().iter().filter_map(|(n, v)| Some((n.as_str(), v.to_str().ok()?))).collect();
    headers.push(("Content-Length", &length));
    headers.push(("Connection", "close"));
    let mut bytes =
        render_head(response.status(), response.status().canonical_reason().unwrap_or(""), &headers);
    bytes.extend_from_slice(&body);
    bytes
}
