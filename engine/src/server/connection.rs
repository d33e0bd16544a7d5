//! One client connection: requests in, responses out, until the client goes or a handler takes the socket.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncReadExt;
use tokio::sync::oneshot;

use super::hijack::{Client, Hijack};
use super::response::{Reply, Response};
use super::stream::Stream;
use crate::engine::Engine;

type Answer = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

/// Serves `stream` until it ends.
pub(crate) async fn serve(engine: Arc<Engine>, stream: Stream) {
    // The handler that hijacks sends its continuation here and never answers; hyper's state is then
    // taken apart, which yields the socket and what had been read from it.
    let (hijack, mut hijacked) = oneshot::channel::<Hijack>();
    let hijack = Arc::new(std::sync::Mutex::new(Some(hijack)));
    let service = service_fn(move |request: hyper::Request<Incoming>| -> Answer {
        let (engine, hijack) = (engine.clone(), hijack.clone());
        Box::pin(async move {
            match crate::router::dispatch(engine, request).await {
                Reply::Http(response) => Ok(response),
                Reply::Hijack(taken) => {
                    let sender = hijack.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
                    if let Some(sender) = sender {
                        // The receiver lives in this connection's own task.
                        let _ = sender.send(taken);
                    }
                    std::future::pending().await
                }
            }
        })
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // hyper would count the time between requests, too, and end a connection that a client keeps for later; dockerd does not.
        .header_read_timeout(None)
        .title_case_headers(true)
        .serve_connection(TokioIo::new(stream), service);
    let taken = poll_fn(|cx| {
        let ended = connection.poll_without_shutdown(cx);
        match Pin::new(&mut hijacked).poll(cx) {
            Poll::Ready(Ok(taken)) => Poll::Ready(Some(taken)),
            _ => ended.map(|result| {
                if let Err(error) = result {
                    tracing::debug!(%error, "connection ended");
                }
                None
            }),
        }
    })
    .await;
    let parts = connection.into_parts();
    match taken {
        Some(taken) => {
            let client = Client { stream: parts.io.into_inner(), already_read: parts.read_buf.to_vec() };
            taken(client).await;
        }
        None => {
            let mut stream = parts.io.into_inner();
            // The peer may be gone already.
            let _ = tokio::io::AsyncWriteExt::shutdown(&mut stream).await;
            let _ = tokio::time::timeout(LINGER, discard(&mut stream)).await;
        }
    }
}

/// How long a client that is still sending may go on before its connection breaks: it reads an answer that came early
/// only if its writing does not fail before.
const LINGER: Duration = Duration::from_millis(500);

/// Reads until the other side has nothing more to say.
async fn discard(stream: &mut Stream) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(1..) = stream.read(&mut buffer).await {}
}
