//! A relayed TCP connection. What is on its way is the kernel's at every moment and never in this process's memory: bytes are
//! spliced from one socket into a pipe, and from there into the other socket. The standby holds these descriptors,
//! too ([`crate::handover`]): whoever is netd next goes on where this one was killed, and neither end notices.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{Shutdown, shutdown};
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::handover::{Handover, Kept, Subject};
use crate::protocol::BoundPort;

/// As much as a pipe holds.
const MOST_AT_ONCE: usize = 64 << 10;

/// A connection's sockets and pipes, which are left to the next netd.
#[derive(Debug)]
pub(super) struct Stream {
    /// The client's socket, the container's, and the ends (for reading, for writing) of a pipe to each of the two.
    descriptors: Arc<[OwnedFd]>,
    _kept: Kept,
}

impl Stream {
    /// Of two connected sockets that do not block.
    pub(super) fn new(
        handover: &Arc<Handover>,
        port: &BoundPort,
        client: OwnedFd,
        container: OwnedFd,
    ) -> io::Result<Self> {
        let pipe = || pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK);
        let ((to_client, from_container), (to_container, from_client)) = (pipe()?, pipe()?);
        let descriptors = [client, container, to_client, from_container, to_container, from_client];
        Ok(Self::again(handover, port, Arc::new(descriptors)))
    }

    /// One that an earlier netd left.
    pub(super) fn again(handover: &Arc<Handover>, port: &BoundPort, descriptors: Arc<[OwnedFd]>) -> Self {
        let kept = handover.keep(Subject::Stream(port.clone()), descriptors.clone());
        Self { descriptors, _kept: kept }
    }

    /// Relays until both ends have said their last, or one of them breaks.
    pub(super) async fn relay(self) -> io::Result<()> {
        let [client, container, to_client, from_container, to_container, from_client] = &*self.descriptors
        else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let waiting = |socket: &OwnedFd| TcpStream::from_std(socket.try_clone()?.into());
        let (client, container) = (waiting(client)?, waiting(container)?);
        tokio::try_join!(
            carry(&client, (from_client, to_container), &container),
            carry(&container, (from_container, to_client), &client),
        )?;
        Ok(())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // The standby's copies would keep the connection open until it hears of the end.
        for socket in self.descriptors.iter().take(2) {
            // One that is closed already needs no more.
            let _ = shutdown(socket, Shutdown::Both);
        }
    }
}

/// Moves bytes one way through a pipe until the sender has said its last, of which the receiver is then told.
async fn carry(from: &TcpStream, (input, output): (&OwnedFd, &OwnedFd), to: &TcpStream) -> io::Result<()> {
    // An earlier netd may have been killed between the two steps.
    let mut waiting = usize::try_from(rustix::io::ioctl_fionread(output)?).map_err(io::Error::other)?;
    loop {
        while waiting > 0 {
            waiting -= to.async_io(Interest::WRITABLE, || pass(output, to, waiting)).await?;
        }
        waiting = from.async_io(Interest::READABLE, || pass(from, input, MOST_AT_ONCE)).await?;
        if waiting == 0 {
            return match shutdown(to, Shutdown::Write) {
                Ok(()) | Err(Errno::NOTCONN) => Ok(()),
                Err(e) => Err(e.into()),
            };
        }
    }
}

fn pass(from: impl AsFd, to: impl AsFd, most: usize) -> io::Result<usize> {
    Ok(splice(from, None, to, None, most, SpliceFlags::NONBLOCK | SpliceFlags::MOVE)?)
}
