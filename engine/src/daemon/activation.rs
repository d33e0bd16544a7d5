//! Sockets that systemd (or another starter) opened for us: `LISTEN_PID`, `LISTEN_FDS`, `LISTEN_FDNAMES`
//! (sd_listen_fds(3)).
#![allow(unsafe_code)] // The descriptors are known only by their numbers.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use rustix::io::{FdFlags, fcntl_setfd};

const FIRST: RawFd = 3;

/// A socket that was handed to us.
#[derive(Debug)]
pub(super) struct Passed {
    /// Its number, as `fd://3` names it.
    pub(super) number: RawFd,
    /// Its name (FileDescriptorName=), if it has one.
    pub(super) name: String,
    pub(super) socket: OwnedFd,
}

/// Takes the sockets that were passed to this process. To be called once, before other threads exist and before
/// anything else is opened.
pub(super) fn take() -> Vec<Passed> {
    let variable = |name| std::env::var(name).unwrap_or_default();
    if variable("LISTEN_PID") != std::process::id().to_string() {
        return Vec::new();
    }
    let count: RawFd = variable("LISTEN_FDS").parse().unwrap_or(0);
    let names = variable("LISTEN_FDNAMES");
    let mut names = names.split(':');
    let mut passed = Vec::new();
    for number in FIRST..FIRST.saturating_add(count) {
        let name = names.next().unwrap_or("").to_string();
        // SAFETY: the starter says that this descriptor is open and ours; nobody else in this process knows it. The
        // flag is set before it is owned, so that a number that is not open is never closed by us.
        let borrowed = unsafe { std::os::fd::BorrowedFd::borrow_raw(number) };
        if fcntl_setfd(borrowed, FdFlags::CLOEXEC).is_ok() {
            // SAFETY: as above; fcntl has just shown that it is open.
            let socket = unsafe { OwnedFd::from_raw_fd(number) };
            passed.push(Passed { number, name, socket });
        }
    }
    passed
}
