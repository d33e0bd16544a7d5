//! What steps have left, by a number that says what they did: `DATA_ROOT/build/cache.json` and the layers that it names.
//!
//! A step's key is made of all that can change its result: the instruction with its variables replaced, user, folder and
//! environment, the layers below it and of all that is mounted, the digests of the files that it copies (`key`). It names a layer,
//! which the store keeps as long as this cache does. The file is advice: one that is lost or damaged costs time. Layers that
//! were not on the disk before the system died are forgotten, by the mark of the boot in which they were made.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use wherry_image_ref::Digest;
use wherry_image_store::{DiffId, Layer, Store};

use crate::error::Error;

const VERSION: u32 = 1;

/// The key of a step.
pub(super) type Key = Digest;

/// What is known of a result, and shown by `system df`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The layer.
    pub(crate) diff_id: DiffId,
    /// The instruction.
    pub(crate) description: String,
    /// When it was made. Nanoseconds since the epoch.
    pub(crate) created_ns: i64,
    /// When it was last of use.
    pub(crate) used_ns: i64,
    /// How often it was of use.
    pub(crate) uses: u64,
    /// The boot in which it was made, until it is on the disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) boot: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct File {
    version: u32,
    records: BTreeMap<Key, Record>,
}

/// A result that is here.
#[derive(Debug, Clone)]
struct Entry {
    record: Record,
    layer: Arc<Layer>,
}

/// All results.
#[derive(Debug)]
pub(super) struct Cache {
    path: PathBuf,
    store: Store,
    entries: Mutex<HashMap<Key, Entry>>,
    /// Held by who writes the file.
    writing: Mutex<()>,
}

/// What a file names, before the store is open.
#[derive(Debug, Default)]
pub(crate) struct Stored(BTreeMap<Key, Record>);

impl Stored {
    /// Reads `DATA_ROOT/build/cache.json`; a damaged one is none.
    pub(crate) fn read(data_root: &Path) -> Self {
        match wherry_durable::read_json::<File>(&path(data_root)) {
            Ok(Some(file)) if file.version == VERSION => Self(file.records),
            Ok(None) => Self::default(),
            Ok(Some(file)) => {
                tracing::warn!(
                    version = file.version,
                    "the build cache has an unknown version; it begins anew"
                );
                Self::default()
            }
            Err(error) => {
                tracing::warn!(%error, "the build cache cannot be read; it begins anew");
                Self::default()
            }
        }
    }

    /// The layers that it needs.
    pub(crate) fn layers(&self) -> Vec<DiffId> {
        self.0.values().map(|record| record.diff_id).collect()
    }
}

fn path(data_root: &Path) -> PathBuf {
    data_root.join("build").join("cache.json")
}

impl Cache {
    /// The cache of a store, with what was stored of it.
    pub(super) fn open(data_root: &Path, store: &Store, stored: Stored) -> Result<Self, Error> {
        let folder = data_root.join("build");
        std::fs::create_dir_all(&folder).map_err(Error::io("create", folder.display()))?;
        let mut entries = HashMap::new();
        for (key, record) in stored.0 {
            let is_whole = record.boot.as_deref().is_none_or(|boot| boot == store.boot());
            if let Some(layer) = store.layer(&record.diff_id).filter(|_| is_whole) {
                entries.insert(key, Entry { record, layer: Arc::new(layer) });
            }
        }
        let (entries, writing) = (Mutex::new(entries), Mutex::new(()));
        Ok(Self { path: path(data_root), store: store.clone(), entries, writing })
    }

    /// The layer that a step has left.
    pub(super) fn find(&self, key: &Key) -> Option<Arc<Layer>> {
        let mut entries = self.entries();
        let entry = entries.get_mut(key)?;
        entry.record.used_ns = crate::clock::now_ns();
        entry.record.uses += 1;
        Some(entry.layer.clone())
    }

    /// When a step's result was made.
    pub(super) fn created(&self, key: &Key) -> Option<i64> {
        self.entries().get(key).map(|entry| entry.record.created_ns)
    }

    /// Remembers what a step has left; returns the time that is noted as its making.
    pub(super) fn add(&self, key: Key, description: &str, layer: Arc<Layer>) -> i64 {
        let now = crate::clock::now_ns();
        let record = Record {
            diff_id: layer.diff_id(),
            description: description.to_owned(),
            created_ns: now,
            used_ns: now,
            uses: 1,
            boot: Some(self.store.boot().to_owned()),
        };
        self.entries().insert(key, Entry { record, layer });
        now
    }

    /// All results: key, record, size in bytes.
    pub(super) fn all(&self) -> Vec<(Key, Record, u64)> {
        let entries = self.entries();
        entries.iter().map(|(key, entry)| (*key, entry.record.clone(), entry.layer.size_bytes())).collect()
    }

    /// Forgets a result; its layer goes unless an image or somebody else has it. Whether it was there.
    pub(super) fn remove(&self, key: &Key) -> bool {
        let removed = self.entries().remove(key);
        removed.is_some()
    }

    /// Whether somebody uses a result at this moment.
    pub(super) fn is_in_use(&self, key: &Key) -> bool {
        self.entries().get(key).is_some_and(|entry| Arc::strong_count(&entry.layer) > 1)
    }

    /// Writes what is known. Blocking. What fails is logged: the cache is advice.
    pub(super) fn save(&self) {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let records = self.entries().iter().map(|(key, entry)| (*key, entry.record.clone())).collect();
        if let Err(error) = wherry_durable::write_json(&self.path, &File { version: VERSION, records }) {
            tracing::warn!(path = %self.path.display(), %error, "the build cache could not be stored");
        }
    }

    /// Brings all layers to the disk, and says so in the file. Blocking, for seconds perhaps.
    pub(super) fn settle(&self) {
        let pending: Vec<Key> = {
            let entries = self.entries();
            entries.iter().filter(|(_, entry)| entry.record.boot.is_some()).map(|(key, _)| *key).collect()
        };
        if pending.is_empty() {
            return;
        }
        if let Err(error) = self.store.sync() {
            tracing::warn!(%error, "the build cache could not be brought to the disk");
            return;
        }
        for key in pending {
            if let Some(entry) = self.entries().get_mut(&key) {
                entry.record.boot = None;
            }
        }
        self.save();
    }

    fn entries(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
