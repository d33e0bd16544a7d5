//! Where a pull's messages go.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

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
    pub(super) fn has_begun(&self) -> bool {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// Returns when the client has gone.
    pub(super) async fn gone(&self) {
        self.client.closed().await;
    }
}
