//! Who the program will be, and what it may.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::channel::{Channel, LISTENER, NO_SUBJECT};
use super::{At, Done, Failure, inherited};
use crate::error::Step;
use crate::plan::process::ProcessPlan;
use crate::plan::scheduling::{ALL_CPUS, NumberSet};
use crate::seccomp::Filter;
use crate::sys::identity::{
    RLIMIT_NAMES, install_seccomp, join_session_keyring, personality, prctl, set_capabilities, set_gid,
    set_groups, set_rlimit, set_uid,
};
use crate::sys::process::{close_from, keep_on_exec, working_directory_is_inside};
use crate::sys::scheduling::{affinity, set_affinity, set_io_priority, set_memory_policy, set_scheduler};

/// Becomes root of the user namespace.
pub(crate) fn become_root(keep_groups: bool) -> Done<'static> {
    let groups = if keep_groups { Ok(()) } else { set_groups(&[]) };
    // a namespace without the right to set groups has none to lose
    match groups {
        Ok(()) | Err(Errno::PERM) => {}
        Err(errno) => return Err(errno).at(Step::Groups, NO_SUBJECT),
    }
    set_gid(0).at(Step::User, c"gid 0")?;
    set_uid(0).at(Step::User, c"uid 0")?;
    // changing the user has made the process dumpable by the settings of the host
    prctl(libc::PR_SET_DUMPABLE, 0, 0).at(Step::Prepare, NO_SUBJECT)
}

/// What must be done with the caller's own privileges.
pub(crate) fn before_filter(process: &ProcessPlan) -> Done<'_> {
    if let Some(name) = &process.keyring {
        match join_session_keyring(name) {
            Ok(()) | Err(Errno::NOSYS) => {} // no keys, nothing to protect
            Err(errno) => return Err(errno).at(Step::Keyring, name),
        }
    }
    if let Some(attr) = &process.scheduler {
        set_scheduler(attr).at(Step::Scheduler, NO_SUBJECT)?;
    }
    if let Some(value) = process.io_priority {
        set_io_priority(value).at(Step::IoPriority, NO_SUBJECT)?;
    }
    if let Some(policy) = &process.memory_policy {
        set_memory_policy(policy.mode, &policy.nodes.0).at(Step::MemoryPolicy, NO_SUBJECT)?;
    }
    if let Some(persona) = process.personality {
        personality(persona).at(Step::Personality, NO_SUBJECT)?;
    }
    Ok(())
}

/// Keeps this process to some CPUs.
pub(crate) fn keep_to(cpus: &NumberSet) -> Done<'static> {
    set_affinity(&cpus.0).at(Step::Affinity, NO_SUBJECT)
}

/// Tells which CPUs this process may run on, as the kernel has it.
pub(crate) fn trace_affinity(channel: &Channel) {
    let mut cpus = [0; ALL_CPUS.len()];
    if let Ok(words) = affinity(&mut cpus) {
        channel.trace_namespaces(format_args!("affinity: {}", Mask(cpus.get(..words).unwrap_or_default())));
    }
}

/// A mask in words, the lowest first, shown as one hexadecimal number.
struct Mask<'a>(&'a [u64]);

impl fmt::Display for Mask<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let used = self.0.iter().rposition(|word| *word != 0).unwrap_or(0);
        write!(f, "{:#x}", self.0.get(used).unwrap_or(&0))?;
        self.0.iter().take(used).rev().try_for_each(|word| write!(f, "{word:016x}"))
    }
}

/// Takes back what the caller keeps itself to.
pub(crate) fn may_use_all_cpus() {
    let _ = set_affinity(&ALL_CPUS); // it is a matter of speed only
}

/// Closes everything that the program does not get, and that is not needed for telling how it went. This
/// comes before the working directory is entered, which then cannot be one of these descriptors (CVE-2024-21626).
pub(crate) fn close_descriptors<'p, const N: usize>(
    process: &'p ProcessPlan,
    keep: [Option<BorrowedFd<'_>>; N],
) -> Done<'p> {
    let first = i32::try_from(3 + process.preserve_fds).unwrap_or(i32::MAX);
    close_from(first, keep).at(Step::CloseFds, NO_SUBJECT)?;
    for number in 3..first {
        keep_on_exec(number).at(Step::CloseFds, c"preserved")?;
    }
    Ok(())
}

/// Limits, user, capabilities, working directory, and the filter where it cannot wait for [`filter_last`].
pub(crate) fn take_on<'p>(process: &'p ProcessPlan, channel: &Channel) -> Done<'p> {
    for (resource, soft, hard) in &process.rlimits {
        set_rlimit(*resource, *soft, *hard).at(Step::Rlimit, rlimit_name(*resource))?;
    }
    if process.no_new_privileges {
        prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0).at(Step::NoNewPrivileges, NO_SUBJECT)?;
    } else {
        // without no_new_privs only CAP_SYS_ADMIN may install a filter, so while we have it
        filter(process, channel)?;
    }
    if let Some(capabilities) = &process.capabilities {
        drop_bounding(capabilities.bounding).at(Step::Capabilities, c"bounding")?;
        // permitted capabilities survive the change of the user
        prctl(libc::PR_SET_KEEPCAPS, 1, 0).at(Step::Capabilities, c"keep")?;
    }
    // first try as ourselves: the folder may be closed to the user but open to root, or (NFS) the reverse
    let entered = rustix::process::chdir(process.cwd.as_c_str());
    change_user(process)?;
    channel.trace(format_args!("user {}, group {}", process.uid, process.gid));
    if entered.is_err() {
        rustix::process::chdir(process.cwd.as_c_str()).at(Step::Cwd, &process.cwd)?;
    }
    if !working_directory_is_inside().at(Step::Cwd, &process.cwd)? {
        return Err(Failure { step: Step::Cwd, subject: &process.cwd, errno: Errno::NOENT });
    }
    if let Some(capabilities) = &process.capabilities {
        set_capabilities(capabilities.sets).at(Step::Capabilities, NO_SUBJECT)?;
        set_ambient(capabilities.ambient).at(Step::Capabilities, c"ambient")?;
        prctl(libc::PR_SET_KEEPCAPS, 0, 0).at(Step::Capabilities, c"keep")?;
    }
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(process.umask));
    if process.no_new_privileges && process.notifies() {
        filter(process, channel)?;
    }
    Ok(())
}

/// With no_new_privs the filter comes as the very last: so it need not allow what the runtime does. Only one that tells
/// of calls comes earlier, while the parent still listens.
pub(crate) fn filter_last<'p>(process: &'p ProcessPlan, channel: &Channel) -> Done<'p> {
    if filter_to_come(process).is_some() { filter(process, channel) } else { Ok(()) }
}

/// The filter, if it is one that [`filter_last`] installs.
pub(crate) fn filter_to_come(process: &ProcessPlan) -> Option<&Filter> {
    process.seccomp.as_ref().filter(|_| process.no_new_privileges && !process.notifies())
}

fn filter<'p>(process: &'p ProcessPlan, channel: &Channel) -> Done<'p> {
    let Some(filter) = &process.seccomp else { return Ok(()) };
    channel.trace(format_args!("seccomp filter flags: {}", filter.flags));
    channel.fall_silent();
    let installed = install_seccomp(&filter.program, filter.flags).at(Step::Seccomp, NO_SUBJECT)?;
    if filter.listener.is_some() {
        let listener = inherited::new_descriptor(installed);
        channel.send_descriptor(LISTENER, listener.as_fd()).at(Step::Seccomp, c"listener")?;
    }
    Ok(())
}

fn change_user(process: &ProcessPlan) -> Done<'_> {
    let groups = if process.keep_groups { Ok(()) } else { set_groups(&process.groups) };
    match groups {
        Ok(()) => {}
        // a user namespace may forbid it (setgroups: deny); then there is nothing to be had, either
        Err(Errno::PERM) if process.groups.is_empty() => {}
        Err(errno) => return Err(Failure { step: Step::Groups, subject: NO_SUBJECT, errno }),
    }
    set_gid(process.gid).at(Step::User, c"gid")?;
    set_uid(process.uid).at(Step::User, c"uid")?;
    // undo what the kernel does for a change of the user: the runtime's memory is nobody's business
    if process.uid != 0 {
        prctl(libc::PR_SET_DUMPABLE, 0, 0).at(Step::Prepare, NO_SUBJECT)?;
    }
    Ok(())
}

fn drop_bounding(keep: u64) -> Result<(), Errno> {
    for capability in 0..64_u64 {
        if keep & 1 << capability != 0 {
            continue;
        }
        match prctl(libc::PR_CAPBSET_DROP, capability, 0) {
            Ok(()) => {}
            Err(Errno::INVAL) => return Ok(()), // beyond the kernel's last one
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn set_ambient(ambient: u64) -> Result<(), Errno> {
    const RAISE: u64 = 2;
    const CLEAR_ALL: u64 = 4;
    prctl(libc::PR_CAP_AMBIENT, CLEAR_ALL, 0)?;
    for capability in (0..64_u64).filter(|c| ambient & 1 << c != 0) {
        match prctl(libc::PR_CAP_AMBIENT, RAISE, capability) {
            // not permitted or not inheritable: it could not take effect (runc warns and goes on)
            Ok(()) | Err(Errno::PERM) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn rlimit_name(resource: u32) -> &'static std::ffi::CStr {
    usize::try_from(resource).ok().and_then(|number| RLIMIT_NAMES.get(number)).copied().unwrap_or_default()
}

/// Brings a new network namespace's loopback device up.
pub(crate) fn loopback_up() -> Result<(), Errno> {
    let socket =
        rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    crate::sys::process::interface_up(socket.as_fd(), c"lo")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_as_one_number() {
        for (words, text) in [
            (&[][..], "0x0"),
            (&[0], "0x0"),
            (&[2, 0, 0], "0x2"),
            (&[3, 1], "0x10000000000000003"),
            (&[0, 0, 0xff], "0xff00000000000000000000000000000000"),
        ] {
            assert_eq!(Mask(words).to_string(), text);
        }
    }
}
