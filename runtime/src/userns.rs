//! User namespaces and their mappings.

use std::os::fd::OwnedFd;

use oci_spec::runtime::LinuxIdMapping;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use crate::Error;
use crate::cgroup::Placeholder;
use crate::plan::mounts::mapping_lines;

/// The host's id of one of the container's.
pub(crate) fn mapped(mappings: &[LinuxIdMapping], id: u32) -> Option<u32> {
    let range =
        mappings.iter().find(|m| id.checked_sub(m.container_id()).is_some_and(|offset| offset < m.size()))?;
    range.host_id().checked_add(id - range.container_id())
}

/// Fills in a new user namespace, which is known by one of its processes. A caller who may map only their own id has
/// the rest done by `newuidmap` and `newgidmap`, which know what /etc/subuid and /etc/subgid grant them.
pub(crate) fn write_mappings(
    pid: i32,
    uids: &[LinuxIdMapping],
    gids: &[LinuxIdMapping],
) -> Result<(), Error> {
    let mut groups_denied = false;
    for (file, program, mappings, own) in [
        ("uid_map", "newuidmap", uids, rustix::process::geteuid().as_raw()),
        ("gid_map", "newgidmap", gids, rustix::process::getegid().as_raw()),
    ] {
        let only_own = matches!(mappings, [one] if one.size() == 1 && one.host_id() == own);
        match write(pid, file, &mapping_lines(mappings)) {
            Err(Errno::PERM) if file == "gid_map" && only_own && !groups_denied => {
                // without the right to set groups for others one gives up the right to drop one's own
                groups_denied = true;
                let denied = write(pid, "setgroups", "deny");
                denied.and_then(|()| write(pid, file, &mapping_lines(mappings)))
            }
            other => other,
        }
        .or_else(|errno| match errno {
            Errno::PERM if !rustix::process::geteuid().is_root() => run(program, pid, mappings),
            errno => Err(Error::system(
                "write",
                format!("{:?} to /proc/{pid}/{file}", mapping_lines(mappings)),
                errno,
            )),
        })?;
    }
    Ok(())
}

fn write(pid: i32, file: &str, text: &str) -> Result<(), Errno> {
    let path = format!("/proc/{pid}/{file}");
    let fd = rustix::fs::openat(CWD, path.as_str(), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(fd, text.as_bytes()).map(drop)
}

/// `newuidmap PID INSIDE OUTSIDE COUNT ...` (package uidmap).
fn run(program: &str, pid: i32, mappings: &[LinuxIdMapping]) -> Result<(), Error> {
    let numbers = mappings.iter().flat_map(|m| [m.container_id(), m.host_id(), m.size()]);
    let output = std::process::Command::new(program)
        .arg(pid.to_string())
        .args(numbers.map(|number| number.to_string()))
        .stdin(std::process::Stdio::null())
        .output()
        .map_err(|e| Error::system("run", program, e))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::system("run", program, std::io::Error::other(said.trim().to_owned())))
}

/// A user namespace with these mappings, for an idmapped mount. No process stays in it.
pub(crate) fn for_mappings(uids: &[LinuxIdMapping], gids: &[LinuxIdMapping]) -> Result<OwnedFd, Error> {
    let holder = Placeholder::start(u64::from(libc::CLONE_NEWUSER.unsigned_abs()))?;
    write_mappings(holder.pid(), uids, gids)?;
    let path = format!("/proc/{}/ns/user", holder.pid());
    rustix::fs::openat(CWD, path.as_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| Error::system("open", path, errno))
}
