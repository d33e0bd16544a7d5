//! Writes state files so that, after a crash or a power cut at any instant, a
//! reader finds either the old content or the new one, never a part.
//!
//! Every process that keeps state (engine, monitor, netd, image store) goes
//! through [`write()`]; this crate knows nothing of what it stores. It runs in the
//! caller's thread and owns no files beyond the temporary name it renames away.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Replaces the file at `path` by `bytes`, with permissions `mode` (as in `0o600`).
///
/// The bytes go to `.NAME.tmp` beside it, are synced, renamed into place, and
/// the folder is synced. A path has one writer: two at once would share the
/// temporary name.
///
/// # Errors
/// Whatever the file system answers; the old content is then still in place.
pub fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let temporary = temporary_name(path)?;
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    if let Err(error) = written.and_then(|()| std::fs::rename(&temporary, path)) {
        // The error of the write is the one to report; a left-over is overwritten next time.
        let _ = std::fs::remove_file(&temporary);
        return Err(error);
    }
    sync_parent(path)
}

/// Serialises `value` and [`write()`]s it with mode 0600.
///
/// # Errors
/// As [`write()`]; a value that cannot be serialised is `InvalidData`.
pub fn write_json<T: Serialize + ?Sized>(path: &Path, value: &T) -> io::Result<()> {
    let bytes = serde_json::to_vec(value).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
    write(path, &bytes, 0o600)
}

/// Reads back what [`write_json`] wrote. A file that is not there is `Ok(None)`.
///
/// # Errors
/// I/O errors; `InvalidData` when the content does not parse as `T`.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {e}", path.display())))
}

/// Syncs the folder that holds `path`, which makes a creation, rename or removal in it durable.
///
/// # Errors
/// Whatever open or fsync of the folder answers.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

fn temporary_name(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(".tmp");
    Ok(path.with_file_name(hidden))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_and_leaves_no_temporary_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        assert_eq!(read_json::<u32>(&path).unwrap(), None);
        write_json(&path, &1).unwrap();
        write_json(&path, &2).unwrap();
        assert_eq!(read_json(&path).unwrap(), Some(2));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_write_keeps_the_old_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub");
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("kept"), "").unwrap();
        assert!(write(&path, b"x", 0o600).is_err(), "a folder that is not empty cannot be replaced");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
