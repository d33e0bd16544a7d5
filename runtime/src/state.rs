//! A container's state, for another process to open it.

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use crate::container::Gate;
use crate::facts::Facts;
use crate::{Container, Error, Status};

/// The version of the format.
pub(crate) const VERSION: u32 = 1;

/// What another process needs to open a container. Serialisable; the caller keeps it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SavedState {
    /// The format's version.
    pub(crate) version: u32,
    /// Init's start time in clock ticks after boot: with its pid it names a process for good.
    pub(crate) pid_start_time: u64,
    #[serde(flatten)]
    pub(crate) facts: Facts,
}

impl SavedState {
    /// The container's id.
    pub fn id(&self) -> &str {
        &self.facts.id
    }

    /// The bundle.
    pub fn bundle(&self) -> &std::path::Path {
        &self.facts.bundle
    }

    /// Opens the container. `None` if its init has ended; then there is only [`SavedState::remove`].
    ///
    /// # Errors
    /// [`Error::Spec`] for a format of another version, [`Error::System`].
    pub fn open(&self) -> Result<Option<Container>, Error> {
        if self.version != VERSION {
            return Err(Error::spec("state", format!("version {} is not {VERSION}", self.version)));
        }
        let Some(pid) = Pid::from_raw(self.facts.pid) else { return Ok(None) };
        // the descriptor first: then a start time that matches is about the same process
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(errno) => return Err(Error::system("open process", self.facts.pid, errno)),
        };
        if start_time(self.facts.pid).ok() != Some(self.pid_start_time) {
            return Ok(None);
        }
        let gate = if self.facts.start_socket_in.is_some() { Gate::Socket } else { Gate::Open };
        let container = Container { facts: self.facts.clone(), pidfd, gate, warnings: Vec::new() };
        Ok((container.status() != Status::Stopped).then_some(container))
    }

    /// Whether the pid namespace is the container's own: then nothing outlives its init.
    pub fn has_own_pids(&self) -> bool {
        self.facts.own_pids
    }

    /// Sends a signal to what is left in the container's cgroup.
    ///
    /// # Errors
    /// [`Error::System`].
    pub fn kill_all(&self, signal: i32) -> Result<(), Error> {
        self.facts.cgroup.signal_all(signal)
    }

    /// The process ids of what is left in the container's cgroup, in the caller's namespace, ascending.
    ///
    /// # Errors
    /// [`Error::System`].
    pub fn processes(&self) -> Result<Vec<i32>, Error> {
        self.facts.cgroup.processes()
    }

    /// Removes what a container leaves whose init has ended.
    ///
    /// # Errors
    /// [`Error::System`], [`Error::Hook`].
    pub fn remove(&self) -> Result<(), Error> {
        self.facts.remove()
    }
}

/// A process's start time in clock ticks after boot (proc_pid_stat(5), field 22).
pub(crate) fn start_time(pid: i32) -> Result<u64, Error> {
    let path = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(&path).map_err(|e| Error::system("read", &path, e))?;
    // the command's name may have spaces and brackets; what follows its last bracket has neither
    let field = text.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(19)?.parse().ok());
    field.ok_or_else(|| Error::system("read", path, std::io::Error::from(std::io::ErrorKind::InvalidData)))
}
