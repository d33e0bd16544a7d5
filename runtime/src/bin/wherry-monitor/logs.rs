//! Clients that follow the log.
//!
//! They read the file, from where they stand, when they have taken what they were sent: a slow client costs no memory
//! and holds nobody up.

use std::os::fd::OwnedFd;
use std::time::Duration;

use wherry_container_log::{Filled, Format, Query, Reader};
use wherry_monitor_api::{Failure, FailureKind, Framing, LogDriver, LogsRequest};

use crate::client::{Client, Role};
use crate::control::{failure, system};
use crate::journal::now_ns;
use crate::monitor::Monitor;
use crate::timers::Timer;

/// Bytes that are read ahead for a client.
const AHEAD: usize = 64 << 10;
/// A client that takes everything gets so many pieces before others have their turn.
const PIECES: usize = 8;

/// A client that follows the log.
#[derive(Debug)]
pub(crate) struct Follow {
    reader: Reader,
    format: Format,
    /// There is more to read at once.
    pub(crate) behind: bool,
}

pub(crate) fn framing(framing: Framing) -> wherry_container_log::Framing {
    match framing {
        Framing::Raw => wherry_container_log::Framing::Raw,
        Framing::Multiplexed => wherry_container_log::Framing::Multiplexed,
    }
}

impl Monitor {
    /// Sends a client the log so far, and what comes until the container ends.
    pub(crate) fn follow_logs(&mut self, request: LogsRequest, socket: OwnedFd) -> Result<(), Failure> {
        let LogDriver::JsonFile(path) = &self
            .plan
            .as_ref()
            .ok_or_else(|| failure(FailureKind::State, "the container has not been started"))?
            .log
            .driver
        else {
            return Err(failure(FailureKind::State, "configured logging driver does not support reading"));
        };
        let query = Query {
            stdout: request.stdout,
            stderr: request.stderr,
            since_ns: request.since_ns,
            until_ns: request.until_ns,
            tail: request.tail,
            follow: request.follow && self.run.is_some(),
        };
        let following = query.follow;
        let reader =
            Reader::open(path, query).map_err(|error| system(format!("read {}", path.display()), &error))?;
        let format = Format {
            framing: framing(request.framing),
            timestamps: request.timestamps,
            details: request.details,
        };
        let number = self.next_number();
        let role = Role::Logs(Box::new(Follow { reader, format, behind: false }));
        let client = Client::new(&self.poller, number, socket, &request.head, request.encoding, role);
        self.clients.insert(number, client);
        if let Some(until_ns) = request.until_ns.filter(|_| following) {
            let left = u64::try_from(until_ns.saturating_sub(now_ns())).unwrap_or(0);
            self.timers.set(Timer::LogsUntil(number), Duration::from_nanos(left));
        }
        self.dirty.push(number);
        Ok(())
    }

    /// Sends a client as much as it takes.
    pub(crate) fn pump_logs(&mut self, number: u32) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        let mut piece = Vec::new();
        let mut pieces = 0;
        while client.out.len() == 0 && !client.is_closing() && !client.is_hung_up() {
            let Role::Logs(follow) = &mut client.role else { return };
            follow.behind = pieces == PIECES;
            if follow.behind {
                return;
            }
            pieces += 1;
            piece.clear();
            let filled = follow.reader.fill(&mut piece, &follow.format, AHEAD);
            client.send(&[], &piece);
            match filled {
                Ok(Filled::More) => {}
                Ok(Filled::UpToDate) => return,
                Ok(Filled::End) => client.finish(),
                Err(error) => {
                    client.finish();
                    return self.say(&format!("the log cannot be read: {error}"));
                }
            }
        }
    }

    /// The container has ended: so do they, behind its last entry.
    pub(crate) fn end_followers(&mut self) {
        for (number, client) in &mut self.clients {
            if let Role::Logs(follow) = &mut client.role {
                follow.reader.stop_following();
                self.dirty.push(*number);
            }
        }
    }

    /// The time has come up to which a client wanted the log.
    pub(crate) fn logs_until(&mut self, number: u32) {
        if let Some(Role::Logs(follow)) = self.clients.get_mut(&number).map(|client| &mut client.role) {
            follow.reader.stop_following();
            self.dirty.push(number);
        }
    }
}
