//! Starting the container, by request and by the restart policy.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::termios::{Winsize, tcsetwinsize};
use wherry_container_log::{Options, Writer};
use wherry_monitor_api::{
    EventKind, Failure, FailureKind, Leftovers, LogDriver, LogSpec, Phase, Reply, StartSpec,
};
use wherry_runtime::{CgroupManager, Launch, RootfsSource, Stdio};

use crate::checkpoint::run_or_restore;
use crate::control::{Answer, Caller, failure, system};
use crate::external::External;
use crate::health::Verdict;
use crate::job::{Connected, Io, Job, Kind};
use crate::journal::now_ns;
use crate::launch::{Parsed, failure_code, runtime_failure};
use crate::monitor::{Monitor, Plan, Run};
use crate::poll::{Flags, Polled, Source};
use crate::restart::{self, Backoff};
use crate::ship::Shipper;
use crate::timers::Timer;

impl Monitor {
    /// Starts the container because the engine asks for it.
    pub(crate) fn start_by_request(&mut self, caller: Caller, mut spec: StartSpec) -> Answer {
        if self.is_live() {
            return Err(failure(FailureKind::State, "the container is already running"));
        }
        let first = self.plan.is_none();
        let checkpoint = spec.checkpoint.take(); // what is kept is for restarts
        let bytes = serde_json::to_vec(&spec)
            .map_err(|e| failure(FailureKind::Protocol, format!("the start cannot be kept: {e}")))?;
        spec.checkpoint = checkpoint;
        self.plan = Some(Plan {
            spec: bytes,
            state_path: spec.state_path.clone(),
            log: spec.log.clone(),
            restart: spec.restart,
            health: spec.health.clone(),
        });
        self.released = None;
        self.restart_count = spec.restart_count;
        self.manually_stopped = false;
        self.backoff = Backoff::default();
        match self.start(&mut spec) {
            Ok((pid, at_ns)) => {
                // First of all: the user waits for it.
                self.reply(caller, Ok(Reply::Started { pid, at_ns }));
                if first {
                    self.take_over_journal();
                }
                self.started(pid, at_ns, false);
                Ok(None)
            }
            Err(failure) => {
                self.phase = Phase::Exited {
                    code: failure_code(failure.kind),
                    started_at_ns: 0,
                    finished_at_ns: now_ns(),
                    oom_killed: false,
                    error: failure.message.clone(),
                };
                Err(failure)
            }
        }
    }

    /// Removes what another monitor of this container has left, which was killed.
    pub(crate) fn clear(&mut self, leftovers: Leftovers) -> Result<(), Failure> {
        if self.plan.is_some() {
            return Err(failure(FailureKind::State, "this monitor has started the container itself"));
        }
        let Leftovers { cgroups_path, systemd_cgroup, root, external } = leftovers;
        let spec = serde_json::from_value(serde_json::json!({
            "ociVersion": "1.2.0", "root": { "path": root }, "linux": { "cgroupsPath": cgroups_path },
        }))
        .map_err(|e| failure(FailureKind::Protocol, format!("the specification does not parse: {e}")))?;
        let mut launch = Launch::new(self.id(), &root, &spec, &RootfsSource::Bundle);
        if systemd_cgroup {
            launch.cgroup_manager = CgroupManager::Systemd;
        }
        if let Some(runtime) = external {
            External::of(&runtime, &launch).remove();
        }
        launch.clear().map_err(|e| runtime_failure(&e))
    }

    /// Starts it again, as the policy says.
    pub(crate) fn restart(&mut self) {
        let Some(plan) = &self.plan else { return };
        let result = serde_json::from_slice(&plan.spec)
            .map_err(|e| {
                failure(FailureKind::Protocol, format!("the start that was kept does not parse: {e}"))
            })
            .and_then(|mut spec: StartSpec| self.start(&mut spec));
        self.restart_count += 1;
        match result {
            Ok((pid, at_ns)) => self.started(pid, at_ns, true),
            Err(failure) => self.restart_failed(&failure),
        }
    }

    /// A start by the policy failed: it is tried again like after an exit.
    fn restart_failed(&mut self, failure: &Failure) {
        let (code, at_ns) = (failure_code(failure.kind), now_ns());
        self.say(&format!("the restart policy could not start it: {}", failure.message));
        let Some(plan) = &self.plan else { return };
        let restarting = restart::applies(plan.restart, code, self.restart_count);
        let started_at_ns = match self.phase {
            Phase::Restarting { started_at_ns, .. } => started_at_ns,
            _ => 0,
        };
        self.phase = if restarting {
            let delay = self.backoff.next(Duration::ZERO);
            self.timers.set(Timer::Restart, delay);
            let next_start_ns = at_ns.saturating_add(i64::try_from(delay.as_nanos()).unwrap_or(i64::MAX));
            Phase::Restarting { code, started_at_ns, finished_at_ns: at_ns, oom_killed: false, next_start_ns }
        } else {
            let error = failure.message.clone();
            Phase::Exited { code, started_at_ns, finished_at_ns: at_ns, oom_killed: false, error }
        };
        self.record_durably(
            at_ns,
            EventKind::StartFailed { error: failure.message.clone(), code, restarting },
        );
        if !restarting {
            self.answer_not_running(code);
        }
    }

    /// Makes the container and executes its program.
    fn start(&mut self, start: &mut StartSpec) -> Result<(i32, i64), Failure> {
        self.remove_leftover();
        let parsed = Parsed::take(start)?;
        self.open_log(&start.log)?;
        let number = self.next_number();
        let (runtime, checkpoint) = (start.external.as_ref(), start.checkpoint.as_deref());
        let (container, external, io) = if parsed.terminal() {
            let launch = parsed.launch(start, Stdio::Terminal { size: start.console_size });
            let (container, master, external) = match runtime {
                Some(runtime) => {
                    External::run(runtime, &launch, None, checkpoint).map(|(c, m, e)| (c, m, Some(e)))?
                }
                None => run_or_restore(&launch, checkpoint).map(|(c, m)| (c, m, None))?,
            };
            let master =
                master.ok_or_else(|| failure(FailureKind::System, "the runtime library gave no terminal"))?;
            if let Some((rows, columns)) =
                start.console_size.filter(|_| external.is_some() || checkpoint.is_some())
            {
                let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
                // The program has a terminal of another size then, and can do without.
                let _ = tcsetwinsize(&master, size);
            }
            (container, external, Io::terminal(&self.poller, number, master))
        } else {
            let connected = Connected { stdin: start.open_stdin, stdout: true, stderr: true };
            let (io, ends) =
                Io::pipes(&self.poller, number, connected).map_err(|e| system("make pipes", &e.into()))?;
            let (stdin, stdout, stderr) = (ends.stdin.as_fd(), ends.stdout.as_fd(), ends.stderr.as_fd());
            let launch = parsed.launch(start, Stdio::Fds { stdin, stdout, stderr });
            let (container, external) = match runtime {
                Some(runtime) => {
                    let owned = [stdin, stdout, stderr].map(|end| end.try_clone_to_owned());
                    let [stdin, stdout, stderr] =
                        owned.map(|end| end.map_err(|e| system("duplicate a pipe", &e)));
                    let (container, _, external) =
                        External::run(runtime, &launch, Some([stdin?, stdout?, stderr?]), checkpoint)?;
                    (container, Some(external))
                }
                None => (run_or_restore(&launch, checkpoint)?.0, None),
            };
            (container, external, Ok(io))
        };
        let (pid, started_at_ns, started) = (container.pid(), now_ns(), Instant::now());
        let job = io.map_err(std::io::Error::from).and_then(|io| {
            let pidfd = container.pidfd().try_clone_to_owned()?;
            Job::new(&self.poller, number, Kind::Init, pid, pidfd, io)
        });
        let mut job = match job {
            Ok(job) => job,
            Err(error) => {
                // Without a way to notice its end it must not run.
                let _ = container.delete(true);
                if let Some(external) = external {
                    external.remove();
                }
                return Err(system("watch the container", &error));
            }
        };
        job.stdin_once = start.stdin_once;
        self.jobs.insert(number, job);
        self.run = Some(Run {
            container,
            external,
            unhealthy: false,
            init: number,
            started,
            started_at_ns,
            memory: None,
            memory_ran_out: false,
            attached: (false, false),
            oom_kills: 0,
            oom_killed: false,
            own_pid_namespace: parsed.own_pid_namespace(),
            unwanted: false,
            stops: Vec::new(),
        });
        self.trimmed = false;
        self.phase = Phase::Running { pid, pid_start: 0, started_at_ns, paused: false };
        Ok((pid, started_at_ns))
    }

    /// What follows a start, once whoever asked for it knows.
    fn started(&mut self, pid: i32, at_ns: i64, by_policy: bool) {
        self.record_at(at_ns, EventKind::Started { pid, by_policy });
        self.persist_soon();
        self.watch_memory();
        if let Some(init) = self.run.as_ref().map(|run| run.init) {
            self.adopt_waiting_clients(init);
        }
        self.verdict = match self.plan.as_ref().and_then(|plan| plan.health.as_ref()) {
            Some(_) => Some(Verdict::at_start(self.verdict.take())),
            None => None,
        };
        self.schedule_probe();
    }

    /// Wants to know when memory runs out.
    fn watch_memory(&mut self) {
        let Some(run) = &mut self.run else { return };
        run.memory = run.container.oom_watch().and_then(|fd| {
            let mut memory = Polled::new(&self.poller, fd, Source::Memory);
            memory.want(Some(Flags::IN)).ok().map(|()| memory)
        });
        // It may have happened before the watch began.
        self.memory_ran_out();
    }

    /// Opens the log, unless it is open from the run before.
    fn open_log(&mut self, spec: &LogSpec) -> Result<(), Failure> {
        let kept = self.shipper.take().filter(|old| spec.remote.as_ref().is_some_and(|new| old.is_for(new)));
        self.shipper = kept.or_else(|| spec.remote.clone().map(Shipper::new));
        let LogDriver::JsonFile(path) = &spec.driver else {
            self.log = None;
            return Ok(());
        };
        let options = Options {
            path: path.clone(),
            max_bytes: spec.max_bytes,
            max_files: spec.max_files,
            compress: spec.compress,
            attributes: spec.attributes.clone(),
        };
        let log = Writer::open(options).map_err(|error| {
            system(format!("failed to initialize logging driver: open {}", path.display()), &error)
        })?;
        self.log = Some(log);
        Ok(())
    }
}
