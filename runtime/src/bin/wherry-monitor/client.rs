//! A client's socket, handed over by the engine.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{RecvFlags, Shutdown};
use wherry_monitor_api::BodyEncoding;

use crate::attach::Attach;
use crate::logs::Follow;
use crate::outbox::Outbox;
use crate::poll::{Flags, Polled, Poller, Source};
use crate::wait::Waiting;

/// What a client is there for.
#[derive(Debug)]
pub(crate) enum Role {
    Attach(Attach),
    Wait(Waiting),
    Logs(Box<Follow>),
}

/// A client.
#[derive(Debug)]
pub(crate) struct Client {
    socket: Polled,
    pub(crate) out: Outbox,
    pub(crate) role: Role,
    /// The body is complete: the client goes once it has taken all of it.
    closing: bool,
    /// The peer has closed its socket: nothing can be sent any more, though input may still be there.
    hung_up: bool,
}

impl Client {
    /// Registers a client and writes the response's head to it.
    pub(crate) fn new(
        poller: &Poller,
        number: u32,
        socket: OwnedFd,
        head: &[u8],
        encoding: BodyEncoding,
        role: Role,
    ) -> Self {
        let mut out = Outbox::new(encoding);
        out.push_head(head);
        let mut client = Self {
            socket: Polled::new(poller, socket, Source::Client(number)),
            out,
            role,
            closing: false,
            hung_up: false,
        };
        client.flush();
        client
    }

    /// Sends a piece of the body in two parts.
    pub(crate) fn send(&mut self, header: &[u8], bytes: &[u8]) {
        if self.hung_up || self.closing {
            return;
        }
        if self.out.send(self.socket.as_fd(), header, bytes).is_err() {
            self.hang_up();
        }
    }

    /// Sends what the socket takes now.
    pub(crate) fn flush(&mut self) {
        if !self.hung_up && self.out.flush(self.socket.as_fd()).is_err() {
            self.hang_up();
        }
    }

    /// Ends the body.
    pub(crate) fn finish(&mut self) {
        if !self.closing {
            self.closing = true;
            self.out.push_end();
            self.flush();
        }
    }

    /// The peer is gone.
    pub(crate) fn hang_up(&mut self) {
        self.hung_up = true;
        self.out.clear();
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing
    }

    pub(crate) fn is_hung_up(&self) -> bool {
        self.hung_up
    }

    /// Whether what it sends is input, and has not ended.
    pub(crate) fn reads_input(&self) -> bool {
        !self.closing && matches!(&self.role, Role::Attach(attach) if attach.stdin)
    }

    /// Whether nothing is left to do for it; `unread` if it may have sent what is still to be read.
    pub(crate) fn is_done(&self, unread: bool) -> bool {
        if self.hung_up { !unread } else { self.closing && self.out.len() == 0 }
    }

    /// Reads what the client sent, without waiting. Zero at the end.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        let received =
            rustix::io::retry_on_intr(|| rustix::net::recv(&self.socket, &mut *buffer, RecvFlags::DONTWAIT));
        received.map(|(read, _)| read)
    }

    /// Waits for what matters: `input` says whether there is room for what the client sends.
    pub(crate) fn wait_for(&mut self, input: bool) -> io::Result<()> {
        if self.hung_up {
            // Its hang-up would be reported again and again.
            return self.socket.want(None);
        }
        let mut flags = Flags::empty();
        if self.out.is_held() {
            // There is room all the time: what matters is when the client reads, at which the kernel wakes us.
            flags |= Flags::OUT | Flags::ET;
        } else if self.out.len() > 0 {
            flags |= Flags::OUT;
        }
        match self.role {
            Role::Attach(_) if input => flags |= Flags::IN,
            Role::Attach(_) => {}
            // One that only listens and closes its side is gone, as dockerd sees it, too.
            Role::Wait(_) | Role::Logs(_) => flags |= Flags::RDHUP,
        }
        if matches!(&self.role, Role::Logs(follow) if follow.behind) {
            flags |= Flags::OUT;
        }
        self.socket.want(Some(flags))
    }

    /// Closes the connection so that the peer sees an orderly end: a Unix socket that is closed with
    /// unread input resets the connection.
    pub(crate) fn close(self) {
        // Errors mean that it is closed already.
        let _ = rustix::net::shutdown(&self.socket, Shutdown::Both);
        let mut rest = [0; 4096];
        while matches!(self.receive(&mut rest), Ok(1..)) {}
    }
}
