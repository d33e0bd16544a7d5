//! The lowest layer of every container: mount points for the system's file systems, and the files that Docker
//! puts into each container unless its image has them.
//!
//! Below the image, so that whatever the image says wins; shared and never written, so that a container's own layer
//! holds only what the container did (`diff`, `commit`), and nothing must be made there before it is started.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::Path;

use crate::Result;
use crate::error::Context;

/// Its folder in `overlay2`.
pub(crate) const FOLDER: &str = ".base";

const FOLDERS: [&str; 6] = ["dev", "dev/pts", "dev/shm", "etc", "proc", "sys"];
const FILES: [&str; 5] = [".dockerenv", "dev/console", "etc/hostname", "etc/hosts", "etc/resolv.conf"];
const LINKS: [(&str, &str); 1] = [("etc/mtab", "/proc/mounts")];

/// Makes what is missing of it.
pub(crate) fn ensure(base: &Path) -> Result<()> {
    crate::store::ensure_folder(base, 0o755)?;
    for folder in FOLDERS {
        crate::store::ensure_folder(&base.join(folder), 0o755)?;
    }
    for file in FILES {
        let path = base.join(file);
        let made = OpenOptions::new().write(true).create_new(true).mode(0o755).open(&path);
        there_is_one(made.map(drop)).context("create", path)?;
    }
    for (name, target) in LINKS {
        let path = base.join(name);
        there_is_one(symlink(target, &path)).context("create", path)?;
    }
    Ok(())
}

fn there_is_one(made: io::Result<()>) -> io::Result<()> {
    match made {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_made_once_and_then_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join(FOLDER);
        ensure(&base).unwrap();
        ensure(&base).unwrap();
        assert!(base.join("proc").is_dir() && base.join(".dockerenv").is_file());
        assert_eq!(std::fs::read_link(base.join("etc/mtab")).unwrap(), Path::new("/proc/mounts"));
    }
}
