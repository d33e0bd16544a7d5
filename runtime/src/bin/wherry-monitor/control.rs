//! The engine's side: connections, calls and what is sent back.

use std::io::IoSlice;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, SocketFlags};
use wherry_ipc::Frames;
use wherry_monitor_api::{Call, Event, Failure, FailureKind, Message, Reply};

use crate::monitor::Monitor;
use crate::poll::{Flags, Polled, Poller, Source};

/// An engine that does not read for so long that this much waits for it is cut off; a new connection has the journal.
const LIMIT: usize = 4 << 20;

/// A connection from an engine.
#[derive(Debug)]
pub(crate) struct Control {
    socket: Polled,
    frames: Frames,
    /// Frames that the socket has not taken.
    out: Vec<u8>,
    pub(crate) subscribed: bool,
    broken: bool,
}

/// Who waits for a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) control: u32,
    pub(crate) call: u64,
}

/// What becomes of a request: a reply now, or one that the state machine gives later.
pub(crate) type Answer = Result<Option<Reply>, Failure>;

/// A failure without a system error.
pub(crate) fn failure(kind: FailureKind, message: impl Into<String>) -> Failure {
    Failure { kind, message: message.into(), errno: None }
}

/// A failed system call.
pub(crate) fn system(message: impl Into<String>, error: &std::io::Error) -> Failure {
    Failure { kind: FailureKind::System, message: format!("{}: {error}", message.into()), errno: None }
}

impl Control {
    pub(crate) fn new(poller: &Poller, number: u32, socket: OwnedFd) -> std::io::Result<Self> {
        let mut socket = Polled::new(poller, socket, Source::Control(number));
        socket.want(Some(Flags::IN))?;
        Ok(Self { socket, frames: Frames::default(), out: Vec::new(), subscribed: false, broken: false })
    }

    /// Gives unused memory back.
    pub(crate) fn shrink(&mut self) {
        self.frames.shrink();
    }

    fn send(&mut self, message: &Message) {
        match wherry_ipc::encode(message, 0) {
            Ok(frame) => self.out.extend_from_slice(&frame),
            // Too large to be sent: the engine would wait for ever.
            Err(_) => self.broken = true,
        }
        self.flush();
    }

    fn flush(&mut self) {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let mut sent = 0;
        while let Some(rest) = self.out.get(sent..).filter(|rest| !rest.is_empty()) {
            match rustix::net::sendmsg(
                &self.socket,
                &[IoSlice::new(rest)],
                &mut SendAncillaryBuffer::default(),
                flags,
            ) {
                Ok(n) => sent += n,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => {
                    self.broken = true;
                    break;
                }
            }
        }
        self.out.drain(..sent);
        let wanted = if self.out.is_empty() {
            self.out = Vec::new();
            Flags::IN
        } else {
            Flags::IN | Flags::OUT
        };
        self.broken |= self.out.len() > LIMIT || self.socket.want(Some(wanted)).is_err();
    }
}

impl Monitor {
    /// Takes a further engine's connection. Only root may tell a monitor anything.
    pub(crate) fn accept(&mut self) {
        let Ok(socket) = rustix::net::accept_with(self.listener.as_fd(), SocketFlags::CLOEXEC) else {
            return;
        };
        if wherry_ipc::peer_uid(&socket).ok() != Some(0) {
            self.say("a connection that is not from root was refused");
            return;
        }
        if let Err(error) = self.add_control(socket) {
            self.say(&format!("a connection cannot be waited for: {error}"));
        }
    }

    pub(crate) fn add_control(&mut self, socket: OwnedFd) -> std::io::Result<()> {
        let number = self.next_number();
        let control = Control::new(&self.poller, number, socket)?;
        self.controls.insert(number, control);
        Ok(())
    }

    /// Something happened on an engine's connection.
    pub(crate) fn control_ready(&mut self, number: u32, flags: Flags) {
        let Some(control) = self.controls.get_mut(&number) else { return };
        if flags.contains(Flags::OUT) {
            control.flush();
        }
        if flags.intersects(Flags::IN | Flags::HUP | Flags::ERR)
            && control.frames.fill(control.socket.as_fd()).is_err()
        {
            control.broken = true;
        }
        self.answer_calls(number);
        self.drop_broken_controls();
    }

    fn answer_calls(&mut self, number: u32) {
        loop {
            let Some(control) = self.controls.get_mut(&number) else { return };
            match control.frames.message::<Call>() {
                Ok(Some((call, fds))) => {
                    self.dispatch(Caller { control: number, call: call.id }, call.request, fds)
                }
                Ok(None) => return,
                Err(error) => {
                    control.broken = true;
                    return self.say(&format!("the engine sent a malformed message: {error}"));
                }
            }
        }
    }

    /// Answers a call; nobody may be left to hear it.
    pub(crate) fn reply(&mut self, caller: Caller, result: Result<Reply, Failure>) {
        if let Some(control) = self.controls.get_mut(&caller.control) {
            control.send(&Message::Reply { id: caller.call, result });
        }
    }

    /// Sends an event to one connection.
    pub(crate) fn send_event(&mut self, number: u32, event: Event) {
        if let Some(control) = self.controls.get_mut(&number) {
            control.send(&Message::Event(event));
        }
    }

    /// Forgets connections that have ended. Nothing else changes: a container does not need the engine.
    pub(crate) fn drop_broken_controls(&mut self) {
        let before = self.controls.len();
        self.controls.retain(|_, control| !control.broken);
        if before > 0 && self.controls.is_empty() {
            self.engine_gone();
        }
    }

    /// Whether all replies have been taken.
    pub(crate) fn controls_are_flushed(&self) -> bool {
        self.controls.values().all(|control| control.out.is_empty())
    }
}
