//! What is kept of a container: `--root`/ID/state.json.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use wherry_runtime::{Container, SavedState, Status, is_container_id};

use crate::failure::Failure;

/// A container's record.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    /// When it was made, RFC 3339.
    pub(crate) created: String,
    /// `ociVersion` of its specification.
    pub(crate) oci_version: String,
    /// The absolute path of its root file system.
    pub(crate) rootfs: PathBuf,
    /// The annotations of its specification.
    pub(crate) annotations: std::collections::BTreeMap<String, String>,
    /// The library's part.
    pub(crate) state: SavedState,
}

/// A container's folder.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    folder: PathBuf,
}

impl Store {
    /// The folder of that container. Ids become names of folders, so what is no id is unknown.
    pub(crate) fn new(root: &Path, id: &str) -> Result<Store, Failure> {
        if !is_container_id(id) {
            return Err(Failure::NoSuchContainer);
        }
        Ok(Store { folder: root.join(id) })
    }

    /// Its path.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes the folder, which takes the id.
    pub(crate) fn make(&self) -> Result<(), Failure> {
        if let Some(root) = self.folder.parent() {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(root);
            made.map_err(Failure::file("make", root))?;
        }
        match fs::DirBuilder::new().mode(0o711).create(&self.folder) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Err(Failure::Exists),
            Err(e) => Err(Failure::file("make", &self.folder)(e)),
        }
    }

    /// Writes the record. Processes do not outlive the machine, so nothing is synced.
    pub(crate) fn save(&self, record: &Record) -> Result<(), Failure> {
        let path = self.folder.join("state.json");
        let text = serde_json::to_vec(record).map_err(Failure::file("write", &path))?;
        write_by_rename(&path, &text, 0o600)
    }

    /// Reads the record.
    pub(crate) fn load(&self) -> Result<Record, Failure> {
        let path = self.folder.join("state.json");
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(Failure::file("parse", &path)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(Failure::NoSuchContainer),
            Err(e) => Err(Failure::file("read", &path)(e)),
        }
    }

    /// Opens the container; `None` if it has stopped.
    pub(crate) fn open(&self) -> Result<(Record, Option<Container>), Failure> {
        let record = self.load()?;
        let container = record.state.open()?;
        Ok((record, container))
    }

    /// Opens a container that runs.
    pub(crate) fn open_running(&self) -> Result<Container, Failure> {
        self.open()?.1.ok_or(Failure::NotRunning)
    }

    /// Forgets the container.
    pub(crate) fn remove(&self) -> Result<(), Failure> {
        match fs::remove_dir_all(&self.folder) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(Failure::file("remove", &self.folder)(e))
            }
            _ => Ok(()),
        }
    }
}

/// The ids of all containers under a root, sorted; none if there is no such folder.
pub(crate) fn ids(root: &Path) -> Result<Vec<String>, Failure> {
    let entries = match fs::read_dir(root) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(Failure::file("read", root))?,
    };
    let mut ids: Vec<String> =
        entries.flatten().filter_map(|entry| entry.file_name().to_str().map(str::to_owned)).collect();
    ids.sort();
    Ok(ids)
}

/// In which state it is.
pub(crate) fn status(container: Option<&Container>) -> Status {
    container.map_or(Status::Stopped, Container::status)
}

/// A reader sees the old content or the new one.
pub(crate) fn write_by_rename(path: &Path, content: &[u8], mode: u32) -> Result<(), Failure> {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let temporary = path.with_file_name(format!(".{name}"));
    let mut options = fs::OpenOptions::new();
    let written = options.write(true).create(true).truncate(true).mode(mode).open(&temporary);
    let written = written.and_then(|mut file| file.write_all(content));
    written.and_then(|()| fs::rename(&temporary, path)).map_err(Failure::file("write", path))
}
