//! One process, from before its fork to after its wait.
#![allow(unsafe_code)] // wait4, which tells what a process and its children used

use std::ffi::OsStr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What a process took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// From before the fork to after the wait.
    pub(crate) wall_ms: f64,
    /// In user mode and in the kernel, with the children that it has waited for.
    pub(crate) cpu_ms: f64,
    /// The most resident memory of it or one of these children.
    pub(crate) peak_kib: f64,
}

/// How long a process may take.
const PATIENCE: Duration = Duration::from_secs(10);

impl Sample {
    /// Stands for a process that did not end by itself.
    const LOST: Sample = Sample { wall_ms: f64::INFINITY, cpu_ms: f64::INFINITY, peak_kib: f64::INFINITY };

    /// Whether the process did not end by itself.
    pub(crate) fn is_lost(&self) -> bool {
        self.wall_ms.is_infinite()
    }
}

/// Runs a program to its end, without standard input and output. One that fails ends the bench; one that hangs is killed
/// (youki does, now and then: it waits for a signal that has come already).
pub(crate) fn run(program: impl AsRef<OsStr>, arguments: &[&str]) -> Sample {
    let log = std::fs::File::create("/run/wherry-bench/stderr").unwrap();
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    // SAFETY: does nothing. It is there for a real fork: after a vfork the kernel counts this
    // program's own memory as the child's first.
    unsafe { command.pre_exec(|| Ok(())) };
    let begin = Instant::now();
    let pid = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}")).id();
    if !ends(pid) {
        eprintln!("{command:?} hangs: killed");
        // SAFETY: plain numbers; the child has not been waited for, so the number is still its own.
        unsafe { libc::kill(pid.cast_signed(), libc::SIGKILL) };
        wait(pid);
        return Sample::LOST;
    }
    let (status, usage) = wait(pid);
    let wall_ms = begin.elapsed().as_secs_f64() * 1e3;
    assert!(
        status == 0,
        "{command:?} ended with status {status:#x}: {}",
        std::fs::read_to_string("/run/wherry-bench/stderr").unwrap_or_default()
    );
    let ms = |time: libc::timeval| time.tv_sec as f64 * 1e3 + time.tv_usec as f64 / 1e3;
    Sample { wall_ms, cpu_ms: ms(usage.ru_utime) + ms(usage.ru_stime), peak_kib: usage.ru_maxrss as f64 }
}

/// Waits for a child, or an orphan that has become one: this is the first process of its pid namespace.
pub(crate) fn wait(pid: u32) -> (i32, libc::rusage) {
    let mut status = 0;
    // SAFETY: all zeros is a valid rusage.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one status and one rusage.
    let waited = unsafe { libc::wait4(pid.cast_signed(), &raw mut status, 0, &raw mut usage) };
    assert_eq!(waited, pid.cast_signed(), "{}", std::io::Error::last_os_error());
    (status, usage)
}

/// Whether a child ends in time. It is not reaped.
pub(crate) fn ends(pid: u32) -> bool {
    // SAFETY: plain numbers; the result is a new descriptor or -1.
    let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    assert!(pidfd >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: a new descriptor that nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(i32::try_from(pidfd).unwrap()) };
    let mut poll = libc::pollfd { fd: pidfd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let timeout_ms = i32::try_from(PATIENCE.as_millis()).unwrap();
    // SAFETY: one pollfd.
    unsafe { libc::poll(&raw mut poll, 1, timeout_ms) == 1 }
}
