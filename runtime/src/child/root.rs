//! The root file system: mounted, and made the root.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount, unmount,
};

use super::channel::NO_SUBJECT;
use super::{At, Done, mount};
use crate::error::Step;
use crate::plan::rootfs::{RootSource, Rootfs};
use crate::sys::mount::{MountAttr, mount_classic, mount_setattr};

/// Mounts the root file system on `root.path`, in this mount namespace only, and gives its root.
pub(crate) fn make(plan: &Rootfs) -> Done<'_, OwnedFd> {
    // Nothing that happens from here on may reach the host.
    let host =
        rustix::fs::openat(CWD, c"/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .at(Step::Propagation, NO_SUBJECT)?;
    mount_setattr(host.as_fd(), true, &MountAttr::propagation(libc::MS_SLAVE))
        .at(Step::Propagation, NO_SUBJECT)?;
    match &plan.source {
        RootSource::Bind => {
            let tree = mount::clone_tree(CWD, &plan.path, true).at(Step::MountRootfs, &plan.path)?;
            attach(plan, tree)
        }
        RootSource::Overlay { lower, upper, work } => {
            let context =
                fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC).at(Step::MountRootfs, c"overlay")?;
            let set = |key, value| fsconfig_set_string(&context, key, value).at(Step::MountRootfs, value);
            set(c"source", c"overlay")?;
            for layer in lower {
                set(c"lowerdir+", layer)?;
            }
            set(c"upperdir", upper)?;
            set(c"workdir", work)?;
            fsconfig_create(&context).at(Step::MountRootfs, upper)?;
            let tree = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
                .at(Step::MountRootfs, upper)?;
            attach(plan, tree)
        }
        RootSource::OverlayClassic { options, .. } => {
            mount_classic(c"overlay", &plan.path, options).at(Step::MountRootfs, &plan.path)?;
            rustix::fs::openat(
                CWD,
                plan.path.as_c_str(),
                OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
            )
            .at(Step::MountRootfs, &plan.path)
        }
    }
}

fn attach(plan: &Rootfs, tree: OwnedFd) -> Done<'_, OwnedFd> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS;
    move_mount(&tree, c"", CWD, plan.path.as_c_str(), flags).at(Step::MountRootfs, &plan.path)?;
    Ok(tree)
}

/// Makes it the root, and lets go of the host's tree.
pub(crate) fn pivot<'p>(plan: &'p Rootfs, root: &OwnedFd) -> Done<'p> {
    let step = |result: Result<(), Errno>| result.at(Step::PivotRoot, &plan.path);
    step(rustix::process::fchdir(root))?;
    // the old root ends up on top of the new one, where `.` still is the new one
    step(rustix::process::pivot_root(c".", c"."))?;
    step(unmount(c".", UnmountFlags::DETACH))?;
    step(rustix::process::chdir(c"/"))
}

/// Propagation and write protection, when everything has been made.
pub(crate) fn finish<'p>(plan: &'p Rootfs, root: BorrowedFd<'_>) -> Done<'p> {
    if let Some((propagation, recursive)) = plan.propagation {
        mount_setattr(root, recursive, &MountAttr::propagation(propagation))
            .at(Step::Propagation, &plan.path)?;
    }
    if plan.readonly {
        mount_setattr(root, false, &MountAttr::READONLY).at(Step::ReadonlyRootfs, NO_SUBJECT)?;
    }
    Ok(())
}
