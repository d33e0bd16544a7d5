//! Events that the engine must not miss, and the state on disk.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use wherry_monitor_api::{Event, EventKind, State};

use crate::monitor::Monitor;
use crate::timers::Timer;

/// More events than this are not kept; the oldest go.
const CAPACITY: usize = 256;
/// A state that nobody waits for is written this much later, together with what follows: a container that ends at
/// once costs one write instead of two.
const PERSIST_AFTER: Duration = Duration::from_millis(200);

/// Events that no engine has acknowledged.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    events: VecDeque<Event>,
    last_seq: u64,
}

impl Journal {
    /// Adds an event and gives it its number.
    fn push(&mut self, at_ns: i64, kind: EventKind) -> Event {
        self.last_seq += 1;
        let event = Event { seq: self.last_seq, at_ns, kind };
        self.events.push_back(event.clone());
        if self.events.len() > CAPACITY {
            self.events.pop_front();
        }
        event
    }

    /// Forgets events up to this one.
    pub(crate) fn acknowledge(&mut self, up_to: u64) {
        self.events.retain(|event| event.seq > up_to);
        if self.events.is_empty() {
            self.events = VecDeque::new();
        }
    }

    /// Those after this one, oldest first.
    pub(crate) fn since(&self, after: u64) -> Vec<Event> {
        self.events.iter().filter(|event| event.seq > after).cloned().collect()
    }

    pub(crate) fn pending(&self) -> impl Iterator<Item = &Event> {
        self.events.iter()
    }

    pub(crate) fn last_seq(&self) -> u64 {
        self.last_seq
    }

    /// The engine has seen events up to this one, of this monitor or an earlier one: numbers go on behind it.
    pub(crate) fn continue_after(&mut self, seq: u64) {
        self.last_seq = self.last_seq.max(seq);
    }

    /// Takes over what an earlier monitor of the container left on disk. True if there was something new.
    pub(crate) fn take_over(&mut self, state: State) -> bool {
        if state.last_seq <= self.last_seq || !self.events.is_empty() {
            return false;
        }
        self.last_seq = state.last_seq;
        self.events = state.journal.into();
        !self.events.is_empty()
    }
}

/// Nanoseconds since the epoch.
pub(crate) fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// Field 22 of /proc/PID/stat; 0 if the process is gone.
pub(crate) fn start_time(pid: i32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The second field is the name in parentheses, in which anything may stand.
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    after_name.split_ascii_whitespace().nth(19).and_then(|field| field.parse().ok()).unwrap_or(0)
}

impl Monitor {
    /// Records an event and tells the engine, if one is there.
    pub(crate) fn record(&mut self, kind: EventKind) {
        self.record_at(now_ns(), kind);
    }

    /// The same, of a given time.
    pub(crate) fn record_at(&mut self, at_ns: i64, kind: EventKind) {
        let event = self.journal.push(at_ns, kind);
        if !self.announce(&event) {
            self.persist_soon();
        }
    }

    /// Records the event that changed the phase, and only speaks of it once it is on disk.
    pub(crate) fn record_durably(&mut self, at_ns: i64, kind: EventKind) {
        let event = self.journal.push(at_ns, kind);
        self.persist();
        self.announce(&event);
    }

    /// Tells subscribers of an event; false if there are none.
    fn announce(&mut self, event: &Event) -> bool {
        let subscribers: Vec<u32> = self
            .controls
            .iter()
            .filter(|(_, control)| control.subscribed)
            .map(|(number, _)| *number)
            .collect();
        for number in &subscribers {
            self.send_event(*number, event.clone());
        }
        !subscribers.is_empty()
    }

    /// Writes the state a little later.
    pub(crate) fn persist_soon(&mut self) {
        self.timers.set_earlier(Timer::Persist, PERSIST_AFTER);
    }

    /// Writes the state; when this returns it survives a power cut.
    pub(crate) fn persist(&mut self) {
        self.timers.cancel(Timer::Persist);
        let state = self.state();
        let Some(plan) = &self.plan else { return };
        match wherry_durable::write_json(&plan.state_path, &state) {
            Ok(()) => {}
            // The folder is gone: the container has been removed, and nobody asks for its state any more.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            // The container goes on: a full disk is no reason to stop it.
            Err(error) => self.say(&format!("cannot write {}: {error}", plan.state_path.display())),
        }
    }

    /// Goes on with the numbering, and with events that no engine has seen, of an earlier monitor.
    pub(crate) fn take_over_journal(&mut self) {
        let Some(plan) = &self.plan else { return };
        match wherry_durable::read_json::<State>(&plan.state_path) {
            Ok(Some(state)) => {
                let seen = self.journal.last_seq();
                if self.journal.take_over(state) {
                    let subscribers: Vec<u32> = self
                        .controls
                        .iter()
                        .filter(|(_, c)| c.subscribed)
                        .map(|(number, _)| *number)
                        .collect();
                    for event in self.journal.since(seen) {
                        for number in &subscribers {
                            self.send_event(*number, event.clone());
                        }
                    }
                }
            }
            Ok(None) => {}
            Err(error) => {
                self.say(&format!("the state that an earlier monitor left cannot be read: {error}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seqs(events: &[Event]) -> Vec<u64> {
        events.iter().map(|event| event.seq).collect()
    }

    #[test]
    fn numbers_have_no_gaps_and_acknowledged_events_are_forgotten() {
        let mut journal = Journal::default();
        for _ in 0..4 {
            journal.push(0, EventKind::Paused);
        }
        assert_eq!(seqs(&journal.since(1)), [2, 3, 4]);
        journal.acknowledge(3);
        assert_eq!(seqs(&journal.since(0)), [4]);
        journal.continue_after(2);
        assert_eq!(journal.push(0, EventKind::Resumed).seq, 5);
        for _ in 0..1000 {
            journal.push(0, EventKind::Paused);
        }
        assert_eq!((journal.pending().count(), journal.last_seq()), (CAPACITY, 1005));
    }

    #[test]
    fn a_new_monitor_goes_on_where_the_old_one_ended() {
        let left = |last_seq, seqs: &[u64]| State {
            version: 1,
            container: "c".into(),
            monitor: (1, 1),
            phase: wherry_monitor_api::Phase::Waiting,
            restart_count: 0,
            manually_stopped: false,
            health: None,
            last_seq,
            journal: seqs.iter().map(|&seq| Event { seq, at_ns: 0, kind: EventKind::Paused }).collect(),
        };
        let mut journal = Journal::default();
        assert!(journal.take_over(left(7, &[6, 7])));
        assert_eq!((seqs(&journal.since(0)), journal.push(0, EventKind::Paused).seq), (vec![6, 7], 8));
        assert!(!journal.take_over(left(7, &[6, 7])), "not twice");
        let mut seen = Journal::default();
        seen.continue_after(9);
        assert!(!seen.take_over(left(7, &[7])), "an engine that knows more");
        assert_eq!(seen.push(0, EventKind::Paused).seq, 10);
    }

    #[test]
    fn start_times_are_found_behind_any_name() {
        assert!(start_time(1) < start_time(rustix::process::getpid().as_raw_nonzero().get()));
        assert_eq!(start_time(-1), 0);
    }
}
