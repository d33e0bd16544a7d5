//! The child: carries a plan out between `clone3` and `execve`.
//!
//! Nothing in this folder allocates, takes a lock or returns to the caller's code: the child may be a copy of
//! one thread of a process that had many. Every failure ends in [`channel::Channel::report`].

pub(crate) mod channel;
mod copy_up;
mod dev;
mod exec;
pub(crate) mod groups;
mod hooks;
mod identity;
mod inherited;
mod init;
mod masks;
pub(crate) mod mount;
mod net_devices;
mod procfs;
mod program;
pub(crate) mod root;
mod surroundings;
pub(crate) mod target;
mod terminal;

use std::ffi::CStr;
use std::os::fd::OwnedFd;

use rustix::io::Errno;

use crate::error::Step;
use crate::plan::Plan;
use crate::plan::process::ProcessPlan;
use crate::sys::process::{Cloned, exit};
use channel::Channel;

/// Which step failed, on what, and how.
#[derive(Debug)]
pub(crate) struct Failure<'p> {
    pub(crate) step: Step,
    pub(crate) subject: &'p CStr,
    pub(crate) errno: Errno,
}

impl From<Failure<'_>> for crate::Error {
    fn from(Failure { step, subject, errno }: Failure<'_>) -> Self {
        let subject = subject.to_string_lossy().into_owned();
        crate::Error::Setup { step, subject, errno: errno.raw_os_error() }
    }
}

/// The result of a step.
pub(crate) type Done<'p, T = ()> = Result<T, Failure<'p>>;

/// Says which step a system call belongs to.
pub(crate) trait At<T> {
    /// The step, and its subject.
    fn at(self, step: Step, subject: &CStr) -> Done<'_, T>;
}

impl<T> At<T> for Result<T, Errno> {
    fn at(self, step: Step, subject: &CStr) -> Done<'_, T> {
        self.map_err(|errno| Failure { step, subject, errno })
    }
}

/// Ends the child if it unwinds: it must never run the parent's code.
struct NeverReturns;

impl Drop for NeverReturns {
    fn drop(&mut self) {
        exit(255);
    }
}

/// A container's init. `listener` is where another process may come to start it.
pub(crate) fn run_init(plan: &Plan, channel: &Channel, listener: Option<&OwnedFd>) -> ! {
    let _guard = NeverReturns;
    let mut started_by = None;
    let result = init::init(plan, channel, listener, &mut started_by);
    if let Err(failure) = result {
        let mut buffer = [0; hooks::QUOTED_MAX];
        let said = hooks::said(&failure, plan.hooks.files.as_ref(), &mut buffer);
        started_by.as_ref().unwrap_or(channel).report(&failure, said);
    }
    exit(1)
}

/// The process in between, for namespaces that are entered by children only. Makes the child as its
/// own sibling, tells its pid, and ends.
pub(crate) fn run_between(plan: &Plan, channel: &Channel, listener: Option<&OwnedFd>) -> ! {
    let _guard = NeverReturns;
    match init::between(plan, channel) {
        Ok(Cloned::Child) => run_init(plan, channel, listener),
        Ok(Cloned::Parent { pid, .. }) => {
            if channel.tell_pid(pid).is_ok() {
                exit(0)
            }
        }
        Err(failure) => channel.report(&failure, &[]),
    }
    exit(1)
}

/// An exec's process: everything is there, it only has to become itself.
pub(crate) fn run_exec(join: &crate::exec::Join, process: &ProcessPlan, channel: &Channel) -> ! {
    let _guard = NeverReturns;
    match exec::between(join, process, channel) {
        Ok(Cloned::Child) => {
            if let Err(failure) = exec::exec(join, process, channel) {
                channel.report(&failure, &[]);
            }
        }
        Ok(Cloned::Parent { pid, .. }) => {
            if channel.tell_pid(pid).is_ok() {
                exit(0)
            }
        }
        Err(failure) => channel.report(&failure, &[]),
    }
    exit(1)
}
