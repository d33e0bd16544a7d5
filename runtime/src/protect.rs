//! The program's own file, out of the reach of containers (CVE-2019-5736).
//!
//! A container can make a process that runs inside it execute `/proc/self/exe`, and so get hold of
//! the runtime's file on the host, to overwrite it later. Therefore the runtime executes itself again
//! from a read-only mount of its file that is attached nowhere: `/proc/PID/exe` then leads to that
//! mount, which nobody can make writable. Where the kernel will not do that, from a sealed copy in memory.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, SealFlags, StatVfsMountFlags};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::sys::mount::{MountAttr, mount_setattr};
use crate::sys::process::{StringArray, execve_fd};
use crate::trace::tell;
use crate::{Error, Trace};

const OWN: &std::ffi::CStr = c"/proc/self/exe";

/// Executes the calling program again, so that its file cannot be changed through a container. Returns
/// if that holds already. To be called first thing, before threads are made or files opened.
///
/// # Errors
/// [`Error::System`]; then no container should be entered.
pub fn protect_own_program() -> Result<(), Error> {
    protect_own_program_traced(None)
}

/// The same, and tells how it is done.
///
/// # Errors
/// As [`protect_own_program`].
pub fn protect_own_program_traced(trace: Option<Trace<'_>>) -> Result<(), Error> {
    let failed = |errno: Errno| Error::system("protect", "/proc/self/exe", errno);
    if is_protected().map_err(failed)? {
        tell(trace, || "/proc/self/exe is on a read-only mount, or sealed".to_owned());
        return Ok(());
    }
    let program = match readonly_mount() {
        Ok(program) => {
            tell(trace, || {
                "using /proc/self/exe clone: a read-only mount of it that is attached nowhere".into()
            });
            program
        }
        Err(errno) => {
            let copy = sealed_copy().map_err(failed)?;
            tell(trace, || {
                format!("using /proc/self/exe clone: a sealed copy in memory, no mount ({errno})")
            });
            copy
        }
    };
    let strings = |list: Vec<Vec<u8>>| -> Result<StringArray, Error> {
        let list: Result<Vec<CString>, _> = list.into_iter().map(CString::new).collect();
        list.map(StringArray::new).map_err(|e| Error::system("read", "own arguments", io::Error::from(e)))
    };
    let args = strings(std::env::args_os().map(OsStringExt::into_vec).collect())?;
    let env = std::env::vars_os().map(|(key, value)| {
        let mut entry = key.into_vec();
        entry.push(b'=');
        entry.append(&mut value.into_vec());
        entry
    });
    let env = strings(env.collect())?;
    Err(failed(execve_fd(program.as_fd(), &args, &env)))
}

fn is_protected() -> Result<bool, Errno> {
    if rustix::fs::statvfs(OWN)?.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Ok(true);
    }
    let own = rustix::fs::openat(CWD, OWN, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    Ok(rustix::fs::fcntl_get_seals(own).is_ok_and(|seals| seals.contains(SealFlags::WRITE)))
}

fn readonly_mount() -> Result<OwnedFd, Errno> {
    let mount = open_tree(CWD, OWN, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
    mount_setattr(mount.as_fd(), false, &MountAttr::READONLY)?;
    Ok(mount)
}

fn sealed_copy() -> Result<OwnedFd, Errno> {
    let own = rustix::fs::openat(CWD, OWN, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let copy = rustix::fs::memfd_create(c"wherry", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    while rustix::fs::sendfile(&copy, &own, None, 1 << 30)? != 0 {}
    rustix::fs::fcntl_add_seals(
        &copy,
        SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE,
    )?;
    Ok(copy)
}
