//! Further processes in a container.

#![allow(unsafe_code)] // clone3

use std::os::fd::{AsFd, OwnedFd};

use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};

use crate::cgroup::Entry;
use crate::child::channel::{Channel, GO, PACKET_MAX, PID, parse_failure, parse_trace};
use crate::create::hear;
use crate::plan::process::ProcessPlan;
use crate::sys::process::{CloneRequest, Cloned, clone3};
use crate::{Error, Process, Trace};

/// What a process joins.
#[derive(Debug)]
pub(crate) struct Join {
    /// The container's init.
    pub(crate) init: OwnedFd,
    /// `CLONE_NEW*`: in which namespaces it differs from the host.
    pub(crate) namespaces: i32,
    /// Whether these include a user namespace.
    pub(crate) user_namespace: bool,
    /// Its root, if its mount namespace is the host's.
    pub(crate) root: Option<OwnedFd>,
    /// The container's cgroup.
    pub(crate) entry: Entry,
}

/// Starts a process; returns once it has been executed. The listener of its seccomp filter, if that has
/// one, goes to `hand_over`, with the process's id.
pub(crate) fn spawn(
    join: &Join,
    plan: &ProcessPlan,
    trace: Option<Trace<'_>>,
    hand_over: impl FnOnce(OwnedFd, i32) -> Result<(), Error>,
) -> Result<Process, Error> {
    let failed = |errno| Error::system("make", "a process in the container", errno);
    let (channel, theirs) = Channel::pair().map_err(failed)?;
    let theirs = theirs.traced(trace.is_some());
    // Into the cgroup from outside: in the container's cgroup namespace the kernel lets nobody move who comes from
    // elsewhere (`nsdelegate`, with which systemd mounts version 2).
    let request = CloneRequest { cgroup: join.entry.clone_into(), ..CloneRequest::default() };
    // SAFETY: the child runs `run_exec`, which keeps to what is allowed and never returns.
    let between = match unsafe { clone3(request) }.map_err(failed)? {
        Cloned::Child => {
            drop(channel);
            crate::child::run_exec(join, plan, &theirs)
        }
        Cloned::Parent { pidfd, .. } => pidfd,
    };
    drop(theirs);
    let pid = between_pid(&channel, trace);
    let _ = waitid(WaitId::PidFd(between.as_fd()), WaitIdOptions::EXITED);
    let pid = pid?;
    let pidfd = Pid::from_raw(pid)
        .ok_or(Error::InitDied)
        .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).map_err(failed))?;
    let result = set_oom_score(pid, plan.oom_score_adj)
        .and_then(|()| join.entry.move_in(pid))
        .and_then(|()| finish(&channel, trace, |fd| hand_over(fd, pid)));
    match result {
        Ok(terminal) => Ok(Process { pid, pidfd, terminal, warnings: Vec::new() }),
        Err(error) => {
            let _ = crate::sys::process::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL);
            let _ = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
            Err(error)
        }
    }
}

/// The pid that the process in between tells. What it does before that, it tells, too.
pub(crate) fn between_pid(channel: &Channel, trace: Option<Trace<'_>>) -> Result<i32, Error> {
    let mut buffer = [0; PACKET_MAX];
    loop {
        let received =
            channel.receive(&mut buffer).map_err(|e| Error::system("receive from", "the child", e))?;
        match buffer.get(..received.length) {
            Some([PID, a, b, c, d]) => return Ok(i32::from_ne_bytes([*a, *b, *c, *d])),
            Some(packet) => match (parse_trace(packet), trace) {
                (Some(line), Some(trace)) => trace.tell(&line),
                _ => return Err(parse_failure(packet).unwrap_or(Error::InitDied)),
            },
            None => return Err(Error::InitDied),
        }
    }
}

/// Writes a process's score; it belongs to the caller, so that nothing of the container is involved.
pub(crate) fn set_oom_score(pid: i32, score: Option<i32>) -> Result<(), Error> {
    let Some(score) = score else { return Ok(()) };
    crate::cgroup::write(std::path::Path::new(&format!("/proc/{pid}")), "oom_score_adj", &score.to_string())
}

fn finish(
    channel: &Channel,
    trace: Option<Trace<'_>>,
    hand_over: impl FnOnce(OwnedFd) -> Result<(), Error>,
) -> Result<Option<OwnedFd>, Error> {
    let broken = |errno| Error::system("talk to", "the child", errno);
    match channel.tell(GO) {
        // it has failed already, and said why
        Ok(()) | Err(rustix::io::Errno::PIPE) => {}
        Err(errno) => return Err(broken(errno)),
    }
    let mut hand_over = Some(hand_over);
    hear(channel, false, trace, |_, listener| match (listener, hand_over.take()) {
        (Some(listener), Some(hand_over)) => hand_over(listener),
        _ => Ok(()),
    })
}
