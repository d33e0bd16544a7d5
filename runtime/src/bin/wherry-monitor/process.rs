//! Makes this process a monitor: its own session, parent of orphans, deaf to stray signals, and with
//! no descriptor but its sockets.
#![allow(unsafe_code)] // sigaction and close_range have no safe wrapper.

use std::io::{self, Write};
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use wherry_monitor_api::{CONTROL_FD, LISTEN_FD};

/// The sockets that the engine gave.
#[derive(Debug)]
pub(crate) struct Sockets {
    pub(crate) listener: OwnedFd,
    pub(crate) control: OwnedFd,
}

/// Does it. Descriptors 0 and 1 are `/dev/null` afterwards, 2 is the engine's log.
pub(crate) fn set_up() -> io::Result<Sockets> {
    close_from(3)?;
    let listener = take(LISTEN_FD)?;
    let control = take(CONTROL_FD)?;
    for signal in [
        libc::SIGPIPE,
        libc::SIGHUP,
        libc::SIGINT,
        libc::SIGQUIT,
        libc::SIGTERM,
        libc::SIGUSR1,
        libc::SIGUSR2,
        libc::SIGCHLD,
    ] {
        catch(signal)?;
    }
    restore_internal_signals();
    // A leader of a process group cannot begin a session, but is then already nobody's job.
    match rustix::process::setsid() {
        Ok(_) | Err(Errno::PERM) => {}
        Err(e) => return Err(e.into()),
    }
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    // Executed from a descriptor, it would be called by the descriptor's number.
    rustix::thread::set_name(c"wherry-monitor")?;
    // The folder that the engine was started in must not be kept busy. There is one thread.
    rustix::process::chdir("/")?;
    Ok(Sockets { listener, control })
}

/// A line for the engine's log.
pub(crate) fn say(container: &str, text: &str) {
    let short = container.get(..12).unwrap_or(container);
    // One write, so that lines of several monitors do not mix. Nobody is left to tell if it fails.
    let _ = io::stderr().write_all(format!("wherry-monitor {short}: {text}\n").as_bytes());
}

/// Moves an inherited descriptor out of the way and puts `/dev/null` in its place.
fn take(number: i32) -> io::Result<OwnedFd> {
    // SAFETY: if the descriptor is not open, fcntl answers EBADF; nothing else in this process uses it.
    let inherited = unsafe { BorrowedFd::borrow_raw(number) };
    let taken = rustix::io::fcntl_dupfd_cloexec(inherited, 3)?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    // dup2 onto the number does not set close-on-exec: 0 and 1 stay open like in any process.
    match number {
        0 => rustix::stdio::dup2_stdin(&null)?,
        _ => rustix::stdio::dup2_stdout(&null)?,
    }
    Ok(taken)
}

fn close_from(first: libc::c_uint) -> io::Result<()> {
    // SAFETY: nothing in this process has opened a descriptor yet.
    if unsafe { libc::close_range(first, libc::c_uint::MAX, 0) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The C library's posix_spawn leaves the two signals that it uses itself ignored in every child, and lets nobody
/// change that; containers would inherit it.
fn restore_internal_signals() {
    // Default action, no flags, no mask: all zeros on every architecture.
    let default = [0u64; 4];
    for signal in [32, 33] {
        // SAFETY: the kernel reads its structure, of at most 32 bytes. The process has one thread and cancels none.
        // It cannot fail for these signals, and would harm nothing.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null_mut::<u64>(),
                8usize,
            )
        };
    }
}

extern "C" fn nothing(_signal: libc::c_int) {}

/// Catches a signal and does nothing. Unlike an ignored one it has its default action again after
/// execve, so that no container inherits it. SIGCHLD ends a wait, after which orphans are reaped.
fn catch(signal: libc::c_int) -> io::Result<()> {
    let handler: extern "C" fn(libc::c_int) = nothing;
    // SAFETY: the structure is plain data, and the handler touches nothing.
    let done = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(signal, &raw const action, std::ptr::null_mut())
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
