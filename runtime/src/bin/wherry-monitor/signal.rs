//! What the engine may do to a running container.

use std::time::Duration;

use oci_spec::runtime::LinuxResources;
use wherry_monitor_api::{
    EventKind, Failure, FailureKind, Phase, Reply, RestartPolicy, StartSpec, UnhealthyRestart,
};
use wherry_runtime::resize_terminal;

use crate::control::{Answer, Caller, failure, system};
use crate::job::Kind;
use crate::launch::runtime_failure;
use crate::monitor::{Monitor, Run};
use crate::timers::Timer;

fn not_running() -> Failure {
    failure(FailureKind::State, "the container is not running")
}

impl Monitor {
    pub(crate) fn running(&self) -> Result<&Run, Failure> {
        self.run.as_ref().ok_or_else(not_running)
    }

    /// Sends a signal to init.
    pub(crate) fn kill(&mut self, signal: i32, manual: bool) -> Result<(), Failure> {
        if manual && self.call_restart_off() {
            self.manually_stopped = true;
            return Ok(());
        }
        self.running()?.container.kill(signal).map_err(|e| runtime_failure(&e))?;
        if manual {
            self.manually_stopped = true;
            if let Some(run) = &mut self.run {
                run.unwanted = true;
            }
            self.thaw_to_die();
        }
        Ok(())
    }

    /// Asks the container to end, and sees to it that it does.
    pub(crate) fn stop(
        &mut self,
        caller: Caller,
        signal: i32,
        timeout_ms: Option<u64>,
        manual: bool,
    ) -> Answer {
        self.manually_stopped |= manual;
        if self.call_restart_off() {
            return Ok(Some(Reply::Ok));
        }
        let run = self.run.as_mut().ok_or_else(not_running)?;
        run.unwanted = true;
        // It may have ended already, and be on its way here.
        if let Err(error) = run.container.kill(signal) {
            self.say(&format!("signal {signal} cannot be sent: {error}"));
        }
        self.thaw_to_die();
        self.answer_when_stopped(caller);
        if let Some(timeout_ms) = timeout_ms {
            self.timers.set_earlier(Timer::StopKill, Duration::from_millis(timeout_ms));
        }
        Ok(None)
    }

    /// The container is unhealthy, and is to be restarted for that.
    pub(crate) fn end_unhealthy(&mut self, restart: UnhealthyRestart) {
        let Some(run) = &mut self.run else { return };
        run.unhealthy = true;
        let sent = run.container.kill(restart.signal);
        self.say("it is unhealthy and is restarted, as its annotation says");
        if let Err(error) = sent {
            self.say(&format!("signal {} cannot be sent: {error}", restart.signal));
        }
        if let Some(timeout_ms) = restart.timeout_ms {
            self.timers.set_earlier(Timer::StopKill, Duration::from_millis(timeout_ms));
        }
    }

    /// Frozen processes do not even die.
    pub(crate) fn thaw_to_die(&mut self) {
        if matches!(self.phase, Phase::Running { paused: true, .. })
            && let Err(failure) = self.resume()
        {
            self.say(&format!("it cannot be resumed: {}", failure.message));
        }
    }

    /// Freezes all processes.
    pub(crate) fn pause(&mut self) -> Result<(), Failure> {
        self.set_paused(true)
    }

    /// Thaws them.
    pub(crate) fn resume(&mut self) -> Result<(), Failure> {
        self.set_paused(false)
    }

    fn set_paused(&mut self, wanted: bool) -> Result<(), Failure> {
        let (Some(run), Phase::Running { paused, .. }) = (&self.run, &mut self.phase) else {
            return Err(not_running());
        };
        if *paused == wanted {
            let text = if wanted { "the container is already paused" } else { "the container is not paused" };
            return Err(failure(FailureKind::State, text));
        }
        let result = if wanted { run.container.pause() } else { run.container.resume() };
        result.map_err(|e| runtime_failure(&e))?;
        *paused = wanted;
        self.persist_soon();
        self.record(if wanted { EventKind::Paused } else { EventKind::Resumed });
        if wanted {
            self.end_probes();
        } else {
            self.schedule_probe();
        }
        Ok(())
    }

    /// Replaces limits and restart policy, also for starts to come.
    pub(crate) fn update(
        &mut self,
        resources: Option<serde_json::Value>,
        restart: Option<RestartPolicy>,
    ) -> Result<(), Failure> {
        if let Some(resources) = &resources {
            let parsed: LinuxResources = serde::Deserialize::deserialize(resources)
                .map_err(|e| failure(FailureKind::Protocol, format!("the limits do not parse: {e}")))?;
            self.running()?.container.update(&parsed).map_err(|e| runtime_failure(&e))?;
        }
        let plan = self.plan.as_mut().ok_or_else(not_running)?;
        plan.restart = restart.unwrap_or(plan.restart);
        let mut spec: StartSpec =
            serde_json::from_slice(&plan.spec).map_err(|e| system("keep the limits", &e.into()))?;
        spec.restart = plan.restart;
        if let (Some(new), Some(linux)) =
            (resources, spec.oci.get_mut("linux").and_then(|linux| linux.as_object_mut()))
        {
            merge(linux.entry("resources").or_insert_with(|| serde_json::json!({})), new);
        }
        plan.spec = serde_json::to_vec(&spec).map_err(|e| system("keep the limits", &e.into()))?;
        Ok(())
    }

    /// Sets a terminal's size.
    pub(crate) fn resize(&mut self, exec: Option<&str>, rows: u16, columns: u16) -> Result<(), Failure> {
        let job = match exec {
            None => self.running()?.init,
            Some(id) => {
                let found =
                    self.jobs.iter().find(|(_, job)| matches!(&job.kind, Kind::Exec(exec) if exec == id));
                *found.ok_or_else(|| failure(FailureKind::NoSuchExec, format!("no exec {id} is running")))?.0
            }
        };
        let master = self
            .terminal_of(job)
            .ok_or_else(|| failure(FailureKind::State, "the process has no terminal"))?;
        resize_terminal(master, rows, columns).map_err(|e| system("resize the terminal", &e))
    }

    pub(crate) fn processes(&self) -> Answer {
        let processes = self.running()?.container.processes().map_err(|e| runtime_failure(&e))?;
        Ok(Some(Reply::Processes(processes)))
    }

    pub(crate) fn stats(&self) -> Answer {
        let stats = self.running()?.container.stats().map_err(|e| runtime_failure(&e))?;
        let stats = serde_json::to_value(stats).map_err(|e| system("send statistics", &e.into()))?;
        Ok(Some(Reply::Stats(stats)))
    }
}

/// Lays the fields of `new` over those of `old`; what is absent or null stays.
fn merge(old: &mut serde_json::Value, new: serde_json::Value) {
    use serde_json::Value::{Null, Object};
    match (old, new) {
        (_, Null) => {}
        (Object(old), Object(new)) => {
            for (key, value) in new {
                merge(old.entry(key).or_insert(Null), value);
            }
        }
        (old, new) => *old = new,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn limits_are_laid_over_the_old_ones() {
        let mut old = json!({"memory": {"limit": 1, "swap": 2}, "pids": {"limit": 3}});
        merge(&mut old, json!({"memory": {"limit": 9, "swap": null}, "cpu": {"shares": 4}}));
        assert_eq!(
            old,
            json!({"memory": {"limit": 9, "swap": 2}, "pids": {"limit": 3}, "cpu": {"shares": 4}})
        );
    }
}
