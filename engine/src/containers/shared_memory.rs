//! `/dev/shm` of containers that share their IPC namespace. A private one is a tmpfs of the container alone; one
//! that others may join (`--ipc shareable`) is mounted on the host, since a mount of another mount namespace cannot be bound.

use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, mount};
use wherry_monitor_api::run_dir;

use super::record::Record;
use crate::engine::Engine;
use crate::error::Error;
use crate::volumes::unmount;

/// What a container that is about to start binds to `/dev/shm`; `None` if the mode needs nothing from the host. Blocking.
///
/// # Errors
/// dockerd's text when the other container keeps its own private; those of mounting.
pub(super) fn prepare(engine: &Engine, record: &Record) -> Result<Option<PathBuf>, Error> {
    let host = &record.host_config;
    let exec_root = &engine.config().exec_root;
    let place = place(exec_root, &record.id);
    match host.ipc_mode.strip_prefix("container:") {
        Some(other) => {
            let shared = of_other(engine, other)?;
            release(exec_root, &record.id);
            // Who joins this one finds the same memory, whatever the names mean by then.
            std::os::unix::fs::symlink(&shared, &place).map_err(Error::io("create", place.display()))?;
            Ok(Some(shared))
        }
        None if host.ipc_mode == "shareable" => {
            // What a run before has left in it is not for this one.
            release(exec_root, &record.id);
            mount_at(&place, host.shm_size)?;
            Ok(Some(place))
        }
        None => Ok(None),
    }
}

/// Removes what [`prepare`] has made for a container; nothing there is fine. Who joined it keeps its own mount.
pub(super) fn release(exec_root: &Path, id: &str) {
    let place = place(exec_root, id);
    let released = match std::fs::read_link(&place) {
        Ok(_) => std::fs::remove_file(&place),
        Err(_) => unmount(&place).and_then(|()| std::fs::remove_dir(&place)),
    };
    match released {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(container = id, %error, "its shared memory could not be released");
        }
        _ => {}
    }
}

/// A mount, or a link to another container's.
fn place(exec_root: &Path, id: &str) -> PathBuf {
    run_dir(exec_root, id).join("shm")
}

fn mount_at(place: &Path, size_bytes: i64) -> Result<(), Error> {
    let failed = |e: std::io::Error| Error::io("mount shared memory on", place.display())(e);
    std::fs::create_dir_all(place).map_err(failed)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let options =
        std::ffi::CString::new(format!("mode=1777,size={size_bytes}")).map_err(|e| failed(e.into()))?;
    mount("shm", place, "tmpfs", flags, options.as_c_str()).map_err(|e| failed(e.into()))
}

fn of_other(engine: &Engine, other: &str) -> Result<PathBuf, Error> {
    let peer = engine.containers.find(other)?;
    let place = place(&engine.config().exec_root, &peer.id);
    match peer.record().host_config.ipc_mode.as_str() {
        "host" => Ok(PathBuf::from("/dev/shm")),
        "private" | "none" => Err(Error::InvalidParameter(format!(
            "failed to join IPC namespace: container {}: non-shareable IPC (hint: use IpcMode:shareable for the donor \
             container)",
            peer.id
        ))),
        _ => Ok(std::fs::read_link(&place).unwrap_or(place)),
    }
}
