//! What is on its way to a client.

use std::io::{IoSlice, Write};
use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags};
use wherry_monitor_api::BodyEncoding;

/// Bytes that a socket has not taken yet. The socket may block, as it shares its open file with the engine's
/// descriptor: every send says for itself that it does not wait.
///
/// On a connection that is taken over, the body waits until the client has read the head. Clients such as docker-py read the
/// head through a buffer of their HTTP library and the rest past it, so that what came together with the head is lost to
/// them; a slower engine never sends it so early.
#[derive(Debug)]
pub(crate) struct Outbox {
    encoding: BodyEncoding,
    bytes: Vec<u8>,
    start: usize,
    /// How many of the bytes belong to the head.
    head_left: usize,
    /// Whether the client may not have read the head.
    head_unread: bool,
}

impl Outbox {
    pub(crate) fn new(encoding: BodyEncoding) -> Self {
        Self { encoding, bytes: Vec::new(), start: 0, head_left: 0, head_unread: false }
    }

    /// Bytes that wait.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Queues bytes outside the body: the response's head.
    pub(crate) fn push_head(&mut self, head: &[u8]) {
        self.bytes.extend_from_slice(head);
        self.head_left += head.len();
        self.head_unread = self.encoding == BodyEncoding::UntilClose;
    }

    /// Whether the body waits for the client to read the head.
    pub(crate) fn is_held(&self) -> bool {
        self.head_unread && self.head_left == 0 && self.len() > 0
    }

    /// Queues a piece of the body.
    pub(crate) fn push(&mut self, piece: &[u8]) {
        if piece.is_empty() {
            return;
        }
        if self.encoding == BodyEncoding::Chunked {
            // Writing to a vector cannot fail.
            let _ = write!(self.bytes, "{:x}\r\n", piece.len());
        }
        self.bytes.extend_from_slice(piece);
        if self.encoding == BodyEncoding::Chunked {
            self.bytes.extend_from_slice(b"\r\n");
        }
    }

    /// Queues the end of the body.
    pub(crate) fn push_end(&mut self) {
        if self.encoding == BodyEncoding::Chunked {
            self.bytes.extend_from_slice(b"0\r\n\r\n");
        }
    }

    /// Sends a piece of the body in two parts, without a copy where the socket takes it at once.
    pub(crate) fn send(&mut self, socket: BorrowedFd<'_>, header: &[u8], bytes: &[u8]) -> Result<(), Errno> {
        if self.len() > 0 || self.encoding == BodyEncoding::Chunked || self.head_unread {
            // The header is small; joining the two costs less than a second chunk.
            self.push(&[header, bytes].concat());
            return self.flush(socket);
        }
        let sent = match send_some(socket, &[IoSlice::new(header), IoSlice::new(bytes)]) {
            Ok(sent) => sent,
            Err(Errno::AGAIN) => 0,
            Err(e) => return Err(e),
        };
        self.bytes.extend_from_slice(header.get(sent..).unwrap_or_default());
        self.bytes.extend_from_slice(bytes.get(sent.saturating_sub(header.len())..).unwrap_or_default());
        Ok(())
    }

    /// Sends what the socket takes.
    pub(crate) fn flush(&mut self, socket: BorrowedFd<'_>) -> Result<(), Errno> {
        while let Some(rest) = self.bytes.get(self.start..).filter(|rest| !rest.is_empty()) {
            let mut piece = rest;
            if self.head_unread {
                if self.head_left > 0 {
                    piece = rest.get(..self.head_left).unwrap_or(rest);
                } else if wherry_ipc::unread_bytes(socket).is_ok_and(|unread| unread > 0) {
                    return Ok(());
                } else {
                    self.head_unread = false;
                }
            }
            match send_some(socket, &[IoSlice::new(piece)]) {
                Ok(sent) => {
                    self.start += sent;
                    self.head_left = self.head_left.saturating_sub(sent);
                }
                Err(Errno::AGAIN) => {
                    self.bytes.drain(..self.start);
                    self.start = 0;
                    return Ok(());
                }
                Err(e) => return Err(e),
            }
        }
        (self.bytes, self.start) = (Vec::new(), 0);
        Ok(())
    }

    /// Forgets what waits: the client is gone.
    pub(crate) fn clear(&mut self) {
        (self.bytes, self.start) = (Vec::new(), 0);
    }
}

fn send_some(socket: BorrowedFd<'_>, parts: &[IoSlice<'_>]) -> Result<usize, Errno> {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(socket, parts, &mut SendAncillaryBuffer::default(), flags)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_slow_reader_gets_every_byte_in_order() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let mut outbox = Outbox::new(BodyEncoding::UntilClose);
        let piece: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
        for _ in 0..20 {
            outbox.send(near.as_fd(), b"header", &piece).unwrap();
        }
        assert!(outbox.len() > 1_000_000, "the socket did not take all");
        let (mut got, mut buffer) = (Vec::new(), vec![0; 65536]);
        let expect = [b"header".as_slice(), &piece].concat().repeat(20);
        while got.len() < expect.len() {
            let n = far.read(&mut buffer).unwrap();
            got.extend_from_slice(&buffer[..n]);
            outbox.flush(near.as_fd()).unwrap();
        }
        assert!(got == expect && outbox.len() == 0);
    }

    #[test]
    fn the_body_waits_until_the_head_is_read() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let mut outbox = Outbox::new(BodyEncoding::UntilClose);
        outbox.push_head(b"HEAD\r\n\r\n");
        outbox.flush(near.as_fd()).unwrap();
        outbox.send(near.as_fd(), b"12345678", b"body").unwrap();
        let mut buffer = [0; 64];
        assert!(outbox.is_held());
        assert_eq!(far.read(&mut buffer).unwrap(), 8, "the head and nothing else");
        outbox.flush(near.as_fd()).unwrap();
        assert!(!outbox.is_held() && outbox.len() == 0);
        assert_eq!(far.read(&mut buffer).unwrap(), 12);
    }

    #[test]
    fn chunks_wrap_the_body_only() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let mut outbox = Outbox::new(BodyEncoding::Chunked);
        outbox.push_head(b"HEAD\r\n\r\n");
        outbox.push(b"");
        outbox.send(near.as_fd(), b"12345678", b"hello world").unwrap();
        outbox.push_end();
        outbox.flush(near.as_fd()).unwrap();
        drop(near);
        let mut got = String::new();
        far.read_to_string(&mut got).unwrap();
        assert_eq!(got, "HEAD\r\n\r\n13\r\n12345678hello world\r\n0\r\n\r\n");
    }

    #[test]
    fn a_gone_reader_is_an_error_and_no_signal() {
        let (near, far) = UnixStream::pair().unwrap();
        drop(far);
        assert_eq!(Outbox::new(BodyEncoding::UntilClose).send(near.as_fd(), b"", b"x"), Err(Errno::PIPE));
    }
}
