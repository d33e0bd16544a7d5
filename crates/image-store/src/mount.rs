//! Looking into an image or a container's file system without attaching it anywhere.

use std::os::fd::OwnedFd;

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
};

use crate::{Error, ImageId, Result, Store, Writable};

/// What [`mount_detached`] mounts.
#[derive(Debug, Clone, Copy)]
pub enum Mountable<'a> {
    /// A container's file system, writable.
    Writable(&'a Writable),
    /// An image's, read-only.
    Image(&'a Store, &'a ImageId),
}

/// Mounts an overlay that is attached nowhere: it is reached through the folder that is returned,
/// and it goes when the last descriptor of it is closed.
///
/// A writable layer must be mounted once at a time with the same upper folder, except as overlayfs
/// itself allows; for a running container look at its own root instead.
///
/// # Errors
/// [`Error::Mount`] with the failing step; [`Error::NoSuchImage`].
pub fn mount_detached(what: Mountable<'_>) -> Result<OwnedFd> {
    let step = |step| move |errno: rustix::io::Errno| Error::Mount { step, source: errno.into() };
    let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(step("fsopen"))?;
    let mut attributes = MountAttrFlags::empty();
    let lower = match what {
        Mountable::Writable(writable) => {
            fsconfig_set_string(&fs, "upperdir", &writable.upper).map_err(step("upperdir"))?;
            fsconfig_set_string(&fs, "workdir", &writable.work).map_err(step("workdir"))?;
            writable.lower.clone()
        }
        Mountable::Image(store, id) => {
            attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
            let mut lower = store.lower_dirs(id)?;
            if lower.len() == 1 {
                lower.push(store.inner.empty_layer()); // without an upper folder two lower ones are needed
            }
            lower
        }
    };
    for folder in &lower {
        fsconfig_set_string(&fs, "lowerdir+", folder).map_err(step("lowerdir+"))?;
    }
    fsconfig_create(&fs).map_err(step("create"))?;
    fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(step("fsmount"))
}
