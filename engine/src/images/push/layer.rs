//! One layer of a push: found in the registry, taken over from another repository, or sent.

use std::collections::HashSet;
use std::io::{self, Write};
use std::sync::Arc;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::sync::mpsc;
use wherry_image_ref::{Digest, Hasher, Reference};
use wherry_image_store::{DiffId, Store};
use wherry_registry::{Error as Failure, Repository, Started, Upload};

use crate::engine::{Engine, blocking};
use crate::error::Error;
use crate::images::messages::{self, Pace};
use crate::images::pull::Stop;
use crate::images::sources::Source;
use crate::images::transfers::Reporter;

/// How often a layer is tried, and by how many seconds each wait is longer than the last.
const ATTEMPTS: u32 = 5;
const WAIT_S: u32 = 5;
/// Bytes that are sent at once.
const PIECE_BYTES: usize = 64 << 10;
/// What looking for a blob may cost grows with what sending it costs.
const SMALL_BYTES: u64 = 100 << 10;
const MIDDLE_BYTES: u64 = 10 << 20;

/// A layer as it is in the registry now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pushed {
    pub(super) digest: Digest,
    pub(super) size: u64,
}

/// A layer that is to be in a repository.
pub(super) struct Job {
    pub(super) engine: Arc<Engine>,
    pub(super) repository: Repository,
    pub(super) reference: Reference,
    pub(super) diff_id: DiffId,
    pub(super) reporter: Reporter<Pushed>,
}

/// How often what is tried before sending.
struct Limits {
    mounts: usize,
    checks: usize,
    /// Whether blobs of other repositories may be here, too.
    elsewhere: bool,
}

impl Limits {
    fn of(size: u64) -> Self {
        match size {
            size if size <= SMALL_BYTES => Self { mounts: 1, checks: 1, elsewhere: false },
            size if size <= MIDDLE_BYTES => Self { mounts: 3, checks: 1, elsewhere: false },
            _ => Self { mounts: 4, checks: 3, elsewhere: true },
        }
    }
}

impl Job {
    /// Sees to it that the repository has the layer, as soon as there is a slot.
    pub(super) async fn run(self) -> Result<Pushed, Stop> {
        let limit = || self.engine.config().max_uploads;
        let _slot = self.engine.registries.uploads.slot(limit, || self.tell("Waiting")).await;
        let mut failed = 0;
        loop {
            let stop = match self.push().await {
                Ok(pushed) => return Ok(pushed),
                Err(stop) => stop,
            };
            failed += 1;
            if failed == ATTEMPTS || !stop.failure().is_some_and(Failure::is_passing) {
                return Err(stop);
            }
            tracing::info!(layer = %self.diff_id, ?stop, "upload failed; it is tried again");
            self.reporter.wait_to_retry(&self.id(), failed * WAIT_S).await;
        }
    }

    fn id(&self) -> String {
        self.diff_id.0.short()
    }

    fn tell(&self, state: &str) {
        self.reporter.tell(messages::state(state, &self.id()));
    }

    fn remember(&self, digest: Digest) {
        self.engine.registries.sources.remember(&self.diff_id, digest, &self.reference);
    }

    async fn push(&self) -> Result<Pushed, Stop> {
        let size = self.engine.store.layer_size(&self.diff_id);
        let size = size.ok_or(wherry_image_store::Error::NoSuchLayer(self.diff_id))?;
        let limits = Limits::of(size);
        let known = self.engine.registries.sources.of(&self.diff_id, &self.reference);
        let mut checked = HashSet::new();
        if let Some(pushed) = self.present(&known, 1, &mut checked).await {
            return Ok(pushed);
        }
        let mut upload = None;
        for source in self.mountable(&known).take(limits.mounts) {
            match self.mount(source).await {
                Mount::Done(pushed) => return Ok(pushed),
                Mount::Upload(begun) => {
                    if let Some(Err(error)) = cancel(upload.replace(begun)).await {
                        tracing::debug!(%error, "an upload was not cancelled");
                    }
                }
                Mount::Refused => {}
            }
        }
        let here: Vec<Source> = known.into_iter().filter(|s| limits.elsewhere || self.is_here(s)).collect();
        let left = limits.checks.saturating_sub(checked.len());
        if let Some(pushed) = self.present(&here, left, &mut checked).await {
            cancel(upload).await;
            return Ok(pushed);
        }
        let upload = match upload {
            Some(upload) => upload,
            None => match self.repository.start_upload(None).await? {
                Started::Upload(upload) => upload,
                Started::Mounted => {
                    return Err(Error::server("the registry took over a blob that it was not told of").into());
                }
            },
        };
        self.send(upload, size).await
    }

    fn is_here(&self, source: &Source) -> bool {
        source.repository == self.reference.full_name()
    }

    /// Other repositories of the same registry.
    fn mountable<'a>(&'a self, known: &'a [Source]) -> impl Iterator<Item = &'a Source> {
        let registry = format!("{}/", self.reference.domain());
        known.iter().filter(move |s| s.repository.starts_with(&registry) && !self.is_here(s))
    }

    /// Looks whether the repository has one of the blobs, `most` of them, each once.
    async fn present(&self, known: &[Source], most: usize, checked: &mut HashSet<Digest>) -> Option<Pushed> {
        let mut left = most;
        for source in known {
            if left == 0 {
                break;
            }
            if !checked.insert(source.digest) {
                continue;
            }
            left -= 1;
            match self.repository.blob_size(&source.digest).await {
                Ok(Some(size)) => {
                    self.remember(source.digest);
                    self.tell("Layer already exists");
                    return Some(Pushed { digest: source.digest, size });
                }
                Ok(None) if self.is_here(source) => {
                    self.engine.registries.sources.forget(&self.diff_id, source);
                }
                Ok(None) => {}
                // What is really wrong shows when the layer is sent.
                Err(error) => tracing::debug!(%error, "a blob cannot be looked for"),
            }
        }
        None
    }

    async fn mount(&self, source: &Source) -> Mount {
        let path = source.repository.strip_prefix(self.reference.domain()).unwrap_or(&source.repository);
        let path = path.trim_start_matches('/');
        let begun = match self.repository.start_upload(Some((&source.digest, path))).await {
            Ok(Started::Mounted) => match self.repository.blob_size(&source.digest).await {
                Ok(Some(size)) => {
                    self.tell(&format!("Mounted from {path}"));
                    self.remember(source.digest);
                    return Mount::Done(Pushed { digest: source.digest, size });
                }
                Ok(None) | Err(_) => return Mount::Refused,
            },
            Ok(Started::Upload(upload)) => Mount::Upload(upload),
            Err(error) => {
                tracing::debug!(%error, from = path, "a blob cannot be mounted");
                return Mount::Refused;
            }
        };
        self.engine.registries.sources.forget(&self.diff_id, source);
        begun
    }

    /// Makes the blob, and sends it meanwhile.
    async fn send(&self, mut upload: Upload, size: u64) -> Result<Pushed, Stop> {
        let (sender, pieces) = mpsc::channel(4);
        let blob = Blob::new(self.reporter.clone(), self.id(), size, sender);
        let (store, diff_id) = (self.engine.store.clone(), self.diff_id);
        let making = tokio::spawn(blocking(move || Ok(blob.make(&store, &diff_id))));
        let sent = upload.send(pieces).await;
        let made = match making.await {
            Ok(made) => made?,
            Err(ended) => return Err(Error::server(format!("the layer's making ended: {ended}")).into()),
        };
        let pushed = match made {
            Ok(pushed) => pushed,
            // The registry wanted no more: its answer says why.
            Err(MakeError::Refused) => {
                sent?;
                return Err(Error::server("the registry did not take all of the layer").into());
            }
            Err(MakeError::Store(error)) => return Err(error.into()),
        };
        sent?;
        upload.finish(&pushed.digest, Bytes::new()).await?;
        self.tell("Pushed");
        self.remember(pushed.digest);
        Ok(pushed)
    }
}

enum Mount {
    Done(Pushed),
    /// The registry would rather have it sent.
    Upload(Upload),
    Refused,
}

async fn cancel(upload: Option<Upload>) -> Option<Result<(), Failure>> {
    Some(upload?.cancel().await)
}

enum MakeError {
    /// Nobody takes the bytes.
    Refused,
    /// The layer cannot be read.
    Store(wherry_image_store::Error),
}

/// A layer's tar on its way to be a gzipped blob: counted before it is compressed, hashed after.
struct Blob {
    compressor: GzEncoder<Pieces>,
    reporter: Reporter<Pushed>,
    id: String,
    /// Bytes of the tar so far, and about how many there are.
    current: u64,
    total: u64,
    pace: Pace,
}

impl Blob {
    fn new(
        reporter: Reporter<Pushed>,
        id: String,
        total: u64,
        sender: mpsc::Sender<io::Result<Bytes>>,
    ) -> Self {
        let pieces =
            Pieces { sender, buffer: Vec::new(), hasher: Hasher::default(), sent: 0, refused: false };
        let compressor = GzEncoder::new(pieces, Compression::default());
        Self { compressor, reporter, id, current: 0, total, pace: Pace::default() }
    }

    fn make(mut self, store: &Store, diff_id: &DiffId) -> Result<Pushed, MakeError> {
        let written = store.write_layer(diff_id, &mut self);
        let refused = self.compressor.get_ref().refused;
        if let Err(error) = written {
            let pieces = self.compressor.get_mut();
            // What was sent so far must not look like all there is.
            let _ = pieces.sender.blocking_send(Err(io::Error::other("the layer cannot be read")));
            return Err(if refused { MakeError::Refused } else { MakeError::Store(error) });
        }
        if self.current > 0 {
            self.tell();
        }
        let finished = self.compressor.finish().and_then(|mut pieces| {
            pieces.flush()?;
            Ok(pieces)
        });
        match finished {
            Ok(pieces) => Ok(Pushed { digest: pieces.hasher.finish(), size: pieces.sent }),
            Err(_) => Err(MakeError::Refused),
        }
    }

    fn tell(&self) {
        self.reporter.tell(messages::progress("Pushing", &self.id, self.current, self.total));
    }
}

impl Write for Blob {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.compressor.write_all(bytes)?;
        self.current += bytes.len() as u64;
        if self.pace.allows_bytes(self.current, self.total) {
            self.tell();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Compressed bytes, gathered into pieces and sent to the one who makes the request.
struct Pieces {
    sender: mpsc::Sender<io::Result<Bytes>>,
    buffer: Vec<u8>,
    hasher: Hasher,
    sent: u64,
    refused: bool,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.hasher.update(&self.buffer);
        self.sent += self.buffer.len() as u64;
        let piece = Bytes::from(std::mem::take(&mut self.buffer));
        self.refused = self.sender.blocking_send(Ok(piece)).is_err();
        if self.refused { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_larger_a_layer_the_longer_it_is_looked_for() {
        let of = |size| {
            let Limits { mounts, checks, elsewhere } = Limits::of(size);
            (mounts, checks, elsewhere)
        };
        assert_eq!(of(100 << 10), (1, 1, false));
        assert_eq!(of((100 << 10) + 1), (3, 1, false));
        assert_eq!(of((10 << 20) + 1), (4, 3, true));
    }
}
