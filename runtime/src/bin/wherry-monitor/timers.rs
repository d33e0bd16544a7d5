//! What is due when.

use std::time::{Duration, Instant};

/// Something that is to happen at a certain time. Each is set at most once at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Timer {
    /// The restart policy starts the container again.
    Restart,
    /// SIGKILL for a container that did not end when it was asked to.
    StopKill,
    /// The outputs of a job whose process has ended are given up, though something holds them open.
    Drain(u32),
    /// The next health probe.
    Probe,
    /// A probe has run too long.
    ProbeTimeout(u32),
    /// The kernel's victims are counted again.
    Memory,
    /// The state is written.
    Persist,
    /// Clients that did not hang up after a failed start are let go.
    LetGo,
    /// A client that follows the log has asked for nothing after this time.
    LogsUntil(u32),
    /// Clients that wait for an exit get their answer, though an attached client has not taken all output.
    Answer,
    /// The log server is looked for again.
    Ship,
    /// What waits for it after the container's end is given up.
    ShipEnd,
    /// The next piece of a rotated log is compressed.
    Compress,
    /// Unused memory is given back.
    Trim,
}

/// The timers that are set. There are few.
#[derive(Debug, Default)]
pub(crate) struct Timers(Vec<(Instant, Timer)>);

impl Timers {
    /// Sets a timer, again if it was set.
    pub(crate) fn set(&mut self, timer: Timer, after: Duration) {
        self.cancel(timer);
        if let Some(at) = Instant::now().checked_add(after) {
            self.0.push((at, timer));
        }
    }

    /// Sets a timer unless it is set for an earlier time.
    pub(crate) fn set_earlier(&mut self, timer: Timer, after: Duration) {
        let set = self.0.iter().find(|(_, other)| *other == timer);
        let left = set.map(|(at, _)| at.saturating_duration_since(Instant::now()));
        if left.is_none_or(|left| left > after) {
            self.set(timer, after);
        }
    }

    pub(crate) fn cancel(&mut self, timer: Timer) {
        self.0.retain(|(_, other)| *other != timer);
    }

    pub(crate) fn is_set(&self, timer: Timer) -> bool {
        self.0.iter().any(|(_, other)| *other == timer)
    }

    /// How long until the first is due.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.0.iter().map(|(at, _)| at.saturating_duration_since(Instant::now())).min()
    }

    /// Takes the first that is due.
    pub(crate) fn take_due(&mut self) -> Option<Timer> {
        let now = Instant::now();
        let index = (0..self.0.len()).filter(|&i| self.0[i].0 <= now).min_by_key(|&i| self.0[i].0)?;
        Some(self.0.swap_remove(index).1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_come_in_order_and_once() {
        let mut timers = Timers::default();
        timers.set(Timer::Probe, Duration::from_secs(3600));
        timers.set(Timer::Restart, Duration::from_millis(2));
        timers.set(Timer::Persist, Duration::from_millis(1));
        timers.set(Timer::Drain(1), Duration::ZERO);
        timers.cancel(Timer::Drain(1));
        timers.set_earlier(Timer::Probe, Duration::from_secs(7200));
        assert!(timers.next().unwrap() < Duration::from_secs(1));
        std::thread::sleep(Duration::from_millis(3));
        assert_eq!(timers.take_due(), Some(Timer::Persist));
        assert_eq!(timers.take_due(), Some(Timer::Restart));
        assert_eq!(timers.take_due(), None);
        assert!(
            timers.next().unwrap() > Duration::from_secs(3500)
                && timers.next().unwrap() <= Duration::from_secs(3600)
        );
        timers.set_earlier(Timer::Probe, Duration::ZERO);
        assert_eq!(timers.take_due(), Some(Timer::Probe));
        // Longer than any clock counts: never.
        timers.set_earlier(Timer::StopKill, Duration::from_millis(u64::MAX));
        timers.set(Timer::Probe, Duration::MAX);
        assert!(
            !timers.is_set(Timer::Probe)
                && timers.next().is_none_or(|left| left > Duration::from_secs(1 << 40))
        );
    }
}
