//! The socket to a log server.

use std::io::{IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType, connect, sendmsg, socket_with, sockopt,
};
use wherry_monitor_api::{LogTarget, TlsServer};

use crate::poll::{Flags, Polled, Poller, Source};

/// A socket, or none.
#[derive(Debug)]
pub(crate) enum Link {
    None,
    /// A connection on its way.
    Opening(Polled),
    /// A connection.
    Stream(Polled),
    /// A program that speaks TLS has yet to connect.
    Starting {
        socket: Polled,
        answers: bool,
    },
    /// A program that says how many bytes it has sent.
    Relay(Polled),
    /// A socket for datagrams.
    Datagrams(Polled),
}

/// What came back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// From the server.
    Answer(Vec<u8>),
    /// A relay has sent so many bytes more.
    Taken(usize),
}

/// What became of a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// So much of it was taken; a datagram is taken whole.
    Bytes(usize),
    /// It must wait until the socket is ready.
    Later,
    /// It cannot be sent at all.
    Impossible,
    /// The connection is gone.
    Lost,
}

impl Link {
    /// Begins to connect.
    pub(crate) fn open(target: &LogTarget, poller: &Poller) -> Result<Self, Errno> {
        let socket =
            |family, kind| socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None);
        let family = |address: &std::net::SocketAddr| match address {
            std::net::SocketAddr::V4(_) => AddressFamily::INET,
            std::net::SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let (fd, connected, datagrams) = match target {
            LogTarget::Udp(address) => {
                let fd = socket(family(address), SocketType::DGRAM)?;
                let connected = connect(&fd, address);
                (fd, connected, true)
            }
            LogTarget::Tcp(address) => {
                let fd = socket(family(address), SocketType::STREAM)?;
                let connected = connect(&fd, address);
                (fd, connected, false)
            }
            LogTarget::UnixStream(path) => {
                let fd = socket(AddressFamily::UNIX, SocketType::STREAM)?;
                let connected = connect(&fd, &SocketAddrUnix::new(path.as_path())?);
                (fd, connected, false)
            }
            LogTarget::UnixDatagram(path) => {
                let fd = socket(AddressFamily::UNIX, SocketType::DGRAM)?;
                let connected = connect(&fd, &SocketAddrUnix::new(path.as_path())?);
                (fd, connected, true)
            }
            LogTarget::Tls(server) => return Self::start_relay(server, poller),
        };
        Self::of(fd, connected, datagrams, poller)
    }

    /// It is reaped with the container's orphans.
    fn start_relay(server: &TlsServer, poller: &Poller) -> Result<Self, Errno> {
        let errno = |e: std::io::Error| Errno::from_io_error(&e).unwrap_or(Errno::IO);
        let (ours, theirs) = UnixStream::pair().map_err(errno)?;
        ours.set_nonblocking(true).map_err(errno)?;
        let settings = serde_json::to_string(server).map_err(|_| Errno::INVAL)?;
        let mut command = Command::new(&server.program);
        command.arg("log-relay").arg(settings).stdin(OwnedFd::from(theirs)).stdout(Stdio::null());
        command.spawn().map_err(errno)?;
        let mut socket = Polled::new(poller, ours.into(), Source::LogServer);
        socket.want(Some(Flags::RDHUP | Flags::IN)).map_err(errno)?;
        Ok(Self::Starting { socket, answers: server.answers })
    }

    fn of(
        fd: OwnedFd,
        connected: Result<(), Errno>,
        datagrams: bool,
        poller: &Poller,
    ) -> Result<Self, Errno> {
        let mut polled = Polled::new(poller, fd, Source::LogServer);
        let mut want =
            |flags| polled.want(Some(flags)).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO));
        match connected {
            Ok(()) if datagrams => Ok(Self::Datagrams(polled)),
            Ok(()) => {
                want(Flags::RDHUP | Flags::IN)?;
                Ok(Self::Stream(polled))
            }
            Err(Errno::INPROGRESS) => {
                want(Flags::OUT)?;
                Ok(Self::Opening(polled))
            }
            Err(error) => Err(error),
        }
    }

    pub(crate) fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    /// Whether it tells what has been sent, so that nothing counts as sent before.
    pub(crate) fn counts(&self) -> bool {
        matches!(self, Self::Relay(_))
    }

    /// Sends what the socket takes of a message; asks to be told when it takes more.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Sent {
        let (socket, datagrams) = match self {
            Self::None => return Sent::Lost,
            Self::Opening(_) | Self::Starting { .. } => return Sent::Later,
            Self::Stream(socket) | Self::Relay(socket) => (socket, false),
            Self::Datagrams(socket) => (socket, true),
        };
        let sent = if datagrams { send_datagrams(socket, bytes) } else { send_some(socket, bytes) };
        match sent {
            Ok(count) => Sent::Bytes(count),
            Err(Errno::AGAIN | Errno::NOBUFS) => {
                let reading = if datagrams { Flags::empty() } else { Flags::RDHUP | Flags::IN };
                if socket.want(Some(reading | Flags::OUT)).is_err() { Sent::Lost } else { Sent::Later }
            }
            Err(Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::MSGSIZE | Errno::PERM) if datagrams => {
                Sent::Impossible
            }
            Err(_) => Sent::Lost,
        }
    }

    /// Nothing waits: it need not be told when there is room.
    pub(crate) fn rest(&mut self) {
        let rested = match self {
            Self::Stream(socket) | Self::Relay(socket) => socket.want(Some(Flags::RDHUP | Flags::IN)),
            Self::Datagrams(socket) => socket.want(None),
            Self::None | Self::Opening(_) | Self::Starting { .. } => Ok(()),
        };
        if rested.is_err() {
            *self = Self::None;
        }
    }

    /// Something happened; gives what came back.
    pub(crate) fn ready(&mut self, flags: Flags) -> Result<Said, Errno> {
        let nothing = Ok(Said::Answer(Vec::new()));
        match std::mem::replace(self, Self::None) {
            Self::Opening(mut socket) => {
                sockopt::socket_error(&socket)??;
                let wanted = Some(Flags::RDHUP | Flags::IN);
                socket.want(wanted).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
                *self = Self::Stream(socket);
                nothing
            }
            Self::Stream(socket) => {
                let answer = read(&socket, flags)?;
                *self = Self::Stream(socket);
                Ok(Said::Answer(answer))
            }
            Self::Starting { socket, answers } => {
                let said = read(&socket, flags)?;
                match said.get(4..) {
                    None => *self = Self::Starting { socket, answers },
                    Some(answer) if answers => {
                        *self = Self::Stream(socket);
                        return Ok(Said::Answer(answer.to_vec()));
                    }
                    Some(_) => *self = Self::Relay(socket),
                }
                nothing
            }
            Self::Relay(socket) => {
                let said = read(&socket, flags)?;
                *self = Self::Relay(socket);
                let (numbers, _) = said.as_chunks::<4>();
                Ok(Said::Taken(numbers.iter().map(|number| u32::from_be_bytes(*number) as usize).sum()))
            }
            Self::Datagrams(socket) => {
                // Reading the error clears it; the next message will tell whether somebody listens again.
                let _ = sockopt::socket_error(&socket);
                *self = Self::Datagrams(socket);
                nothing
            }
            Self::None => nothing,
        }
    }
}

/// What there is to read, which may be nothing. Its length is a multiple of that of a relay's numbers.
fn read(socket: &Polled, flags: Flags) -> Result<Vec<u8>, Errno> {
    let mut bytes = vec![0; 4096];
    let read = match rustix::io::read(socket, &mut bytes[..]) {
        Ok(0) => return Err(Errno::PIPE),
        Ok(read) => read,
        Err(Errno::AGAIN | Errno::INTR) if !flags.intersects(Flags::HUP | Flags::ERR) => 0,
        Err(error) => return Err(error),
    };
    bytes.truncate(read);
    Ok(bytes)
}

fn send_some(socket: &Polled, bytes: &[u8]) -> Result<usize, Errno> {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    rustix::io::retry_on_intr(|| {
        sendmsg(socket, &[IoSlice::new(bytes)], &mut SendAncillaryBuffer::default(), flags)
    })
}

/// A message is one datagram, or several with their lengths before them ([`super::gelf`] cuts them).
fn send_datagrams(socket: &Polled, message: &[u8]) -> Result<usize, Errno> {
    let mut rest = message;
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = u32::from_be_bytes(*length) as usize;
        let (datagram, after) = after.split_at_checked(length).unwrap_or((after, &[]));
        let sent = match send_some(socket, datagram) {
            // What became of an earlier one; it is said once.
            Err(Errno::CONNREFUSED) => send_some(socket, datagram),
            sent => sent,
        };
        match sent {
            Err(Errno::MSGSIZE) => send_as_file(socket, datagram)?,
            Err(Errno::AGAIN) if rest.len() < message.len() => return Ok(message.len() - rest.len()),
            other => {
                other?;
            }
        }
        rest = after;
    }
    Ok(message.len())
}

/// journald takes what is too long for a datagram as a sealed file.
fn send_as_file(socket: &Polled, datagram: &[u8]) -> Result<(), Errno> {
    let file = memfd_create("journal-message", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut file = std::fs::File::from(file);
    file.write_all(datagram).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
    fcntl_add_seals(&file, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
    let fds = [file.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&fds));
    sendmsg(socket, &[IoSlice::new(&[])], &mut control, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
    Ok(())
}

/// A message of one datagram.
pub(super) fn datagram(bytes: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(bytes.len() + 4);
    push_datagram(bytes, &mut message);
    message
}

/// Appends a datagram to a message.
pub(super) fn push_datagram(bytes: &[u8], message: &mut Vec<u8>) {
    message.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    message.extend_from_slice(bytes);
}
