//! Hooks that run in the container's own process.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, waitid};

use super::inherited::clone_again;
use super::{At, Done, Failure};
use crate::error::Step;
use crate::plan::hooks::ChildHook;
use crate::sys::process::{
    CloneRequest, Cloned, duplicate_to, execve, exit, pidfd_send_signal, reset_signals,
};

/// Runs hooks one after the other. One that fails ends the container. `home` is a further entry for their environment.
pub(crate) fn run<'p>(hooks: &'p [ChildHook], state: Option<&OwnedFd>, home: Option<&CStr>) -> Done<'p> {
    for hook in hooks {
        let Some(state) = state else { return Err(Errno::BADF).at(Step::Hook, &hook.label) };
        rustix::fs::seek(state, rustix::fs::SeekFrom::Start(0)).at(Step::Hook, &hook.label)?;
        match clone_again(CloneRequest::default()).at(Step::Hook, &hook.label)? {
            Cloned::Child => {
                reset_signals();
                let errno = match duplicate_to(state.as_fd(), 0) {
                    Ok(()) => execve(&hook.path, &hook.args, &hook.env, home),
                    Err(errno) => errno,
                };
                // the exit status is all that this process can say
                exit(if errno == Errno::NOENT { 127 } else { 126 })
            }
            Cloned::Parent { pidfd, .. } => wait(hook, &pidfd)?,
        }
    }
    Ok(())
}

fn wait<'p>(hook: &'p ChildHook, pidfd: &OwnedFd) -> Done<'p> {
    let timeout = hook
        .timeout_ms
        .map(|ms| Timespec { tv_sec: i64::from(ms / 1000), tv_nsec: i64::from(ms % 1000) * 1_000_000 });
    let ready =
        poll(&mut [PollFd::new(pidfd, PollFlags::IN)], timeout.as_ref()).at(Step::Hook, &hook.label)?;
    if ready == 0 {
        let _ = pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL);
        let _ = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
        return Err(Failure { step: Step::Hook, subject: &hook.label, errno: Errno::TIMEDOUT });
    }
    let status = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).at(Step::Hook, &hook.label)?;
    let Some(status) = status else { return Ok(()) };
    match (status.exit_status(), status.terminating_signal()) {
        (Some(0), _) => Ok(()),
        // it could not be executed
        (Some(127), _) => Err(failed(Step::Hook, hook, libc::ENOENT)),
        (Some(126), _) => Err(failed(Step::Hook, hook, libc::EACCES)),
        // in the place of an error: the status
        (Some(code), _) => Err(failed(Step::HookFailed, hook, code)),
        (None, signal) => Err(failed(Step::HookKilled, hook, signal.unwrap_or(libc::SIGKILL))),
    }
}

fn failed(step: Step, hook: &ChildHook, number: i32) -> Failure<'_> {
    Failure { step, subject: &hook.label, errno: Errno::from_raw_os_error(number) }
}
