//! Folders that keep what clients sent, so that next time only what has changed travels. They are in `DATA_ROOT/build/local`;
//! one that is in use belongs to its build alone.
//!
//! Each has `files`, which the transfer makes equal to what the client has, and `digests` of those that were read. Nothing else
//! says what is there but the files themselves: the time of a file is set when all of its bytes are in it, so that one that was
//! left half-written does not look like the client's. That holds while the system lives: after a power cut a file may lack bytes
//! that it seems to have. So the name of a folder says in which run of the system it was made, and those of others are not used.

use std::collections::HashSet;
use std::fs::DirBuilder;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustix::fs::{Mode, OFlags};
use wherry_image_ref::Digest;

use crate::build::files::Known;
use crate::build::usage::size_of;
use crate::error::Error;

/// How many folders are kept that nobody uses.
const MAX_IDLE: usize = 16;
/// What is kept for as long as this in any case, and longer if all of it is small: as BuildKit does by itself.
const KEPT_FOR: Duration = Duration::from_secs(48 * 60 * 60);
const KEPT_BYTES: u64 = 512 << 20;

/// All of them.
#[derive(Debug)]
pub(in crate::build) struct Folders {
    parent: PathBuf,
    /// Begins the names of those of this run of the system.
    boot: String,
    in_use: Mutex<HashSet<PathBuf>>,
}

/// One that is in use.
#[derive(Debug)]
pub(super) struct Lease {
    folders: Arc<Folders>,
    path: PathBuf,
}

/// One that is there.
#[derive(Debug, Clone)]
pub(in crate::build) struct Kept {
    /// Where.
    pub(in crate::build) path: PathBuf,
    /// Whether a build uses it.
    pub(in crate::build) in_use: bool,
    /// When it was made.
    pub(in crate::build) created: SystemTime,
    /// When a build began to use it last.
    pub(in crate::build) used: SystemTime,
}

impl Folders {
    /// Those of a data root, in the run of the system that `boot` names.
    pub(in crate::build) fn new(data_root: &Path, boot: &str) -> Self {
        let parent = data_root.join("build").join("local");
        Self { parent, boot: Digest::of(boot.as_bytes()).short(), in_use: Mutex::default() }
    }

    /// Takes a folder for files of a kind, if possible one that has some already. Blocking.
    ///
    /// # Errors
    /// What the file system says.
    pub(super) fn lease(self: &Arc<Self>, kind: &str) -> Result<Lease, Error> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.parent);
        made.map_err(Error::io("create", self.parent.display()))?;
        let kind = Digest::of(kind.as_bytes()).short();
        let path = {
            let mut in_use = self.in_use();
            let mut number = 0_u32;
            loop {
                let path = self.parent.join(format!("{}-{kind}-{number}", self.boot));
                if in_use.insert(path.clone()) {
                    break path;
                }
                number += 1;
            }
        };
        let lease = Lease { folders: self.clone(), path };
        for path in [&lease.path, &lease.files()] {
            match DirBuilder::new().mode(0o755).create(path) {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                    return Err(Error::io("create", path.display())(error));
                }
                _ => {}
            }
        }
        // The time of its last use.
        if let Ok(folder) = std::fs::File::open(&lease.path) {
            let _ = folder.set_modified(SystemTime::now());
        }
        self.forget();
        Ok(lease)
    }

    /// All that are there. Blocking.
    pub(in crate::build) fn all(&self) -> Vec<Kept> {
        let entries = std::fs::read_dir(&self.parent).into_iter().flatten().flatten();
        let known = entries.filter_map(|entry| {
            let (path, metadata) = (entry.path(), entry.metadata().ok()?);
            let used = metadata.modified().ok()?;
            let in_use = self.in_use().contains(&path);
            Some(Kept { path, in_use, created: metadata.created().unwrap_or(used), used })
        });
        known.collect()
    }

    /// Deletes one, unless it is in use. Whether it is gone. Blocking.
    pub(in crate::build) fn remove(&self, path: &Path) -> bool {
        if !self.in_use().insert(path.to_owned()) {
            return false;
        }
        let removed = std::fs::remove_dir_all(path);
        self.in_use().remove(path);
        if let Err(error) = &removed {
            tracing::warn!(path = %path.display(), %error, "files of an earlier build could not be deleted");
        }
        removed.is_ok()
    }

    /// Deletes those that are of no use any more, and those that have not been used for longest, if there are too many.
    fn forget(&self) {
        let mut idle: Vec<Kept> = self.all().into_iter().filter(|kept| !kept.in_use).collect();
        idle.sort_by_key(|kept| kept.used);
        let mut excess = idle.len().saturating_sub(MAX_IDLE);
        let mut bytes = None;
        for kept in &idle {
            let name = kept.path.file_name().unwrap_or_default().to_string_lossy();
            let of_this_boot = name.strip_prefix(&self.boot).is_some_and(|rest| rest.starts_with('-'));
            let is_old = kept.used.elapsed().is_ok_and(|age| age > KEPT_FOR);
            // What they take is only counted where one is old enough to go for it.
            let mut too_large = || {
                *bytes.get_or_insert_with(|| idle.iter().map(|kept| size_of(&kept.path)).sum::<u64>())
                    > KEPT_BYTES
            };
            if !of_this_boot || excess > 0 || (is_old && too_large()) {
                let size = bytes.map(|_| size_of(&kept.path));
                if self.remove(&kept.path) {
                    excess = excess.saturating_sub(1);
                    bytes = bytes.map(|all| all.saturating_sub(size.unwrap_or_default()));
                }
            }
        }
    }

    fn in_use(&self) -> std::sync::MutexGuard<'_, HashSet<PathBuf>> {
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease {
    fn files(&self) -> PathBuf {
        self.path.join("files")
    }

    /// The folder of the files.
    ///
    /// # Errors
    /// What the file system says.
    pub(super) fn open(&self) -> Result<OwnedFd, Error> {
        let files = self.files();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::open(&files, flags, Mode::empty())
            .map_err(|errno| Error::io("open", files.display())(errno.into()))
    }

    /// The digests of those that have been read.
    pub(super) fn known(&self) -> Known {
        Known::at(self.path.join("digests"))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.folders.in_use().remove(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_user_and_keeps_its_files() {
        let root = tempfile::tempdir().unwrap();
        let count = || std::fs::read_dir(root.path().join("build/local")).unwrap().count();
        let folders = Arc::new(Folders::new(root.path(), "this boot"));
        let first = folders.lease("context").unwrap();
        let second = folders.lease("context").unwrap();
        assert_ne!(first.path, second.path);
        std::fs::write(first.files().join("file"), "x").unwrap();
        let path = first.path.clone();
        assert!(!folders.remove(&path), "it is in use");
        drop(first);
        let again = folders.lease("context").unwrap();
        assert_eq!(again.path, path);
        assert!(path.join("files/file").exists());
        let many: Vec<_> = (0..40).map(|n| folders.lease(&n.to_string()).unwrap()).collect();
        assert_eq!(count(), 42, "what is in use stays");
        drop(many);
        drop(folders.lease("one more").unwrap());
        assert!(count() <= MAX_IDLE + 3, "{}", count());
        assert!(path.exists(), "it is in use");
        drop((again, second));

        let next = Arc::new(Folders::new(root.path(), "the next boot"));
        let anew = next.lease("context").unwrap();
        assert_ne!(anew.path, path);
        assert_eq!(count(), 1, "what was there before the system went down is not used again");
        drop(anew);
        let all = next.all();
        assert!(!all[0].in_use && next.remove(&all[0].path));
        assert_eq!(count(), 0);
    }

    #[test]
    fn what_is_old_goes_if_all_is_large() {
        let root = tempfile::tempdir().unwrap();
        let folders = Arc::new(Folders::new(root.path(), "boot"));
        let mut paths = Vec::new();
        for (kind, bytes) in [("large", KEPT_BYTES), ("small", 1), ("young", KEPT_BYTES)] {
            let lease = folders.lease(kind).unwrap();
            std::fs::File::create(lease.files().join("sparse")).unwrap().set_len(bytes).unwrap();
            paths.push(lease.path.clone());
        }
        for path in &paths[..2] {
            let at = SystemTime::now() - KEPT_FOR - Duration::from_secs(60);
            std::fs::File::open(path).unwrap().set_modified(at).unwrap();
        }
        drop(folders.lease("now").unwrap());
        let there: Vec<bool> = paths.iter().map(|path| path.exists()).collect();
        assert_eq!(there, [false, false, true], "the old ones go for the young one's size, which stays");
    }
}
