//! Read-only layers: which are there, who needs them, where they lie.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use serde::{Deserialize, Serialize};

use crate::error::Context;
use crate::store::Inner;
use crate::{DiffId, Error, Result, Store};

/// `layer.json` in a layer's folder. The folder is renamed into place as a whole, so a layer
/// that has this file is complete.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LayerRecord {
    pub(crate) version: u32,
    /// Sum of the sizes of its files.
    pub(crate) size_bytes: u64,
    /// Length of its uncompressed tar.
    pub(crate) tar_bytes: u64,
}

impl LayerRecord {
    pub(crate) const FILE: &'static str = "layer.json";
    pub(crate) const VERSION: u32 = 1;
}

/// A layer in memory: its size, and how many images, writable layers and [`Layer`]s need it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) size_bytes: u64,
    pub(crate) users: usize,
}

/// All layers by diff id. Locked for look-ups and counts, and for the rename that puts a layer in
/// its place or throws it away, so that the table and the folder agree. Who needs the list of writable layers, too,
/// locks this first.
#[derive(Debug, Default)]
pub(crate) struct Table(pub(crate) HashMap<DiffId, Entry>);

impl Table {
    /// Counts one more user of each layer, or of none if one is missing.
    pub(crate) fn acquire(&mut self, diff_ids: &[DiffId]) -> Result<()> {
        if let Some(missing) = diff_ids.iter().find(|id| !self.0.contains_key(id)) {
            return Err(Error::NoSuchLayer(*missing));
        }
        for id in diff_ids {
            if let Some(entry) = self.0.get_mut(id) {
                entry.users += 1;
            }
        }
        Ok(())
    }
}

/// A layer that stays as long as this value lives, whether an image names it or not.
#[derive(Debug)]
pub struct Layer {
    store: Store,
    diff_id: DiffId,
    size_bytes: u64,
}

impl Layer {
    /// Takes over a user that has been counted already.
    pub(crate) fn counted(store: Store, diff_id: DiffId, size_bytes: u64) -> Self {
        Self { store, diff_id, size_bytes }
    }

    /// Its id.
    #[must_use]
    pub fn diff_id(&self) -> DiffId {
        self.diff_id
    }

    /// Sum of the sizes of its files.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }
}

impl Drop for Layer {
    fn drop(&mut self) {
        self.store.inner.release(&[self.diff_id]);
    }
}

impl Store {
    /// The layer with this id, if it is there; it then stays while the value lives.
    #[must_use]
    pub fn layer(&self, diff_id: &DiffId) -> Option<Layer> {
        let mut table = self.inner.table();
        let entry = table.0.get_mut(diff_id)?;
        entry.users += 1;
        Some(Layer::counted(self.clone(), *diff_id, entry.size_bytes))
    }

    /// Sum of the sizes of a layer's files in bytes, if it is there.
    #[must_use]
    pub fn layer_size(&self, diff_id: &DiffId) -> Option<u64> {
        self.inner.table().0.get(diff_id).map(|entry| entry.size_bytes)
    }

    /// Length of a layer's uncompressed tar in bytes.
    pub(crate) fn layer_tar_bytes(&self, diff_id: &DiffId) -> Result<u64> {
        let path = self.inner.layer_folder(diff_id).join(LayerRecord::FILE);
        let record = wherry_durable::read_json::<LayerRecord>(&path).context("read", path)?;
        Ok(record.ok_or(Error::NoSuchLayer(*diff_id))?.tar_bytes)
    }

    /// Sum of the sizes of all layers in bytes, each counted once.
    #[must_use]
    pub fn layers_bytes(&self) -> u64 {
        self.inner.table().0.values().map(|entry| entry.size_bytes).sum()
    }

    /// The folder with a layer's files. It must not be changed.
    #[must_use]
    pub fn layer_diff(&self, diff_id: &DiffId) -> PathBuf {
        self.inner.layer_folder(diff_id).join("diff")
    }
}

impl Inner {
    pub(crate) fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn layer_folder(&self, diff_id: &DiffId) -> PathBuf {
        self.overlay.join(diff_id.0.hex())
    }

    /// Counts one user less of each layer, and throws away those that nobody needs any more.
    pub(crate) fn release(&self, diff_ids: &[DiffId]) {
        self.release_from(&mut self.table(), diff_ids);
    }

    /// As [`Inner::release`], for who has locked the table.
    pub(crate) fn release_from(&self, table: &mut Table, diff_ids: &[DiffId]) {
        for id in diff_ids {
            let Some(entry) = table.0.get_mut(id) else { continue };
            entry.users = entry.users.saturating_sub(1);
            if entry.users > 0 {
                continue;
            }
            table.0.remove(id);
            if let Err(error) = self.trash.throw(&self.layer_folder(id)) {
                tracing::warn!(layer = %id, %error, "cannot delete the layer; the next start tries again");
            }
        }
    }

    /// Puts a finished layer from `staged` in its place, or throws it away if it is there already.
    /// The caller becomes a user.
    pub(crate) fn adopt(&self, staged: &Path, diff_id: &DiffId, size_bytes: u64) -> Result<()> {
        let mut table = self.table();
        if let Some(entry) = table.0.get_mut(diff_id) {
            entry.users += 1;
            return self.trash.throw(staged).context("delete", staged);
        }
        let folder = self.layer_folder(diff_id);
        std::fs::rename(staged, &folder).context("rename", staged)?;
        // Containers may have been waiting for a layer that was damaged or lost.
        let writables = self.writables();
        let waiting = writables.values().flat_map(|writable| writable.layers.iter());
        let users = 1 + waiting.filter(|id| *id == diff_id).count();
        table.0.insert(*diff_id, Entry { size_bytes, users });
        Ok(())
    }
}
