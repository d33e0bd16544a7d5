//! Hooks that run in the container's own process.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::SeekFrom;
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, waitid};

use super::channel::Channel;
use super::inherited::clone_again;
use super::{At, Done, Failure};
use crate::error::Step;
use crate::plan::hooks::{ChildHook, HookFiles};
use crate::seccomp::Filter;
use crate::sys::identity::install_seccomp;
use crate::sys::process::{
    CloneRequest, Cloned, duplicate_to, execve, exit, pidfd_send_signal, reset_signals,
};

/// What the hooks of a list have in common.
#[derive(Debug, Default)]
pub(crate) struct Setting<'a> {
    /// A further entry for their environment.
    pub(crate) home: Option<&'a CStr>,
    /// What their calls are filtered with, unless that is so already.
    pub(crate) filter: Option<&'a Filter>,
}

/// Runs hooks one after the other. One that fails ends the container.
pub(crate) fn run<'p>(
    hooks: &'p [ChildHook],
    files: Option<&HookFiles>,
    setting: &Setting<'_>,
    channel: &Channel,
) -> Done<'p> {
    for hook in hooks {
        channel.trace(format_args!("running hook {}", hook.label.to_bytes().escape_ascii()));
        let Some(files) = files else { return Err(Errno::BADF).at(Step::Hook, &hook.label) };
        rustix::fs::seek(&files.state, SeekFrom::Start(0)).at(Step::Hook, &hook.label)?;
        rustix::fs::ftruncate(&files.output, 0).at(Step::Hook, &hook.label)?;
        rustix::fs::seek(&files.output, SeekFrom::Start(0)).at(Step::Hook, &hook.label)?;
        match clone_again(CloneRequest::default()).at(Step::Hook, &hook.label)? {
            Cloned::Child => {
                let errno = become_hook(hook, files, setting);
                // the exit status is all that this process can say
                exit(if errno == Errno::NOENT { 127 } else { 126 })
            }
            Cloned::Parent { pidfd, .. } => wait(hook, &pidfd)?,
        }
    }
    Ok(())
}

/// Executes the hook's program; comes back only with a failure.
fn become_hook(hook: &ChildHook, files: &HookFiles, setting: &Setting<'_>) -> Errno {
    reset_signals();
    let prepared = duplicate_to(files.state.as_fd(), 0)
        .and_then(|()| duplicate_to(files.stream(0), 1))
        .and_then(|()| duplicate_to(files.stream(1), 2))
        .and_then(|()| match setting.filter {
            Some(filter) => install_seccomp(&filter.program, filter.flags).map(drop),
            None => Ok(()),
        });
    match prepared {
        Ok(()) => execve(&hook.path, &hook.args, &hook.env, setting.home),
        Err(errno) => errno,
    }
}

/// So much of what a hook has said is quoted.
pub(crate) const QUOTED_MAX: usize = 2048;

/// The last that a hook has said, if it is one that has failed.
pub(crate) fn said<'b>(
    failure: &Failure<'_>,
    files: Option<&HookFiles>,
    buffer: &'b mut [u8; QUOTED_MAX],
) -> &'b [u8] {
    let Some(files) = files else { return &[] };
    if !matches!(failure.step, Step::HookFailed | Step::HookKilled) {
        return &[];
    }
    let length = rustix::fs::fstat(&files.output).map_or(0, |stat| stat.st_size.cast_unsigned());
    let from = length.saturating_sub(QUOTED_MAX as u64);
    let read = rustix::io::pread(&files.output, &mut *buffer, from).unwrap_or(0);
    buffer.get(..read).unwrap_or_default()
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
