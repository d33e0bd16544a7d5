//! The root file system of a container that has the host's mount namespace: mounted there, and known by its id.

use std::os::fd::AsFd;
use std::path::PathBuf;

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::child::mount::clone_tree;
use crate::child::root::attach;
use crate::plan::rootfs::{Change, Rootfs};
use crate::sys::mount::{MountAttr, mount_setattr};

/// A mount on the host, in which are all those of the container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct HostRoot {
    path: PathBuf,
    /// The kernel's number for the mount: something else may be mounted there when it is to go.
    mount_id: u64,
}

impl HostRoot {
    /// Binds the root file system onto itself, if the container has no mount namespace of its own, and gives it to the plan. It
    /// is private: nothing that is mounted in it shows up anywhere else.
    pub(crate) fn mount(rootfs: &Rootfs) -> Result<Option<Self>, Error> {
        let (Change::Chroot, Some(path)) = (&rootfs.change, rootfs.host_path()) else { return Ok(None) };
        let failed = |errno: Errno| Error::system("mount", path.display(), errno);
        let tree = clone_tree(CWD, &rootfs.path, true).map_err(failed)?;
        mount_setattr(tree.as_fd(), true, &MountAttr::propagation(libc::MS_PRIVATE)).map_err(failed)?;
        attach(&rootfs.path, &tree).map_err(failed)?;
        let root = HostRoot { path: path.to_owned(), mount_id: mount_id(&rootfs.path).unwrap_or_default() };
        let _ = rootfs.on_host.set(tree);
        Ok(Some(root))
    }

    /// Takes it away, with all that is mounted in it, unless it has gone already.
    pub(crate) fn unmount(&self) {
        if mount_id(self.path.as_path()) == Some(self.mount_id) {
            let _ = unmount(&self.path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
        }
    }
}

/// The mount that a path leads to.
fn mount_id(path: impl rustix::path::Arg) -> Option<u64> {
    let flags = AtFlags::NO_AUTOMOUNT;
    let stat = statx(CWD, path, flags, StatxFlags::MNT_ID).ok()?;
    Some(stat.stx_mnt_id)
}
