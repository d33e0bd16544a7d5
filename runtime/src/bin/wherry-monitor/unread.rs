//! What a peer has not read yet.
#![allow(unsafe_code)] // rustix has no wrapper of this ioctl.

use std::os::fd::BorrowedFd;

use rustix::ioctl::{Getter, ioctl};

/// How much of what was sent on a Unix socket is still unread, in bytes of kernel memory; zero where it cannot be told.
pub(crate) fn unread(socket: BorrowedFd<'_>) -> i32 {
    // SAFETY: TIOCOUTQ (SIOCOUTQ, unix(7)) writes one int.
    unsafe { ioctl(socket, Getter::<{ libc::TIOCOUTQ as _ }, i32>::new()) }.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn counts_until_the_peer_has_read() {
        let (mut near, mut far) = UnixStream::pair().unwrap();
        assert_eq!(unread(near.as_fd()), 0);
        near.write_all(b"12345").unwrap();
        assert!(unread(near.as_fd()) > 0);
        far.read_exact(&mut [0; 4]).unwrap();
        assert!(unread(near.as_fd()) > 0, "one byte is left");
        far.read_exact(&mut [0; 1]).unwrap();
        assert_eq!(unread(near.as_fd()), 0);
    }
}
