//! Opening a store: reading what is there, deleting what nobody names.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, RwLock};

use wherry_image_ref::{Digest, Reference};

use crate::error::Context;
use crate::index::{Entry, Index, Known, Snapshot, VERSION};
use crate::layers::{self, LayerRecord, Table};
use crate::store::{Inner, ensure_folder};
use crate::trash::Trash;
use crate::writable::{self, IMAGE_LINK};
use crate::{DiffId, Document, Error, ImageId, Result};

pub(crate) fn open(data_root: &Path) -> Result<Inner> {
    let (root, overlay) = (data_root.join("image"), data_root.join("overlay2"));
    fs::create_dir_all(data_root).context("create", data_root)?;
    ensure_folder(&root, 0o700)?;
    ensure_folder(&root.join("configs"), 0o700)?;
    ensure_folder(&overlay, 0o710)?;
    ensure_folder(&overlay.join(".empty"), 0o755)?;
    crate::base::ensure(&overlay.join(crate::base::FOLDER))?;
    let trash = Trash::open(overlay.join(".trash")).context("open", overlay.join(".trash"))?;
    let mut inner = Inner {
        root,
        overlay,
        snapshot: RwLock::default(),
        writer: Mutex::default(),
        table: Mutex::default(),
        writables: Mutex::default(),
        trash,
    };
    inner.fresh_staging()?;
    let index = inner.read_index()?;
    let (mut table, writables) = inner.read_overlay()?;
    for writable in writables.values() {
        count(&mut table, &writable.layers);
    }
    let snapshot = inner.read_images(&index, &mut table);
    inner.delete_strangers(&index, &writables, &mut table);
    inner.table = Mutex::new(table);
    inner.writables = Mutex::new(writables);
    inner.snapshot = RwLock::new(Arc::new(snapshot));
    Ok(inner)
}

/// One more user of each layer that is there.
fn count(table: &mut Table, layers: &[DiffId]) {
    for id in layers {
        if let Some(entry) = table.0.get_mut(id) {
            entry.users += 1;
        }
    }
}

impl Inner {
    fn fresh_staging(&self) -> Result<()> {
        let staging = self.overlay.join(".staging");
        self.trash.throw(&staging).context("delete", &staging)?;
        ensure_folder(&staging, 0o700)
    }

    fn read_index(&self) -> Result<Index> {
        let path = self.root.join("index.json");
        let index: Option<Index> = wherry_durable::read_json(&path).context("read", &path)?;
        match index {
            None => {
                Ok(Index { version: VERSION, images: Default::default(), references: Default::default() })
            }
            Some(index) if index.version == VERSION => Ok(index),
            Some(index) => Err(Error::IndexVersion { path, version: index.version }),
        }
    }

    /// Reads the folders of `overlay2`: finished layers, and writable ones with what lies below.
    fn read_overlay(&self) -> Result<(Table, writable::Entries)> {
        let (mut table, mut writables) = (Table::default(), writable::Entries::new());
        for entry in fs::read_dir(&self.overlay).context("read", &self.overlay)? {
            let entry = entry.context("read", &self.overlay)?;
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
            if name.starts_with('.') {
                continue;
            }
            let layer = wherry_durable::read_json::<LayerRecord>(&entry.path().join(LayerRecord::FILE));
            if let (Ok(diff_id), Ok(Some(record))) = (Digest::from_hex(&name), layer) {
                table.0.insert(DiffId(diff_id), layers::Entry { size_bytes: record.size_bytes, users: 0 });
                continue;
            }
            match self.read_writable(&entry.path()) {
                Ok(writable) => {
                    writables.insert(name, writable);
                }
                // Its files may be all that somebody has of their data: never delete it here.
                Err(error) => {
                    tracing::warn!(folder = name, %error, "neither a layer nor a writable layer; left alone")
                }
            }
        }
        Ok((table, writables))
    }

    fn read_writable(&self, folder: &Path) -> Result<writable::Entry> {
        let link = folder.join(IMAGE_LINK);
        let target = fs::read_link(&link).context("read", &link)?;
        let image = target.to_str().and_then(|text| text.parse().ok()).map(ImageId);
        let image = image.ok_or(std::io::ErrorKind::InvalidData).context("read", link)?;
        Ok(writable::Entry { image, layers: self.read_document(&image)?.rootfs.diff_ids.into() })
    }

    fn read_document(&self, id: &ImageId) -> Result<Document> {
        serde_json::from_slice(&self.read_config(id)?).map_err(|source| Error::Config { id: *id, source })
    }

    fn read_images(&self, index: &Index, table: &mut Table) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for (id, entry) in &index.images {
            match self.read_image(id, entry, table) {
                Ok(known) => {
                    count(table, &known.document.rootfs.diff_ids);
                    snapshot.known.insert(*id, known);
                }
                Err(error) => tracing::warn!(image = %id, %error, "image left out; pull or load it again"),
            }
        }
        for (name, id) in &index.references {
            match name.parse::<Reference>() {
                Ok(reference) if snapshot.known.contains_key(id) => {
                    snapshot.references.insert(reference, *id);
                }
                parsed => tracing::warn!(name, image = %id, ?parsed, "reference left out"),
            }
        }
        for id in snapshot.known.keys().copied().collect::<Vec<_>>() {
            snapshot.refresh(&id);
        }
        snapshot
    }

    fn read_image(&self, id: &ImageId, entry: &Entry, table: &Table) -> Result<Known> {
        let document = self.read_document(id)?;
        let mut size_bytes = 0;
        for layer in &document.rootfs.diff_ids {
            size_bytes += table.0.get(layer).ok_or(Error::NoSuchLayer(*layer))?.size_bytes;
        }
        Ok(Known { entry: entry.clone(), document: Arc::new(document), size_bytes })
    }

    /// Layers and documents of images that were never finished, or not fully removed.
    fn delete_strangers(&self, index: &Index, writables: &writable::Entries, table: &mut Table) {
        let strangers: Vec<DiffId> =
            table.0.iter().filter(|(_, e)| e.users == 0).map(|(id, _)| *id).collect();
        for id in &strangers {
            table.0.remove(id);
            if let Err(error) = self.trash.throw(&self.layer_folder(id)) {
                tracing::warn!(layer = %id, %error, "cannot delete a layer that no image names");
            }
        }
        let in_use = writables.values().map(|writable| &writable.image);
        let names: HashSet<String> = index.images.keys().chain(in_use).map(|id| id.0.hex()).collect();
        for entry in fs::read_dir(self.root.join("configs")).into_iter().flatten().flatten() {
            if entry.file_name().to_str().is_none_or(|name| !names.contains(name))
                && let Err(error) = fs::remove_file(entry.path())
            {
                tracing::warn!(path = %entry.path().display(), %error, "cannot delete a document that no image names");
            }
        }
    }
}
