//! What a child has from its parent and cannot prove to the compiler: open descriptors known by number, and the
//! right to be cloned once more.
#![allow(unsafe_code)] // both rest on what the parent did before the child came to be

use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

use crate::sys::process::{CloneRequest, Cloned, clone3};

/// The child of a child.
///
/// # Errors
/// clone3's.
pub(super) fn clone_again(request: CloneRequest<'_>) -> Result<Cloned, Errno> {
    // SAFETY: called in a child, which keeps to the rules already; the grandchild goes on by them.
    unsafe { clone3(request) }
}

/// A number that was a descriptor in the parent is one in the child.
pub(super) fn descriptor<'a>(fd: i32) -> BorrowedFd<'a> {
    // SAFETY: the launch borrows the descriptor, so it is open; the child has a copy of the table.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// A descriptor that the kernel has just made for this process.
pub(super) fn new_descriptor(fd: i32) -> OwnedFd {
    // SAFETY: the caller has it from the system call that made it, and nobody else has.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
