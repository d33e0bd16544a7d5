//! An agent that answers the calls that a seccomp filter tells of (seccomp_unotify(2)).
#![allow(unsafe_code)] // the kernel's interface is an ioctl

use std::os::fd::{AsRawFd, OwnedFd};

/// Lets the next call fail with that error, and gives the call's number.
pub(crate) fn answer(listener: &OwnedFd, errno: i32) -> i32 {
    const RECEIVE: u64 = 0xc050_2100;
    const SEND: u64 = 0xc018_2101;
    // SAFETY: plain data of the kernel's layout; both calls read and write only these structs.
    unsafe {
        let mut request: libc::seccomp_notif = std::mem::zeroed();
        assert_eq!(libc::ioctl(listener.as_raw_fd(), RECEIVE, std::ptr::from_mut(&mut request)), 0);
        let mut response: libc::seccomp_notif_resp = std::mem::zeroed();
        response.id = request.id;
        response.error = -errno;
        assert_eq!(libc::ioctl(listener.as_raw_fd(), SEND, std::ptr::from_mut(&mut response)), 0);
        request.data.nr
    }
}
