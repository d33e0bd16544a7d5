//! What is written to files of procfs, of which it is known that they are: the file system is the container's own
//! mount or one that is mounted nowhere, and no step leaves it (CVE-2025-52881).

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::{At, Done, mount};
use crate::error::Step;
use crate::plan::Plan;
use crate::plan::process::ProcessPlan;

/// Kernel parameters, and the security label.
pub(super) fn parameters(plan: &Plan) -> Done<'_> {
    if plan.sysctls.is_empty() && plan.process.security_label.is_none() {
        return Ok(());
    }
    let proc = proc_root(plan)?;
    for (path, value) in &plan.sysctls {
        write_proc(proc.as_fd(), path, value).at(Step::Sysctl, path)?;
    }
    label(proc.as_fd(), &plan.process)
}

/// The container's procfs, or one that is mounted nowhere.
fn proc_root(plan: &Plan) -> Done<'_, OwnedFd> {
    let mounted = plan.mounts.iter().find(|m| m.source.is(b"proc")).and_then(|m| m.fd.get());
    match mounted {
        Some(fd) => rustix::io::fcntl_dupfd_cloexec(fd, 3).at(Step::Sysctl, c"proc"),
        None => mount::plain_filesystem(c"proc", 0).at(Step::Sysctl, c"proc"),
    }
}

fn write_proc(proc: BorrowedFd<'_>, path: &CStr, value: &CStr) -> Result<(), Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let file = rustix::fs::openat2(proc, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty(), resolve)?;
    rustix::io::write(file, value.to_bytes()).map(drop)
}

/// The security label for the next program, through a procfs that is mounted nowhere.
pub(super) fn label_by_itself(process: &ProcessPlan) -> Done<'_> {
    let Some((_, value)) = &process.security_label else { return Ok(()) };
    let proc = mount::plain_filesystem(c"proc", 0).at(Step::SecurityLabel, value)?;
    label(proc.as_fd(), process)
}

fn label<'p>(proc: BorrowedFd<'_>, process: &'p ProcessPlan) -> Done<'p> {
    let Some((path, value)) = &process.security_label else { return Ok(()) };
    let opened = open_own(proc, path);
    opened.and_then(|fd| rustix::io::write(fd, value.to_bytes())).map(drop).at(Step::SecurityLabel, value)
}

/// Opens a file of the calling process in a procfs for writing.
fn open_own(proc: BorrowedFd<'_>, path: &CStr) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
    let own =
        rustix::fs::openat2(proc, c"thread-self", OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)?;
    rustix::fs::openat2(own, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty(), resolve)
}
