//! From results of the health probe to a verdict, as dockerd judges.

use std::time::Duration;

use wherry_monitor_api::{Health, HealthLogEntry, HealthState, HealthStatus};

/// So many results are kept.
const KEPT: usize = 5;

/// The verdict so far.
#[derive(Debug)]
pub(crate) struct Verdict {
    state: HealthState,
}

impl Verdict {
    /// The verdict at a start: none yet. Earlier results stay to be seen.
    pub(crate) fn at_start(before: Option<Self>) -> Self {
        let log = before.map(|verdict| verdict.state.log).unwrap_or_default();
        Self { state: HealthState { status: HealthStatus::Starting, failing_streak: 0, log } }
    }

    pub(crate) fn state(&self) -> &HealthState {
        &self.state
    }

    /// Takes a result; gives the status if it changed.
    pub(crate) fn judge(
        &mut self,
        health: &Health,
        started_at_ns: i64,
        entry: HealthLogEntry,
    ) -> Option<HealthStatus> {
        let state = &mut self.state;
        let before = state.status;
        if entry.code == 0 {
            (state.status, state.failing_streak) = (HealthStatus::Healthy, 0);
        } else {
            let since_start =
                Duration::from_nanos(u64::try_from(entry.start_ns - started_at_ns).unwrap_or(0));
            let grace = before == HealthStatus::Starting
                && since_start < Duration::from_millis(health.start_period_ms);
            if !grace {
                state.failing_streak += 1;
                if state.failing_streak >= health.retries {
                    state.status = HealthStatus::Unhealthy;
                }
            }
        }
        if state.log.len() >= KEPT {
            state.log.drain(..=state.log.len() - KEPT);
        }
        state.log.push(entry);
        (state.status != before).then_some(state.status)
    }

    /// While nothing is probed dockerd shows the container as unhealthy, without an event.
    pub(crate) fn suspend(&mut self) {
        self.state.status = HealthStatus::Unhealthy;
    }
}

/// How long until the next probe.
pub(crate) fn next_probe(health: &Health, status: HealthStatus, since_start: Duration) -> Duration {
    let starting =
        status == HealthStatus::Starting && since_start < Duration::from_millis(health.start_period_ms);
    Duration::from_millis(if starting { health.start_interval_ms } else { health.interval_ms })
}

/// A duration as Go prints it: `1m30s`, `1.5s`, `100ms`.
pub(crate) fn duration_text(ms: u64) -> String {
    if ms == 0 {
        return "0s".into();
    }
    if ms < 1000 {
        return format!("{ms}ms");
    }
    let (hours, minutes) = (ms / 3_600_000, ms / 60_000 % 60);
    let seconds = format!("{}.{:03}", ms / 1000 % 60, ms % 1000);
    let seconds = seconds.trim_end_matches('0').trim_end_matches('.');
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEALTH: Health = Health {
        process: serde_json::Value::Null,
        interval_ms: 30_000,
        timeout_ms: 30_000,
        start_period_ms: 10_000,
        start_interval_ms: 5_000,
        retries: 2,
        restart: None,
    };

    fn result(at_s: i64, code: i32) -> HealthLogEntry {
        HealthLogEntry { start_ns: at_s * 1_000_000_000, end_ns: 0, code, output: String::new() }
    }

    #[test]
    fn verdicts() {
        use HealthStatus::{Healthy, Unhealthy};
        let mut verdict = Verdict::at_start(None);
        for (at_s, code, changed, streak) in [
            (1, 1, None, 0),
            (9, -1, None, 0),
            (10, 1, None, 1),
            (11, 0, Some(Healthy), 0),
            (12, 1, None, 1),
            (13, 0, None, 0),
            (14, 1, None, 1),
            (15, 1, Some(Unhealthy), 2),
            (16, 1, None, 3),
            (17, 0, Some(Healthy), 0),
        ] {
            assert_eq!(verdict.judge(&HEALTH, 0, result(at_s, code)), changed, "at {at_s}");
            assert_eq!(verdict.state().failing_streak, streak, "at {at_s}");
        }
        let kept: Vec<i64> = verdict.state().log.iter().map(|entry| entry.start_ns / 1_000_000_000).collect();
        assert_eq!(kept, [13, 14, 15, 16, 17]);
        verdict.suspend();
        assert_eq!(verdict.state().status, Unhealthy);
        let again = Verdict::at_start(Some(verdict));
        assert_eq!((again.state().status, again.state().log.len()), (HealthStatus::Starting, 5));
    }

    #[test]
    fn intervals() {
        let at = |status, s| next_probe(&HEALTH, status, Duration::from_secs(s)).as_millis();
        assert_eq!(at(HealthStatus::Starting, 1), 5_000);
        assert_eq!(at(HealthStatus::Starting, 10), 30_000);
        assert_eq!(at(HealthStatus::Healthy, 1), 30_000);
    }

    #[test]
    fn durations_as_go_prints_them() {
        for (ms, expect) in [
            (0, "0s"),
            (1, "1ms"),
            (999, "999ms"),
            (1000, "1s"),
            (1500, "1.5s"),
            (60_000, "1m0s"),
            (90_250, "1m30.25s"),
            (3_600_000, "1h0m0s"),
            (10_000, "10s"),
        ] {
            assert_eq!(duration_text(ms), expect);
        }
    }
}
