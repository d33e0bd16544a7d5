//! Mounts: made detached, given their options, then attached to a target that is known by descriptor.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, FileType, Mode};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use super::{At, Done, target};
use crate::error::Step;
use crate::plan::mounts::{Mount, Source};
use crate::sys::mount::{MountAttr, mount_setattr};

const MOUNT_ATTR_IDMAP: u64 = 0x10_0000;

/// Makes the mount, detached, with all of its options.
pub(crate) fn open_source(mount: &Mount) -> Done<'_, OwnedFd> {
    match &mount.source {
        Source::Filesystem { fstype, name, data } => {
            let fd = new_filesystem(fstype, name, data, mount.attr.set).at(Step::Mount, &mount.target)?;
            let (propagation, recursive) = mount.propagation.unwrap_or((0, false));
            let rest = MountAttr { propagation, ..mount.recursive };
            if !rest.is_noop() {
                mount_setattr(fd.as_fd(), recursive, &rest).at(Step::MountOptions, &mount.target)?;
            }
            Ok(fd)
        }
        Source::Bind { path, recursive } => {
            let fd = clone_tree(CWD, path, *recursive).at(Step::OpenMount, path)?;
            set_options(fd.as_fd(), mount, *recursive).at(Step::MountOptions, &mount.target)?;
            Ok(fd)
        }
    }
}

/// A detached copy of a part of the tree.
pub(crate) fn clone_tree(at: BorrowedFd<'_>, path: &CStr, recursive: bool) -> Result<OwnedFd, Errno> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    if path.is_empty() {
        flags |= OpenTreeFlags::AT_EMPTY_PATH;
    }
    open_tree(at, path, flags)
}

/// The options of a bind mount, in as few calls as they allow.
fn set_options(fd: BorrowedFd<'_>, mount: &Mount, is_tree: bool) -> Result<(), Errno> {
    if let Some(idmap) = &mount.idmap {
        let userns_fd =
            u64::try_from(std::os::fd::AsRawFd::as_raw_fd(&idmap.userns)).map_err(|_| Errno::BADF)?;
        let attr = MountAttr { set: MOUNT_ATTR_IDMAP, userns_fd, ..MountAttr::default() };
        mount_setattr(fd, idmap.recursive, &attr)?;
    }
    let (propagation, deep) = mount.propagation.unwrap_or((0, false));
    let mut own = mount.attr;
    let mut all = mount.recursive;
    if deep && is_tree {
        all.propagation = propagation;
    } else {
        own.propagation = propagation;
    }
    if !all.is_noop() {
        mount_setattr(fd, is_tree, &all)?;
    }
    if !own.is_noop() {
        mount_setattr(fd, false, &own)?;
    }
    Ok(())
}

/// A new instance of a file system, detached.
pub(crate) fn new_filesystem(
    fstype: &CStr,
    name: &CStr,
    data: &[(CString, Option<CString>)],
    attributes: u64,
) -> Result<OwnedFd, Errno> {
    let context = fsopen(fstype, FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, c"source", name)?;
    for (key, value) in data {
        match value {
            Some(value) => fsconfig_set_string(&context, key, value)?,
            None => fsconfig_set_flag(&context, key)?,
        }
    }
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::from_bits_retain(u32::try_from(attributes).map_err(|_| Errno::INVAL)?);
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Attaches a detached mount.
pub(crate) fn attach_at(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, c"", target, c"", flags)
}

/// Attaches a mount of the plan to its target in the container's root.
pub(crate) fn attach<'p>(root: BorrowedFd<'_>, mount: &'p Mount) -> Done<'p> {
    let Some(fd) = mount.fd.get() else { return Err(Errno::BADF).at(Step::Mount, &mount.target) };
    let target = match target::open_or_make(root, &mount.target, mount.onto_folder, mount.follow) {
        Err(Errno::NOTDIR) => Err(Errno::NOTDIR).at(Step::Mount, &mount.target)?,
        other => other.at(Step::MakeMountTarget, &mount.target)?,
    };
    if !mount.onto_folder && !target.made {
        // the kernel's answer to that would be EINVAL
        let stat = rustix::fs::fstat(&target.fd).at(Step::Mount, &mount.target)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Err(Errno::NOTDIR).at(Step::Mount, &mount.target);
        }
    }
    let mode = if mount.keep_mode && !target.made {
        let stat = rustix::fs::fstat(&target.fd).at(Step::MakeMountTarget, &mount.target)?;
        Some(Mode::from_raw_mode(stat.st_mode & 0o7777))
    } else {
        None
    };
    attach_at(fd.as_fd(), target.fd.as_fd()).at(Step::Mount, &mount.target)?;
    if let Some(mode) = mode {
        rustix::fs::chmodat(fd, c".", mode, AtFlags::empty()).at(Step::Mount, &mount.target)?;
    }
    if mount.copy_up {
        super::copy_up::copy(target.fd.as_fd(), fd.as_fd()).at(Step::CopyUp, &mount.target)?;
    }
    Ok(())
}
