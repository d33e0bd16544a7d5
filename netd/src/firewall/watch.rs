//! Noticing that somebody else has changed the host's rules (an administrator's flush, a firewall service's reload).
//! Where iptables is the legacy variant the kernel tells nobody; rules are then checked when an engine
//! starts, and when firewalld has started or reloaded.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::Timespec;

use super::{Job, Order};
use crate::netlink::commits::{Commits, News};

/// A reload makes many changes; the check comes when they have paused this long.
const PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
const REMEMBERED: usize = 32;

/// The processes that we have lately had change the rules.
#[derive(Debug, Clone, Default)]
pub(super) struct Helpers(Arc<Mutex<VecDeque<u32>>>);

impl Helpers {
    pub(super) fn note(&self, pid: u32) {
        let mut pids = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pids.truncate(REMEMBERED);
        pids.push_front(pid);
    }

    fn know(&self, pid: u32) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&pid)
    }
}

/// Starts the thread that has the rules checked after others' changes.
pub(super) fn start(jobs: Sender<Job>, helpers: Helpers) -> io::Result<()> {
    let commits = Commits::subscribe()?;
    std::thread::Builder::new().name("watch".into()).stack_size(128 << 10).spawn(move || {
        let mut changed = false;
        loop {
            let mut check = false;
            let waited = commits.wait(changed.then_some(&PAUSE), |news| match news {
                News::Silence => check = true,
                News::Lost => changed = true,
                News::Commit(pid) => changed |= !helpers.know(pid),
            });
            if waited.is_err() {
                return;
            }
            if check {
                changed = false;
                let (done, _) = channel();
                if jobs.send(Job { order: Order::Check, done }).is_err() {
                    return;
                }
            }
        }
    })?;
    Ok(())
}
