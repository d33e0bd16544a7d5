//! Further processes in the container.

use std::os::fd::{AsFd, OwnedFd};

use wherry_monitor_api::{
    AttachRequest, EventKind, ExecRecord, ExecSpec, Failure, FailureKind, Phase, Reply,
};
use wherry_runtime::{ExecOptions, Stdio};

use crate::control::{Answer, Caller, failure, system};
use crate::job::{Connected, Io, Job, Kind};
use crate::launch::{has_terminal, process, runtime_failure};
use crate::monitor::Monitor;

/// So many execs that have ended are remembered.
const REMEMBERED: usize = 64;

impl Monitor {
    /// Starts an exec, attached or not.
    pub(crate) fn exec(
        &mut self,
        caller: Caller,
        exec: String,
        spec: &ExecSpec,
        attach: Option<(AttachRequest, OwnedFd)>,
    ) -> Answer {
        let connected = match &attach {
            Some((request, _)) => {
                Connected { stdin: request.stdin, stdout: request.stdout, stderr: request.stderr }
            }
            None => Connected { stdin: false, stdout: false, stderr: false },
        };
        let (number, pid) =
            self.spawn(Kind::Exec(exec.clone()), &spec.process, spec.console_size, connected)?;
        let record = ExecRecord { exec: exec.clone(), process: spec.process.clone(), pid, exit_code: None };
        self.running_execs.insert(number, record);
        let client = attach.map(|(request, socket)| self.add_attached(request, socket, Some(number)));
        self.reply(caller, Ok(Reply::ExecStarted { pid }));
        self.record(EventKind::ExecStarted { exec });
        if let Some(client) = client {
            self.attached(client);
        }
        Ok(None)
    }

    /// Starts a process in the container and makes a job of it. Gives the job's number and the process id.
    pub(crate) fn spawn(
        &mut self,
        kind: Kind,
        json: &serde_json::Value,
        size: Option<(u16, u16)>,
        connected: Connected,
    ) -> Result<(u32, i32), Failure> {
        if matches!(self.phase, Phase::Running { paused: true, .. }) {
            // It would freeze before its program is executed, and this process would wait for that.
            return Err(failure(FailureKind::State, "the container is paused"));
        }
        let process = process(json)?;
        let number = self.next_number();
        let container = &self.running()?.container;
        let options = ExecOptions::default();
        let (started, io) = if has_terminal(&process) {
            let mut started = container
                .exec(&process, Stdio::Terminal { size }, &options)
                .map_err(|e| runtime_failure(&e))?;
            let master = started
                .terminal
                .take()
                .ok_or_else(|| failure(FailureKind::System, "the runtime library gave no terminal"))?;
            (started, Io::terminal(&self.poller, number, master))
        } else {
            let (io, ends) =
                Io::pipes(&self.poller, number, connected).map_err(|e| system("make pipes", &e.into()))?;
            let (stdin, stdout, stderr) = (ends.stdin.as_fd(), ends.stdout.as_fd(), ends.stderr.as_fd());
            let started = container
                .exec(&process, Stdio::Fds { stdin, stdout, stderr }, &options)
                .map_err(|e| runtime_failure(&e))?;
            (started, Ok(io))
        };
        let pid = started.pid;
        let job = io
            .map_err(std::io::Error::from)
            .and_then(|io| Job::new(&self.poller, number, kind, pid, started.pidfd, io))
            .map_err(|error| system("watch the process", &error))?;
        self.jobs.insert(number, job);
        Ok((number, pid))
    }

    /// An exec has ended and its output has been read. It is on record before its client learns of the end, who asks
    /// for the exit code then.
    pub(crate) fn exec_ended(&mut self, number: u32, exec: String, code: i32) {
        if let Some(mut record) = self.running_execs.remove(&number) {
            (record.pid, record.exit_code) = (0, Some(code));
            self.ended_execs.push_back(record);
            if self.ended_execs.len() > REMEMBERED {
                self.ended_execs.pop_front();
            }
        }
        self.record(EventKind::ExecExited { exec, code });
        self.finish_attached(number);
    }

    /// All that run, and those that are remembered.
    pub(crate) fn execs(&self) -> Vec<ExecRecord> {
        self.ended_execs.iter().chain(self.running_execs.values()).cloned().collect()
    }
}
