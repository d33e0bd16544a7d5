//! Typed messages, with file descriptors attached, over Unix stream sockets:
//! how the engine talks to monitors and to netd.
//!
//! A frame is a little-endian `u32` length of the body, a `u8` count of
//! descriptors, and the body in JSON. Descriptors travel as SCM_RIGHTS with the
//! frame's bytes. No threads, no async runtime: [`send`] and [`Frames::fill`] work
//! on blocking and non-blocking sockets alike, so that the monitor's epoll
//! loop, netd's threads and the engine's tokio can all use them. This crate does
//! not know what the messages mean.

mod socket;
mod unread;

use std::collections::VecDeque;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use socket::{connect, listen, peer_uid};
pub use unread::unread_bytes;

/// The largest body of a frame, in bytes; a longer one is refused by both sides.
pub const MAX_BODY: usize = 16 << 20;
/// The most descriptors that one frame may carry.
pub const MAX_FDS: usize = 8;
const HEADER: usize = 5;

/// Why a message could not be sent or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket failed; `WouldBlock` on a non-blocking one means "later".
    #[error("socket: {0}")]
    Socket(#[from] io::Error),
    /// The body is not the JSON of the expected type.
    #[error("message does not parse: {0}")]
    Parse(#[from] serde_json::Error),
    /// The frame's header promises more than [`MAX_BODY`] bytes or [`MAX_FDS`] descriptors.
    #[error("frame of {body} bytes with {fds} descriptors is over the limit")]
    TooLarge {
        /// Bytes of the body.
        body: usize,
        /// Count of descriptors.
        fds: usize,
    },
    /// The frame's descriptors did not arrive with its bytes.
    #[error("a descriptor of the frame is missing")]
    MissingFd,
    /// The peer closed the connection, between frames or within one.
    #[error("the peer closed the connection")]
    Closed,
}

/// A message as the bytes of one frame.
///
/// # Errors
/// [`Error::Parse`] if `message` cannot be serialised, [`Error::TooLarge`] past the limits.
pub fn encode<T: Serialize + ?Sized>(message: &T, fds: usize) -> Result<Vec<u8>, Error> {
    let mut frame = vec![0; HEADER];
    serde_json::to_writer(&mut frame, message)?;
    let body = frame.len() - HEADER;
    if body > MAX_BODY || fds > MAX_FDS {
        return Err(Error::TooLarge { body, fds });
    }
    frame[..4].copy_from_slice(&(body as u32).to_le_bytes());
    frame[4] = fds as u8;
    Ok(frame)
}

/// Sends one message with `fds` attached, whole, waiting (by poll) where a non-blocking socket is full.
///
/// # Errors
/// As [`encode`]; [`Error::Socket`] when the peer is gone, and with `TimedOut` when a blocking socket with a timeout stays full.
/// SIGPIPE is never raised.
pub fn send<T: Serialize + ?Sized>(
    socket: impl AsFd,
    message: &T,
    fds: &[BorrowedFd<'_>],
) -> Result<(), Error> {
    let frame = encode(message, fds.len())?;
    let mut sent = 0;
    while sent < frame.len() {
        // The descriptors go with the first byte, once.
        let attached: &[BorrowedFd<'_>] = if sent == 0 { fds } else { &[] };
        match send_some(socket.as_fd(), &frame[sent..], attached) {
            Ok(n) => sent += n,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => socket::wait_writable(socket.as_fd())?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

fn send_some(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(fds));
    }
    Ok(rustix::net::sendmsg(socket, &[io::IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?)
}

/// Waits for one whole message on a blocking socket that carries nothing else behind it in
/// the same read (request, then answer). For streams of messages keep a [`Frames`].
///
/// # Errors
/// See [`Frames::fill`] and [`Frames::message`].
pub fn receive<T: DeserializeOwned>(socket: impl AsFd) -> Result<(T, Vec<OwnedFd>), Error> {
    let mut frames = Frames::default();
    loop {
        if let Some(message) = frames.message()? {
            return Ok(message);
        }
        frames.fill(socket.as_fd())?;
    }
}

/// Bytes and descriptors that have arrived on one socket and are not yet a message.
#[derive(Debug, Default)]
pub struct Frames {
    bytes: Vec<u8>,
    fds: VecDeque<OwnedFd>,
}

impl Frames {
    /// Reads once from the socket and keeps what arrived.
    ///
    /// # Errors
    /// [`Error::Closed`] at the end of the stream; [`Error::Socket`] with `WouldBlock` when a
    /// non-blocking socket has nothing.
    pub fn fill(&mut self, socket: BorrowedFd<'_>) -> Result<(), Error> {
        let mut buffer = [0u8; 16 << 10];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS * 4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            match rustix::net::recvmsg(
                socket,
                &mut [io::IoSliceMut::new(&mut buffer)],
                &mut control,
                RecvFlags::CMSG_CLOEXEC,
            ) {
                Ok(received) => break received.bytes,
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(io::Error::from(e).into()),
            }
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                self.fds.extend(fds);
            }
        }
        if received == 0 {
            return Err(Error::Closed);
        }
        self.bytes.extend_from_slice(&buffer[..received]);
        Ok(())
    }

    /// Gives memory back that a large message has left.
    pub fn shrink(&mut self) {
        self.bytes.shrink_to_fit();
        self.fds.shrink_to_fit();
    }

    /// The next whole message, with its descriptors; `None` until more bytes arrive.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::MissingFd`] and [`Error::Parse`]: the stream is then of no further use.
    pub fn message<T: DeserializeOwned>(&mut self) -> Result<Option<(T, Vec<OwnedFd>)>, Error> {
        let Some((length, rest)) = self.bytes.split_first_chunk::<4>() else { return Ok(None) };
        let (body, Some(&fds)) = (u32::from_le_bytes(*length) as usize, rest.first()) else {
            return Ok(None);
        };
        let fds = usize::from(fds);
        if body > MAX_BODY || fds > MAX_FDS {
            return Err(Error::TooLarge { body, fds });
        }
        let Some(bytes) = rest.get(1..1 + body) else { return Ok(None) };
        if self.fds.len() < fds {
            return Err(Error::MissingFd);
        }
        let message = serde_json::from_slice(bytes)?;
        self.bytes.drain(..HEADER + body);
        Ok(Some((message, self.fds.drain(..fds).collect())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn messages_arrive_in_order_with_their_own_descriptors() {
        let (a, b) = UnixStream::pair().unwrap();
        let (mut pipe_read, pipe_write) = UnixStream::pair().unwrap();
        send(&a, "first", &[]).unwrap();
        send(&a, "second", &[pipe_write.as_fd()]).unwrap();
        drop(pipe_write);
        let mut frames = Frames::default();
        let mut got = Vec::new();
        while got.len() < 2 {
            frames.fill(b.as_fd()).unwrap();
            while let Some((text, fds)) = frames.message::<String>().unwrap() {
                got.push((text, fds));
            }
        }
        assert_eq!((got[0].0.as_str(), got[0].1.len()), ("first", 0));
        assert_eq!((got[1].0.as_str(), got[1].1.len()), ("second", 1));
        UnixStream::from(got.remove(1).1.remove(0)).write_all(b"x").unwrap();
        let mut text = String::new();
        pipe_read.read_to_string(&mut text).unwrap();
        assert_eq!(text, "x");
    }

    #[test]
    fn a_large_message_passes_a_small_non_blocking_buffer() {
        let (a, b) = UnixStream::pair().unwrap();
        a.set_nonblocking(true).unwrap();
        let text = "x".repeat(4 << 20);
        let copy = text.clone();
        let sender = std::thread::spawn(move || send(&a, &copy, &[]).unwrap());
        assert_eq!(receive::<String>(&b).unwrap().0, text);
        sender.join().unwrap();
    }

    #[test]
    fn a_blocking_sockets_timeout_holds() {
        let (a, _b) = UnixStream::pair().unwrap();
        a.set_write_timeout(Some(std::time::Duration::from_millis(100))).unwrap();
        let sent = send(&a, &"x".repeat(4 << 20), &[]);
        assert!(matches!(&sent, Err(Error::Socket(e)) if e.kind() == io::ErrorKind::TimedOut), "{sent:?}");
    }

    #[test]
    fn hostile_headers_are_refused() {
        for header in [[0xff, 0xff, 0xff, 0xff, 0], [1, 0, 0, 0, 200]] {
            let (mut a, b) = UnixStream::pair().unwrap();
            a.write_all(&header).unwrap();
            assert!(matches!(receive::<String>(&b), Err(Error::TooLarge { .. })));
        }
        let (mut a, b) = UnixStream::pair().unwrap();
        a.write_all(&[2, 0, 0, 0, 1, b'"', b'"']).unwrap();
        assert!(matches!(receive::<String>(&b), Err(Error::MissingFd)));
    }
}
