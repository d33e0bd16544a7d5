//! User namespaces and their mappings.

#![allow(unsafe_code)] // a child that waits while its namespace is filled in

use std::os::fd::OwnedFd;

use oci_spec::runtime::LinuxIdMapping;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::process::{WaitId, WaitIdOptions, waitid};

use crate::Error;
use crate::child::channel::{Channel, GO};
use crate::plan::mounts::mapping_lines;
use crate::sys::process::{CloneRequest, Cloned, clone3, exit};

/// Fills in a new user namespace, which it shows in one of its processes.
pub(crate) fn write_mappings(pid: i32, uid_map: &str, gid_map: &str) -> Result<(), Error> {
    for (file, text) in [("uid_map", uid_map), ("gid_map", gid_map)] {
        let path = format!("/proc/{pid}/{file}");
        let opened = rustix::fs::openat(CWD, path.as_str(), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
        opened
            .and_then(|fd| rustix::io::write(fd, text.as_bytes()))
            .map_err(|errno| Error::system("write", format!("{text:?} to {path}"), errno))?;
    }
    Ok(())
}

/// A user namespace with these mappings, for an idmapped mount. No process stays in it.
pub(crate) fn for_mappings(uids: &[LinuxIdMapping], gids: &[LinuxIdMapping]) -> Result<OwnedFd, Error> {
    let failed = |errno| Error::system("make", "a user namespace for an idmapped mount", errno);
    let (ours, theirs) = Channel::pair().map_err(failed)?;
    let request =
        CloneRequest { flags: u64::from(libc::CLONE_NEWUSER.unsigned_abs()), ..CloneRequest::default() };
    // SAFETY: the child only waits on its socket, and ends.
    let (pid, pidfd) = match unsafe { clone3(request) }.map_err(failed)? {
        Cloned::Child => {
            drop(ours);
            let _ = theirs.wait_for(GO);
            exit(0)
        }
        Cloned::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop(theirs);
    let result = write_mappings(pid, &mapping_lines(uids), &mapping_lines(gids)).and_then(|()| {
        let path = format!("/proc/{pid}/ns/user");
        rustix::fs::openat(CWD, path.as_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| Error::system("open", path, errno))
    });
    drop(ours);
    let _ = waitid(WaitId::PidFd(std::os::fd::AsFd::as_fd(&pidfd)), WaitIdOptions::EXITED);
    result
}
