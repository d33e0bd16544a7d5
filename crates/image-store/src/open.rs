//! Opening a store: reading what is there, deleting what nobody names.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use wherry_image_ref::{Digest, Reference};

use crate::background::Background;
use crate::catalogue::{Catalogue, INDEX};
use crate::error::Context;
use crate::index::{Entry, Index, Known, Snapshot, VERSION};
use crate::layers::{self, LayerRecord, Table};
use crate::store::{CONFIGS, Inner, ensure_folder, read_config};
use crate::trash::Trash;
use crate::writable::{self, IMAGE_LINK};
use crate::{DiffId, Document, Error, ImageId, Result};

pub(crate) fn open(data_root: &Path, keep: &[DiffId]) -> Result<Inner> {
    let (root, overlay) = (data_root.join("image"), data_root.join("overlay2"));
    fs::create_dir_all(data_root).context("create", data_root)?;
    ensure_folder(&root, 0o700)?;
    ensure_folder(&root.join(CONFIGS), 0o700)?;
    ensure_folder(&overlay, 0o710)?;
    ensure_folder(&overlay.join(".empty"), 0o755)?;
    ensure_folder(&overlay.join(".nothing"), 0o755)?;
    crate::base::ensure(&overlay.join(crate::base::FOLDER))?;
    let trash = Trash::open(overlay.join(".trash")).context("open", overlay.join(".trash"))?;
    fresh_staging(&overlay, &trash)?;
    // Half an index, of a process that was killed while it wrote it.
    let _ = fs::remove_file(root.join(format!(".{INDEX}.tmp")));
    let boot = boot_id();
    let index = read_index(&root)?;
    let Found { table, writables, snapshot, .. } =
        Found::read(root.join(CONFIGS), &overlay, &trash, &index, (&boot, keep))?;
    let catalogue = Arc::new(Catalogue::new(root.clone(), snapshot));
    let settling = {
        let (catalogue, overlay) = (catalogue.clone(), overlay.clone());
        Background::new("settle", move || {
            if let Err(error) = catalogue.settle(&overlay) {
                tracing::warn!(%error, "cannot bring new images to the disk; the next one tries again");
            }
        })
    };
    // A process that was killed may have left some.
    settling.run();
    let (table, writables) = (Mutex::new(table), Mutex::new(writables));
    Ok(Inner { root, overlay, catalogue, settling, boot, table, writables, trash })
}

/// Names this run of the system, from boot to shutdown. What was written in another one and not synced may be damaged.
#[must_use]
pub fn boot_id() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned());
    // Without it no run is known to be the same one.
    id.unwrap_or_else(|_| format!("{}-{}", std::process::id(), crate::index::now_ns()))
}

fn fresh_staging(overlay: &Path, trash: &Trash) -> Result<()> {
    let staging = overlay.join(".staging");
    trash.throw(&staging).context("delete", &staging)?;
    ensure_folder(&staging, 0o700)
}

fn read_index(root: &Path) -> Result<Index> {
    let path = root.join(INDEX);
    let index: Option<Index> = wherry_durable::read_json(&path).context("read", &path)?;
    match index {
        None => Ok(Index { version: VERSION, images: Default::default(), references: Default::default() }),
        Some(index) if index.version == VERSION => Ok(index),
        Some(index) => Err(Error::IndexVersion { path, version: index.version }),
    }
}

/// One more user of each layer that is there.
fn count(table: &mut Table, layers: &[DiffId]) {
    for id in layers {
        if let Some(entry) = table.0.get_mut(id) {
            entry.users += 1;
        }
    }
}

/// What is on the disk.
struct Found<'a> {
    configs: PathBuf,
    overlay: &'a Path,
    trash: &'a Trash,
    table: Table,
    writables: writable::Entries,
    snapshot: Snapshot,
}

impl<'a> Found<'a> {
    /// Reads all, and deletes what nobody names or what cannot be relied on.
    fn read(
        configs: PathBuf,
        overlay: &'a Path,
        trash: &'a Trash,
        index: &Index,
        (boot, keep): (&str, &[DiffId]),
    ) -> Result<Self> {
        let (table, writables, snapshot) = Default::default();
        let mut found = Self { configs, overlay, trash, table, writables, snapshot };
        found.read_overlay()?;
        let lost = |id: &ImageId| {
            let entry = index.images.get(id);
            entry.and_then(|entry| entry.pending.as_ref()).is_some_and(|pending| pending.boot != boot)
        };
        found.read_images(index, &lost);
        // A layer that only a lost image vouches for goes, even if a container has it: it may have holes. Pulling or
        // loading the image again gives it back to the container.
        let (waiting, whole): (Vec<_>, Vec<_>) =
            found.writables.values().map(|w| (w.image, w.layers.clone())).partition(|(image, _)| lost(image));
        for (_, layers) in whole {
            count(&mut found.table, &layers);
        }
        found.delete_strange_layers(keep);
        for (_, layers) in waiting {
            count(&mut found.table, &layers);
        }
        found.delete_strange_documents(index);
        Ok(found)
    }

    /// Reads the folders of `overlay2`: finished layers, and writable ones with what lies below.
    fn read_overlay(&mut self) -> Result<()> {
        for entry in fs::read_dir(self.overlay).context("read", self.overlay)? {
            let entry = entry.context("read", self.overlay)?;
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
            if name.starts_with('.') {
                continue;
            }
            let folder = entry.path();
            let layer = wherry_durable::read_json::<LayerRecord>(&folder.join(LayerRecord::FILE));
            if let (Ok(diff_id), Ok(Some(record))) = (Digest::from_hex(&name), layer) {
                self.table
                    .0
                    .insert(DiffId(diff_id), layers::Entry { size_bytes: record.size_bytes, users: 0 });
                continue;
            }
            match self.read_writable(&folder) {
                Ok(writable) => drop(self.writables.insert(name, writable)),
                Err(_) if is_unfinished(&folder) => self.throw(&folder),
                // Its files may be all that somebody has of their data: never delete it here.
                Err(error) => {
                    tracing::warn!(folder = name, %error, "neither a layer nor a writable layer; left alone")
                }
            }
        }
        Ok(())
    }

    fn read_writable(&self, folder: &Path) -> Result<writable::Entry> {
        let link = folder.join(IMAGE_LINK);
        let target = fs::read_link(&link).context("read", &link)?;
        let image = target.to_str().and_then(|text| text.parse().ok()).map(ImageId);
        let image = image.ok_or(std::io::ErrorKind::InvalidData).context("read", link)?;
        Ok(writable::Entry { image, layers: self.read_document(&image)?.rootfs.diff_ids.into() })
    }

    fn read_document(&self, id: &ImageId) -> Result<Document> {
        let bytes = read_config(&self.configs.join(id.0.hex()), id)?;
        serde_json::from_slice(&bytes).map_err(|source| Error::Config { id: *id, source })
    }

    fn read_images(&mut self, index: &Index, lost: &dyn Fn(&ImageId) -> bool) {
        for (id, entry) in &index.images {
            if lost(id) {
                tracing::warn!(image = %id, "the system went down before the image was on the disk; pull or load it again");
                continue;
            }
            match self.read_image(id, entry) {
                Ok(known) => {
                    count(&mut self.table, &known.document.rootfs.diff_ids);
                    self.snapshot.known.insert(*id, known);
                }
                Err(error) => tracing::warn!(image = %id, %error, "image left out; pull or load it again"),
            }
        }
        for (name, id) in &index.references {
            match name.parse::<Reference>() {
                Ok(reference) if self.snapshot.known.contains_key(id) => {
                    self.snapshot.references.insert(reference, *id);
                }
                parsed => tracing::warn!(name, image = %id, ?parsed, "reference left out"),
            }
        }
        for id in self.snapshot.known.keys().copied().collect::<Vec<_>>() {
            self.snapshot.refresh(&id);
        }
    }

    fn read_image(&self, id: &ImageId, entry: &Entry) -> Result<Known> {
        let document = self.read_document(id)?;
        let mut size_bytes = 0;
        for layer in &document.rootfs.diff_ids {
            size_bytes += self.table.0.get(layer).ok_or(Error::NoSuchLayer(*layer))?.size_bytes;
        }
        Ok(Known { entry: entry.clone(), document: Arc::new(document), size_bytes })
    }

    /// Layers of images that were never finished, or not fully removed.
    fn delete_strange_layers(&mut self, keep: &[DiffId]) {
        let keep: HashSet<&DiffId> = keep.iter().collect();
        let unused = self.table.0.iter().filter(|(id, entry)| entry.users == 0 && !keep.contains(id));
        let strangers: Vec<DiffId> = unused.map(|(id, _)| *id).collect();
        for id in &strangers {
            self.table.0.remove(id);
            self.throw(&self.overlay.join(id.0.hex()));
        }
    }

    fn throw(&self, folder: &Path) {
        if let Err(error) = self.trash.throw(folder) {
            tracing::warn!(folder = %folder.display(), %error, "cannot delete what was not finished");
        }
    }

    fn delete_strange_documents(&self, index: &Index) {
        let in_use = self.writables.values().map(|writable| &writable.image);
        let names: HashSet<String> = index.images.keys().chain(in_use).map(|id| id.0.hex()).collect();
        for entry in fs::read_dir(&self.configs).into_iter().flatten().flatten() {
            if entry.file_name().to_str().is_none_or(|name| !names.contains(name))
                && let Err(error) = fs::remove_file(entry.path())
            {
                tracing::warn!(path = %entry.path().display(), %error, "cannot delete a document that no image names");
            }
        }
    }
}

/// Whether a folder without a readable record is a layer that was cut short, or a writable layer in which nothing
/// was written yet.
fn is_unfinished(folder: &Path) -> bool {
    if fs::symlink_metadata(folder.join(IMAGE_LINK)).is_ok() {
        return false;
    }
    let is_layer = [LayerRecord::FILE, crate::unpack::HEADERS].iter().any(|name| folder.join(name).exists());
    let is_empty = |name| match fs::read_dir(folder.join(name)) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    };
    is_layer || (is_empty("diff") && is_empty("work"))
}
