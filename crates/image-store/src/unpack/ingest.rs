//! The way of a layer into the store: unpack aside, verify, move into place.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{Mode, OFlags};
use wherry_image_ref::Digest;

use super::pipeline;
use super::record::{self, Recorder};
use crate::error::Context;
use crate::layers::{Layer, LayerRecord};
use crate::{DiffId, Error, Result, Store};

/// What is known of a layer before it comes; what is not known is not checked.
#[derive(Debug, Clone, Copy, Default)]
pub struct Expected {
    /// Digest of the uncompressed tar.
    pub diff_id: Option<DiffId>,
    /// Digest and length in bytes of the stream as it comes.
    pub blob: Option<(Digest, u64)>,
}

/// Part of the names in `.staging`, unique in this process; other processes leave none.
static SERIAL: AtomicU64 = AtomicU64::new(0);

impl Store {
    /// Unpacks a layer from a tar, plain or compressed with gzip or zstd, while it arrives, and
    /// keeps it if it is what was expected. Nothing of it is visible before.
    ///
    /// # Errors
    /// [`Error::Unpack`], [`Error::DiffId`], [`Error::BlobDigest`], [`Error::BlobSize`], or what the
    /// file system says.
    pub fn ingest(&self, expected: Expected, stream: impl Read + Send) -> Result<Layer> {
        let staged = Staged::new(self)?;
        let diff = staged.path.join("diff");
        DirBuilder::new().mode(0o755).create(&diff).context("create", &diff)?;
        fs::set_permissions(&diff, fs::Permissions::from_mode(0o755)).context("chmod", &diff)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(&diff, flags, Mode::empty()).context("open", &diff)?;
        let headers = staged.path.join(record::FILE);
        let recorder = Recorder::create(&headers).context("create", headers)?;
        // One byte more than expected is enough to know that there are too many.
        let limit = expected.blob.map_or(u64::MAX, |(_, size)| size.saturating_add(1));
        let outcome = pipeline::run(stream.take(limit), |plain| super::unpack(plain, root, recorder));
        verify_blob(expected, outcome.blob)?;
        let size_bytes = outcome.result?;
        let (digest, tar_bytes) = outcome.plain;
        let diff_id = DiffId(digest);
        if let Some(expected) = expected.diff_id.filter(|expected| *expected != diff_id) {
            return Err(Error::DiffId { expected, actual: diff_id });
        }
        staged.finish(diff_id, &LayerRecord { version: LayerRecord::VERSION, size_bytes, tar_bytes })
    }
}

/// A blob that did not come to its end has failed otherwise.
fn verify_blob(expected: Expected, came: Option<(Digest, u64)>) -> Result<()> {
    match (expected.blob, came) {
        (Some((digest, size)), Some((_, bytes))) if size != bytes => {
            Err(Error::BlobSize { digest, expected: size, actual: bytes })
        }
        (Some((expected, _)), Some((actual, _))) if expected != actual => {
            Err(Error::BlobDigest { expected, actual })
        }
        _ => Ok(()),
    }
}

/// A layer's folder until it is in its place; dropped before, it goes to the trash.
#[derive(Debug)]
pub(crate) struct Staged {
    store: Store,
    pub(crate) path: PathBuf,
}

impl Staged {
    pub(crate) fn new(store: &Store) -> Result<Self> {
        let name = SERIAL.fetch_add(1, Ordering::Relaxed).to_string();
        let path = store.inner.overlay.join(".staging").join(name);
        DirBuilder::new().mode(0o710).create(&path).context("create", &path)?;
        Ok(Self { store: store.clone(), path })
    }

    /// Puts it in its place.
    pub(crate) fn finish(self, diff_id: DiffId, record: &LayerRecord) -> Result<Layer> {
        write_record(&self.path, record)?;
        self.store.inner.adopt(&self.path, &diff_id, record.size_bytes)?;
        Ok(Layer::counted(self.store.clone(), diff_id, record.size_bytes))
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Err(error) = self.store.inner.trash.throw(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot delete an unfinished layer; the next start tries again");
        }
    }
}

/// Not synced: the file system is, before an image names the layer.
fn write_record(folder: &Path, record: &LayerRecord) -> Result<()> {
    let path = folder.join(LayerRecord::FILE);
    let file = File::create_new(&path).context("create", &path)?;
    serde_json::to_writer(file, record).map_err(io::Error::from).context("write", path)
}
