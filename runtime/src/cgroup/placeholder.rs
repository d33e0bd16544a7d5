//! A process that only waits: for what must have one in it, and for namespaces that are filled in.

#![allow(unsafe_code)] // clone3

use std::os::fd::{AsFd, OwnedFd};

use rustix::process::{WaitId, WaitIdOptions, waitid};

use crate::Error;
use crate::child::channel::{Channel, GO};
use crate::sys::process::{CloneRequest, Cloned, clone3, close_from, exit};

/// The process. Dropped, it has ended and is reaped.
#[derive(Debug)]
pub(crate) struct Placeholder {
    pid: i32,
    pidfd: OwnedFd,
    /// A word on it, or its end, lets the process end.
    channel: Option<Channel>,
}

impl Placeholder {
    /// Starts it, in the new namespaces that `flags` (`CLONE_NEW*`) ask for.
    pub(crate) fn start(flags: u64) -> Result<Self, Error> {
        let failed = |errno| Error::system("make", "a process that waits", errno);
        let (ours, theirs) = Channel::pair().map_err(failed)?;
        // SAFETY: the child only waits on its socket, and ends.
        match unsafe { clone3(CloneRequest { flags, ..CloneRequest::default() }) }.map_err(failed)? {
            Cloned::Child => {
                drop(ours);
                // nor does it hold what others wait to see closed
                let _ = close_from(0, [Some(theirs.as_fd()), None, None]);
                let _ = theirs.wait_for(GO);
                exit(0)
            }
            Cloned::Parent { pid, pidfd } => Ok(Placeholder { pid, pidfd, channel: Some(ours) }),
        }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }
}

impl Drop for Placeholder {
    fn drop(&mut self) {
        // a word, since other children may hold copies of our end for a while
        if let Some(channel) = self.channel.take() {
            let _ = channel.tell(GO);
        }
        let _ = waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED);
    }
}
