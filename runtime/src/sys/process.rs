//! Making processes and becoming other programs.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::Errno;

use super::{Sys, check};

/// What [`clone3`] is asked for.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct CloneRequest<'a> {
    /// `CLONE_*` flags besides those that the other fields imply.
    pub(crate) flags: u64,
    /// A cgroup v2 folder to be born in.
    pub(crate) cgroup: Option<BorrowedFd<'a>>,
    /// Become the caller's sibling.
    pub(crate) as_sibling: bool,
}

/// Who returns from [`clone3`].
#[derive(Debug)]
pub(crate) enum Cloned {
    /// The new process. It may do nothing that allocates or locks, and must not return to code that
    /// believes to be the parent.
    Child,
    /// The caller.
    Parent { pid: i32, pidfd: OwnedFd },
}

/// Makes a copy of the calling process with this thread only, with all caught signals set to their defaults.
///
/// # Safety
/// The child may only call what is safe after `fork` in a process with threads: no allocation,
/// no locks. It must end in `execve` or [`exit`].
pub(crate) unsafe fn clone3(request: CloneRequest<'_>) -> Sys<Cloned> {
    const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    let mut pidfd: RawFd = -1;
    let mut args = libc::clone_args {
        flags: request.flags | CLONE_CLEAR_SIGHAND | libc::CLONE_PIDFD as u64,
        pidfd: std::ptr::from_mut(&mut pidfd) as u64,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: libc::SIGCHLD as u64,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: 0,
    };
    if let Some(cgroup) = request.cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    if request.as_sibling {
        // the exit signal is then the caller's own; the kernel refuses another
        args.flags |= libc::CLONE_PARENT as u64;
        args.exit_signal = 0;
    }
    // SAFETY: without CLONE_VM the child gets its own copy of memory and goes on on a copy of this
    // stack, like after fork; the arguments outlive the call. The rest is the caller's promise.
    let pid = check(unsafe {
        libc::syscall(libc::SYS_clone3, std::ptr::from_ref(&args), size_of::<libc::clone_args>())
    })?;
    if pid == 0 {
        return Ok(Cloned::Child);
    }
    let pid = i32::try_from(pid).map_err(|_| Errno::OVERFLOW)?;
    // SAFETY: the kernel has stored a new descriptor that nobody else owns.
    Ok(Cloned::Parent { pid, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })
}

/// Ends the calling process at once, without any destructor.
pub(crate) fn exit(code: i32) -> ! {
    // SAFETY: ends the process; nothing runs after it.
    unsafe { libc::_exit(code) }
}

/// `setns`: into one namespace (an `nsfs` descriptor), or several of a process (a pidfd).
pub(crate) fn set_namespaces(fd: BorrowedFd<'_>, flags: i32) -> Sys<()> {
    // SAFETY: plain numbers; called in single-threaded children only.
    check(unsafe { libc::setns(fd.as_raw_fd(), flags) }.into())?;
    Ok(())
}

/// `unshare` of namespaces.
pub(crate) fn unshare(flags: i32) -> Sys<()> {
    // SAFETY: plain numbers; called in single-threaded children, or in a thread that is thrown away.
    check(unsafe { libc::unshare(flags) }.into())?;
    Ok(())
}

/// A NULL-terminated array of pointers to strings, as `execve` takes it.
#[derive(Debug)]
pub(crate) struct StringArray {
    // moving a CString does not move its bytes, so the pointers stay right
    strings: Vec<std::ffi::CString>,
    pointers: Vec<std::cell::Cell<*const libc::c_char>>,
}

// SAFETY: the pointers lead to its own strings, or to nothing, except while `execve` is at work.
unsafe impl Send for StringArray {}

impl StringArray {
    /// Keeps the strings; [`execve`] can add one.
    pub(crate) fn new(strings: Vec<std::ffi::CString>) -> Self {
        // one NULL ends the list; the other is the place of an entry that the child may add
        let end = [std::ptr::null(), std::ptr::null()];
        let pointers = strings.iter().map(|s| s.as_ptr()).chain(end).map(std::cell::Cell::new).collect();
        StringArray { strings, pointers }
    }

    /// The strings.
    pub(crate) fn strings(&self) -> &[std::ffi::CString] {
        &self.strings
    }
}

/// Executes the program that `path` names; comes back only with an error. `extra` is
/// appended to the environment.
pub(crate) fn execve(path: &CStr, args: &StringArray, env: &StringArray, extra: Option<&CStr>) -> Errno {
    let place = env.pointers.get(env.strings.len());
    if let (Some(extra), Some(place)) = (extra, place) {
        place.set(extra.as_ptr());
    }
    // SAFETY: a Cell has the layout of its content; both arrays end with NULL and point to strings
    // that are alive: `strings` and `extra`.
    let result =
        unsafe { libc::execve(path.as_ptr(), args.pointers.as_ptr().cast(), env.pointers.as_ptr().cast()) };
    if let Some(place) = place {
        place.set(std::ptr::null());
    }
    check(result.into()).err().unwrap_or(Errno::NOEXEC)
}

/// Like [`execve`], of an open file.
pub(crate) fn execve_fd(file: BorrowedFd<'_>, args: &StringArray, env: &StringArray) -> Errno {
    // SAFETY: both arrays end with NULL and point to strings that are alive.
    let result = unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            args.pointers.as_ptr(),
            env.pointers.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    check(result).err().unwrap_or(Errno::NOEXEC)
}

/// Closes all descriptors from `first` on, except those in `keep`.
pub(crate) fn close_from<const N: usize>(first: RawFd, keep: [Option<BorrowedFd<'_>>; N]) -> Sys<()> {
    let mut keep = keep.map(|fd| fd.map_or(RawFd::MAX, |fd| fd.as_raw_fd()));
    keep.sort_unstable();
    let mut from = first;
    for kept in keep.into_iter().chain([RawFd::MAX]) {
        if kept > from {
            // SAFETY: the child's copies; nothing that owns one of them runs its destructor any more.
            check(unsafe { libc::syscall(libc::SYS_close_range, from, kept - 1, 0) })?;
        }
        from = from.max(kept.saturating_add(1));
        if kept == RawFd::MAX {
            break;
        }
    }
    Ok(())
}

/// Lets a descriptor stay open across `execve`. A number that is not open is an error (`EBADF`).
pub(crate) fn keep_on_exec(fd: RawFd) -> Sys<()> {
    // SAFETY: F_SETFD takes a plain number.
    check(unsafe { libc::fcntl(fd, libc::F_SETFD, 0) }.into())?;
    Ok(())
}

/// Makes `fd` also known as `number`, without close-on-exec.
pub(crate) fn duplicate_to(fd: BorrowedFd<'_>, number: RawFd) -> Sys<()> {
    if fd.as_raw_fd() == number {
        return keep_on_exec(number);
    }
    // SAFETY: `number` is one of 0, 1, 2, which nothing in the child owns.
    check(unsafe { libc::dup2(fd.as_raw_fd(), number) }.into())?;
    Ok(())
}

/// Unblocks all signals and gives all of them their default action.
///
/// Caught signals have it already ([`clone3`]); this is for ignored ones, of which every Rust
/// program has one (`SIGPIPE`), and which `execve` would hand on.
pub(crate) fn reset_signals() {
    for signal in 1..=31 {
        if signal != libc::SIGKILL && signal != libc::SIGSTOP {
            // SAFETY: setting a default action runs no code of ours.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
    }
    let none = 0_u64;
    // SAFETY: the kernel reads eight bytes, its own size of a signal set.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            std::ptr::from_ref(&none),
            std::ptr::null_mut::<u64>(),
            size_of::<u64>(),
        )
    };
}

/// Makes the process end by `SIGTERM` until it executes a program.
pub(crate) fn end_on_termination() {
    extern "C" fn end(signal: i32) {
        exit(128 + signal)
    }
    // SAFETY: the handler only ends the process, which is allowed in one; the action is initialised.
    unsafe {
        let mut action = std::mem::zeroed::<libc::sigaction>();
        action.sa_sigaction = end as extern "C" fn(i32) as libc::sighandler_t;
        libc::sigaction(libc::SIGTERM, &raw const action, std::ptr::null_mut());
    }
}

/// Whether the working directory is inside the root directory. The kernel says
/// `(unreachable)` in front of one that is not.
pub(crate) fn working_directory_is_inside() -> Sys<bool> {
    let mut buffer = [0_u8; libc::PATH_MAX as usize];
    // SAFETY: the kernel writes at most the buffer's length.
    let length = check(unsafe { libc::syscall(libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len()) })?;
    Ok(length > 0 && buffer[0] == b'/')
}

/// `pidfd_send_signal` with any signal number.
pub(crate) fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Sys<()> {
    // SAFETY: no siginfo is passed.
    check(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    })?;
    Ok(())
}

/// `kill` with any signal number.
pub(crate) fn kill(pid: i32, signal: i32) -> Sys<()> {
    // SAFETY: plain numbers.
    check(unsafe { libc::kill(pid, signal) }.into())?;
    Ok(())
}

/// Sets a network interface up.
pub(crate) fn interface_up(socket: BorrowedFd<'_>, name: &CStr) -> Sys<()> {
    // SAFETY: all zeros is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.to_bytes().iter().take(libc::IFNAMSIZ - 1)) {
        *to = from.cast_signed();
    }
    let flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    request.ifr_ifru.ifru_flags = flags;
    // SAFETY: SIOCSIFFLAGS reads one ifreq.
    let result =
        unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, std::ptr::from_ref(&request)) };
    check(result.into())?;
    Ok(())
}
