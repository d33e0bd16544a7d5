//! Taking a client's socket away from the HTTP connection.
//!
//! A handler that answers [`super::Reply::Hijack`] gets the socket itself, and the bytes
//! that were read beyond the request; hyper has then written nothing. This is
//! how attach, exec, `logs -f` and wait reach a container's monitor: the socket
//! goes there and the engine is no longer part of the conversation.

use std::future::Future;
use std::os::fd::OwnedFd;
use std::pin::Pin;

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
    /// The client as the descriptor of a Unix socket, to be passed to another process.
    ///
    /// A TCP client is relayed by a task over a socket pair: its far end is what is returned, so
    /// that session ends with the engine.
    ///
    /// # Errors
    /// Those of making the pair.
    pub(crate) fn into_unix(self) -> std::io::Result<(OwnedFd, Vec<u8>)> {
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
