//! The index on the disk, and the snapshot of it that readers see.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use rustix::fs::syncfs;

use crate::error::Context;
use crate::index::{Pending, Snapshot};
use crate::{ImageId, Result};

/// Name of the index in [`Catalogue`]'s folder.
pub(crate) const INDEX: &str = "index.json";

/// All that is published. Readers never wait; changes follow one after another.
#[derive(Debug)]
pub(crate) struct Catalogue {
    root: PathBuf,
    /// Replaced as a whole.
    snapshot: RwLock<Arc<Snapshot>>,
    /// Held by the one who changes the index, over its write.
    writer: Mutex<Writer>,
}

/// Whether the index may still be written.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    closed: bool,
}

impl Catalogue {
    /// That of the folder `DATA_ROOT/image`, with what was read from there.
    pub(crate) fn new(root: PathBuf, snapshot: Snapshot) -> Self {
        Self { root, snapshot: RwLock::new(Arc::new(snapshot)), writer: Mutex::default() }
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// To be held from before the snapshot is copied that is to be changed.
    pub(crate) fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes `next` durable and then visible.
    pub(crate) fn publish(&self, _writer: &MutexGuard<'_, Writer>, next: Snapshot) -> Result<()> {
        let path = self.root.join(INDEX);
        wherry_durable::write_json(&path, &next.index()).context("write", path)?;
        *self.snapshot.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
        Ok(())
    }

    /// Nothing is written any more when this returns: another store may use the folder.
    pub(crate) fn close(&self) {
        self.writer().closed = true;
    }

    /// Waits until the layers in `overlay` and our own files are on the disk.
    pub(crate) fn sync(&self, overlay: &Path) -> Result<()> {
        // Mostly one file system; then the second call finds nothing to do.
        for path in [overlay, &self.root] {
            let folder = File::open(path).context("open", path)?;
            syncfs(folder).context("sync", path)?;
        }
        Ok(())
    }

    /// Brings all images to the disk that were published before that, and says so in the index.
    pub(crate) fn settle(&self, overlay: &Path) -> Result<()> {
        let pending: Vec<(ImageId, Pending)> = self.snapshot().pending().collect();
        if pending.is_empty() {
            return Ok(());
        }
        self.sync(overlay)?;
        let writer = self.writer();
        let mut next = Snapshot::clone(&self.snapshot());
        next.settled(&pending);
        if writer.closed { Ok(()) } else { self.publish(&writer, next) }
    }
}
