//! Taking a client's socket away from the HTTP connection.
//!
//! A handler that answers [`super::Reply::Hijack`] gets the socket itself, and the bytes
//! that were read beyond the request; hyper has then written nothing. This is
//! how attach, exec, `logs -f` and wait reach a container's monitor: the socket
//! goes there and the engine is no longer part of the conversation.

use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;

use super::stream::Stream;

/// What a handler does with the client that it took.
pub(crate) type Hijack = Box<dyn FnOnce(Client) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// A client's socket, taken.
#[derive(Debug)]
pub(crate) struct Client {
    /// The socket.
    pub(crate) stream: Stream,
    /// Bytes that the client sent behind its request.
    pub(crate) already_read: Vec<u8>,
}

impl Client {
    /// The client as a stream of bytes, those that came already first.
    pub(crate) fn into_io(self) -> Rejoined {
        Rejoined { ahead: Bytes::from(self.already_read), stream: self.stream }
    }

    /// The client as the descriptor of a Unix socket, to be passed to another process.
    ///
    /// A TCP client is relayed by a task over a socket pair: its far end is what is returned, so
    /// that session ends with the engine.
    ///
    /// # Errors
    /// Those of making the pair.
    pub(crate) fn into_unix(self) -> io::Result<(OwnedFd, Vec<u8>)> {
        match self.stream {
            Stream::Unix(stream) => Ok((stream.into_std()?.into(), self.already_read)),
            Stream::Tcp(mut tcp) => {
                let (mut near, far) = UnixStream::pair()?;
                tokio::spawn(async move {
                    // Either side may vanish at any time; there is nobody to tell.
                    let _ = tokio::io::copy_bidirectional(&mut tcp, &mut near).await;
                });
                Ok((far.into_std()?.into(), self.already_read))
            }
        }
    }
}

/// A client's bytes, those that were read with its request first.
#[derive(Debug)]
pub(crate) struct Rejoined {
    ahead: Bytes,
    stream: Stream,
}

impl AsyncRead for Rejoined {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.ahead.is_empty() {
            return Pin::new(&mut this.stream).poll_read(cx, buf);
        }
        let length = this.ahead.len().min(buf.remaining());
        buf.put_slice(&this.ahead.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Rejoined {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
