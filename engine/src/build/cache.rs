//! What steps have left, by a number that says what they did: `DATA_ROOT/build/cache.json` and the layers that it names.
//!
//! A step's key is made of all that can change its result: the instruction with its variables replaced, user, folder and
//! environment, the layers below it and of all that is mounted, the digests of the files that it copies (`key`). It names a layer,
//! which the store keeps as long as this cache does. The file is advice: one that is lost or damaged costs time. Layers that
//! were not on the disk before the system died are forgotten, by the mark of the boot in which they were made.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use serde::{Deserialize, Serialize};
use wherry_image_ref::Digest;
use wherry_image_store::{DiffId, Layer, Store, boot_id};

use super::file_system::{Definition, Made};
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
    /// By what makes all that the step works on; only of what came from elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) definition: Option<Definition>,
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

/// A result that was asked for by its definition.
#[derive(Debug)]
pub(super) struct Found {
    /// Its own key.
    pub(super) key: Key,
    pub(super) layer: Arc<Layer>,
    pub(super) created_ns: i64,
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

/// What a file names and can be relied on, before the store is open.
#[derive(Debug, Default)]
pub(crate) struct Stored(BTreeMap<Key, Record>);

impl Stored {
    /// Reads `DATA_ROOT/build/cache.json`; a damaged one is none. Records of another boot that had not been synced are left
    /// out: their layers may have holes, and whoever spared them here would have them taken for whole ones later.
    pub(crate) fn read(data_root: &Path) -> Self {
        match wherry_durable::read_json::<File>(&path(data_root)) {
            Ok(Some(mut file)) if file.version == VERSION => {
                let boot = boot_id();
                file.records.retain(|_, record| record.boot.as_ref().is_none_or(|of| *of == boot));
                Self(file.records)
            }
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
            if let Some(layer) = store.layer(&record.diff_id) {
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
        let created_ns = crate::clock::now_ns();
        let description = description.to_owned();
        self.adopt(&Made { key, definition: None, created_ns, description }, layer);
        created_ns
    }

    /// Remembers what a step has left elsewhere.
    pub(super) fn adopt(&self, made: &Made, layer: Arc<Layer>) {
        let now = crate::clock::now_ns();
        let record = Record {
            diff_id: layer.diff_id(),
            description: made.description.clone(),
            // Not everybody who offers results knows when they were made.
            created_ns: if made.created_ns > 0 { made.created_ns } else { now },
            used_ns: now,
            uses: 1,
            definition: made.definition,
            boot: Some(self.store.boot().to_owned()),
        };
        self.entries().insert(made.key, Entry { record, layer });
    }

    /// Whether any result is known by a definition, or by this one.
    pub(super) fn knows_definition(&self, key: Option<&Key>) -> bool {
        let entries = self.entries();
        let mut known = entries.values().filter_map(|entry| entry.record.definition);
        known.any(|definition| key.is_none_or(|key| definition.key == *key))
    }

    /// The result with this definition.
    pub(super) fn by_definition(&self, definition: &Definition) -> Option<Found> {
        let mut entries = self.entries();
        let mut all = entries.iter_mut();
        let (key, entry) = all.find(|(_, entry)| entry.record.definition.as_ref() == Some(definition))?;
        entry.record.used_ns = crate::clock::now_ns();
        entry.record.uses += 1;
        Some(Found { key: *key, layer: entry.layer.clone(), created_ns: entry.record.created_ns })
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
        let pending = self.pending();
        if pending.is_empty() {
            return;
        }
        if let Err(error) = self.store.sync() {
            tracing::warn!(%error, "the build cache could not be brought to the disk");
            return;
        }
        self.settled(&pending);
        self.save();
    }

    /// What may not be on the disk yet. Times tell nothing: those of offered results are the same each time.
    fn pending(&self) -> Vec<(Key, Weak<Layer>)> {
        let entries = self.entries();
        let pending = entries.iter().filter(|(_, entry)| entry.record.boot.is_some());
        pending.map(|(key, entry)| (*key, Arc::downgrade(&entry.layer))).collect()
    }

    /// These are on the disk, unless they have been made anew since.
    fn settled(&self, pending: &[(Key, Weak<Layer>)]) {
        let mut entries = self.entries();
        for (key, layer) in pending {
            if let Some(entry) = entries.get_mut(key)
                && std::ptr::eq(Arc::as_ptr(&entry.layer), layer.as_ptr())
            {
                entry.record.boot = None;
            }
        }
    }

    fn entries(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A store and its cache, with a step's layer in it.
    fn with_layer(root: &Path) -> (Store, Cache, Key) {
        let store = Store::open(root).unwrap();
        let cache = Cache::open(root, &store, Stored::default()).unwrap();
        let key = Key::of(b"step");
        cache.add(key, "RUN make", layer(&store, "made"));
        (store, cache, key)
    }

    fn layer(store: &Store, file: &str) -> Arc<Layer> {
        let draft = store.draft(&[]).unwrap();
        std::fs::write(draft.upper().join(file), file).unwrap();
        Arc::new(draft.seal().unwrap())
    }

    #[test]
    fn a_layer_that_was_not_on_the_disk_when_the_system_died_is_not_spared() {
        for (boot, kept) in [("another", false), (boot_id().as_str(), true)] {
            let folder = tempfile::tempdir().unwrap();
            let (store, cache, key) = with_layer(folder.path());
            let diff = store.layer_diff(&cache.find(&key).unwrap().diff_id());
            cache.save();
            let text = std::fs::read_to_string(path(folder.path())).unwrap().replace(store.boot(), boot);
            std::fs::write(path(folder.path()), text).unwrap();
            // As if the process had been killed.
            std::mem::forget((store, cache));
            let stored = Stored::read(folder.path());
            let (_store, _kept) = Store::open_keeping(folder.path(), &stored.layers()).unwrap();
            assert_eq!(diff.exists(), kept, "{boot}");
        }
    }

    #[test]
    fn a_sync_says_nothing_of_what_was_made_since() {
        let folder = tempfile::tempdir().unwrap();
        let (store, cache, key) = with_layer(folder.path());
        let pending = cache.pending();
        cache.add(key, "RUN make", layer(&store, "made anew"));
        cache.settled(&pending);
        assert_eq!(cache.pending().len(), 1);
        // Offered results say when they were made: always the same.
        let made = Made { key, definition: None, created_ns: 7, description: String::new() };
        cache.adopt(&made, layer(&store, "offered"));
        let pending = cache.pending();
        cache.adopt(&made, layer(&store, "offered again"));
        cache.settled(&pending);
        assert_eq!(cache.pending().len(), 1);
        cache.settle();
        assert!(cache.pending().is_empty());
    }
}
