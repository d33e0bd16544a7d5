//! A container and what can be done with it.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};
use serde::{Deserialize, Serialize};

use crate::child::channel::{Channel, GO};
use crate::create::{Prepared, START_SOCKET, hear, make, prepare, start_address};
use crate::exec::{Join, spawn};
use crate::facts::Facts;
use crate::hooks::HookRunner;
use crate::state::{SavedState, start_time};
use crate::sys::process::pidfd_send_signal;
use crate::{Error, Launch, Stats, Stdio, Trace, Warning};

/// A container's state, as the runtime specification names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Made; its init waits for [`Container::start`].
    Created,
    /// Its program runs.
    Running,
    /// All of its processes are frozen.
    Paused,
    /// Its init has ended.
    Stopped,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        })
    }
}

/// A container that was made by this process, or opened from its saved state.
#[derive(Debug)]
pub struct Container {
    pub(crate) facts: Facts,
    pub(crate) pidfd: OwnedFd,
    pub(crate) gate: Gate,
    pub(crate) warnings: Vec<Warning>,
}

/// What init waits for.
#[derive(Debug)]
pub(crate) enum Gate {
    /// A word on this channel.
    Channel(Channel),
    /// A connection to its start socket.
    Socket,
    /// Nothing.
    Open,
}

/// Further wishes for [`Container::exec`].
#[derive(Debug, Clone, Copy, Default)]
pub struct ExecOptions<'a> {
    /// So many of the caller's descriptors, from 3 on, are handed to the process.
    pub preserve_fds: u32,
    /// As [`Launch::report_exec_failure`].
    pub report_exec_failure: bool,
    /// Try it in a paused container as well. The call then returns when the container is resumed.
    pub ignore_paused: bool,
    /// Groups below the container's own that the process enters, instead of that one.
    pub sub_cgroups: &'a [SubCgroup],
    /// Who is told what is being done, step by step.
    pub trace: Option<Trace<'a>>,
}

/// A cgroup below a container's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubCgroup {
    /// The controllers whose hierarchies are meant; none means all hierarchies.
    pub controllers: Vec<String>,
    /// Its path, relative to the container's own group. It must exist.
    pub path: PathBuf,
}

/// A further process in a container. The caller is its parent and reaps it.
#[derive(Debug)]
pub struct Process {
    /// The process id in the caller's namespace.
    pub pid: i32,
    /// Readable once the process has ended.
    pub pidfd: OwnedFd,
    /// The terminal's master, if one was asked for.
    pub terminal: Option<OwnedFd>,
    /// What is not as it was asked for.
    pub warnings: Vec<Warning>,
}

impl Container {
    /// Makes a container whose init waits before `execve`, and the terminal's master if asked for (runtime
    /// specification, "Lifecycle" steps 1 to 5, "Create").
    ///
    /// # Errors
    /// What failed first; everything that was made is removed again.
    pub fn create(launch: &Launch<'_>) -> Result<(Container, Option<OwnedFd>), Error> {
        Container::make(launch, true)
    }

    /// Lets init execute the program; returns once it has (runtime specification, "Lifecycle" steps 6 to 9, "Start").
    ///
    /// # Errors
    /// [`Error::State`] when it is not waiting for that; else why the program could not be executed, or
    /// [`Error::Hook`] for a `poststart` hook. The container is then stopped, and still to be deleted.
    pub fn start(&mut self) -> Result<(), Error> {
        let gate = std::mem::replace(&mut self.gate, Gate::Open);
        let refused = |status| Error::State { action: "start", status };
        let channel = match gate {
            Gate::Channel(channel) => channel,
            Gate::Socket => {
                let folder = self.facts.start_socket_in.as_deref().ok_or(refused(Status::Running))?;
                match connect(folder) {
                    Err(_) if self.has_ended() => return Err(refused(Status::Stopped)),
                    // whoever started it has removed the socket
                    Err(error) if error.errno() == Some(libc::ENOENT) => {
                        return Err(refused(Status::Running));
                    }
                    other => other?,
                }
            }
            Gate::Open => return Err(refused(self.status())),
        };
        match channel.tell(GO) {
            Ok(()) => {}
            Err(Errno::PIPE | Errno::CONNRESET) => return Err(refused(Status::Stopped)),
            Err(errno) => return Err(Error::system("start", &self.facts.id, errno)),
        }
        if let Some(folder) = &self.facts.start_socket_in {
            let _ = std::fs::remove_file(folder.join(START_SOCKET));
        }
        hear(&channel, false, None, |_, _| Ok(()))?;
        self.facts.hooks.after_start(self.facts.pid).inspect_err(|_| {
            let _ = self.kill(libc::SIGKILL); // it may have ended
        })
    }

    /// [`Container::create`] and [`Container::start`] without the stop in between.
    ///
    /// # Errors
    /// What failed first; everything that was made is removed again.
    pub fn run(launch: &Launch<'_>) -> Result<(Container, Option<OwnedFd>), Error> {
        let (container, terminal) = Container::make(launch, false)?;
        if let Err(error) = container.facts.hooks.after_start(container.facts.pid) {
            let _ = container.delete(true);
            return Err(error);
        }
        Ok((container, terminal))
    }

    /// Takes over a container that another runtime has made by this launch's specification, with `pid` as its init: signals,
    /// further processes, limits and figures go by its namespaces and cgroups. Its hooks are the other runtime's.
    ///
    /// # Errors
    /// What [`Launch::validate`] says, and [`Error::System`] if there is no such process.
    pub fn adopt(launch: &Launch<'_>, pid: i32) -> Result<Container, Error> {
        let Prepared { cgroup, plan, .. } = prepare(launch, false)?;
        let init = Pid::from_raw(pid).ok_or_else(|| Error::system("open process", pid, Errno::SRCH))?;
        let pidfd =
            pidfd_open(init, PidfdFlags::empty()).map_err(|e| Error::system("open process", pid, e))?;
        let facts = Facts::new(launch, pid, cgroup, plan, HookRunner::default(), None);
        Ok(Container { facts, pidfd, gate: Gate::Open, warnings: Vec::new() })
    }

    fn make(launch: &Launch<'_>, wait: bool) -> Result<(Container, Option<OwnedFd>), Error> {
        let made = make(launch, wait)?;
        let start_socket_in = launch.start_socket_in.filter(|_| wait).map(Path::to_path_buf);
        let gate = match (wait, &start_socket_in) {
            (false, _) => Gate::Open,
            (true, None) => Gate::Channel(made.channel),
            (true, Some(_)) => Gate::Socket,
        };
        let warnings = made.plan.warnings.clone();
        let mut facts = Facts::new(launch, made.pid, made.cgroup, made.plan, made.hooks, start_socket_in);
        facts.host_root = made.host_root;
        Ok((Container { facts, pidfd: made.pidfd, gate, warnings }, made.terminal))
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.facts.id
    }

    /// Its bundle.
    pub fn bundle(&self) -> &Path {
        &self.facts.bundle
    }

    /// What is not as the specification asks. Only who has made the container knows that.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// Init's process id in the caller's namespace.
    pub fn pid(&self) -> i32 {
        self.facts.pid
    }

    /// Readable once init has ended; for `waitid` and `pidfd_send_signal`.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Starts a further process in the container's namespaces and cgroup; returns once it has been executed.
    ///
    /// # Errors
    /// What failed first; no process is left then.
    pub fn exec(
        &self,
        process: &oci_spec::runtime::Process,
        stdio: Stdio<'_>,
        options: &ExecOptions<'_>,
    ) -> Result<Process, Error> {
        if self.has_ended() {
            return Err(Error::State { action: "exec in", status: Status::Stopped });
        }
        if !options.ignore_paused && self.facts.cgroup.is_frozen() {
            return Err(Error::State { action: "exec in", status: Status::Paused });
        }
        let mut plan = crate::plan::process::compile(process, stdio, options.preserve_fds)?;
        plan.capabilities.get_or_insert(self.facts.capabilities);
        let mut warnings = Vec::new();
        plan.grant_at_most_own(self.facts.namespaces & libc::CLONE_NEWUSER != 0, &mut warnings)?;
        plan.seccomp.clone_from(&self.facts.seccomp);
        plan.keyring.clone_from(&self.facts.keyring);
        plan.memory_policy.clone_from(&self.facts.memory_policy);
        plan.personality = self.facts.personality;
        plan.keep_groups = self.facts.keep_groups;
        plan.report_exec_failure = options.report_exec_failure;
        let root = (self.facts.namespaces & libc::CLONE_NEWNS == 0).then(|| self.root()).transpose()?;
        let join = Join {
            root,
            init: self.pidfd.try_clone().map_err(|e| Error::system("duplicate", "a pidfd", e))?,
            namespaces: self.facts.namespaces,
            user_namespace: self.facts.namespaces & libc::CLONE_NEWUSER != 0,
            entry: self.facts.cgroup.entry_below(self.facts.pid, options.sub_cgroups)?,
        };
        let started = spawn(&join, &plan, options.trace, |listener, pid| {
            match plan.seccomp.as_ref().and_then(|f| f.listener.as_ref()) {
                Some(path) => {
                    path.hand_over(&listener, pid, self.facts.hooks.state("running", Some(self.facts.pid)))
                }
                None => Ok(()),
            }
        })?;
        Ok(Process { warnings, ..started })
    }

    /// The root of its init.
    fn root(&self) -> Result<OwnedFd, Error> {
        let root = crate::cgroup::open_path(Path::new(&format!("/proc/{}/root", self.facts.pid)))?;
        // the number may be another's by now, unless init still lives
        if self.has_ended() {
            return Err(Error::State { action: "exec in", status: Status::Stopped });
        }
        Ok(root)
    }

    /// In which state it is (runtime specification, "State" and "Query State").
    pub fn status(&self) -> Status {
        if self.has_ended() {
            return Status::Stopped;
        }
        let waits = match &self.gate {
            Gate::Channel(_) => true,
            Gate::Socket => {
                self.facts.start_socket_in.as_ref().is_some_and(|f| f.join(START_SOCKET).exists())
            }
            Gate::Open => false,
        };
        match (self.facts.cgroup.is_frozen(), waits) {
            (true, _) => Status::Paused,
            (false, true) => Status::Created,
            (false, false) => Status::Running,
        }
    }

    fn has_ended(&self) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], Some(&now)) == Ok(1)
    }

    /// Sends a signal to init (runtime specification, "Kill"). `SIGKILL` goes to all processes unless the pid namespace is the container's own, where the
    /// kernel kills them together with init.
    ///
    /// # Errors
    /// [`Error::State`] if it has ended.
    pub fn kill(&self, signal: i32) -> Result<(), Error> {
        if signal == libc::SIGKILL && !self.facts.own_pids {
            return self.kill_all(signal);
        }
        match pidfd_send_signal(self.pidfd.as_fd(), signal) {
            Ok(()) if signal != libc::SIGKILL => Ok(()),
            // a process that is frozen by cgroup v1 dies when it is thawed
            Ok(()) => {
                if self.facts.cgroup.is_frozen() {
                    self.facts.cgroup.freeze(false)
                } else {
                    Ok(())
                }
            }
            Err(Errno::SRCH) => Err(Error::State { action: "signal", status: Status::Stopped }),
            Err(errno) => Err(Error::system("signal", self.facts.pid, errno)),
        }
    }

    /// Sends a signal to all processes in the container's cgroup.
    ///
    /// # Errors
    /// [`Error::System`].
    pub fn kill_all(&self, signal: i32) -> Result<(), Error> {
        self.facts.cgroup.signal_all(signal)?;
        if signal == libc::SIGKILL && self.facts.cgroup.is_frozen() {
            self.facts.cgroup.freeze(false)?;
        }
        Ok(())
    }

    /// Freezes all processes; returns once they are.
    ///
    /// # Errors
    /// [`Error::State`] unless it runs; [`Error::System`].
    pub fn pause(&self) -> Result<(), Error> {
        match self.status() {
            Status::Running | Status::Created => self.facts.cgroup.freeze(true),
            status => Err(Error::State { action: "pause", status }),
        }
    }

    /// Thaws them.
    ///
    /// # Errors
    /// [`Error::State`] unless it is paused; [`Error::System`].
    pub fn resume(&self) -> Result<(), Error> {
        match self.status() {
            Status::Paused => self.facts.cgroup.freeze(false),
            status => Err(Error::State { action: "resume", status }),
        }
    }

    /// The process ids in the container's cgroup, in the caller's namespace, ascending.
    ///
    /// # Errors
    /// [`Error::System`].
    pub fn processes(&self) -> Result<Vec<i32>, Error> {
        self.facts.cgroup.processes()
    }

    /// A sample of its counters.
    ///
    /// # Errors
    /// [`Error::System`].
    pub fn stats(&self) -> Result<Stats, Error> {
        self.facts.cgroup.stats()
    }

    /// Sets new limits (runtime specification, "Control groups"); fields that are absent stay as they are. Gives what is
    /// not as it was asked for.
    ///
    /// # Errors
    /// [`Error::System`] with the file and the kernel's answer.
    pub fn update(&self, resources: &LinuxResources) -> Result<Vec<Warning>, Error> {
        let mut warnings = Vec::new();
        crate::plan::validate::resources(resources, &mut warnings)?;
        self.facts.cgroup.update(resources)?;
        Ok(warnings)
    }

    /// Kills what is left and removes the cgroups; then `poststop` hooks run (runtime specification, "Lifecycle" steps 10
    /// to 13, "Delete"). The caller has reaped init,
    /// or lets `force` kill it (and reap it, if the caller is its parent).
    ///
    /// # Errors
    /// [`Error::State`] when init still lives and `force` is false; [`Error::System`], [`Error::Hook`].
    pub fn delete(self, force: bool) -> Result<(), Error> {
        if !self.has_ended() {
            if !force {
                return Err(Error::State { action: "delete", status: self.status() });
            }
            let _ = self.kill(libc::SIGKILL);
            // without a pid namespace the others outlive init
            let _ = self.kill_all(libc::SIGKILL);
            let ten_seconds = Timespec { tv_sec: 10, tv_nsec: 0 };
            let _ = poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], Some(&ten_seconds));
            // ECHILD: somebody else's child
            let _ = waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
        }
        self.facts.remove()
    }

    /// How many processes the kernel has killed for want of memory.
    pub fn oom_kill_count(&self) -> u64 {
        self.facts.cgroup.oom_kills()
    }

    /// A descriptor that becomes readable when memory ran out (v1: eventfd; v2: inotify on
    /// `memory.events`); read [`Container::oom_kill_count`] then. `None` without a memory cgroup.
    pub fn oom_watch(&self) -> Option<OwnedFd> {
        self.facts.cgroup.oom_watch()
    }

    /// What another process needs to open this container.
    ///
    /// # Errors
    /// [`Error::System`] when init's start time cannot be read.
    pub fn save(&self) -> Result<SavedState, Error> {
        Ok(SavedState {
            version: crate::state::VERSION,
            pid_start_time: start_time(self.facts.pid)?,
            facts: self.facts.clone(),
        })
    }
}

fn connect(folder: &Path) -> Result<Channel, Error> {
    let failed = |errno| Error::system("connect to", folder.join(START_SOCKET).display(), errno);
    let directory = crate::cgroup::open_path(folder)?;
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .map_err(failed)?;
    rustix::net::connect(&socket, &start_address(&directory)?).map_err(failed)?;
    Ok(Channel::from_socket(socket))
}
