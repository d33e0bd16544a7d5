//! `mount_setattr`, and the classic `mount` for old kernels' overlays.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::{Sys, check};

/// What `mount_setattr` changes: `MOUNT_ATTR_*` bits, and an `MS_*` propagation type (0: keep).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct MountAttr {
    pub(crate) set: u64,
    pub(crate) clear: u64,
    pub(crate) propagation: u64,
    /// A user namespace, with `MOUNT_ATTR_IDMAP`.
    pub(crate) userns_fd: u64,
}

impl MountAttr {
    /// Whether it changes nothing.
    pub(crate) fn is_noop(&self) -> bool {
        self.set == 0 && self.clear == 0 && self.propagation == 0
    }
}

/// Changes the mount that `fd` refers to, and with `recursive` all below it.
pub(crate) fn mount_setattr(fd: BorrowedFd<'_>, recursive: bool, attr: &MountAttr) -> Sys<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a NUL-terminated constant, the struct has the kernel's layout and its size is told.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attr),
            size_of::<MountAttr>(),
        )
    })?;
    Ok(())
}

/// `mount(2)` of a new file system whose options fit into a page.
pub(crate) fn mount_classic(fstype: &CStr, target: &CStr, options: &CStr) -> Sys<()> {
    // SAFETY: all pointers are NUL-terminated strings that outlive the call.
    let result =
        unsafe { libc::mount(fstype.as_ptr(), target.as_ptr(), fstype.as_ptr(), 0, options.as_ptr().cast()) };
    check(result.into())?;
    Ok(())
}
