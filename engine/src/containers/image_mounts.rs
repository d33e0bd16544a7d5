//! Images mounted into containers (`--mount type=image`): an overlay of the image's layers that nobody can write, mounted on the
//! host while the container runs, since a restart by the policy must find it without an engine.

use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, move_mount};
use wherry_image_ref::Digest;
use wherry_image_store::{Mountable, mount_detached};
use wherry_monitor_api::run_dir;

use super::record::Record;
use crate::engine::Engine;
use crate::error::Error;
use crate::volumes::unmount;

/// Where the image is mounted that a container has at `destination`.
pub(super) fn place(exec_root: &Path, id: &str, destination: &str) -> PathBuf {
    // One folder a mount, whatever its destination is called and however long it is.
    folder(exec_root, id).join(Digest::of(destination.as_bytes()).hex())
}

fn folder(exec_root: &Path, id: &str) -> PathBuf {
    run_dir(exec_root, id).join("images")
}

/// Mounts all images of a container that is about to start. Blocking.
///
/// # Errors
/// 404 for an image that has gone since; those of mounting.
pub(super) fn prepare(engine: &Engine, record: &Record) -> Result<(), Error> {
    for mount in record.mounts.iter().filter(|mount| mount.kind == "image") {
        let image = record.mount_extras.get(&mount.destination).map_or("", |extra| extra.image.as_str());
        let id = engine.store.resolve(image)?;
        let place = Path::new(&mount.source);
        release_one(place);
        let failed = |e: std::io::Error| Error::io("mount an image on", place.display())(e);
        std::fs::create_dir_all(place).map_err(failed)?;
        let overlay = mount_detached(Mountable::Image(&engine.store, &id))?;
        move_mount(&overlay, "", CWD, place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .map_err(|e| failed(e.into()))?;
    }
    Ok(())
}

/// Unmounts what [`prepare`] has mounted for a container; nothing there is fine.
pub(super) fn release(exec_root: &Path, id: &str) {
    let folder = folder(exec_root, id);
    let Ok(entries) = std::fs::read_dir(&folder) else { return };
    entries.flatten().for_each(|entry| release_one(&entry.path()));
    // Left in place if one of them is still mounted: the next start tries again.
    let _ = std::fs::remove_dir(&folder);
}

fn release_one(place: &Path) {
    match unmount(place).and_then(|()| std::fs::remove_dir(place)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(place = %place.display(), %error, "a mounted image could not be released");
        }
        _ => {}
    }
}
