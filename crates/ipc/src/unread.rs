//! What the peer has yet to read.
#![allow(unsafe_code)] // rustix has no call for this request.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::ioctl::{Getter, Opcode, ioctl};

/// SIOCOUTQ of linux/sockios.h, which has TIOCOUTQ's number.
const SIOCOUTQ: Opcode = 0x5411;

/// How much of what was sent on a Unix socket its peer has not read yet, in bytes of the kernel's memory: zero once it
/// has read everything.
///
/// # Errors
/// Those of the request; a descriptor that is no socket is one.
pub fn unread_bytes(socket: BorrowedFd<'_>) -> io::Result<usize> {
    // SAFETY: the request stores one `int` where it is told to, which `Getter` provides.
    let bytes: i32 = unsafe { ioctl(socket, Getter::<SIOCOUTQ, i32>::new()) }?;
    // While the kernel tells whoever waits that the last piece was read, it holds on to the socket by one byte more. Whoever is
    // woken by that and asks at once must not hear that something is left: nobody would wake him again.
    Ok(usize::try_from(bytes).ok().filter(|bytes| *bytes > 1).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn what_was_read_is_not_counted() {
        let (mut near, mut far) = UnixStream::pair().unwrap();
        assert_eq!(unread_bytes(near.as_fd()).unwrap(), 0);
        near.write_all(b"head").unwrap();
        assert!(unread_bytes(near.as_fd()).unwrap() > 0);
        far.read_exact(&mut [0; 4]).unwrap();
        assert_eq!(unread_bytes(near.as_fd()).unwrap(), 0);
    }
}
