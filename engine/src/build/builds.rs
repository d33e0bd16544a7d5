//! The builds of an engine: those that run, and what they have left for those to come.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::oneshot;

/// All builds.
#[derive(Debug, Default)]
pub(crate) struct Builds {
    /// Those that can be called off, by the id that their client gave them.
    running: Mutex<HashMap<String, oneshot::Sender<()>>>,
}

impl Builds {
    /// A build begins; the receiver hears if it is called off. An empty id cannot be named.
    pub(super) fn register(&self, id: &str) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        // The sender of a build without an id must not be dropped either: that would look like an order.
        let key = if id.is_empty() { crate::id::hex64() } else { id.to_owned() };
        self.running().insert(key, sender);
        receiver
    }

    /// It has ended.
    pub(super) fn forget(&self, id: &str) {
        self.running().remove(id);
        self.running().retain(|_, sender| !sender.is_closed());
    }

    /// Calls a build off. Whether there was one.
    pub(crate) fn cancel(&self, id: &str) -> bool {
        let sender = self.running().remove(id);
        sender.is_some_and(|sender| sender.send(()).is_ok())
    }

    fn running(&self) -> std::sync::MutexGuard<'_, HashMap<String, oneshot::Sender<()>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
