//! Descriptors at chosen numbers.
#![allow(unsafe_code)] // a number is given away without an owner

use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};

/// Makes `number` mean the same as `fd`, as a shell's redirection does.
pub(crate) fn duplicate_to(fd: BorrowedFd<'_>, number: i32) -> std::io::Result<()> {
    // SAFETY: nothing in this process uses the number; it is given up at once.
    let mut target = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::dup2(fd, &mut target)?;
    std::mem::forget(target);
    Ok(())
}
