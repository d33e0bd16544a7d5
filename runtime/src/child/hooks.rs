//! Hooks that run in the container's own process.

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

/// Runs hooks one after the other. One that fails ends the container.
pub(crate) fn run<'p>(hooks: &'p [ChildHook], state: Option<&OwnedFd>) -> Done<'p> {
    for hook in hooks {
        let Some(state) = state else { return Err(Errno::BADF).at(Step::Hook, &hook.path) };
        rustix::fs::seek(state, rustix::fs::SeekFrom::Start(0)).at(Step::Hook, &hook.path)?;
        match clone_again(CloneRequest::default()).at(Step::Hook, &hook.path)? {
            Cloned::Child => {
                reset_signals();
                let errno = match duplicate_to(state.as_fd(), 0) {
                    Ok(()) => execve(&hook.path, &hook.args, &hook.env, None),
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
        poll(&mut [PollFd::new(pidfd, PollFlags::IN)], timeout.as_ref()).at(Step::Hook, &hook.path)?;
    if ready == 0 {
        let _ = pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL);
        let _ = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
        return Err(Failure { step: Step::Hook, subject: &hook.path, errno: Errno::TIMEDOUT });
    }
    let status = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).at(Step::Hook, &hook.path)?;
    match status.and_then(|s| s.exit_status()) {
        Some(0) => Ok(()),
        Some(127) => Err(Failure { step: Step::Hook, subject: &hook.path, errno: Errno::NOENT }),
        Some(126) => Err(Failure { step: Step::Hook, subject: &hook.path, errno: Errno::ACCESS }),
        _ => Err(Failure { step: Step::HookFailed, subject: &hook.path, errno: Errno::CANCELED }),
    }
}
