//! Mounts: made detached, given their options, then attached to a target that is known by descriptor.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, FileType, Mode};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use super::{At, Done, Failure, target};
use crate::error::Step;
use crate::plan::mounts::{Mount, Source};
use crate::sys::mount::{MountAttr, mount_setattr};

const MOUNT_ATTR_IDMAP: u64 = 0x10_0000;

/// What may be covered of the container's procfs: itself, by another one (the plan has seen to that), and some files, as
/// runc has it (LXCFS does that). Anything else could be a trap for who trusts procfs (CVE-2025-52881).
const MAY_COVER_PROC: [&CStr; 11] = [
    c"proc",
    c"proc/cpuinfo",
    c"proc/diskstats",
    c"proc/meminfo",
    c"proc/stat",
    c"proc/swaps",
    c"proc/uptime",
    c"proc/loadavg",
    c"proc/slabinfo",
    c"proc/sys/kernel/ns_last_pid",
    c"proc/sys/crypto/fips_enabled",
];

/// Makes the mount, detached, with all of its options.
pub(crate) fn open_source(mount: &Mount) -> Done<'_, OwnedFd> {
    match &mount.source {
        Source::Filesystem { fstype, name, data } => {
            let fd = match new_filesystem(fstype, name, data, mount.attr.set) {
                // the file system shows what belongs to a namespace that this user namespace does not own
                Err((Errno::PERM, _)) => instead(fstype, mount).at(Step::Mount, &mount.target)?,
                Err((errno, Some(option))) => {
                    return Err(Failure { step: Step::MountOption, subject: option, errno });
                }
                other => other.map_err(|(errno, _)| errno).at(Step::Mount, &mount.target)?,
            };
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

/// The host's own instance of a file system that the kernel does not let this user namespace make.
fn instead(fstype: &CStr, mount: &Mount) -> Result<OwnedFd, Errno> {
    let path = match fstype.to_bytes() {
        b"sysfs" => c"/sys",
        b"proc" => c"/proc",
        b"mqueue" => c"/dev/mqueue",
        b"cgroup2" => c"/sys/fs/cgroup",
        _ => return Err(Errno::PERM),
    };
    // with all below: another user namespace may not look under the mounts of its parent
    let fd = clone_tree(CWD, path, true)?;
    let attr = MountAttr { propagation: libc::MS_SLAVE, ..mount.attr };
    mount_setattr(fd.as_fd(), false, &attr)?;
    Ok(fd)
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

/// A new instance of a file system with options, detached. A failure names the option that was refused, if it was one.
fn new_filesystem<'p>(
    fstype: &CStr,
    name: &CStr,
    data: &'p [(CString, Option<CString>)],
    attributes: u64,
) -> Result<OwnedFd, (Errno, Option<&'p CStr>)> {
    let whole = |errno| (errno, None);
    let context = fsopen(fstype, FsOpenFlags::FSOPEN_CLOEXEC).map_err(whole)?;
    fsconfig_set_string(&context, c"source", name).map_err(whole)?;
    for (key, value) in data {
        let set = match value {
            Some(value) => fsconfig_set_string(&context, key, value),
            None => fsconfig_set_flag(&context, key),
        };
        set.map_err(|errno| (errno, Some(key.as_c_str())))?;
    }
    fsconfig_create(&context).map_err(whole)?;
    let attributes = u32::try_from(attributes).map_err(|_| whole(Errno::INVAL))?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::from_bits_retain(attributes))
        .map_err(whole)
}

/// A new instance of a file system without options, detached.
pub(crate) fn plain_filesystem(fstype: &CStr, attributes: u64) -> Result<OwnedFd, Errno> {
    new_filesystem(fstype, fstype, &[], attributes).map_err(|(errno, _)| errno)
}

/// Attaches a detached mount.
pub(crate) fn attach_at(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, c"", target, c"", flags)
}

/// Attaches a mount of the plan to its target in the container's root.
/// `proc` is the device of the container's procfs, if it is mounted already.
pub(crate) fn attach<'p>(root: BorrowedFd<'_>, mount: &'p Mount, proc: Option<u64>) -> Done<'p> {
    let Some(fd) = mount.fd.get() else { return Err(Errno::BADF).at(Step::Mount, &mount.target) };
    let target = match target::open_or_make(root, &mount.target, mount.onto_folder, mount.follow) {
        Err(Errno::NOTDIR) => Err(Errno::NOTDIR).at(Step::Mount, &mount.target)?,
        other => other.at(Step::MakeMountTarget, &mount.target)?,
    };
    let stat = rustix::fs::fstat(&target.fd).at(Step::Mount, &mount.target)?;
    if proc == Some(stat.st_dev) && !MAY_COVER_PROC.contains(&mount.target.as_c_str()) {
        return Err(Errno::PERM).at(Step::InsideProc, &mount.target);
    }
    if !mount.onto_folder && !target.made {
        // the kernel's answer to that would be EINVAL
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Err(Errno::NOTDIR).at(Step::Mount, &mount.target);
        }
    }
    let mode = (mount.keep_mode && !target.made).then(|| Mode::from_raw_mode(stat.st_mode & 0o7777));
    attach_at(fd.as_fd(), target.fd.as_fd()).at(Step::Mount, &mount.target)?;
    if let Some(mode) = mode {
        rustix::fs::chmodat(fd, c".", mode, AtFlags::empty()).at(Step::Mount, &mount.target)?;
    }
    if mount.copy_up {
        super::copy_up::copy(target.fd.as_fd(), fd.as_fd()).at(Step::CopyUp, &mount.target)?;
    }
    Ok(())
}
