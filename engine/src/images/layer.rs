//! One layer of a pull: from the registry into the store in one pass.

use std::sync::Arc;

use tokio::sync::mpsc;
use wherry_image_store::{DiffId, Expected, Layer};
use wherry_registry::{Blob, Descriptor, Error as Failure, Repository};

use super::body::BlockingBody;
use super::messages::{self, Pace};
use super::pull::Stop;
use super::transfers::{Reporter, Slot};
use crate::engine::{Engine, blocking};
use crate::error::Error;

/// Seconds before the first attempt after one that brought nothing; the next waits are longer by as much.
const WAIT_S: u32 = 5;

/// A layer in the store, which stays while somebody has this.
pub(crate) type Fetched = Arc<Layer>;

/// A layer that is to be fetched.
pub(super) struct Job {
    pub(super) engine: Arc<Engine>,
    pub(super) repository: Repository,
    pub(super) descriptor: Descriptor,
    pub(super) diff_id: DiffId,
    pub(super) reporter: Reporter<Fetched>,
}

/// What became of a stream.
enum Received {
    /// All of it came.
    Whole,
    /// The unpacking side wants no more: it has failed, and says why itself.
    Refused,
    /// It cannot be had.
    Broken(Failure),
}

impl Job {
    /// The name of the transfer, which all who want the layer share.
    pub(super) fn name(descriptor: &Descriptor, diff_id: &DiffId) -> String {
        format!("{} {diff_id}", descriptor.digest)
    }

    /// Fetches and unpacks it as soon as there is a slot.
    pub(super) async fn run(self) -> Result<Fetched, Stop> {
        let limit = || self.engine.config().max_downloads;
        let waiting = || self.tell("Waiting");
        let mut slot = Some(self.engine.registries.downloads.slot(limit, waiting).await);
        let mut attempts = Attempts::new(self.engine.config().max_download_attempts);
        let layer = loop {
            let resumed = attempts.resumed;
            match self.fetch(&mut attempts, &mut slot).await {
                // A transfer of several parts may have been put together wrongly: from the beginning, then.
                Err(Stop::Own(Error::Store(wherry_image_store::Error::BlobDigest { .. })))
                    if attempts.resumed > resumed && !attempts.exhausted() =>
                {
                    let seconds = attempts.next_wait(false);
                    self.reporter.wait_to_retry(&self.id(), seconds).await;
                }
                result => break result?,
            }
        };
        self.tell("Download complete");
        let size = self.descriptor.size;
        self.reporter.tell(messages::progress("Extracting", &self.id(), size, size));
        self.tell("Pull complete");
        Ok(Arc::new(layer))
    }

    fn id(&self) -> String {
        self.descriptor.digest.short()
    }

    fn tell(&self, state: &str) {
        self.reporter.tell(messages::state(state, &self.id()));
    }

    async fn fetch(&self, attempts: &mut Attempts, slot: &mut Option<Slot>) -> Result<Layer, Stop> {
        let (sender, body) = BlockingBody::channel();
        let blob = Some((self.descriptor.digest, self.descriptor.size));
        let expected = Expected { diff_id: Some(self.diff_id), blob };
        let store = self.engine.store.clone();
        let unpacking = tokio::spawn(blocking(move || Ok(store.ingest(expected, body)?)));
        let received = self.receive(attempts, &sender).await;
        // A body that just ends is too short, so a transfer that broke never passes for a layer.
        drop(sender);
        if let Received::Whole = received {
            // What is left to do needs no network.
            slot.take();
        }
        let unpacked = match unpacking.await {
            Ok(unpacked) => unpacked,
            Err(ended) => Err(Error::server(format!("unpacking ended: {ended}"))),
        };
        match received {
            Received::Broken(Failure::BlobUnknown) if self.descriptor.is_foreign() => {
                Err(Error::server(format!(
                    "layer {} is a foreign layer ({}) that the registry does not have, and this engine fetches layers from \
                     registries only",
                    self.descriptor.digest, self.descriptor.media_type
                ))
                .into())
            }
            Received::Broken(failure) => Err(failure.into()),
            Received::Whole | Received::Refused => unpacked.map_err(refine),
        }
    }

    async fn receive(
        &self,
        attempts: &mut Attempts,
        sender: &mpsc::Sender<std::io::Result<bytes::Bytes>>,
    ) -> Received {
        let (id, total) = (self.id(), self.descriptor.size);
        let mut blob: Blob = self.repository.blob(&self.descriptor.digest);
        let mut pace = Pace::default();
        let mut since = 0;
        loop {
            match blob.next().await {
                Ok(Some(bytes)) => {
                    if sender.send(Ok(bytes)).await.is_err() {
                        return Received::Refused;
                    }
                    if pace.allows_bytes(blob.offset(), total) {
                        self.reporter.tell(messages::progress("Downloading", &id, blob.offset(), total));
                    }
                }
                Ok(None) => break,
                Err(failure) => {
                    let progressed = blob.offset() > since;
                    if !failure.is_passing() || attempts.exhausted() {
                        return Received::Broken(failure);
                    }
                    since = blob.offset();
                    tracing::info!(blob = %self.descriptor.digest, offset = since, error = %failure, "transfer broke; it is taken up again");
                    attempts.resumed += u32::from(since > 0);
                    let seconds = attempts.next_wait(progressed);
                    self.reporter.wait_to_retry(&id, seconds).await;
                }
            }
        }
        self.tell("Verifying Checksum");
        Received::Whole
    }
}

/// The store's failure as dockerd tells it.
fn refine(error: Error) -> Stop {
    use wherry_image_store::Error as Store;
    Stop::Own(match error {
        Error::Store(Store::DiffId { .. }) => {
            Error::server("layers from manifest don't match image configuration")
        }
        Error::Store(error @ (Store::Unpack(_) | Store::Io { .. })) => {
            Error::server(format!("failed to register layer: {error}"))
        }
        other => other,
    })
}

/// How often a layer was tried. Attempts that bring bytes begin the count anew: a connection that breaks
/// now and then still gets there.
#[derive(Debug)]
struct Attempts {
    most: u32,
    failed: u32,
    /// How often a transfer was taken up in its middle.
    resumed: u32,
}

impl Attempts {
    fn new(most: u32) -> Self {
        Self { most, failed: 0, resumed: 0 }
    }

    fn exhausted(&self) -> bool {
        self.failed + 1 >= self.most
    }

    /// Counts a failure; the seconds to wait after it.
    fn next_wait(&mut self, progressed: bool) -> u32 {
        if progressed {
            self.failed = 0;
            return 1;
        }
        self.failed += 1;
        self.failed.saturating_mul(WAIT_S)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_end_unless_bytes_come() {
        let mut attempts = Attempts::new(3);
        assert!(!attempts.exhausted());
        assert_eq!((attempts.next_wait(false), attempts.exhausted()), (5, false));
        assert_eq!((attempts.next_wait(false), attempts.exhausted()), (10, true));
        assert_eq!((attempts.next_wait(true), attempts.exhausted()), (1, false));
        assert!(Attempts::new(1).exhausted());
    }
}
