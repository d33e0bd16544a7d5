//! The builds of an engine: those that run, and what they have left for those to come.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedMutexGuard, oneshot};
use wherry_image_store::Store;

use super::buildkit::Folders;
use super::cache::{Cache, Key, Stored};
use super::cache_mounts::CacheMounts;
use crate::error::Error;

/// All builds.
#[derive(Debug)]
pub(crate) struct Builds {
    /// What steps have left.
    pub(super) cache: Cache,
    /// Folders that `RUN --mount=type=cache` keeps.
    pub(super) mounts: CacheMounts,
    /// Folders that keep what clients sent.
    pub(super) locals: Arc<Folders>,
    /// Steps that are being made, each by one build.
    turns: Mutex<HashMap<Key, Arc<tokio::sync::Mutex<()>>>>,
    /// Those that can be called off, by the id that their client gave them.
    running: Mutex<HashMap<String, oneshot::Sender<()>>>,
    /// No further step may start its program.
    closed: AtomicBool,
}

impl Builds {
    /// Those of a data root, with what was stored of them.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn open(data_root: &Path, store: &Store, stored: Stored) -> Result<Self, Error> {
        let cache = Cache::open(data_root, store, stored)?;
        let (mounts, turns, running, closed) = Default::default();
        let locals = Arc::new(Folders::new(data_root, store.boot()));
        Ok(Self { cache, mounts, locals, turns, running, closed })
    }

    /// From now on no step starts its program: the engine ends.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    /// Whether that is so.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Waits until nobody else makes the step with this key.
    pub(super) async fn turn(&self, key: &Key) -> OwnedMutexGuard<()> {
        let lock = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            // Those that nobody waits for are of no use.
            turns.retain(|_, lock| Arc::strong_count(lock) > 1);
            turns.entry(*key).or_default().clone()
        };
        lock.lock_owned().await
    }

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
