//! Who a process is: ids, capabilities, limits, filters.

use std::os::fd::{AsRawFd, BorrowedFd};

use serde::{Deserialize, Serialize};

use super::{Sys, check};

/// Replaces the supplementary groups.
pub(crate) fn set_groups(groups: &[u32]) -> Sys<()> {
    // SAFETY: pointer and length describe the slice. The raw call changes this (only) thread.
    check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) })?;
    Ok(())
}

/// Sets real, effective and saved group id.
pub(crate) fn set_gid(gid: u32) -> Sys<()> {
    // SAFETY: plain numbers.
    check(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) })?;
    Ok(())
}

/// Sets real, effective and saved user id.
pub(crate) fn set_uid(uid: u32) -> Sys<()> {
    // SAFETY: plain numbers.
    check(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) })?;
    Ok(())
}

/// `prctl` with number arguments only.
pub(crate) fn prctl(option: i32, arg2: u64, arg3: u64) -> Sys<()> {
    // SAFETY: callers use options whose arguments are numbers.
    check(unsafe { libc::syscall(libc::SYS_prctl, option, arg2, arg3, 0_u64, 0_u64) })?;
    Ok(())
}

/// Three capability sets as bit masks by capability number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CapabilitySets {
    pub(crate) effective: u64,
    pub(crate) permitted: u64,
    pub(crate) inheritable: u64,
}

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

#[derive(Clone, Copy, Default)]
#[repr(C)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// The calling thread; 64 capabilities in two halves.
const CAP_HEADER: CapHeader = CapHeader { version: 0x2008_0522, pid: 0 };

/// `capset` of the calling thread.
pub(crate) fn set_capabilities(sets: CapabilitySets) -> Sys<()> {
    let half = |shift: u32| CapData {
        effective: low_half(sets.effective >> shift),
        permitted: low_half(sets.permitted >> shift),
        inheritable: low_half(sets.inheritable >> shift),
    };
    let data = [half(0), half(32)];
    // SAFETY: version 3 reads one header and two data structs of this layout.
    check(unsafe { libc::syscall(libc::SYS_capset, std::ptr::from_ref(&CAP_HEADER), data.as_ptr()) })?;
    Ok(())
}

/// The permitted capabilities of the calling thread.
pub(crate) fn permitted_capabilities() -> Sys<u64> {
    // the kernel may write its own version into the header
    let mut header = CAP_HEADER;
    let mut data = [CapData::default(); 2];
    // SAFETY: version 3 writes two data structs of this layout.
    check(unsafe { libc::syscall(libc::SYS_capget, std::ptr::from_mut(&mut header), data.as_mut_ptr()) })?;
    Ok(u64::from(data[0].permitted) | u64::from(data[1].permitted) << 32)
}

fn low_half(bits: u64) -> u32 {
    bits as u32
}

/// The names of resource limits, by their numbers, for messages.
pub(crate) const RLIMIT_NAMES: [&std::ffi::CStr; 16] = [
    c"RLIMIT_CPU",
    c"RLIMIT_FSIZE",
    c"RLIMIT_DATA",
    c"RLIMIT_STACK",
    c"RLIMIT_CORE",
    c"RLIMIT_RSS",
    c"RLIMIT_NPROC",
    c"RLIMIT_NOFILE",
    c"RLIMIT_MEMLOCK",
    c"RLIMIT_AS",
    c"RLIMIT_LOCKS",
    c"RLIMIT_SIGPENDING",
    c"RLIMIT_MSGQUEUE",
    c"RLIMIT_NICE",
    c"RLIMIT_RTPRIO",
    c"RLIMIT_RTTIME",
];

/// Sets a resource limit of the calling process.
pub(crate) fn set_rlimit(resource: u32, soft: u64, hard: u64) -> Sys<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: reads one rlimit64; the null pointer asks for no old value.
    check(unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            0,
            resource,
            std::ptr::from_ref(&limit),
            std::ptr::null_mut::<libc::rlimit64>(),
        )
    })?;
    Ok(())
}

/// Installs a seccomp filter; gives the listener's descriptor number if the flags ask for one.
pub(crate) fn install_seccomp(filter: &[libc::sock_filter], flags: u32) -> Sys<i32> {
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).map_err(|_| rustix::io::Errno::INVAL)?,
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: the kernel reads `len` instructions from `filter` and writes nothing.
    let fd = check(unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, std::ptr::from_ref(&program))
    })?;
    i32::try_from(fd).map_err(|_| rustix::io::Errno::INVAL)
}

/// Sets the execution domain.
pub(crate) fn personality(persona: u64) -> Sys<()> {
    // SAFETY: a plain number.
    check(unsafe { libc::syscall(libc::SYS_personality, persona) })?;
    Ok(())
}

/// Joins a session keyring by name, which is made if there is none.
pub(crate) fn join_session_keyring(name: &std::ffi::CStr) -> Sys<()> {
    const JOIN_SESSION_KEYRING: i32 = 1;
    // SAFETY: reads the NUL-terminated name.
    check(unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, name.as_ptr()) })?;
    Ok(())
}

/// Makes a terminal the controlling one of the calling session leader.
pub(crate) fn set_controlling_terminal(fd: BorrowedFd<'_>) -> Sys<()> {
    // SAFETY: TIOCSCTTY takes a plain number.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCSCTTY, 0) }.into())?;
    Ok(())
}
