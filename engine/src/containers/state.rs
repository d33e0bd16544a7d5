//! Where a container stands, and the one function that changes it.

use wherry_monitor_api::{HealthState, Phase};

/// A container's state as the API names it. Times are nanoseconds since the epoch.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum State {
    /// Never started, or its only starts failed.
    Created,
    /// Being started: netd and the monitor are at work.
    Starting,
    /// Init runs.
    Running {
        /// Init's process id.
        pid: i32,
        /// When it was started.
        started_at_ns: i64,
        /// Whether its processes are frozen.
        paused: bool,
    },
    /// The restart policy will start it again.
    Restarting {
        /// Of the last run.
        exit: Exit,
    },
    /// Ended.
    Exited {
        /// Of the last run.
        exit: Exit,
    },
    /// Being removed.
    Removing,
    /// Its removal failed half-way.
    Dead,
}

/// How a run ended.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Exit {
    /// 0–255.
    pub(crate) code: i32,
    /// When the run began.
    pub(crate) started_at_ns: i64,
    /// When it ended.
    pub(crate) finished_at_ns: i64,
    /// Whether the kernel killed it for lack of memory.
    pub(crate) oom_killed: bool,
}

/// What can happen to a container.
#[derive(Debug, Clone)]
pub(crate) enum Transition {
    /// A start begins.
    Start,
    /// It could not be started; it is again what it was before: `previous`.
    StartFailed {
        /// The state before [`Transition::Start`].
        previous: Box<State>,
    },
    /// Its monitor says so.
    Monitor(Phase),
    /// Its monitor is gone without a last word, or the host was rebooted.
    Lost {
        /// When that was noticed.
        at_ns: i64,
    },
    /// Removal begins.
    Remove,
    /// Removal failed.
    RemoveFailed,
}

/// A transition that makes no sense in a state.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("a container that is {state} cannot {transition}")]
pub(crate) struct InvalidTransition {
    state: &'static str,
    transition: &'static str,
}

impl State {
    /// The state after `transition`.
    ///
    /// # Errors
    /// [`InvalidTransition`]; the state stays as it was.
    pub(crate) fn apply(&self, transition: &Transition) -> Result<Self, InvalidTransition> {
        match (self, transition) {
            (Self::Created | Self::Exited { .. }, Transition::Start) => Ok(Self::Starting),
            (Self::Starting, Transition::StartFailed { previous }) => Ok((**previous).clone()),
            (Self::Removing | Self::Dead, Transition::Monitor(_)) => Ok(self.clone()),
            (_, Transition::Monitor(phase)) => Ok(self.after_report(phase)),
            (Self::Running { started_at_ns, .. }, Transition::Lost { at_ns }) => {
                let exit = Exit {
                    code: 255,
                    started_at_ns: *started_at_ns,
                    finished_at_ns: *at_ns,
                    oom_killed: false,
                };
                Ok(Self::Exited { exit })
            }
            (Self::Restarting { exit }, Transition::Lost { .. }) => Ok(Self::Exited { exit: exit.clone() }),
            (_, Transition::Lost { .. }) => Ok(self.clone()),
            (
                Self::Created | Self::Exited { .. } | Self::Restarting { .. } | Self::Removing | Self::Dead,
                Transition::Remove,
            ) => Ok(Self::Removing),
            (Self::Removing, Transition::RemoveFailed) => Ok(Self::Dead),
            (state, transition) => {
                Err(InvalidTransition { state: state.status(), transition: transition.verb() })
            }
        }
    }

    fn after_report(&self, phase: &Phase) -> Self {
        match *phase {
            Phase::Waiting => self.clone(),
            Phase::Running { pid, started_at_ns, paused, .. } => Self::Running { pid, started_at_ns, paused },
            Phase::Restarting { code, started_at_ns, finished_at_ns, oom_killed, .. } => {
                Self::Restarting { exit: Exit { code, started_at_ns, finished_at_ns, oom_killed } }
            }
            // A monitor that never started anything leaves the state alone.
            Phase::Exited { started_at_ns: 0, .. } => self.clone(),
            Phase::Exited { code, started_at_ns, finished_at_ns, oom_killed, .. } => {
                Self::Exited { exit: Exit { code, started_at_ns, finished_at_ns, oom_killed } }
            }
        }
    }

    /// The API's word for it. A start in progress is shown as what clients know: `created`.
    pub(crate) fn status(&self) -> &'static str {
        match self {
            Self::Created | Self::Starting => "created",
            Self::Running { paused: false, .. } => "running",
            Self::Running { paused: true, .. } => "paused",
            Self::Restarting { .. } => "restarting",
            Self::Exited { .. } => "exited",
            Self::Removing => "removing",
            Self::Dead => "dead",
        }
    }

    /// Whether the API says `Running` (a container that waits for its restart is, to clients).
    pub(crate) fn is_running(&self) -> bool {
        matches!(self, Self::Running { .. } | Self::Restarting { .. })
    }

    /// Init's process id on the host; 0 when there is none.
    pub(crate) fn pid(&self) -> i32 {
        if let Self::Running { pid, .. } = self { *pid } else { 0 }
    }

    /// How the last run ended, if it did.
    pub(crate) fn exit(&self) -> Option<&Exit> {
        match self {
            Self::Exited { exit } | Self::Restarting { exit } => Some(exit),
            _ => None,
        }
    }
}

impl Transition {
    fn verb(&self) -> &'static str {
        match self {
            Self::Start => "be started",
            Self::StartFailed { .. } => "fail to start",
            Self::Monitor(_) => "report",
            Self::Lost { .. } => "be lost",
            Self::Remove => "be removed",
            Self::RemoveFailed => "fail to be removed",
        }
    }
}

/// A snapshot for lists and inspect: never waits behind work.
#[derive(Debug, Clone)]
pub(crate) struct Status {
    /// Where it stands.
    pub(crate) state: State,
    /// Restarts by the policy since the user's last start.
    pub(crate) restart_count: u32,
    /// Whether the user stopped it.
    pub(crate) manually_stopped: bool,
    /// The probe's results.
    pub(crate) health: Option<HealthState>,
    /// The exit code, kept for those who wait for the removal.
    pub(crate) last_code: i32,
}

impl Status {
    /// Of a container that has never been started.
    pub(crate) fn created() -> Self {
        Self { state: State::Created, restart_count: 0, manually_stopped: false, health: None, last_code: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running() -> State {
        State::Running { pid: 7, started_at_ns: 1, paused: false }
    }

    #[test]
    fn the_lifecycle_allows_what_docker_allows() {
        let exited = State::Exited { exit: Exit::default() };
        let cases = [
            (State::Created, Transition::Start, Ok("created")),
            (exited.clone(), Transition::Start, Ok("created")),
            (running(), Transition::Start, Err(())),
            (running(), Transition::Remove, Err(())),
            (exited.clone(), Transition::Remove, Ok("removing")),
            (running(), Transition::Lost { at_ns: 9 }, Ok("exited")),
            (State::Removing, Transition::Start, Err(())),
            (State::Removing, Transition::RemoveFailed, Ok("dead")),
            (State::Dead, Transition::Remove, Ok("removing")),
            (State::Starting, Transition::StartFailed { previous: Box::new(exited) }, Ok("exited")),
        ];
        for (state, transition, expected) in cases {
            let got = state.apply(&transition).map(|s| s.status()).map_err(|_| ());
            assert_eq!(got, expected, "{state:?} {transition:?}");
        }
    }

    #[test]
    fn a_removed_container_stays_removed_whatever_its_monitor_says() {
        let phase = Phase::Running { pid: 1, pid_start: 2, started_at_ns: 3, paused: false };
        assert_eq!(State::Removing.apply(&Transition::Monitor(phase)), Ok(State::Removing));
    }
}
