//! What the monitor knows, and its loop.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use wherry_container_log::{Stream, Writer};
use wherry_monitor_api::{ExecRecord, Health, LogSpec, Phase, RestartPolicy};
use wherry_runtime::Container;

use crate::attach::attach_job;
use crate::client::{Client, Role};
use crate::control::{Caller, Control};
use crate::external::External;
use crate::health::Verdict;
use crate::job::Job;
use crate::journal::{Journal, start_time};
use crate::poll::{Flags, Polled, Poller, Source};
use crate::process::{Sockets, say};
use crate::restart::Backoff;
use crate::ship::Shipper;
use crate::timers::{Timer, Timers};
use crate::{memory, wait};

/// A monitor gives memory back once nothing has happened for so long after it was started …
const FIRST_TRIM: Duration = Duration::from_secs(1);
/// … and later: what is used now and then is kept.
const LATER_TRIM: Duration = Duration::from_secs(10);
/// After a failed start clients have heard of it long before.
const PATIENCE: Duration = Duration::from_secs(10);

/// All of it.
#[derive(Debug)]
pub(crate) struct Monitor {
    id: String,
    /// This process, as the state file names it: process id and start time.
    pub(crate) identity: (i32, u64),
    pub(crate) poller: Poller,
    pub(crate) timers: Timers,
    pub(crate) listener: Polled,
    pub(crate) controls: BTreeMap<u32, Control>,
    pub(crate) clients: BTreeMap<u32, Client>,
    pub(crate) jobs: BTreeMap<u32, Job>,
    last_number: u32,
    /// Clients to be settled at the end of the round.
    pub(crate) dirty: Vec<u32>,
    pub(crate) trimmed: bool,
    /// For reading output.
    pub(crate) buffer: Vec<u8>,

    /// What the last start said.
    pub(crate) plan: Option<Plan>,
    pub(crate) log: Option<Writer>,
    pub(crate) shipper: Option<Shipper>,
    /// Those who follow the log have something to read.
    pub(crate) log_grew: bool,
    /// The container, while its init runs or its output is not at its end.
    pub(crate) run: Option<Run>,
    /// One that has ended, and whose cgroups are still there.
    pub(crate) leftover: Option<Container>,
    pub(crate) phase: Phase,
    pub(crate) journal: Journal,
    pub(crate) restart_count: u32,
    pub(crate) manually_stopped: bool,
    pub(crate) backoff: Backoff,
    pub(crate) verdict: Option<Verdict>,
    /// Execs that have ended, oldest first.
    pub(crate) ended_execs: VecDeque<ExecRecord>,
    /// Execs that run.
    pub(crate) running_execs: BTreeMap<u32, ExecRecord>,
    /// Answers to waiting clients, held back until attached clients have all output.
    pub(crate) answers: Vec<wait::Answer>,
    /// The engine has let go of the container; the exit code for those who waited for that.
    pub(crate) released: Option<i32>,
}

/// What is needed to start the container again, and what is looked at in between.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The [`wherry_monitor_api::StartSpec`], as JSON: parsed, it would take several times the memory.
    pub(crate) spec: Vec<u8>,
    pub(crate) state_path: std::path::PathBuf,
    pub(crate) log: LogSpec,
    pub(crate) restart: RestartPolicy,
    pub(crate) health: Option<Health>,
}

/// A running container.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) container: Container,
    /// The runtime that has made it, if not ours.
    pub(crate) external: Option<External>,
    /// Whether it was told to end because it is unhealthy.
    pub(crate) unhealthy: bool,
    /// Init's job.
    pub(crate) init: u32,
    pub(crate) started: Instant,
    pub(crate) started_at_ns: i64,
    /// Whether somebody has been attached to its standard output, and to its standard error.
    pub(crate) attached: (bool, bool),
    /// Becomes readable when memory runs out.
    pub(crate) memory: Option<Polled>,
    /// Whether memory ran out at all.
    pub(crate) memory_ran_out: bool,
    pub(crate) oom_kills: u64,
    pub(crate) oom_killed: bool,
    /// Whether its processes die with init, as they do in a process id namespace of its own.
    pub(crate) own_pid_namespace: bool,
    /// Whether the user wants it to end: no restart follows.
    pub(crate) unwanted: bool,
    /// Who waits for [`wherry_monitor_api::Request::Stop`].
    pub(crate) stops: Vec<Caller>,
}

impl Monitor {
    pub(crate) fn new(id: String, sockets: Sockets) -> io::Result<Self> {
        let poller = Poller::new()?;
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        let mut listener = Polled::new(&poller, sockets.listener, Source::Listener);
        listener.want(Some(Flags::IN))?;
        let mut monitor = Self {
            id,
            identity: (pid, start_time(pid)),
            poller,
            timers: Timers::default(),
            listener,
            controls: BTreeMap::new(),
            clients: BTreeMap::new(),
            jobs: BTreeMap::new(),
            last_number: 0,
            dirty: Vec::new(),
            trimmed: false,
            buffer: Vec::new(),
            plan: None,
            log: None,
            shipper: None,
            log_grew: false,
            run: None,
            leftover: None,
            phase: Phase::Waiting,
            journal: Journal::default(),
            restart_count: 0,
            manually_stopped: false,
            backoff: Backoff::default(),
            verdict: None,
            ended_execs: VecDeque::new(),
            running_execs: BTreeMap::new(),
            answers: Vec::new(),
            released: None,
        };
        monitor.add_control(sockets.control)?;
        Ok(monitor)
    }

    /// Serves until there is nothing left to hold.
    pub(crate) fn run(&mut self) -> io::Result<()> {
        while !self.is_finished() {
            let events = self.poller.wait(self.timers.next())?;
            // A signal ends the wait without events: an orphan of the container may have ended.
            let mut ended = events.is_empty();
            let idle = events.is_empty();
            for (source, flags) in events {
                ended |= matches!(source, Source::Process(_));
                self.handle(source, flags);
            }
            if ended {
                self.reap();
            }
            while let Some(timer) = self.timers.take_due() {
                self.fire(timer);
            }
            self.settle_round();
            if self.answers.is_empty() {
                self.remove_leftover();
            }
            if !idle {
                self.timers.set(Timer::Trim, if self.trimmed { LATER_TRIM } else { FIRST_TRIM });
            }
        }
        self.remove_leftover();
        Ok(())
    }

    fn handle(&mut self, source: Source, flags: Flags) {
        match source {
            Source::Listener => self.accept(),
            Source::Memory => self.memory_ran_out(),
            Source::LogServer => self.ship_ready(flags),
            Source::Control(number) => self.control_ready(number, flags),
            Source::Client(number) => self.client_ready(number, flags),
            // All that have ended are reaped together.
            Source::Process(_) => {}
            Source::Stdin(number) => {
                self.pull_input(number);
                self.dirty.extend(self.attached_to(number));
            }
            Source::Stdout(number) => self.read_output(number, Stream::Stdout, false),
            Source::Stderr(number) => self.read_output(number, Stream::Stderr, false),
            Source::Terminal(number) => {
                self.terminal_ready(number, flags);
                if flags.contains(Flags::OUT) {
                    self.dirty.extend(self.attached_to(number));
                }
            }
        }
    }

    fn fire(&mut self, timer: Timer) {
        match timer {
            Timer::Restart => self.restart(),
            Timer::StopKill => self.stop_by_force(),
            Timer::Drain(job) => self.give_up_draining(job),
            Timer::Probe => self.start_probe(),
            Timer::ProbeTimeout(job) => self.probe_timed_out(job),
            Timer::Memory => self.memory_ran_out(),
            Timer::Persist => self.persist(),
            Timer::LogsUntil(client) => self.logs_until(client),
            Timer::Answer => self.give_answers_now(),
            Timer::LetGo => self.dismiss_clients(),
            Timer::Ship => self.ship(),
            Timer::ShipEnd => self.end_shipping(),
            Timer::Compress => self.compress_log(),
            Timer::Trim => self.trim(),
        }
    }

    /// Settles the clients to which something happened in this round.
    pub(crate) fn settle_round(&mut self) {
        if std::mem::take(&mut self.log_grew) {
            let followers = self.clients.iter().filter(|(_, client)| matches!(client.role, Role::Logs(_)));
            self.dirty.extend(followers.map(|(number, _)| *number));
        }
        while let Some(number) = self.dirty.pop() {
            self.settle(number);
        }
        self.drop_broken_controls();
    }

    fn trim(&mut self) {
        self.buffer = Vec::new();
        if let Some(log) = &mut self.log {
            log.shrink();
        }
        self.controls.values_mut().for_each(Control::shrink);
        memory::give_back();
        self.trimmed = true;
    }

    /// Whether a process of the container runs or will.
    pub(crate) fn is_live(&self) -> bool {
        self.run.is_some() || matches!(self.phase, Phase::Running { .. } | Phase::Restarting { .. })
    }

    fn is_finished(&self) -> bool {
        let let_go = self.released.is_some() || self.controls.is_empty();
        let shipped = self.shipper.as_ref().is_none_or(Shipper::is_idle);
        let_go && shipped && !self.is_live() && self.clients.is_empty() && self.controls_are_flushed()
    }

    /// The last engine's connection has ended.
    pub(crate) fn engine_gone(&mut self) {
        self.give_answers();
        if !self.is_live() && !self.timers.is_set(Timer::LetGo) {
            self.dismiss_clients();
        }
    }

    /// The container could not be started. Who waits for its exit hears that from the engine, and hangs up; did we do it first,
    /// the client would complain of it besides.
    pub(crate) fn dismiss_after_failed_start(&mut self) {
        self.dismiss_but(|client| matches!(&client.role, Role::Wait(waiting) if waiting.is_for_next_exit()));
        self.timers.set(Timer::LetGo, PATIENCE);
    }

    /// The container will not be started again by this monitor: lets go of clients that wait for more.
    pub(crate) fn dismiss_clients(&mut self) {
        self.dismiss_but(|_| false);
    }

    fn dismiss_but(&mut self, stays: impl Fn(&Client) -> bool) {
        self.answer_removed();
        for (number, client) in self.clients.iter_mut().filter(|(_, client)| !stays(client)) {
            let waits = match &client.role {
                Role::Attach(_) => attach_job(client).is_none(),
                Role::Wait(_) => !self.answers.iter().any(|answer| answer.client == *number),
                Role::Logs(_) => false,
            };
            if waits {
                client.finish();
                self.dirty.push(*number);
            }
        }
    }

    /// A number for a connection, client or job.
    pub(crate) fn next_number(&mut self) -> u32 {
        self.last_number = self.last_number.wrapping_add(1);
        self.last_number
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// A line for the engine's log.
    pub(crate) fn say(&self, text: &str) {
        say(&self.id, text);
    }

    /// A job's terminal.
    pub(crate) fn terminal_of(&self, job: u32) -> Option<BorrowedFd<'_>> {
        self.jobs.get(&job).and_then(|job| job.io.master())
    }
}
