//! The ends of processes.

use std::time::Duration;

use rustix::process::WaitOptions;
use wherry_container_log::Stream;
use wherry_monitor_api::{EventKind, Phase, Reply};

use crate::attach::end_attached;
use crate::control::Caller;
use crate::job::Kind;
use crate::journal::now_ns;
use crate::monitor::{Monitor, Run};
use crate::restart;
use crate::timers::Timer;

/// So long after the end of a process its outputs are still read, if something else holds them open; dockerd's limit.
const DRAIN: Duration = Duration::from_secs(2);
/// The kernel reports that memory ran out before it has chosen and counted a victim.
const RECOUNT: Duration = Duration::from_millis(50);

impl Monitor {
    /// Reaps all processes that have ended: ours, and orphans that have become our children.
    pub(crate) fn reap(&mut self) {
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            let code = match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => code,
                (None, Some(signal)) => 128 + signal,
                (None, None) => continue,
            };
            self.process_ended(pid.as_raw_nonzero().get(), code);
        }
    }

    fn process_ended(&mut self, pid: i32, code: i32) {
        let Some((number, job)) = self.jobs.iter_mut().find(|(_, job)| job.pid == pid && job.exit.is_none())
        else {
            return;
        };
        let number = *number;
        job.exit = Some(code);
        job.pidfd = None;
        // A client that does not take its output no longer holds anything back: what is left is what pipes hold.
        job.throttled = false;
        if let (Kind::Init, Some(run)) = (&job.kind, &self.run)
            && !run.own_pid_namespace
            && let Err(error) = run.container.kill_all(libc::SIGKILL)
        {
            self.say(&format!("processes are left behind: {error}"));
        }
        self.timers.set(Timer::Drain(number), DRAIN);
        self.drain(number);
        self.finish_if_done(number);
    }

    /// Reads what a process that has ended left in its outputs.
    pub(crate) fn drain(&mut self, number: u32) {
        self.read_output(number, Stream::Stdout, true);
        self.read_output(number, Stream::Stderr, true);
    }

    /// Something else holds the outputs of a process that ended a while ago.
    pub(crate) fn give_up_draining(&mut self, number: u32) {
        self.close_outputs(number);
    }

    /// Concludes a job whose process has ended and whose output has all been read.
    pub(crate) fn finish_if_done(&mut self, number: u32) {
        let Some(code) = self.jobs.get(&number).filter(|job| job.io.has_ended()).and_then(|job| job.exit)
        else {
            return;
        };
        let Some(job) = self.jobs.remove(&number) else { return };
        self.timers.cancel(Timer::Drain(number));
        match job.kind {
            Kind::Init => self.container_ended(number, code),
            Kind::Exec(exec) => self.exec_ended(number, exec, code),
            Kind::Probe(probe) => self.probe_ended(number, probe, code),
        }
    }

    /// Init has ended, and its output is in the log. The order matters: state on disk, the engine, attached clients,
    /// those who wait, and only then what nobody waits for.
    fn container_ended(&mut self, init: u32, code: i32) {
        let Some(mut run) = self.run.take() else { return };
        let at_ns = now_ns();
        run.take_memory_report();
        self.timers.cancel(Timer::Memory);
        if run.memory_ran_out && run.count_kills() {
            self.record_at(at_ns, EventKind::OutOfMemory);
        }
        let oom_killed = run.oom_killed;
        // Its mount and its folders are where the next start makes its own, by another monitor perhaps.
        if let Some(external) = run.external.take() {
            external.remove();
        }
        let restarting = self.set_ended(&run, code, at_ns, oom_killed);
        self.end_probes();
        let stopped = !run.stops.is_empty();
        self.record_durably(at_ns, EventKind::Exited { code, restarting, oom_killed, stopped });
        self.finish_attached(init);
        self.end_followers();
        self.answer_exit(code, restarting);
        for caller in std::mem::take(&mut run.stops) {
            self.reply(caller, Ok(Reply::Ok));
        }
        self.timers.cancel(Timer::StopKill);
        self.leftover = Some(run.container);
        self.ship_the_rest();
        if !restarting {
            self.log = None;
            if self.controls.is_empty() {
                self.dismiss_clients();
            }
        }
    }

    /// Decides what follows; true for a restart.
    fn set_ended(&mut self, run: &Run, code: i32, finished_at_ns: i64, oom_killed: bool) -> bool {
        let started_at_ns = run.started_at_ns;
        let policy = self.plan.as_ref().map(|plan| plan.restart);
        let restarting = !run.unwanted
            && (run.unhealthy || policy.is_some_and(|p| restart::applies(p, code, self.restart_count)));
        self.phase = if restarting {
            let delay = self.backoff.next(run.started.elapsed());
            self.timers.set(Timer::Restart, delay);
            let next_start_ns =
                finished_at_ns.saturating_add(i64::try_from(delay.as_nanos()).unwrap_or(i64::MAX));
            Phase::Restarting { code, started_at_ns, finished_at_ns, oom_killed, next_start_ns }
        } else {
            Phase::Exited { code, started_at_ns, finished_at_ns, oom_killed, error: String::new() }
        };
        restarting
    }

    /// Calls a restart off. False if none was coming.
    pub(crate) fn call_restart_off(&mut self) -> bool {
        let Phase::Restarting { code, started_at_ns, finished_at_ns, oom_killed, .. } = self.phase else {
            return false;
        };
        self.timers.cancel(Timer::Restart);
        self.phase = Phase::Exited { code, started_at_ns, finished_at_ns, oom_killed, error: String::new() };
        self.log = None;
        self.record_durably(
            now_ns(),
            EventKind::Exited { code, restarting: false, oom_killed, stopped: true },
        );
        self.answer_not_running(code);
        if self.controls.is_empty() {
            self.dismiss_clients();
        }
        true
    }

    /// Ends the clients of a job; they go once they have taken all output.
    pub(crate) fn finish_attached(&mut self, job: u32) {
        for number in self.attached_to(job) {
            if let Some(client) = self.clients.get_mut(&number) {
                end_attached(client);
                self.dirty.push(number);
            }
        }
    }

    /// Memory ran out in the container; perhaps not for the first time.
    pub(crate) fn memory_ran_out(&mut self) {
        let Some(run) = &mut self.run else { return };
        let reported = run.take_memory_report();
        if run.count_kills() {
            self.record(EventKind::OutOfMemory);
        } else if reported {
            self.timers.set(Timer::Memory, RECOUNT);
        }
    }

    /// Removes the cgroups of a container that has ended, once nobody waits for anything else.
    pub(crate) fn remove_leftover(&mut self) {
        let Some(container) = self.leftover.take() else { return };
        if let Err(error) = container.delete(true) {
            self.say(&format!("what it leaves behind cannot be removed: {error}"));
        }
    }

    /// SIGKILL for a container that did not stop when it was asked to.
    pub(crate) fn stop_by_force(&mut self) {
        if self.run.is_none() {
            return;
        }
        self.record(EventKind::StopTimedOut);
        let Some(run) = &self.run else { return };
        if let Err(error) = run.container.kill(libc::SIGKILL) {
            self.say(&format!("it cannot be killed: {error}"));
        }
        self.thaw_to_die();
    }

    /// Remembers who wants to know when it has stopped.
    pub(crate) fn answer_when_stopped(&mut self, caller: Caller) {
        if let Some(run) = &mut self.run {
            run.stops.push(caller);
        }
    }
}

impl Run {
    /// Whether the kernel has reported that memory ran out since this was last asked.
    fn take_memory_report(&mut self) -> bool {
        // An event counter or inotify records: their content does not matter.
        let read = |memory| rustix::io::read(memory, &mut [0u8; 4096]).is_ok();
        let reported = self.memory.as_ref().is_some_and(read);
        self.memory_ran_out |= reported;
        reported
    }

    /// Whether there are more victims than before.
    fn count_kills(&mut self) -> bool {
        let kills = self.container.oom_kill_count();
        let more = kills > self.oom_kills;
        self.oom_kills = kills;
        self.oom_killed |= more;
        more
    }
}
