//! Deleting folders without making anybody wait: they are renamed away at once and emptied in the background.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::CWD;

use crate::background::Background;

/// The folder of what is to be deleted, and its worker.
#[derive(Debug)]
pub(crate) struct Trash {
    folder: PathBuf,
    serial: AtomicU64,
    emptying: Background,
}

impl Trash {
    /// Uses `folder`, which must be on the file system of what will be thrown away; what an
    /// earlier process left in it is deleted.
    pub(crate) fn open(folder: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        let left_over = fs::read_dir(&folder)?.next().is_some();
        let full = folder.clone();
        let emptying = Background::new("trash", move || {
            if let Err(error) = empty_once(&full) {
                tracing::warn!(folder = %full.display(), %error, "cannot empty the trash; the next start tries again");
            }
        });
        let trash = Self { folder, serial: AtomicU64::new(0), emptying };
        if left_over {
            trash.emptying.run();
        }
        Ok(trash)
    }

    /// Renames `path` away, atomically, and has it deleted. What is not there is no error.
    pub(crate) fn throw(&self, path: &Path) -> io::Result<()> {
        match self.rename(path) {
            Ok(()) => {
                self.emptying.run();
                Ok(())
            }
            Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    fn rename(&self, path: &Path) -> rustix::io::Result<()> {
        let name = path.file_name().unwrap_or(OsStr::new("unnamed"));
        loop {
            let mut unique = name.to_os_string();
            unique.push(format!(".{:x}", self.serial.fetch_add(1, Ordering::Relaxed)));
            let target = self.folder.join(unique);
            let flags = rustix::fs::RenameFlags::NOREPLACE;
            match rustix::fs::renameat_with(CWD, path, CWD, &target, flags) {
                // A left-over of an earlier process, which the worker has not reached yet.
                Err(rustix::io::Errno::EXIST) => {}
                result => return result,
            }
        }
    }
}

/// Deletes all that is there now; the first failure is reported after the others had their turn.
fn empty_once(folder: &Path) -> io::Result<()> {
    let mut result = Ok(());
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let removed = if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())
        } else {
            fs::remove_file(entry.path())
        };
        if let Err(e) = removed
            && result.is_ok()
        {
            result = Err(e);
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    fn wait_until_empty(folder: &Path) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while fs::read_dir(folder).unwrap().next().is_some() {
            assert!(Instant::now() < deadline, "the trash is not emptied");
            std::thread::yield_now();
        }
    }

    #[test]
    fn what_is_thrown_away_vanishes_at_once_and_is_deleted_soon() {
        let dir = tempfile::tempdir().unwrap();
        let trash = Trash::open(dir.path().join("trash")).unwrap();
        for round in 0..50 {
            let victim = dir.path().join("victim");
            fs::create_dir_all(victim.join("a/b")).unwrap();
            fs::write(victim.join("a/b/c"), [round]).unwrap();
            trash.throw(&victim).unwrap();
            assert!(!victim.exists());
        }
        trash.throw(&dir.path().join("nothing")).unwrap();
        wait_until_empty(&dir.path().join("trash"));
    }

    #[test]
    fn opening_deletes_what_an_earlier_process_left() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("x.0/deep")).unwrap();
        fs::write(dir.path().join("file.1"), "").unwrap();
        Trash::open(dir.path().to_owned()).unwrap();
        wait_until_empty(dir.path());
    }
}
