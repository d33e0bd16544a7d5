//! Digests of files that have been read before, so that a build reads only what has changed.
//!
//! A file is known again by its inode, its size and the time at which the inode changed last. The kernel sets that time whenever
//! somebody writes to a file, puts another one in its place or changes its attributes, and nobody can set it otherwise. What is
//! known is kept beside the files, as good advice: what cannot be read is read anew.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::Stat;
use wherry_image_ref::Digest;

/// Begins a file of digests; another one is none.
const MAGIC: &[u8; 16] = b"wherry digests 1";
/// Inode, change (seconds, nanoseconds), size, digest.
const RECORD_BYTES: usize = 8 + 8 + 8 + 8 + 32;
/// How many digests are kept of one folder: as many as a client may send of a context, at 64 bytes each.
const MAX_RECORDS: usize = 1 << 21;

/// Digests of the files in one folder, which has one user at a time.
#[derive(Debug)]
pub(in super::super) struct Known {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By inode; `None` until somebody asks.
    digests: Option<HashMap<u64, (Version, Digest)>>,
    has_changed: bool,
}

/// When the inode changed, and its size.
type Version = [u64; 3];

impl Known {
    /// Those in a file, which is read when somebody asks.
    pub(in super::super) fn at(path: PathBuf) -> Self {
        Self { path, state: Mutex::default() }
    }

    /// The digest of a file's content, if it is the one that was read.
    pub(super) fn get(&self, stat: &Stat) -> Option<Digest> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let digests = state.digests.get_or_insert_with(|| read(&self.path));
        let (version, digest) = digests.get(&stat.st_ino)?;
        (*version == version_of(stat)).then_some(*digest)
    }

    /// Remembers it.
    pub(in super::super) fn put(&self, stat: &Stat, digest: Digest) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let digests = state.digests.get_or_insert_with(|| read(&self.path));
        if digests.len() >= MAX_RECORDS && !digests.contains_key(&stat.st_ino) {
            return;
        }
        digests.insert(stat.st_ino, (version_of(stat), digest));
        state.has_changed = true;
    }

    /// Writes what has been added, in one piece. That it cannot be written costs time later, nothing else.
    pub(in super::super) fn save(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::mem::take(&mut state.has_changed) {
            return;
        }
        let Some(digests) = &state.digests else { return };
        let mut bytes = Vec::with_capacity(MAGIC.len() + digests.len() * RECORD_BYTES);
        bytes.extend(MAGIC);
        for (inode, (version, digest)) in digests {
            for number in [inode].into_iter().chain(version) {
                bytes.extend(number.to_le_bytes());
            }
            bytes.extend(digest.as_bytes());
        }
        // Not brought to the disk: after a power cut nobody asks for these files any more.
        let new = self.path.with_extension("new");
        let written = File::create(&new).and_then(|mut file| file.write_all(&bytes));
        if let Err(error) = written.and_then(|()| std::fs::rename(&new, &self.path)) {
            tracing::warn!(path = %self.path.display(), %error, "digests of files could not be kept");
        }
    }
}

fn version_of(stat: &Stat) -> Version {
    // As they are in memory: they are only compared.
    [stat.st_ctime.cast_unsigned(), stat.st_ctime_nsec, stat.st_size.cast_unsigned()]
}

fn read(path: &Path) -> HashMap<u64, (Version, Digest)> {
    let bytes = std::fs::read(path).unwrap_or_default();
    let records = bytes.strip_prefix(MAGIC).unwrap_or_default();
    let found: HashMap<_, _> = records.chunks_exact(RECORD_BYTES).filter_map(record).collect();
    // One with too many is of files that have gone for the most part.
    if found.len() < MAX_RECORDS { found } else { HashMap::new() }
}

fn record(bytes: &[u8]) -> Option<(u64, (Version, Digest))> {
    let (numbers, digest) = bytes.split_at_checked(RECORD_BYTES - 32)?;
    let number = |at: usize| Some(u64::from_le_bytes(numbers.get(at * 8..at * 8 + 8)?.try_into().ok()?));
    Some((number(0)?, ([number(1)?, number(2)?, number(3)?], Digest::from_bytes(digest.try_into().ok()?))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, Mode, chmodat, stat};

    #[test]
    fn a_file_is_known_until_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let (file, kept) = (folder.path().join("file"), folder.path().join("kept"));
        std::fs::write(&file, "content").unwrap();
        let known = Known::at(kept.clone());
        let before = stat(&file).unwrap();
        assert_eq!(known.get(&before), None);
        known.put(&before, Digest::of(b"content"));
        known.save();
        let again = Known::at(kept.clone());
        assert_eq!(again.get(&before), Some(Digest::of(b"content")));
        // The kernel's clock for such times ticks every few milliseconds.
        std::thread::sleep(std::time::Duration::from_millis(20));
        chmodat(CWD, &file, Mode::RUSR, rustix::fs::AtFlags::empty()).unwrap();
        assert_eq!(again.get(&stat(&file).unwrap()), None);
        for damaged in [&b""[..], b"wherry digests 0", b"wherry digests 1 and half a record"] {
            std::fs::write(&kept, damaged).unwrap();
            assert_eq!(Known::at(kept.clone()).get(&before), None);
        }
    }
}
