//! The store: opening it, reading from it, and the one way in which images enter it.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use wherry_image_ref::{Digest, Reference};

use crate::error::Context;
use crate::index::{Entry, Known, Snapshot};
use crate::layers::{Layer, Table};
use crate::trash::Trash;
use crate::{DiffId, Document, Error, Image, ImageId, Result, writable};

/// The images of one data root. Clones are cheap and share everything; all calls are thread-safe
/// and block. One process uses a data root at a time (the engine's pid file sees to that).
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    /// `DATA_ROOT/image`.
    pub(crate) root: PathBuf,
    /// `DATA_ROOT/overlay2`.
    pub(crate) overlay: PathBuf,
    /// What readers see; replaced as a whole, so nobody waits.
    pub(crate) snapshot: RwLock<Arc<Snapshot>>,
    /// Held by the one who changes the index, over its write: changes follow one after another.
    pub(crate) writer: Mutex<()>,
    pub(crate) table: Mutex<Table>,
    pub(crate) writables: Mutex<writable::Entries>,
    pub(crate) trash: Trash,
}

/// What [`Store::commit`] makes an image of.
#[derive(Debug)]
pub struct NewImage<'a> {
    /// The configuration document; its digest becomes the image's id.
    pub config: &'a [u8],
    /// Its layers, the lowest first.
    pub layers: &'a [Layer],
    /// Names that it gets, with tag or digest; they are taken away from other images.
    pub names: &'a [Reference],
    /// The image that it was built on, for images made on this host.
    pub parent: Option<ImageId>,
    /// Whether this counts as tagging: `load` does not, as with dockerd.
    pub tagged: bool,
}

impl Store {
    /// Opens the store in `data_root`, makes its folders if there are none, and deletes what an
    /// interrupted process left behind.
    ///
    /// # Errors
    /// What the file system says; an index of another version. A damaged image is left out and
    /// logged; pulling or loading it again mends it.
    pub fn open(data_root: &Path) -> Result<Self> {
        crate::open::open(data_root).map(|inner| Self { inner: Arc::new(inner) })
    }

    /// Finds an image by name (`busybox`, `repo:tag`, `repo@sha256:…`) or id, whole or shortened.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`], [`Error::Ambiguous`], [`Error::Reference`].
    pub fn resolve(&self, reference: &str) -> Result<ImageId> {
        self.snapshot().resolve(reference)
    }

    /// The image that has exactly this name.
    #[must_use]
    pub fn named(&self, reference: &Reference) -> Option<ImageId> {
        self.snapshot().named(reference)
    }

    /// An image by id.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`].
    pub fn image(&self, id: &ImageId) -> Result<Arc<Image>> {
        self.snapshot().image(id).cloned().ok_or_else(|| Error::NoSuchImage(id.to_string()))
    }

    /// All images, sorted by id.
    #[must_use]
    pub fn images(&self) -> Vec<Arc<Image>> {
        self.snapshot().images().cloned().collect()
    }

    /// All references, sorted by full name, and what they mean.
    #[must_use]
    pub fn references(&self) -> Vec<(Reference, ImageId)> {
        self.snapshot().references.iter().map(|(name, id)| (name.clone(), *id)).collect()
    }

    /// The configuration document as it came.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`], what the file system says, or [`Error::ConfigDigest`].
    pub fn raw_config(&self, id: &ImageId) -> Result<Vec<u8>> {
        self.image(id)?;
        self.inner.read_config(id)
    }

    /// The folders of an image's layers, the topmost first; at least one.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`].
    pub fn lower_dirs(&self, id: &ImageId) -> Result<Vec<PathBuf>> {
        Ok(self.inner.lower_dirs(self.image(id)?.diff_ids()))
    }

    /// Makes an image of a configuration and layers, durably. An image that is there already only
    /// gets the names.
    ///
    /// # Errors
    /// [`Error::Config`], [`Error::LayerMismatch`], or what the file system says; nothing has
    /// changed then.
    pub fn commit(&self, new: &NewImage<'_>) -> Result<Arc<Image>> {
        let id = ImageId(Digest::of(new.config));
        let document: Document =
            serde_json::from_slice(new.config).map_err(|source| Error::Config { id, source })?;
        if !document.rootfs.diff_ids.iter().eq(new
            .layers
            .iter()
            .map(Layer::diff_id)
            .collect::<Vec<_>>()
            .iter())
        {
            return Err(Error::LayerMismatch(id));
        }
        let diff_ids = document.rootfs.diff_ids.clone();
        let _writer = self.inner.writer();
        let mut next = Snapshot::clone(&self.snapshot());
        let is_new = !next.known.contains_key(&id);
        if is_new {
            let size_bytes = new.layers.iter().map(Layer::size_bytes).sum();
            let entry = Entry { parent: new.parent, last_tagged_ns: None };
            next.known.insert(id, Known { entry, document: Arc::new(document), size_bytes });
            self.inner.write_config(&id, new.config)?;
            self.inner.table().acquire(&diff_ids)?;
        }
        for name in new.names {
            next.point(name, id, new.tagged);
        }
        next.refresh(&id);
        let published = self.inner.publish(next);
        if published.is_err() && is_new {
            self.inner.release(&diff_ids);
        }
        published?;
        self.image(&id)
    }

    /// Remembers that an image was built on another.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`] for either, or what the file system says.
    pub fn set_parent(&self, id: &ImageId, parent: &ImageId) -> Result<()> {
        let _writer = self.inner.writer();
        self.image(parent)?;
        let mut next = Snapshot::clone(&self.snapshot());
        let known = next.known.get_mut(id).ok_or_else(|| Error::NoSuchImage(id.to_string()))?;
        known.entry.parent = Some(*parent);
        next.refresh(id);
        self.inner.publish(next)
    }

    /// Gives an image one more tag (`latest` if the reference has none), which another image loses.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`], [`Error::TagWithDigest`], or what the file system says.
    pub fn tag(&self, id: &ImageId, reference: &Reference) -> Result<()> {
        if reference.digest().is_some() {
            return Err(Error::TagWithDigest(reference.clone()));
        }
        let _writer = self.inner.writer();
        self.image(id)?;
        let mut next = Snapshot::clone(&self.snapshot());
        next.point(&reference.clone().or_latest(), *id, true);
        self.inner.publish(next)
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.inner.snapshot.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Snapshot {
    /// Makes `name` mean `id`.
    fn point(&mut self, name: &Reference, id: ImageId, tagged: bool) {
        let previous = self.references.insert(name.clone(), id);
        if tagged
            && name.digest().is_none()
            && let Some(known) = self.known.get_mut(&id)
        {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
            known.entry.last_tagged_ns = u64::try_from(now.as_nanos()).ok();
        }
        for changed in previous.into_iter().chain([id]) {
            self.refresh(&changed);
        }
    }
}

impl Inner {
    pub(crate) fn writer(&self) -> std::sync::MutexGuard<'_, ()> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes `next` durable and then visible. The caller holds `writer`.
    pub(crate) fn publish(&self, next: Snapshot) -> Result<()> {
        let path = self.root.join("index.json");
        wherry_durable::write_json(&path, &next.index()).context("write", path)?;
        *self.snapshot.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
        Ok(())
    }

    pub(crate) fn config_path(&self, id: &ImageId) -> PathBuf {
        self.root.join("configs").join(id.0.hex())
    }

    pub(crate) fn read_config(&self, id: &ImageId) -> Result<Vec<u8>> {
        let path = self.config_path(id);
        let bytes = fs::read(&path).context("read", path)?;
        match Digest::of(&bytes) {
            digest if digest == id.0 => Ok(bytes),
            actual => Err(Error::ConfigDigest { id: *id, actual }),
        }
    }

    /// Writes the document and waits until it and all layers before it are on the disk.
    fn write_config(&self, id: &ImageId, bytes: &[u8]) -> Result<()> {
        let path = self.config_path(id);
        // Half of it would not have the digest that it is named after, and nothing names it yet.
        fs::write(&path, bytes).context("write", path)?;
        let folder = fs::File::open(&self.overlay).context("open", &self.overlay)?;
        rustix::fs::syncfs(folder).context("sync", &self.overlay)
    }

    /// The folder of the layer without files: the base of images without layers.
    pub(crate) fn empty_layer(&self) -> PathBuf {
        self.overlay.join(".empty")
    }

    /// The topmost first. Overlayfs refuses a folder that is named twice, and a layer that comes again
    /// further below adds nothing: all that it has is there already, and wins.
    pub(crate) fn lower_dirs(&self, diff_ids: &[DiffId]) -> Vec<PathBuf> {
        if diff_ids.is_empty() {
            return vec![self.empty_layer()];
        }
        let mut seen = HashSet::new();
        let from_top = diff_ids.iter().rev().filter(|id| seen.insert(**id));
        from_top.map(|id| self.layer_folder(id).join("diff")).collect()
    }
}

/// Makes a folder with `mode` unless it is there.
pub(crate) fn ensure_folder(path: &Path, mode: u32) -> Result<()> {
    match fs::DirBuilder::new().mode(mode).create(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result.context("create", path),
    }
}
