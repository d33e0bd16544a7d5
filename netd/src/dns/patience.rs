//! Waiting awake.

use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use tokio::net::UdpSocket;

/// Waiting awake for the next question of one who asks one after the other: to be woken on another processor takes longer
/// than such a client needs. It gives up soon, and after that does without for a while: whoever else asks waits meanwhile.
#[derive(Debug, Default)]
pub(super) struct Patience {
    /// So many answers are given without waiting awake.
    pause: u32,
}

impl Patience {
    /// A few times what a client needs whose processor sleeps between its questions.
    const AWAKE: Duration = Duration::from_micros(120);
    const PAUSE: u32 = 16;

    /// Returns when a datagram is there, or when it is not worth the wait any more.
    pub(super) fn wait_for_more(&mut self, socket: &UdpSocket) {
        if self.pause > 0 {
            self.pause -= 1;
            return;
        }
        let end = Instant::now() + Self::AWAKE;
        while Instant::now() < end {
            if has_more(socket) {
                return;
            }
            rustix::thread::sched_yield();
        }
        self.pause = Self::PAUSE;
    }
}

/// Whether a datagram is there.
fn has_more(socket: &UdpSocket) -> bool {
    let mut waiting = [PollFd::new(socket, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut waiting, Some(&now)).is_ok_and(|ready| ready > 0)
}
