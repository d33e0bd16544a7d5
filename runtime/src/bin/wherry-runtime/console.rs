//! Handing a descriptor to whoever asked for it: a terminal's master, a pidfd.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::failure::Failure;

/// Sends a descriptor, and its name as the content.
pub(crate) fn send(socket: &Path, name: &str, fd: BorrowedFd<'_>) -> Result<(), Failure> {
    let stream = UnixStream::connect(socket).map_err(Failure::file("connect to", socket))?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [fd];
    control.push(SendAncillaryMessage::ScmRights(&fds));
    let parts = [IoSlice::new(name.as_bytes())];
    sendmsg(stream.as_fd(), &parts, &mut control, SendFlags::NOSIGNAL)
        .map_err(Failure::file("send to", socket))?;
    Ok(())
}
