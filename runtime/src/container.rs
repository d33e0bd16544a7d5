//! A container and what can be done with it.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use oci_spec::runtime::LinuxResources;
use serde::{Deserialize, Serialize};

use crate::{Error, Launch, Stats, Stdio};

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
    pid: i32,
    pidfd: OwnedFd,
}

/// Further wishes for [`Container::exec`].
#[derive(Debug, Clone, Copy, Default)]
pub struct ExecOptions {
    /// So many of the caller's descriptors, from 3 on, are handed to the process.
    pub preserve_fds: u32,
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
}

/// What another process needs to open a container ([`SavedState::open`]). Serialisable.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SavedState {
    /// The format's version.
    pub version: u32,
    /// The container's id.
    pub id: String,
    /// Init's process id.
    pub pid: i32,
    /// Init's start time in clock ticks after boot: with `pid` it names a process for good.
    pub pid_start_time: u64,
    /// The bundle.
    pub bundle: PathBuf,
}

impl SavedState {
    /// Opens the container.
    ///
    /// # Errors
    /// [`Error::Spec`] for a format of another version, [`Error::System`].
    pub fn open(&self) -> Result<Container, Error> {
        Err(in_progress())
    }
}

fn in_progress() -> Error {
    Error::Unsupported { what: "this".into(), why: "being written" }
}

impl Container {
    /// Makes a container whose init waits before `execve`, and the terminal's master if asked for.
    ///
    /// # Errors
    /// What failed first; everything that was made is removed again.
    pub fn create(_launch: &Launch<'_>) -> Result<(Container, Option<OwnedFd>), Error> {
        Err(in_progress())
    }

    /// Lets init execute the program; returns once it has.
    ///
    /// # Errors
    /// Why the program could not be executed. The container is then stopped.
    pub fn start(&mut self) -> Result<(), Error> {
        Err(in_progress())
    }

    /// [`Container::create`] and [`Container::start`] without the stop in between.
    ///
    /// # Errors
    /// What failed first; everything that was made is removed again.
    pub fn run(_launch: &Launch<'_>) -> Result<(Container, Option<OwnedFd>), Error> {
        Err(in_progress())
    }

    /// Init's process id in the caller's namespace.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Readable once init has ended; for `waitid` and `pidfd_send_signal`.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Starts a further process in the container's namespaces and cgroup; returns once it has been executed.
    ///
    /// # Errors
    /// What failed first.
    pub fn exec(
        &self,
        _process: &oci_spec::runtime::Process,
        _stdio: Stdio<'_>,
        _options: &ExecOptions,
    ) -> Result<Process, Error> {
        Err(in_progress())
    }

    /// In which state it is.
    pub fn status(&self) -> Status {
        Status::Stopped
    }

    /// Sends a signal to init.
    ///
    /// # Errors
    /// [`Error::State`] if it has ended.
    pub fn kill(&self, _signal: i32) -> Result<(), Error> {
        Err(in_progress())
    }

    /// Sends a signal to all processes in the container's cgroup.
    ///
    /// # Errors
    /// [`Error::System`].
    pub fn kill_all(&self, _signal: i32) -> Result<(), Error> {
        Err(in_progress())
    }

    /// Freezes all processes.
    ///
    /// # Errors
    /// [`Error::System`].
    pub fn pause(&self) -> Result<(), Error> {
        Err(in_progress())
    }

    /// Thaws them.
    ///
    /// # Errors
    /// [`Error::System`].
    pub fn resume(&self) -> Result<(), Error> {
        Err(in_progress())
    }

    /// The process ids in the container's cgroup, in the caller's namespace, ascending.
    ///
    /// # Errors
    /// [`Error::System`].
    pub fn processes(&self) -> Result<Vec<i32>, Error> {
        Err(in_progress())
    }

    /// A sample of its counters.
    ///
    /// # Errors
    /// [`Error::System`].
    pub fn stats(&self) -> Result<Stats, Error> {
        Err(in_progress())
    }

    /// Sets new limits; fields that are absent stay as they are.
    ///
    /// # Errors
    /// [`Error::System`] with the file and the kernel's answer.
    pub fn update(&self, _resources: &LinuxResources) -> Result<(), Error> {
        Err(in_progress())
    }

    /// Kills what is left and removes the cgroups. The caller has reaped init, or lets `force` kill it.
    ///
    /// # Errors
    /// [`Error::State`] when init still lives and `force` is false.
    pub fn delete(self, _force: bool) -> Result<(), Error> {
        Err(in_progress())
    }

    /// How many processes the kernel has killed for want of memory.
    pub fn oom_kill_count(&self) -> u64 {
        0
    }

    /// A descriptor that becomes readable when memory ran out (v1: eventfd; v2: inotify on
    /// `memory.events`); read [`Container::oom_kill_count`] then. `None` without a memory cgroup.
    pub fn oom_watch(&self) -> Option<OwnedFd> {
        None
    }

    /// What another process needs to open this container.
    pub fn save(&self) -> SavedState {
        SavedState { version: 1, id: String::new(), pid: self.pid, pid_start_time: 0, bundle: PathBuf::new() }
    }
}
