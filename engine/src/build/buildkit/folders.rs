//! Folders that keep what clients sent, so that next time only what has changed travels. They are in `DATA_ROOT/build/local`;
//! one that is in use belongs to its build alone.

use std::collections::HashSet;
use std::fs::DirBuilder;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use rustix::fs::{Mode, OFlags};
use wherry_image_ref::Digest;

use crate::error::Error;

/// How many folders are kept that nobody uses.
const MAX_IDLE: usize = 16;

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Folders {
    in_use: Mutex<HashSet<PathBuf>>,
}

/// One that is in use.
#[derive(Debug)]
pub(super) struct Lease {
    folders: Arc<Folders>,
    path: PathBuf,
}

impl Folders {
    /// Takes a folder for files of a kind, if possible one that has some already. Blocking.
    ///
    /// # Errors
    /// What the file system says.
    pub(super) fn lease(self: &Arc<Self>, parent: &Path, kind: &str) -> Result<Lease, Error> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(parent);
        made.map_err(Error::io("create", parent.display()))?;
        let kind = Digest::of(kind.as_bytes()).short();
        let path = {
            let mut in_use = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
            let mut number = 0_u32;
            loop {
                let path = parent.join(format!("{kind}-{number}"));
                if in_use.insert(path.clone()) {
                    break path;
                }
                number += 1;
            }
        };
        let lease = Lease { folders: self.clone(), path };
        match DirBuilder::new().mode(0o755).create(&lease.path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(Error::io("create", lease.path.display())(error));
            }
            _ => {}
        }
        // The time of its last use.
        if let Ok(folder) = std::fs::File::open(&lease.path) {
            let _ = folder.set_modified(SystemTime::now());
        }
        self.forget(parent);
        Ok(lease)
    }

    /// Deletes those that have not been used for longest, if there are too many.
    fn forget(&self, parent: &Path) {
        let Ok(entries) = std::fs::read_dir(parent) else { return };
        let mut idle: Vec<_> =
            entries.flatten().filter_map(|e| Some((e.metadata().ok()?.modified().ok()?, e.path()))).collect();
        idle.sort();
        let excess = idle.len().saturating_sub(MAX_IDLE);
        for (_, path) in idle.into_iter().take(excess) {
            let mut in_use = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
            if in_use.insert(path.clone()) {
                drop(in_use);
                if let Err(error) = std::fs::remove_dir_all(&path) {
                    tracing::warn!(path = %path.display(), %error, "files of an earlier build could not be deleted");
                }
                self.in_use.lock().unwrap_or_else(PoisonError::into_inner).remove(&path);
            }
        }
    }
}

impl Lease {
    /// The folder.
    ///
    /// # Errors
    /// What the file system says.
    pub(super) fn open(&self) -> Result<OwnedFd, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::open(&self.path, flags, Mode::empty())
            .map_err(|errno| Error::io("open", self.path.display())(errno.into()))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.folders.in_use.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_user_and_keeps_its_files() {
        let root = tempfile::tempdir().unwrap();
        let folders = Arc::new(Folders::default());
        let first = folders.lease(root.path(), "context").unwrap();
        let second = folders.lease(root.path(), "context").unwrap();
        assert_ne!(first.path, second.path);
        std::fs::write(first.path.join("file"), "x").unwrap();
        let path = first.path.clone();
        drop(first);
        let again = folders.lease(root.path(), "context").unwrap();
        assert_eq!(again.path, path);
        assert!(path.join("file").exists());
        let many: Vec<_> = (0..40).map(|n| folders.lease(root.path(), &n.to_string()).unwrap()).collect();
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 42, "what is in use stays");
        drop(many);
        drop(folders.lease(root.path(), "one more").unwrap());
        assert!(std::fs::read_dir(root.path()).unwrap().count() <= MAX_IDLE + 2);
        assert!(path.exists(), "it is in use");
    }
}
