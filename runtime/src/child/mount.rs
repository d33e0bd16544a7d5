//! Mounts: made detached, given their options, then attached to a target that is known by descriptor.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, FileType, OFlags, Stat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use super::channel::{Channel, GO, MAP_IDS};
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

/// What mounts are attached to.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    /// The container's root.
    pub(crate) root: BorrowedFd<'a>,
    /// To the parent, who maps ids.
    pub(crate) channel: &'a Channel,
    /// The device of the container's procfs, once it is mounted.
    pub(crate) proc: Option<u64>,
}

/// Makes the mount, detached, with all of its options.
pub(crate) fn open_source(mount: &Mount) -> Done<'_, OwnedFd> {
    make_detached(mount, None)
}

/// The same with the permissions of a tmpfs's root, in octal digits.
fn make_detached<'p>(mount: &'p Mount, mode: Option<&CStr>) -> Done<'p, OwnedFd> {
    match &mount.source {
        Source::Filesystem { fstype, name, data } => {
            let fd = match new_filesystem(fstype, name, data, mode, mount.attr.set) {
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
            map_ids(fd.as_fd(), mount).at(Step::MountOptions, &mount.target)?;
            set_options(fd.as_fd(), mount, *recursive).at(Step::MountOptions, &mount.target)?;
            Ok(fd)
        }
        Source::Inside { named, .. } => Err(Errno::NOENT).at(Step::OpenMount, named),
    }
}

/// A part of the container's tree as it is by now. Links lead to the same places as for the container.
fn open_inside<'p>(place: &Place<'_>, mount: &'p Mount) -> Done<'p, Option<OwnedFd>> {
    let Source::Inside { path, named, recursive } = &mount.source else { return Ok(None) };
    let part = target::open(place.root, path, OFlags::PATH).at(Step::OpenMount, named)?;
    let fd = clone_tree(part.as_fd(), c"", *recursive).at(Step::OpenMount, named)?;
    let mapped = if mount.asks_parent() {
        let sent = place.channel.send_descriptor(MAP_IDS, fd.as_fd());
        sent.and_then(|()| place.channel.wait_for(GO))
    } else {
        map_ids(fd.as_fd(), mount)
    };
    mapped.and_then(|()| set_options(fd.as_fd(), mount, *recursive)).at(Step::MountOptions, &mount.target)?;
    Ok(Some(fd))
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

/// Maps the ids of a bind mount as the plan says.
pub(crate) fn map_ids(fd: BorrowedFd<'_>, mount: &Mount) -> Result<(), Errno> {
    let Some(idmap) = &mount.idmap else { return Ok(()) };
    let userns_fd = u64::try_from(std::os::fd::AsRawFd::as_raw_fd(&idmap.userns)).map_err(|_| Errno::BADF)?;
    let attr = MountAttr { set: MOUNT_ATTR_IDMAP, userns_fd, ..MountAttr::default() };
    mount_setattr(fd, idmap.recursive, &attr)
}

/// The options of a bind mount, in as few calls as they allow.
fn set_options(fd: BorrowedFd<'_>, mount: &Mount, is_tree: bool) -> Result<(), Errno> {
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
    mode: Option<&CStr>,
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
    if let Some(mode) = mode {
        fsconfig_set_string(&context, c"mode", mode).map_err(whole)?;
    }
    fsconfig_create(&context).map_err(whole)?;
    let attributes = u32::try_from(attributes).map_err(|_| whole(Errno::INVAL))?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::from_bits_retain(attributes))
        .map_err(whole)
}

/// A new instance of a file system without options, detached.
pub(crate) fn plain_filesystem(fstype: &CStr, attributes: u64) -> Result<OwnedFd, Errno> {
    new_filesystem(fstype, fstype, &[], None, attributes).map_err(|(errno, _)| errno)
}

/// Attaches a detached mount.
pub(crate) fn attach_at(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, c"", target, c"", flags)
}

/// Attaches a mount of the plan to its target in the container's root. What is late is made now.
pub(crate) fn attach<'p>(place: &Place<'_>, mount: &'p Mount) -> Done<'p> {
    let mut onto_folder = mount.onto_folder;
    if let Some(fd) = open_inside(place, mount)? {
        onto_folder = is_folder(&rustix::fs::fstat(&fd).at(Step::Mount, &mount.target)?);
        let _ = mount.fd.set(fd);
    }
    let target = match target::open_or_make(place.root, &mount.target, onto_folder, mount.follow) {
        Err(Errno::NOTDIR) => Err(Errno::NOTDIR).at(Step::Mount, &mount.target)?,
        other => other.at(Step::MakeMountTarget, &mount.target)?,
    };
    let stat = rustix::fs::fstat(&target.fd).at(Step::Mount, &mount.target)?;
    if place.proc == Some(stat.st_dev) && !MAY_COVER_PROC.contains(&mount.target.as_c_str()) {
        return Err(Errno::PERM).at(Step::InsideProc, &mount.target);
    }
    // the kernel's answer to that would be EINVAL
    if !onto_folder && is_folder(&stat) {
        return Err(Errno::NOTDIR).at(Step::Mount, &mount.target);
    }
    if mount.keep_mode {
        let mut digits = [0; 5];
        let mode = (!target.made).then(|| octal(stat.st_mode & 0o7777, &mut digits));
        let _ = mount.fd.set(make_detached(mount, mode)?);
    }
    let Some(fd) = mount.fd.get() else { return Err(Errno::BADF).at(Step::Mount, &mount.target) };
    attach_at(fd.as_fd(), target.fd.as_fd()).at(Step::Mount, &mount.target)?;
    if mount.copy_up {
        super::copy_up::copy(target.fd.as_fd(), fd.as_fd()).at(Step::CopyUp, &mount.target)?;
    }
    Ok(())
}

fn is_folder(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// The octal digits of permissions.
fn octal(mode: u32, digits: &mut [u8; 5]) -> &CStr {
    // the last byte stays 0
    for (place, shift) in digits.iter_mut().zip([9, 6, 3, 0]) {
        *place = b'0' + (mode >> shift & 7) as u8;
    }
    CStr::from_bytes_until_nul(digits).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_as_digits() {
        assert_eq!(octal(0o710, &mut [0; 5]), c"0710");
        assert_eq!(octal(0o1777, &mut [0; 5]), c"1777");
    }
}
