//! The writable layers of containers.

use std::collections::HashMap;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use crate::error::Context;
use crate::store::Inner;
use crate::{DiffId, Error, ImageId, Result, Store};

/// The folders of a container's overlay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Writable {
    /// What the container has changed.
    pub upper: PathBuf,
    /// Overlayfs's work folder.
    pub work: PathBuf,
    /// The image's layers, the topmost first, and below them the folder of what every container has; at least two.
    pub lower: Vec<PathBuf>,
}

/// The link `image` in a writable layer's folder; it names the image, whose document has the layers.
/// A symbolic link, as file systems journal these with the folder itself: no sync of its own is needed.
pub(crate) const IMAGE_LINK: &str = "image";

/// A writable layer in memory.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) image: ImageId,
    /// The lowest first.
    pub(crate) layers: Arc<[DiffId]>,
}

/// All writable layers by name.
pub(crate) type Entries = HashMap<String, Entry>;

impl Store {
    /// Makes a writable layer, named after the container, on top of `image`.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`], [`Error::WritableExists`], [`Error::BadWritableName`], or what the
    /// file system says; nothing is left behind then.
    pub fn create_writable(&self, container: &str, image: &ImageId) -> Result<Writable> {
        let layers: Arc<[DiffId]> = self.image(image)?.diff_ids().into();
        let folder = self.inner.writable_folder(container)?;
        self.inner.table().acquire(&layers)?;
        let entry = Entry { image: *image, layers: layers.clone() };
        if let Err(error) = self.inner.reserve_writable(container, entry) {
            self.inner.release(&layers);
            return Err(error);
        }
        if let Err(error) = self.inner.make_writable(&folder, image) {
            let _ = self.remove_writable(container); // the first error is the one to report
            return Err(error);
        }
        Ok(self.inner.as_writable(&folder, &layers))
    }

    /// The folders of a writable layer that is there.
    ///
    /// # Errors
    /// [`Error::NoSuchWritable`].
    pub fn writable(&self, container: &str) -> Result<Writable> {
        let folder = self.inner.writable_folder(container)?;
        let layers = self.inner.writables().get(container).map(|entry| entry.layers.clone());
        let layers = layers.ok_or_else(|| Error::NoSuchWritable(container.to_owned()))?;
        Ok(self.inner.as_writable(&folder, &layers))
    }

    /// The names of all writable layers, so that the engine can remove those whose container is gone.
    #[must_use]
    pub fn writable_names(&self) -> Vec<String> {
        self.inner.writables().keys().cloned().collect()
    }

    /// Removes a writable layer, and layers that only it needed. Its files are deleted in the
    /// background. What is not there is no error.
    ///
    /// # Errors
    /// What the file system says to the rename.
    pub fn remove_writable(&self, container: &str) -> Result<()> {
        let folder = self.inner.writable_folder(container)?;
        if !self.inner.writables().contains_key(container) {
            return Ok(());
        }
        self.inner.trash.throw(&folder).context("delete", &folder)?;
        // At once: a layer that comes back between these two steps would be counted wrongly.
        let mut table = self.inner.table();
        let removed = self.inner.writables().remove(container);
        if let Some(entry) = removed {
            self.inner.release_from(&mut table, &entry.layers);
        }
        Ok(())
    }

    /// Sum of the sizes of the files that a container has written, in bytes. Hard links count once.
    ///
    /// # Errors
    /// [`Error::NoSuchWritable`]. Files that vanish meanwhile are no error.
    pub fn writable_size(&self, container: &str) -> Result<u64> {
        let upper = self.writable(container)?.upper;
        size_of_files(&upper).context("measure", upper)
    }
}

impl Inner {
    pub(crate) fn writables(&self) -> std::sync::MutexGuard<'_, Entries> {
        self.writables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reserve_writable(&self, container: &str, entry: Entry) -> Result<()> {
        match self.writables().entry(container.to_owned()) {
            std::collections::hash_map::Entry::Occupied(_) => {
                Err(Error::WritableExists(container.to_owned()))
            }
            std::collections::hash_map::Entry::Vacant(vacant) => {
                vacant.insert(entry);
                Ok(())
            }
        }
    }

    pub(crate) fn writable_folder(&self, container: &str) -> Result<PathBuf> {
        let plain = container.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
        if container.is_empty() || container.len() > 128 || !plain {
            return Err(Error::BadWritableName(container.to_owned()));
        }
        Ok(self.overlay.join(container))
    }

    /// The root folder of a container's view is the upper one; it has the mode that dockerd gives it,
    /// whatever the image's layers say.
    fn make_writable(&self, folder: &Path, image: &ImageId) -> Result<()> {
        let mkdir = |path: &Path, mode| fs::DirBuilder::new().mode(mode).create(path).context("create", path);
        let upper = folder.join("diff");
        mkdir(folder, 0o710)?;
        mkdir(&upper, 0o755)?;
        fs::set_permissions(&upper, Permissions::from_mode(0o755)).context("chmod", &upper)?;
        mkdir(&folder.join("work"), 0o710)?;
        let link = folder.join(IMAGE_LINK);
        std::os::unix::fs::symlink(image.to_string(), &link).context("create", &link)
    }

    fn as_writable(&self, folder: &Path, layers: &[DiffId]) -> Writable {
        let mut lower = self.lower_dirs(layers);
        lower.push(self.overlay.join(crate::base::FOLDER));
        Writable { upper: folder.join("diff"), work: folder.join("work"), lower }
    }
}

/// As dockerd counts: folders are nothing, a file with several names is counted once.
fn size_of_files(folder: &Path) -> io::Result<u64> {
    let mut size = 0;
    let mut linked = std::collections::HashSet::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let metadata = match entry.metadata() {
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                metadata => metadata?,
            };
            if metadata.is_dir() {
                folders.push(entry.path());
            } else if metadata.nlink() == 1 || linked.insert(metadata.ino()) {
                size += metadata.len();
            }
        }
    }
    Ok(size)
}
