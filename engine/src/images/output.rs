//! Where the messages of a pull or an import go.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use hyper::StatusCode;
use tokio::sync::{mpsc, oneshot};

use super::messages;
use crate::error::Error;
use crate::server::{Reply, response};

/// Runs work that tells of its progress, until it is done or its client has gone. Until something was sent, a
/// failure is the answer itself; later it is the stream's last message.
///
/// # Errors
/// Those of the work that come before its first message.
pub(super) async fn respond<F, W>(work: F) -> Result<Reply, Error>
where
    F: FnOnce(Output) -> W,
    W: Future<Output = Result<(), Error>> + Send + 'static,
{
    let (sender, response) = response::stream("application/json");
    let (begun, has_begun) = oneshot::channel();
    let output = Output::new(sender, begun);
    let task = tokio::spawn(run(work(output.clone()), output));
    if has_begun.await.is_ok() {
        return Ok(response.into());
    }
    match task.await {
        Ok(Err(error)) => Err(error),
        Ok(Ok(())) => Ok(response::empty(StatusCode::OK).into()),
        Err(ended) => Err(Error::server(format!("the work ended: {ended}"))),
    }
}

async fn run(work: impl Future<Output = Result<(), Error>>, output: Output) -> Result<(), Error> {
    let result = tokio::select! {
        result = work => result,
        () = output.gone() => return Ok(()),
    };
    match result {
        Err(error) if output.has_begun() => {
            tracing::warn!(%error, "failed after its answer began");
            output.send(messages::error(&error.to_string())).await;
            Ok(())
        }
        result => result,
    }
}

/// A client's stream, which begins with the first message: before it, a failure can still be an
/// HTTP status.
#[derive(Debug, Clone)]
pub(super) struct Output {
    client: mpsc::Sender<Bytes>,
    begun: Arc<Mutex<Option<oneshot::Sender<()>>>>,
}

impl Output {
    /// `begun` is told when the first message is sent.
    pub(super) fn new(client: mpsc::Sender<Bytes>, begun: oneshot::Sender<()>) -> Self {
        Self { client, begun: Arc::new(Mutex::new(Some(begun))) }
    }

    /// Sends a message. A client that has gone is noticed elsewhere.
    pub(super) async fn send(&self, message: Bytes) {
        let begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(begun) = begun {
            let _ = begun.send(());
        }
        let _ = self.client.send(message).await;
    }

    /// Whether anything was sent.
    fn has_begun(&self) -> bool {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// Returns when the client has gone.
    async fn gone(&self) {
        self.client.closed().await;
    }
}
