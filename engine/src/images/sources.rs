//! What is known of layers as blobs: under which digests, and where.
//!
//! With it a push asks the registry for blobs that it may have instead of making and sending them. It
//! is only good advice: what is lost or wrong costs an upload. Files: `DATA_ROOT/distribution/<diff id>`,
//! written by the engine, not synced.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use wherry_image_ref::{Digest, Reference};
use wherry_image_store::{DiffId, Store};

use crate::error::Error;

const VERSION: u32 = 1;
/// As many as dockerd remembers of one layer.
const MAX_SOURCES: usize = 50;

/// A layer as a gzipped blob in a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Source {
    /// Digest of the compressed bytes.
    pub(crate) digest: Digest,
    /// With its registry: `docker.io/library/busybox`.
    pub(crate) repository: String,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Record {
    version: u32,
    /// The newest last.
    sources: Vec<Source>,
}

/// The sources of all layers.
#[derive(Debug)]
pub(crate) struct Sources {
    folder: PathBuf,
    /// Held over a change, so that none is lost.
    writer: Mutex<()>,
}

impl Sources {
    /// Opens them in `data_root`, and forgets layers that the store does not have.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn open(data_root: &Path, store: &Store) -> Result<Self, Error> {
        let folder = data_root.join("distribution");
        fs::create_dir_all(&folder).map_err(Error::io("create", folder.display()))?;
        for entry in fs::read_dir(&folder).map_err(Error::io("read", folder.display()))?.flatten() {
            let id = entry.file_name().to_str().and_then(|name| Digest::from_hex(name).ok()).map(DiffId);
            if id.is_none_or(|id| store.layer_size(&id).is_none()) {
                // Left for the next start if it cannot be removed: it harms nobody.
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(Self { folder, writer: Mutex::default() })
    }

    /// What is known of a layer, the best first: from this repository, then from repositories of the
    /// same registry with a like path, the newest first.
    pub(crate) fn of(&self, layer: &DiffId, repository: &Reference) -> Vec<Source> {
        let mut sources = self.read(layer).sources;
        sources.reverse();
        let name = repository.full_name();
        sources.sort_by_key(|source| std::cmp::Reverse(common_parts(&source.repository, &name)));
        sources
    }

    /// Notes that a repository has this layer as a blob.
    pub(crate) fn remember(&self, layer: &DiffId, digest: Digest, repository: &Reference) {
        let source = Source { digest, repository: repository.full_name() };
        self.change(layer, |sources| {
            if sources.last() == Some(&source) {
                return false;
            }
            sources.retain(|known| *known != source);
            sources.push(source);
            sources.drain(..sources.len().saturating_sub(MAX_SOURCES));
            true
        });
    }

    /// Notes that a repository does not have it.
    pub(crate) fn forget(&self, layer: &DiffId, gone: &Source) {
        self.change(layer, |sources| {
            let before = sources.len();
            sources.retain(|known| known != gone);
            sources.len() != before
        });
    }

    fn change(&self, layer: &DiffId, change: impl FnOnce(&mut Vec<Source>) -> bool) {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut record = self.read(layer);
        if change(&mut record.sources) {
            record.version = VERSION;
            if let Err(error) = self.write(layer, &record) {
                tracing::warn!(%layer, %error, "cannot note where the layer is");
            }
        }
    }

    fn read(&self, layer: &DiffId) -> Record {
        let read = fs::read(self.folder.join(layer.0.hex())).ok();
        let record = read.and_then(|bytes| serde_json::from_slice::<Record>(&bytes).ok());
        record.filter(|record| record.version == VERSION).unwrap_or_default()
    }

    fn write(&self, layer: &DiffId, record: &Record) -> io::Result<()> {
        let path = self.folder.join(layer.0.hex());
        let aside = path.with_extension("new");
        fs::write(&aside, serde_json::to_vec(record)?)?;
        fs::rename(aside, path)
    }
}

/// How many parts of two names are the same, from their beginnings.
fn common_parts(one: &str, other: &str) -> usize {
    one.split('/').zip(other.split('/')).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Reference {
        text.parse().unwrap()
    }

    #[test]
    fn likely_sources_come_first_and_gone_ones_are_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let sources = Sources::open(folder.path(), &store).unwrap();
        let layer = DiffId(Digest::of(b"layer"));
        let [one, two] = [Digest::of(b"1"), Digest::of(b"2")];
        for (digest, repository) in
            [(one, "reg:5/a/x"), (one, "reg:5/b/y"), (two, "busybox"), (two, "reg:5/c/z")]
        {
            sources.remember(&layer, digest, &name(repository));
        }
        let found = |of: &str| -> Vec<String> {
            sources.of(&layer, &name(of)).into_iter().map(|source| source.repository).collect()
        };
        assert_eq!(found("reg:5/a/w"), ["reg:5/a/x", "reg:5/c/z", "reg:5/b/y", "docker.io/library/busybox"]);
        let first = sources.of(&layer, &name("reg:5/c/z")).remove(0);
        assert_eq!(first, Source { digest: two, repository: "reg:5/c/z".into() });
        sources.forget(&layer, &first);
        assert_eq!(found("reg:5/c/z"), ["reg:5/b/y", "reg:5/a/x", "docker.io/library/busybox"]);
        for number in 0..60 {
            sources.remember(&layer, one, &name(&format!("reg:5/many{number}")));
        }
        assert_eq!(found("x").len(), MAX_SOURCES);
        // The layer is not in the store.
        assert!(Sources::open(folder.path(), &store).unwrap().of(&layer, &name("x")).is_empty());
    }

    #[test]
    fn damaged_notes_are_no_notes() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let sources = Sources::open(folder.path(), &store).unwrap();
        let layer = DiffId(Digest::of(b"layer"));
        fs::write(sources.folder.join(layer.0.hex()), "").unwrap();
        assert!(sources.of(&layer, &name("x")).is_empty());
        sources.remember(&layer, Digest::of(b""), &name("x"));
        assert_eq!(sources.of(&layer, &name("x")).len(), 1);
    }
}
