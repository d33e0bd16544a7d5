//! User namespaces and their mappings.

use std::os::fd::OwnedFd;

use oci_spec::runtime::LinuxIdMapping;
use rustix::fs::{CWD, Mode, OFlags};

use crate::Error;
use crate::cgroup::Placeholder;
use crate::plan::mounts::mapping_lines;

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
    let holder = Placeholder::start(u64::from(libc::CLONE_NEWUSER.unsigned_abs()))?;
    write_mappings(holder.pid(), &mapping_lines(uids), &mapping_lines(gids))?;
    let path = format!("/proc/{}/ns/user", holder.pid());
    rustix::fs::openat(CWD, path.as_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| Error::system("open", path, errno))
}
