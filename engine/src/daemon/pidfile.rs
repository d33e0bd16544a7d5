//! The pid file: says who runs, and is removed by whoever wrote it.

use std::path::{Path, PathBuf};

use super::StartError;

/// The file, removed when dropped.
#[derive(Debug)]
pub(super) struct Pidfile {
    path: PathBuf,
}

impl Pidfile {
    /// Writes our process id, unless a process with the id in the file lives.
    pub(super) fn create(path: &Path) -> Result<Self, StartError> {
        if let Some(pid) = living_owner(path) {
            return Err(StartError::PidfileInUse { path: path.into(), pid });
        }
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(StartError::io("create", folder))?;
        }
        std::fs::write(path, std::process::id().to_string()).map_err(StartError::io("write", path))?;
        Ok(Self { path: path.into() })
    }
}

impl Drop for Pidfile {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn living_owner(path: &Path) -> Option<u32> {
    let pid: u32 = std::fs::read_to_string(path).ok()?.trim().parse().ok()?;
    (pid != std::process::id() && Path::new("/proc").join(pid.to_string()).exists()).then_some(pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_living_owner_is_respected_and_a_dead_one_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/pid");
        let ours = Pidfile::create(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), std::process::id().to_string());
        drop(ours);
        assert!(!path.exists());
        std::fs::write(&path, "1\n").unwrap();
        assert!(
            Pidfile::create(&path).unwrap_err().to_string().contains("process with PID 1 is still running")
        );
        std::fs::write(&path, "4294967295").unwrap();
        Pidfile::create(&path).unwrap();
    }
}
