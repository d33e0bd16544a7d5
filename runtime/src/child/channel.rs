//! What the child and its parent say to each other: packets on a socket pair.

use std::cell::Cell;
use std::ffi::CStr;
use std::fmt::{self, Write as _};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

use super::Failure;
use crate::error::{Error, Step};

/// The child failed: step (1 byte), errno (4 bytes), subject; after a NUL what a hook has said.
pub(crate) const FAILED: u8 = b'E';
/// The child's terminal; its master comes along.
pub(crate) const TERMINAL: u8 = b'T';
/// The listener of the child's seccomp filter comes along.
pub(crate) const LISTENER: u8 = b'L';
/// A mount comes along whose ids the parent is to map.
pub(crate) const MAP_IDS: u8 = b'M';
/// The child waits for the hooks that the parent runs.
pub(crate) const HOOKS: u8 = b'H';
/// The child is ready and waits for the start.
pub(crate) const CREATED: u8 = b'C';
/// The process in between tells the child's pid (4 bytes).
pub(crate) const PID: u8 = b'P';
/// The child tells what it does: a line.
pub(crate) const TRACE: u8 = b'D';
/// Parent to child: the `tasks` files of the cgroups come along; the second byte says whether the last is
/// that of the device rules.
pub(crate) const CGROUPS: u8 = b'G';
/// Parent to child: go on.
pub(crate) const GO: u8 = b'g';

/// The most version 1 cgroups that are sent.
pub(crate) const CGROUPS_MAX: usize = 24;

/// The longest packet. Longer subjects are cut.
pub(crate) const PACKET_MAX: usize = 4200;

/// The longest line that a child tells. Longer ones are cut.
const LINE_MAX: usize = 400;

/// One end.
#[derive(Debug)]
pub(crate) struct Channel {
    socket: OwnedFd,
    /// Whether the other side wants to know what is being done.
    traced: Cell<bool>,
}

/// The cgroups that the parent has made: `tasks` files.
#[derive(Debug)]
pub(crate) struct Cgroups {
    /// To enter at once.
    pub(crate) tasks: [Option<OwnedFd>; CGROUPS_MAX],
    /// To enter when the device nodes have been made.
    pub(crate) devices: Option<OwnedFd>,
}

/// A packet's length, and the descriptor that came along.
pub(crate) struct Received {
    pub(crate) length: usize,
    pub(crate) fd: Option<OwnedFd>,
}

impl Channel {
    /// Two connected ends.
    pub(crate) fn pair() -> Result<(Channel, Channel), Errno> {
        let (a, b) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Channel::from_socket(a), Channel::from_socket(b)))
    }

    /// An end from a socket.
    pub(crate) fn from_socket(socket: OwnedFd) -> Channel {
        Channel { socket, traced: Cell::new(false) }
    }

    /// The same end, on which the child tells what it does if somebody wants to know.
    pub(crate) fn traced(self, traced: bool) -> Channel {
        self.traced.set(traced);
        self
    }

    /// Nothing more is told: a filter that is in force might forbid it.
    pub(crate) fn fall_silent(&self) {
        self.traced.set(false);
    }

    /// Tells what is being done. It is not for that to fail.
    pub(crate) fn trace(&self, line: fmt::Arguments<'_>) {
        if self.traced.get() {
            let mut text = Line { bytes: [0; LINE_MAX], length: 0 };
            let _ = text.write_fmt(line); // what is too long is cut
            let text = text.bytes.get(..text.length).unwrap_or_default();
            let _ = self.send(&[IoSlice::new(&[TRACE]), IoSlice::new(text)], &[]);
        }
    }

    /// The same of the making and joining of namespaces, with this process's id as it sees it itself, as runc has it.
    pub(crate) fn trace_namespaces(&self, line: fmt::Arguments<'_>) {
        if self.traced.get() {
            let pid = rustix::process::getpid().as_raw_nonzero();
            self.trace(format_args!("nsexec[{pid}]: {line}"));
        }
    }

    /// Sends one byte.
    pub(crate) fn tell(&self, what: u8) -> Result<(), Errno> {
        self.send(&[IoSlice::new(&[what])], &[])
    }

    /// Sends a pid.
    pub(crate) fn tell_pid(&self, pid: i32) -> Result<(), Errno> {
        self.send(&[IoSlice::new(&[PID]), IoSlice::new(&pid.to_ne_bytes())], &[])
    }

    /// Sends a descriptor: a terminal's master ([`TERMINAL`]) or a filter's listener ([`LISTENER`]).
    pub(crate) fn send_descriptor(&self, what: u8, fd: BorrowedFd<'_>) -> Result<(), Errno> {
        self.send(&[IoSlice::new(&[what])], &[fd])
    }

    /// Sends cgroups' `tasks` files, at most [`CGROUPS_MAX`].
    pub(crate) fn send_cgroups(&self, tasks: &[OwnedFd], devices: Option<&OwnedFd>) -> Result<(), Errno> {
        let fds: Vec<BorrowedFd<'_>> = tasks.iter().chain(devices).map(AsFd::as_fd).collect();
        self.send(&[IoSlice::new(&[CGROUPS, u8::from(devices.is_some())])], &fds)
    }

    /// Receives them.
    pub(crate) fn receive_cgroups(&self) -> Result<Cgroups, Errno> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(CGROUPS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut bytes = [0; 2];
        let length = loop {
            let parts = &mut [IoSliceMut::new(&mut bytes)];
            match rustix::net::recvmsg(&self.socket, parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Err(Errno::INTR) => {}
                other => break other?.bytes,
            }
        };
        let mut cgroups = Cgroups { tasks: [const { None }; CGROUPS_MAX], devices: None };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                for (place, fd) in cgroups.tasks.iter_mut().zip(fds) {
                    *place = Some(fd);
                }
            }
        }
        match (length, bytes) {
            (2, [CGROUPS, 0]) => Ok(cgroups),
            (2, [CGROUPS, 1]) => {
                cgroups.devices = cgroups.tasks.iter_mut().rev().find_map(Option::take);
                Ok(cgroups)
            }
            _ => Err(Errno::PIPE),
        }
    }

    /// Sends a failure, and what was said about it; there is nobody to tell if that fails.
    pub(crate) fn report(&self, failure: &Failure<'_>, said: &[u8]) {
        let subject = failure.subject.to_bytes_with_nul();
        let subject = if said.is_empty() { failure.subject.to_bytes() } else { subject };
        let subject = subject.get(..PACKET_MAX - 6).unwrap_or(subject);
        let said = said.get(..PACKET_MAX - 6 - subject.len()).unwrap_or(said);
        let errno = failure.errno.raw_os_error().to_ne_bytes();
        let head = [FAILED, failure.step as u8];
        let parts = [&head[..], &errno, subject, said].map(IoSlice::new);
        let _ = self.send(&parts, &[]);
    }

    /// Waits until the other side says `what`. If it has gone or says something else, that is `EPIPE`.
    pub(crate) fn wait_for(&self, what: u8) -> Result<(), Errno> {
        let mut byte = [0_u8];
        let length = loop {
            match rustix::net::recv(&self.socket, &mut byte, RecvFlags::empty()) {
                Err(Errno::INTR) => {}
                other => break other?.0,
            }
        };
        if length == 1 && byte[0] == what { Ok(()) } else { Err(Errno::PIPE) }
    }

    /// Receives a packet; length 0 when the other side has gone.
    pub(crate) fn receive(&self, buffer: &mut [u8; PACKET_MAX]) -> Result<Received, Errno> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let length = loop {
            let parts = &mut [IoSliceMut::new(buffer)];
            match rustix::net::recvmsg(&self.socket, parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
                // CONNRESET: the child ended with something of ours unread. That is told once, and before
                // its last words, which are still there.
                Err(Errno::INTR | Errno::CONNRESET) => {}
                other => break other?.bytes,
            }
        };
        let mut fd = None;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                fd = fds.into_iter().next();
            }
        }
        Ok(Received { length, fd })
    }

    fn send(&self, parts: &[IoSlice<'_>], fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(CGROUPS_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(Errno::INVAL);
        }
        loop {
            match rustix::net::sendmsg(&self.socket, parts, &mut control, SendFlags::NOSIGNAL) {
                Err(Errno::INTR) => {}
                other => return other.map(drop),
            }
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A line in the making; nothing is allocated.
struct Line {
    bytes: [u8; LINE_MAX],
    length: usize,
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            *self.bytes.get_mut(self.length).ok_or(fmt::Error)? = byte;
            self.length += 1;
        }
        Ok(())
    }
}

/// What a child tells of its doing, if the packet is that.
pub(crate) fn parse_trace(packet: &[u8]) -> Option<String> {
    packet
        .strip_prefix(&[TRACE])
        .filter(|line| !line.is_empty())
        .map(|l| String::from_utf8_lossy(l).into_owned())
}

/// A failure as the parent gets it.
pub(crate) fn parse_failure(packet: &[u8]) -> Option<Error> {
    let (head, rest) = packet.split_at_checked(6)?;
    let [FAILED, step, a, b, c, d] = *head else { return None };
    let rest = String::from_utf8_lossy(rest);
    let (subject, said) = rest.split_once('\0').unwrap_or((&rest, ""));
    let errno = i32::from_ne_bytes([a, b, c, d]);
    Some(Error::from_report(Step::from_number(step)?, errno, subject.to_owned(), said))
}

/// Nothing in particular.
pub(crate) const NO_SUBJECT: &CStr = c"";
