//! One process, from before its fork to after its wait.
#![allow(unsafe_code)] // wait4, which tells what a process and its children used

use std::ffi::OsStr;
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

/// Runs a program to its end, without standard input and output. One that fails ends the bench.
pub(crate) fn run(program: impl AsRef<OsStr>, arguments: &[&str]) -> Sample {
    let log = std::fs::File::create("/run/wherry-bench/stderr").unwrap();
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    // SAFETY: does nothing. It is there for a real fork: after a vfork the kernel counts this
    // program's own memory as the child's first.
    unsafe { command.pre_exec(|| Ok(())) };
    let begin = Instant::now();
    let pid = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}")).id();
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

/// Whether a child has ended, without reaping it; waits up to ten seconds.
pub(crate) fn ends(pid: u32) -> bool {
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline {
        // SAFETY: all zeros is a valid siginfo; the kernel writes one.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: as above.
        let result = unsafe {
            libc::waitid(libc::P_PID, pid, &raw mut info, libc::WEXITED | libc::WNOWAIT | libc::WNOHANG)
        };
        // SAFETY: waitid fills this field in, or leaves it 0.
        if result == 0 && unsafe { info.si_pid() } != 0 {
            return true;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    false
}
