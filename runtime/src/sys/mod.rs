//! System calls that rustix does not have, or has only in a form that allocates.
//!
//! Everything here may be called between `clone3` and `execve` in a child of a process with
//! threads: no allocation, no locks.

#![allow(unsafe_code)] // the system-call boundary

pub(crate) mod identity;
pub(crate) mod mount;
pub(crate) mod process;
pub(crate) mod scheduling;

use rustix::io::Errno;

/// The result of a system call.
pub(crate) type Sys<T> = Result<T, Errno>;

/// Turns libc's -1 into the error number.
pub(crate) fn check(result: libc::c_long) -> Sys<libc::c_long> {
    if result == -1 {
        // SAFETY: the location is this thread's own errno; always valid.
        let errno = unsafe { *libc::__errno_location() };
        return Err(Errno::from_raw_os_error(errno));
    }
    Ok(result)
}
