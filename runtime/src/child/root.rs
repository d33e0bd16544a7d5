//! The root file system: mounted, and made the root.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount, unmount,
};

use super::channel::NO_SUBJECT;
use super::{At, Done, mount as mounts};
use crate::error::Step;
use crate::plan::rootfs::{Change, RootSource, Rootfs};
use crate::sys::mount::{MountAttr, mount_classic, mount_setattr};

/// A layer must be what it looks like for those who copy it into an image: no folder that only says where it was, no file
/// without content. Kernels may be built to make such.
const PLAIN_LAYERS: [(&CStr, &CStr); 2] = [(c"redirect_dir", c"off"), (c"metacopy", c"off")];

/// Mounts the root file system on `root.path`, in this mount namespace only, and gives its root.
pub(crate) fn make(plan: &Rootfs) -> Done<'_, OwnedFd> {
    if let Change::Chroot = plan.change {
        let root = plan.on_host.get().ok_or(Errno::BADF).at(Step::MountRootfs, &plan.path)?;
        return rustix::io::fcntl_dupfd_cloexec(root, 3).at(Step::MountRootfs, &plan.path);
    }
    // Nothing that happens from here on may reach the host.
    let host =
        rustix::fs::openat(CWD, c"/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .at(Step::Propagation, NO_SUBJECT)?;
    mount_setattr(host.as_fd(), true, &MountAttr::propagation(libc::MS_SLAVE))
        .at(Step::Propagation, NO_SUBJECT)?;
    mount(plan)
}

/// Mounts it on `root.path`, as seen from the caller's mount namespace.
pub(crate) fn mount(plan: &Rootfs) -> Done<'_, OwnedFd> {
    match &plan.source {
        RootSource::Bind => {
            let tree = mounts::clone_tree(CWD, &plan.path, true).at(Step::MountRootfs, &plan.path)?;
            attach(&plan.path, &tree).at(Step::MountRootfs, &plan.path)?;
            Ok(tree)
        }
        RootSource::Overlay { lower, upper, work, in_one_page: true } => {
            overlay_in_one_page(plan, lower, upper, work)
        }
        RootSource::Overlay { lower, upper, work, in_one_page: false } => {
            let context =
                fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC).at(Step::MountRootfs, c"overlay")?;
            let set = |key, value| fsconfig_set_string(&context, key, value).at(Step::MountRootfs, value);
            set(c"source", c"overlay")?;
            for layer in lower {
                set(c"lowerdir+", layer)?;
            }
            set(c"upperdir", upper)?;
            set(c"workdir", work)?;
            for (key, value) in PLAIN_LAYERS {
                match fsconfig_set_string(&context, key, value) {
                    Err(Errno::INVAL) => {} // a kernel that has not even the option
                    other => other.at(Step::MountRootfs, key)?,
                }
            }
            fsconfig_create(&context).at(Step::MountRootfs, upper)?;
            let tree = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
                .at(Step::MountRootfs, upper)?;
            attach(&plan.path, &tree).at(Step::MountRootfs, &plan.path)?;
            Ok(tree)
        }
    }
}

/// An overlay by mount(2). The layers are opened here, in the container's mount namespace: the kernel takes no others.
fn overlay_in_one_page<'p>(
    plan: &'p Rootfs,
    lower: &'p [CString],
    upper: &'p CStr,
    work: &'p CStr,
) -> Done<'p, OwnedFd> {
    let mut options = Text { bytes: [0; 4096], length: 0, folders: [const { None }; FOLDERS_MAX], count: 0 };
    let mut separator: &[u8] = b"lowerdir=";
    for layer in lower {
        options.name(separator, layer)?;
        separator = b":";
    }
    options.name(b",upperdir=", upper)?;
    options.name(b",workdir=", work)?;
    for (key, value) in PLAIN_LAYERS {
        for part in [b",", key.to_bytes(), b"=", value.to_bytes()] {
            options.append(part).at(Step::MountRootfs, key)?;
        }
    }
    let text = CStr::from_bytes_until_nul(&options.bytes)
        .map_err(|_| Errno::TOOBIG)
        .at(Step::MountRootfs, &plan.path)?;
    mount_classic(c"overlay", &plan.path, text).at(Step::MountRootfs, &plan.path)?;
    open_folder(&plan.path).at(Step::MountRootfs, &plan.path)
}

fn open_folder(path: &CStr) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Lower layers (the plan allows 200), the upper one and the work folder.
const FOLDERS_MAX: usize = 202;

/// A string that is put together without allocation, and the folders that it names.
struct Text {
    bytes: [u8; 4096],
    length: usize,
    folders: [Option<OwnedFd>; FOLDERS_MAX],
    count: usize,
}

impl Text {
    /// Appends a prefix and a name for a folder, by a descriptor that is open for as long as the string lives.
    fn name<'p>(&mut self, prefix: &[u8], path: &'p CStr) -> Done<'p> {
        let fd = open_folder(path).at(Step::MountRootfs, path)?;
        let number = rustix::path::DecInt::from_fd(&fd);
        let all = [prefix, b"/proc/self/fd/", number.as_bytes()];
        for part in all {
            self.append(part).at(Step::MountRootfs, path)?;
        }
        let place = self.folders.get_mut(self.count).ok_or(Errno::TOOBIG).at(Step::MountRootfs, path)?;
        *place = Some(fd);
        self.count += 1;
        Ok(())
    }

    fn append(&mut self, part: &[u8]) -> Result<(), Errno> {
        let end = self.length + part.len();
        // one byte stays 0
        let room = self.bytes.get_mut(self.length..end).filter(|_| end < 4096);
        room.ok_or(Errno::TOOBIG)?.copy_from_slice(part);
        self.length = end;
        Ok(())
    }
}

/// Attaches a mount, or moves it, to a place of the caller's.
pub(crate) fn attach(path: &CStr, tree: &OwnedFd) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS;
    move_mount(tree, c"", CWD, path, flags)
}

/// Makes it the root, and lets go of the host's tree as far as that is possible.
pub(crate) fn enter<'p>(plan: &'p Rootfs, root: &OwnedFd) -> Done<'p> {
    let entered = match &plan.change {
        Change::Pivot => pivot(root),
        Change::Move { hide } => {
            for place in hide {
                take_away(place).at(Step::PivotRoot, place)?;
            }
            attach(c"/", root).and_then(|()| change_root(root))
        }
        Change::Chroot => change_root(root),
    };
    entered.at(Step::PivotRoot, &plan.path)
}

fn pivot(root: &OwnedFd) -> Result<(), Errno> {
    rustix::process::fchdir(root)?;
    // the old root ends up on top of the new one, where `.` still is the new one
    rustix::process::pivot_root(c".", c".")?;
    unmount(c".", UnmountFlags::DETACH)?;
    rustix::process::chdir(c"/")
}

/// Makes it the root of this process and its children.
pub(crate) fn change_root(root: &OwnedFd) -> Result<(), Errno> {
    rustix::process::fchdir(root)?;
    rustix::process::chroot(c".")?;
    rustix::process::chdir(c"/")
}

/// Unmounts what is mounted there, or, if another user namespace has mounted it, covers it.
fn take_away(place: &CStr) -> Result<(), Errno> {
    match unmount(place, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        // it went with what it was in
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::INVAL | Errno::PERM) => {
            match attach(place, &mounts::plain_filesystem(c"tmpfs", MountAttr::READONLY.set)?) {
                // it went, with its folder, since the table was read
                Err(Errno::NOENT) => Ok(()),
                covered => covered,
            }
        }
        Err(errno) => Err(errno),
    }
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
