//! Clients that wait for an exit.

use std::os::fd::OwnedFd;
use std::time::Duration;

use wherry_monitor_api::{EventKind, Failure, Phase, WaitCondition, WaitRequest};

use crate::client::{Client, Role};
use crate::monitor::Monitor;
use crate::timers::Timer;

/// An attached client that takes its output this late does not keep others waiting for the exit code; dockerd's limit.
const LATEST: Duration = Duration::from_secs(2);

/// A client that waits.
#[derive(Debug)]
pub(crate) struct Waiting {
    condition: WaitCondition,
    prefix: String,
    suffix: String,
}

impl Waiting {
    /// Whether it outlasts a start that fails.
    pub(crate) fn is_for_next_exit(&self) -> bool {
        self.condition == WaitCondition::NextExit
    }
}

/// An answer that is held back until attached clients have all output.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) client: u32,
    code: i32,
}

impl Monitor {
    /// Registers a client, and answers at once where nothing is to be waited for.
    pub(crate) fn wait_for_exit(&mut self, request: WaitRequest, socket: OwnedFd) -> Result<(), Failure> {
        let number = self.next_number();
        let WaitRequest { head, condition, prefix, suffix, encoding } = request;
        let waiting = Waiting { condition, prefix, suffix };
        let client = Client::new(&self.poller, number, socket, &head, encoding, Role::Wait(waiting));
        self.clients.insert(number, client);
        let over = match condition {
            WaitCondition::NotRunning => !self.is_live(),
            WaitCondition::NextExit => false,
            WaitCondition::Removed => self.released.is_some(),
        };
        if over {
            self.answers.push(Answer { client: number, code: self.last_code() });
            self.give_answers();
        }
        self.dirty.push(number);
        Ok(())
    }

    /// Answers those whose condition an exit meets.
    pub(crate) fn answer_exit(&mut self, code: i32, restarting: bool) {
        let engine_gone = self.controls.is_empty();
        self.answer(code, |condition| match condition {
            // Between an exit and the restart that follows it does not run.
            WaitCondition::NextExit | WaitCondition::NotRunning => true,
            // Nobody is left who could remove it, so that this is all that the client can learn.
            WaitCondition::Removed => !restarting && engine_gone,
        });
    }

    /// Answers those who wait for the container not to run: a restart was called off.
    pub(crate) fn answer_not_running(&mut self, code: i32) {
        let engine_gone = self.controls.is_empty();
        self.answer(code, |condition| match condition {
            WaitCondition::NotRunning => true,
            WaitCondition::NextExit => false,
            WaitCondition::Removed => engine_gone,
        });
    }

    /// Answers those who wait for the container to be removed.
    pub(crate) fn answer_removed(&mut self) {
        self.answer(self.last_code(), |condition| condition == WaitCondition::Removed);
    }

    fn answer(&mut self, code: i32, met: impl Fn(WaitCondition) -> bool) {
        for (number, client) in &self.clients {
            if let Role::Wait(waiting) = &client.role
                && met(waiting.condition)
                && !client.is_closing()
                && !self.answers.iter().any(|answer| answer.client == *number)
            {
                self.answers.push(Answer { client: *number, code });
            }
        }
        self.give_answers();
    }

    /// Gives the answers that are held back, if attached clients have all output and the engine has acknowledged the
    /// exit: what a client asks next (inspect, rm, start) must find the engine informed.
    pub(crate) fn give_answers(&mut self) {
        if self.answers.is_empty() {
            return;
        }
        let output_pending = self.clients.values().any(|client| {
            matches!(&client.role, Role::Attach(_)) && client.is_closing() && client.out.len() > 0
        });
        if !output_pending && !self.exit_is_unacknowledged() {
            self.give_answers_now();
        } else if !self.timers.is_set(Timer::Answer) {
            self.timers.set(Timer::Answer, LATEST);
        }
    }

    fn exit_is_unacknowledged(&self) -> bool {
        self.controls.values().any(|control| control.subscribed)
            && self.journal.pending().any(|event| matches!(event.kind, EventKind::Exited { .. }))
    }

    pub(crate) fn give_answers_now(&mut self) {
        self.timers.cancel(Timer::Answer);
        for Answer { client: number, code } in std::mem::take(&mut self.answers) {
            if let Some(client) = self.clients.get_mut(&number)
                && let Role::Wait(waiting) = &client.role
            {
                let body = format!("{}{code}{}", waiting.prefix, waiting.suffix);
                client.send(&[], body.as_bytes());
                client.finish();
                self.dirty.push(number);
            }
        }
    }

    /// The exit code of the last run.
    pub(crate) fn last_code(&self) -> i32 {
        match &self.phase {
            Phase::Waiting | Phase::Running { .. } => 0,
            Phase::Restarting { code, .. } | Phase::Exited { code, .. } => *code,
        }
    }
}
