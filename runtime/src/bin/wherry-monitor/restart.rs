//! The restart policy: whether, and when.

use std::time::Duration;

use wherry_monitor_api::RestartPolicy;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(60);
/// A run this long shows that the container works: the next delay is the first one again.
const GOOD_RUN: Duration = Duration::from_secs(10);

/// What the policy needs to remember between exits.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Backoff {
    delay: Duration,
}

impl Backoff {
    /// How long to wait before the next start, after a run of this length; doubles from time to time as dockerd's does.
    pub(crate) fn next(&mut self, ran: Duration) -> Duration {
        if ran >= GOOD_RUN {
            self.delay = Duration::ZERO;
        }
        self.delay = if self.delay.is_zero() { FIRST } else { (self.delay * 2).min(LONGEST) };
        self.delay
    }
}

/// Whether an exit that nobody asked for is followed by a start, after `restarts` of them.
pub(crate) fn applies(policy: RestartPolicy, code: i32, restarts: u32) -> bool {
    match policy {
        RestartPolicy::No => false,
        RestartPolicy::Always | RestartPolicy::UnlessStopped => true,
        RestartPolicy::OnFailure { max_retries } => code != 0 && (max_retries == 0 || restarts < max_retries),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_doubles_up_to_a_minute_and_resets_after_a_good_run() {
        let mut backoff = Backoff::default();
        let delays: Vec<u64> =
            (0..12).map(|_| backoff.next(Duration::from_secs(1)).as_millis() as u64).collect();
        assert_eq!(delays, [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000, 60000]);
        assert_eq!(backoff.next(Duration::from_secs(10)), FIRST);
    }

    #[test]
    fn policies() {
        let on_failure = |max_retries| RestartPolicy::OnFailure { max_retries };
        for (policy, code, restarts, expect) in [
            (RestartPolicy::No, 1, 0, false),
            (RestartPolicy::Always, 0, 1000, true),
            (RestartPolicy::UnlessStopped, 0, 1000, true),
            (on_failure(0), 0, 0, false),
            (on_failure(0), 1, 1000, true),
            (on_failure(3), 1, 2, true),
            (on_failure(3), 1, 3, false),
        ] {
            assert_eq!(applies(policy, code, restarts), expect, "{policy:?} {code} {restarts}");
        }
    }
}
