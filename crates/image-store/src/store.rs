//! The store: opening it, reading from it, and the one way in which images enter it.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use wherry_image_ref::{Digest, Reference};

use crate::background::Background;
use crate::catalogue::Catalogue;
use crate::error::Context;
use crate::index::{Entry, Known, Pending, Snapshot, now_ns};
use crate::layers::{Layer, Table};
use crate::trash::Trash;
use crate::{DiffId, Document, Error, Image, ImageId, Result, writable};

/// The folder of the configuration documents in [`Inner::root`].
pub(crate) const CONFIGS: &str = "configs";

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
    pub(crate) catalogue: Arc<Catalogue>,
    /// Brings to the disk what was published before it was there.
    pub(crate) settling: Background,
    /// Names this run of the system.
    pub(crate) boot: String,
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
    /// Whether it can be had again from where it came. Then nobody waits for the disk: the image is there at once, and
    /// survives the end of this process at any time; if the system itself dies before its files have reached the disk
    /// (some seconds), the next start leaves it out. Otherwise it is on the disk when the call returns.
    pub fetched: bool,
}

impl Store {
    /// Opens the store in `data_root`, makes its folders if there are none, and deletes what an
    /// interrupted process left behind.
    ///
    /// # Errors
    /// What the file system says; an index of another version. A damaged image is left out and
    /// logged; pulling or loading it again mends it.
    pub fn open(data_root: &Path) -> Result<Self> {
        Self::open_keeping(data_root, &[]).map(|(store, _)| store)
    }

    /// As [`Store::open`], for who also needs layers that no image names. Those of them that are there are returned, and stay
    /// as long as these values do.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_keeping(data_root: &Path, keep: &[DiffId]) -> Result<(Self, Vec<Layer>)> {
        let store = crate::open::open(data_root, keep).map(|inner| Self { inner: Arc::new(inner) })?;
        let kept = keep.iter().filter_map(|id| store.layer(id)).collect();
        Ok((store, kept))
    }

    /// Names this run of the system: what was written in another one and not synced may be damaged.
    #[must_use]
    pub fn boot(&self) -> &str {
        &self.inner.boot
    }

    /// Waits until all layers and images are on the disk.
    ///
    /// # Errors
    /// What the file system says.
    pub fn sync(&self) -> Result<()> {
        self.inner.sync()
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
        self.put(new, false)
    }

    /// As [`Store::commit`], for what a build has made ([`Image::built`]).
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub fn commit_built(&self, new: &NewImage<'_>) -> Result<Arc<Image>> {
        self.put(new, true)
    }

    fn put(&self, new: &NewImage<'_>, built: bool) -> Result<Arc<Image>> {
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
        let writer = self.inner.catalogue.writer();
        let mut next = Snapshot::clone(&self.snapshot());
        let is_new = !next.known.contains_key(&id);
        if is_new {
            let size_bytes = new.layers.iter().map(Layer::size_bytes).sum();
            let pending = new.fetched.then(|| Pending::now(&self.inner.boot));
            let entry = Entry { parent: new.parent, last_tagged_ns: None, built, pending };
            next.known.insert(id, Known { entry, document: Arc::new(document), size_bytes });
            self.inner.table().acquire(&diff_ids)?;
        } else if let Some(known) = next.known.get_mut(&id) {
            known.entry.built |= built;
        }
        for name in new.names {
            next.point(name, id, new.tagged);
        }
        next.refresh(&id);
        let written = if is_new { self.inner.write_config(&id, new) } else { Ok(()) };
        let published = written.and_then(|()| self.inner.catalogue.publish(&writer, next));
        if published.is_err() && is_new {
            self.inner.forget(&id, &diff_ids);
        }
        published?;
        if new.fetched {
            self.inner.settling.run();
        }
        self.image(&id)
    }

    /// Remembers that an image was built on another.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`] for either, or what the file system says.
    pub fn set_parent(&self, id: &ImageId, parent: &ImageId) -> Result<()> {
        let writer = self.inner.catalogue.writer();
        self.image(parent)?;
        let mut next = Snapshot::clone(&self.snapshot());
        let known = next.known.get_mut(id).ok_or_else(|| Error::NoSuchImage(id.to_string()))?;
        known.entry.parent = Some(*parent);
        next.refresh(id);
        self.inner.catalogue.publish(&writer, next)
    }

    /// Gives an image one more tag (`latest` if the reference has none), which another image loses.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`], [`Error::TagWithDigest`], or what the file system says.
    pub fn tag(&self, id: &ImageId, reference: &Reference) -> Result<()> {
        if reference.digest().is_some() {
            return Err(Error::TagWithDigest(reference.clone()));
        }
        let writer = self.inner.catalogue.writer();
        self.image(id)?;
        let mut next = Snapshot::clone(&self.snapshot());
        next.point(&reference.clone().or_latest(), *id, true);
        self.inner.catalogue.publish(&writer, next)
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.inner.catalogue.snapshot()
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
            known.entry.last_tagged_ns = Some(now_ns());
        }
        for changed in previous.into_iter().chain([id]) {
            self.refresh(&changed);
        }
    }
}

impl Drop for Inner {
    /// Whoever opens the folder next is its only user.
    fn drop(&mut self) {
        self.catalogue.close();
    }
}

impl Inner {
    pub(crate) fn config_path(&self, id: &ImageId) -> PathBuf {
        self.root.join(CONFIGS).join(id.0.hex())
    }

    pub(crate) fn read_config(&self, id: &ImageId) -> Result<Vec<u8>> {
        read_config(&self.config_path(id), id)
    }

    /// Writes the document unless it is there already, and waits for the disk if nobody could bring it back.
    fn write_config(&self, id: &ImageId, new: &NewImage<'_>) -> Result<()> {
        let path = self.config_path(id);
        if self.read_config(id).is_err() {
            // Half of it would not have the digest that it is named after, and nothing names it yet.
            fs::write(&path, new.config).context("write", path)?;
        }
        if new.fetched { Ok(()) } else { self.sync() }
    }

    /// Waits until all files of all layers and images are on the disk.
    pub(crate) fn sync(&self) -> Result<()> {
        self.catalogue.sync(&self.overlay)
    }

    /// The folder of the layer without files: the base of images without layers.
    pub(crate) fn empty_layer(&self) -> PathBuf {
        self.overlay.join(".empty")
    }

    /// As [`Inner::lower_dirs`], but two at least, as an overlay without an upper folder needs them.
    pub(crate) fn readable_dirs(&self, diff_ids: &[DiffId]) -> Vec<PathBuf> {
        let mut lower = self.lower_dirs(diff_ids);
        if lower.len() == 1 {
            // Not the folder that stands for no layer at all: it may be the one that is there.
            lower.push(self.overlay.join(".nothing"));
        }
        lower
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

/// Reads a configuration document, which must have the digest that it is named after.
pub(crate) fn read_config(path: &Path, id: &ImageId) -> Result<Vec<u8>> {
    let bytes = fs::read(path).context("read", path)?;
    match Digest::of(&bytes) {
        digest if digest == id.0 => Ok(bytes),
        actual => Err(Error::ConfigDigest { id: *id, actual }),
    }
}

/// Makes a folder with `mode` unless it is there.
pub(crate) fn ensure_folder(path: &Path, mode: u32) -> Result<()> {
    match fs::DirBuilder::new().mode(mode).create(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result.context("create", path),
    }
}
