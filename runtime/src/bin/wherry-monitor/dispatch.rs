//! What each request does.

use std::os::fd::OwnedFd;

use wherry_monitor_api::{Failure, FailureKind, Phase, Reply, Request, State, VERSION};

use crate::control::{Answer, Caller, failure};
use crate::journal::start_time;
use crate::monitor::Monitor;

impl Monitor {
    /// Carries out one request.
    pub(crate) fn dispatch(&mut self, caller: Caller, request: Request, fds: Vec<OwnedFd>) {
        match self.carry_out(caller, request, fds) {
            Ok(Some(reply)) => self.reply(caller, Ok(reply)),
            Ok(None) => {}
            Err(failure) => self.reply(caller, Err(failure)),
        }
    }

    fn carry_out(&mut self, caller: Caller, request: Request, mut fds: Vec<OwnedFd>) -> Answer {
        let mut client =
            || fds.pop().ok_or_else(|| failure(FailureKind::Protocol, "the request carries no client"));
        match request {
            Request::Hello { version } => self.hello(version),
            Request::Start(spec) => self.start_by_request(caller, *spec),
            Request::Clear(leftovers) => done(self.clear(*leftovers)),
            Request::Subscribe { after } => self.subscribe(caller, after),
            Request::Acknowledge { up_to } => {
                self.journal.acknowledge(up_to);
                self.give_answers();
                Ok(Some(Reply::Ok))
            }
            Request::Attach(attach) => done(self.attach(attach, client()?)),
            Request::Wait(wait) => done(self.wait_for_exit(wait, client()?)),
            Request::FollowLogs(logs) => done(self.follow_logs(logs, client()?)),
            Request::Exec { exec, spec, attach } => {
                let attach = match attach {
                    Some(attach) => Some((attach, client()?)),
                    None => None,
                };
                self.exec(caller, exec, &spec, attach)
            }
            Request::Execs => Ok(Some(Reply::Execs(self.execs()))),
            Request::Resize { exec, rows, columns } => done(self.resize(exec.as_deref(), rows, columns)),
            Request::Kill { signal, manual } => done(self.kill(signal, manual)),
            Request::Stop { signal, timeout_ms, manual } => self.stop(caller, signal, timeout_ms, manual),
            Request::Pause => done(self.pause()),
            Request::Resume => done(self.resume()),
            Request::Update { resources, restart } => done(self.update(resources, restart)),
            Request::Checkpoint { images, exit } => done(self.checkpoint(&images, exit)),
            Request::Processes => self.processes(),
            Request::Stats => self.stats(),
            Request::State => Ok(Some(Reply::State(Box::new(self.state())))),
            Request::Release => done(self.release(caller)).map(|_| None),
        }
    }

    fn hello(&mut self, version: u32) -> Answer {
        if version != VERSION {
            let text = format!("the monitor speaks version {VERSION} of the protocol, not {version}");
            return Err(failure(FailureKind::Protocol, text));
        }
        Ok(Some(Reply::Hello { version: VERSION, pid: self.identity.0, state: Box::new(self.state()) }))
    }

    fn subscribe(&mut self, caller: Caller, after: u64) -> Answer {
        self.reply(caller, Ok(Reply::Ok));
        if let Some(control) = self.controls.get_mut(&caller.control) {
            control.subscribed = true;
        }
        for event in self.journal.since(after) {
            self.send_event(caller.control, event);
        }
        self.journal.continue_after(after);
        Ok(None)
    }

    /// The engine is done with the container.
    fn release(&mut self, caller: Caller) -> Result<(), Failure> {
        if self.is_live() {
            return Err(failure(FailureKind::State, "the container is running"));
        }
        self.released = Some(self.last_code());
        self.remove_leftover();
        // Nothing has run: it was not asked for, or the runtime refused.
        if matches!(self.phase, Phase::Waiting | Phase::Exited { started_at_ns: 0, .. }) {
            self.dismiss_after_failed_start();
        } else {
            self.dismiss_clients();
        }
        self.reply(caller, Ok(Reply::Ok));
        // What the engine has acknowledged must not look unheard of to the next one. A container that was removed
        // has no state any more.
        if self.plan.as_ref().is_some_and(|plan| plan.state_path.exists()) {
            self.persist();
        }
        Ok(())
    }

    /// The state as it stands.
    pub(crate) fn state(&mut self) -> State {
        if let Phase::Running { pid, pid_start, .. } = &mut self.phase
            && *pid_start == 0
        {
            *pid_start = start_time(*pid);
        }
        State {
            version: VERSION,
            container: self.id().to_owned(),
            monitor: self.identity,
            phase: self.phase.clone(),
            restart_count: self.restart_count,
            manually_stopped: self.manually_stopped,
            health: self.verdict.as_ref().map(|verdict| verdict.state().clone()),
            last_seq: self.journal.last_seq(),
            journal: self.journal.pending().cloned().collect(),
        }
    }
}

fn done(result: Result<(), Failure>) -> Answer {
    result.map(|()| Some(Reply::Ok))
}
