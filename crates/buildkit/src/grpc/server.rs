//! Serving gRPC on a connection.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::frame::{self, Reader};
use super::status::{Code, Status};

/// How many calls a client may have under way on one connection.
const MAX_CALLS: u32 = 250;
/// What a client may send ahead, for one call and for all.
const WINDOW_BYTES: u32 = 1 << 20;
/// How many answers wait for a slow client before the work does.
const QUEUED_ANSWERS: usize = 16;

/// What answers the calls of a connection.
pub trait Service: Send + Sync + 'static {
    /// Answers one call. It is dropped when the client cancels the call or goes away.
    ///
    /// # Errors
    /// The status that the client gets.
    fn call(self: Arc<Self>, call: Call) -> impl Future<Output = Result<(), Status>> + Send;
}

/// A call: its name, what the client said with it, and both directions.
#[derive(Debug)]
pub struct Call {
    /// `/package.Service/Method`.
    pub path: String,
    /// The call's metadata.
    pub metadata: HeaderMap,
    /// The client's messages.
    pub reader: Reader,
    /// The way back.
    pub replier: Replier,
}

/// The way back to the client of a call.
#[derive(Clone, Debug)]
pub struct Replier {
    out: mpsc::Sender<Answer>,
}

#[derive(Debug)]
enum Answer {
    Head(HeaderMap),
    Message(Bytes),
}

impl Replier {
    /// Sends one message.
    ///
    /// # Errors
    /// That the call is gone.
    pub async fn send<M: Message>(&self, message: &M) -> Result<(), Status> {
        self.put(Answer::Message(frame::encode(message)?)).await
    }

    /// Begins the answer before its first message, with something in its head.
    ///
    /// # Errors
    /// That the call is gone.
    pub async fn begin(&self, head: HeaderMap) -> Result<(), Status> {
        self.put(Answer::Head(head)).await
    }

    async fn put(&self, answer: Answer) -> Result<(), Status> {
        self.out.send(answer).await.map_err(|_| Status::new(Code::Cancelled, "the call was cancelled"))
    }
}

/// Serves calls on `io` until the client goes; calls that are under way then are dropped.
///
/// # Errors
/// Those of the HTTP/2 connection, but for its end.
pub async fn serve<S: Service>(
    io: impl AsyncRead + AsyncWrite + Unpin,
    service: Arc<S>,
) -> Result<(), h2::Error> {
    let mut connection = h2::server::Builder::new()
        .max_concurrent_streams(MAX_CALLS)
        .initial_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .handshake(io)
        .await?;
    let mut calls = JoinSet::new();
    loop {
        tokio::select! {
            accepted = connection.accept() => match accepted {
                Some(Ok((request, respond))) => {
                    calls.spawn(answer(service.clone(), request, respond));
                }
                Some(Err(error)) if !error.is_io() => return Err(error),
                Some(Err(_)) | None => return Ok(()),
            },
            Some(ended) = calls.join_next() => {
                if let Err(panic) = ended {
                    tracing::error!(%panic, "a call broke");
                }
            }
        }
    }
}

/// Runs one call beside the sending of its answers; a reset ends both.
async fn answer<S: Service>(service: Arc<S>, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
    let (head, body) = request.into_parts();
    let (out, mut answers) = mpsc::channel(QUEUED_ANSWERS);
    let path = head.uri.path().to_string();
    tracing::debug!(path, "gRPC call");
    let call =
        Call { path, metadata: head.headers, reader: Reader::of_request(body), replier: Replier { out } };
    let mut work = pin!(service.call(call));
    let mut sender = Sender { state: Sending::NotBegun(respond) };
    let result = loop {
        tokio::select! {
            biased;
            () = sender.reset() => return,
            Some(next) = answers.recv() => {
                if sender.send(next).await.is_err() {
                    return;
                }
            }
            result = &mut work => break result,
        }
    };
    answers.close();
    while let Some(next) = answers.recv().await {
        if sender.send(next).await.is_err() {
            return;
        }
    }
    sender.end(result).await;
}

struct Sender {
    state: Sending,
}

enum Sending {
    NotBegun(SendResponse<Bytes>),
    Begun(SendStream<Bytes>),
}

impl Sender {
    /// Ends when the client has cancelled the call.
    async fn reset(&mut self) {
        // Both a reset and a broken connection mean the same: nobody waits any more.
        let _ = match &mut self.state {
            Sending::NotBegun(respond) => poll_fn(|cx| respond.poll_reset(cx)).await,
            Sending::Begun(stream) => poll_fn(|cx| stream.poll_reset(cx)).await,
        };
    }

    async fn send(&mut self, answer: Answer) -> Result<(), Status> {
        match answer {
            Answer::Head(head) => self.begin(head).map(|_| ()),
            Answer::Message(bytes) => frame::write(self.begin(HeaderMap::new())?, bytes).await,
        }
    }

    /// The stream, with its head sent.
    fn begin(&mut self, extra: HeaderMap) -> Result<&mut SendStream<Bytes>, Status> {
        if let Sending::NotBegun(respond) = &mut self.state {
            let mut head = Response::new(());
            *head.headers_mut() = extra;
            head.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
            self.state = Sending::Begun(respond.send_response(head, false)?);
        }
        match &mut self.state {
            Sending::Begun(stream) => Ok(stream),
            Sending::NotBegun(_) => Err(Status::new(Code::Internal, "the answer has not begun")),
        }
    }

    async fn end(mut self, result: Result<(), Status>) {
        let trailers = match result {
            Ok(()) => HeaderMap::from_iter([(
                http::HeaderName::from_static("grpc-status"),
                HeaderValue::from_static("0"),
            )]),
            Err(status) => {
                tracing::debug!(code = status.code as i32, message = status.message, "gRPC call failed");
                status.trailers()
            }
        };
        // The client may have gone meanwhile.
        if let Ok(stream) = self.begin(HeaderMap::new()) {
            let _ = stream.send_trailers(trailers);
        }
    }
}
