//! Running the health probe.

use std::time::Duration;

use wherry_monitor_api::{EventKind, HealthLogEntry, HealthStatus, Phase};

use crate::health::{duration_text, next_probe};
use crate::job::{Connected, Kind};
use crate::journal::now_ns;
use crate::monitor::Monitor;
use crate::timers::Timer;

/// So much of a probe's output is kept; what dockerd keeps.
const OUTPUT: usize = 4096;

/// A probe that runs.
#[derive(Debug)]
pub(crate) struct Probe {
    start_ns: i64,
    output: Vec<u8>,
    truncated: bool,
    timed_out: bool,
}

impl Probe {
    pub(crate) fn take_output(&mut self, bytes: &[u8]) {
        let room = OUTPUT - self.output.len().min(OUTPUT);
        self.truncated |= bytes.len() > room;
        self.output.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn into_text(self) -> String {
        let mut text = String::from_utf8_lossy(&self.output).into_owned();
        if self.truncated {
            text.push_str("...");
        }
        text
    }
}

impl Monitor {
    /// Sets the timer for the next probe, if there is one.
    pub(crate) fn schedule_probe(&mut self) {
        let (Some(plan), Some(verdict), Some(run)) = (&self.plan, &self.verdict, &self.run) else { return };
        let Some(health) = &plan.health else { return };
        if matches!(self.phase, Phase::Running { paused: false, .. }) {
            self.timers.set(Timer::Probe, next_probe(health, verdict.state().status, run.started.elapsed()));
        }
    }

    /// Starts the probe.
    pub(crate) fn start_probe(&mut self) {
        let Some(health) = self.plan.as_ref().and_then(|plan| plan.health.as_ref()) else { return };
        let (process, timeout) = (health.process.clone(), Duration::from_millis(health.timeout_ms));
        let probe = Probe { start_ns: now_ns(), output: Vec::new(), truncated: false, timed_out: false };
        let start_ns = probe.start_ns;
        let connected = Connected { stdin: false, stdout: true, stderr: true };
        match self.spawn(Kind::Probe(probe), &process, None, connected) {
            Ok((number, _)) => self.timers.set(Timer::ProbeTimeout(number), timeout),
            Err(failure) => self.probe_result(HealthLogEntry {
                start_ns,
                end_ns: now_ns(),
                code: -1,
                output: failure.message,
            }),
        }
    }

    /// A probe takes too long.
    pub(crate) fn probe_timed_out(&mut self, number: u32) {
        let Some(job) = self.jobs.get_mut(&number) else { return };
        if let Kind::Probe(probe) = &mut job.kind {
            probe.timed_out = true;
        }
        self.kill_job(number);
    }

    /// Kills a further process and what it has started, which is its process group.
    fn kill_job(&mut self, number: u32) {
        let Some(job) = self.jobs.get(&number).filter(|job| job.exit.is_none()) else { return };
        // It has not been reaped, so that the number is still its own.
        if let Some(pid) = rustix::process::Pid::from_raw(job.pid) {
            let signal = rustix::process::Signal::KILL;
            // Either may be gone at this moment.
            let _ = rustix::process::kill_process_group(pid, signal);
            let _ = rustix::process::kill_process(pid, signal);
        }
        // Whatever still holds its output is of no interest.
        self.timers.set(Timer::Drain(number), Duration::from_millis(100));
    }

    /// A probe has ended.
    pub(crate) fn probe_ended(&mut self, number: u32, probe: Probe, code: i32) {
        self.timers.cancel(Timer::ProbeTimeout(number));
        let (start_ns, end_ns) = (probe.start_ns, now_ns());
        let (code, output) = if probe.timed_out {
            let limit = self
                .plan
                .as_ref()
                .and_then(|plan| plan.health.as_ref())
                .map_or(0, |health| health.timeout_ms);
            (-1, format!("Health check exceeded timeout ({})", duration_text(limit)))
        } else {
            (code, probe.into_text())
        };
        self.probe_result(HealthLogEntry { start_ns, end_ns, code, output });
    }

    fn probe_result(&mut self, entry: HealthLogEntry) {
        let running = matches!(self.phase, Phase::Running { paused: false, .. });
        let (Some(plan), Some(verdict), Some(run)) = (&self.plan, &mut self.verdict, &self.run) else {
            return;
        };
        let Some(health) = plan.health.as_ref().filter(|_| running) else { return };
        let restart = health.restart;
        let changed = verdict.judge(health, run.started_at_ns, entry);
        self.persist_soon();
        if let Some(status) = changed {
            self.record(EventKind::Health { status });
            if let (HealthStatus::Unhealthy, Some(restart)) = (status, restart) {
                self.end_unhealthy(restart);
            }
        }
        self.schedule_probe();
    }

    /// The container has ended or is frozen: no more probes.
    pub(crate) fn end_probes(&mut self) {
        self.timers.cancel(Timer::Probe);
        let probes: Vec<u32> = self
            .jobs
            .iter()
            .filter(|(_, job)| matches!(job.kind, Kind::Probe(_)))
            .map(|(number, _)| *number)
            .collect();
        for number in probes {
            self.kill_job(number);
        }
        if let Some(verdict) = &mut self.verdict {
            verdict.suspend();
        }
    }
}
