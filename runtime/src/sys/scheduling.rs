//! Where and when a process runs.

use super::{Sys, check};

/// `ioprio_set` of the calling thread.
pub(crate) fn set_io_priority(value: i32) -> Sys<()> {
    const IOPRIO_WHO_PROCESS: i32 = 1;
    // SAFETY: plain numbers.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, value) })?;
    Ok(())
}

/// The kernel's `struct sched_attr`, version 0.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct SchedulerAttr {
    pub(crate) size: u32,
    pub(crate) policy: u32,
    pub(crate) flags: u64,
    pub(crate) nice: i32,
    pub(crate) priority: u32,
    pub(crate) runtime: u64,
    pub(crate) deadline: u64,
    pub(crate) period: u64,
}

/// `sched_setattr` of the calling thread.
pub(crate) fn set_scheduler(attr: &SchedulerAttr) -> Sys<()> {
    // SAFETY: reads a sched_attr, whose `size` field tells its length.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, std::ptr::from_ref(attr), 0) })?;
    Ok(())
}

/// `sched_setaffinity` of the calling thread, to a mask in words.
pub(crate) fn set_affinity(cpus: &[u64]) -> Sys<()> {
    // SAFETY: the length tells the mask's bytes, which are only read.
    check(unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size_of_val(cpus), cpus.as_ptr()) })?;
    Ok(())
}

/// `sched_getaffinity` of the calling thread; gives how many words of the mask the kernel has filled.
pub(crate) fn affinity(cpus: &mut [u64]) -> Sys<usize> {
    // SAFETY: the length tells the mask's bytes, which the kernel fills in.
    let bytes = check(unsafe {
        libc::syscall(libc::SYS_sched_getaffinity, 0, size_of_val(cpus), cpus.as_mut_ptr())
    })?;
    Ok(usize::try_from(bytes).unwrap_or(0) / size_of::<u64>())
}

/// `set_mempolicy` of the calling thread, over nodes in a mask in words.
pub(crate) fn set_memory_policy(mode: u32, nodes: &[u64]) -> Sys<()> {
    // the kernel takes one bit less than it is told
    let (mask, bits) = match nodes {
        [] => (std::ptr::null(), 0),
        nodes => (nodes.as_ptr(), 64 * nodes.len() + 1),
    };
    // SAFETY: the mask has as many bits as are told, and is only read; there may be none.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) })?;
    Ok(())
}
