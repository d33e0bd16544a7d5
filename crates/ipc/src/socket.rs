//! Sockets at paths of any length: a Unix socket's address holds 107 bytes, so
//! the folder is opened and the socket named through `/proc/self/fd`.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags, fcntl_getfl, open};

/// Listens at `path` with permissions `mode`, replacing a socket that a dead process left there.
///
/// # Errors
/// Whatever open, unlink, bind and chmod answer.
pub fn listen(path: &Path, mode: u32) -> io::Result<UnixListener> {
    let (_folder, short) = short_name(path)?;
    match std::fs::remove_file(&short) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(&short)?;
    std::fs::set_permissions(&short, std::fs::Permissions::from_mode(mode))?;
    Ok(listener)
}

/// Connects to the socket at `path`.
///
/// # Errors
/// `NotFound` and `ConnectionRefused` when nobody listens there.
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    let (_folder, short) = short_name(path)?;
    UnixStream::connect(short)
}

/// The user id of the process at the other end (SO_PEERCRED).
///
/// # Errors
/// Whatever getsockopt answers.
pub fn peer_uid(socket: impl AsFd) -> io::Result<u32> {
    Ok(rustix::net::sockopt::socket_peercred(socket)?.uid.as_raw())
}

/// Waits until a full socket has room again. A blocking one has waited already, as long as its owner allows (SO_SNDTIMEO).
pub(crate) fn wait_writable(socket: BorrowedFd<'_>) -> io::Result<()> {
    if !fcntl_getfl(socket)?.contains(OFlags::NONBLOCK) {
        return Err(io::ErrorKind::TimedOut.into());
    }
    match poll(&mut [PollFd::from_borrowed_fd(socket, PollFlags::OUT)], None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

fn short_name(path: &Path) -> io::Result<(OwnedFd, PathBuf)> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = open(parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let short = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name);
    Ok((folder, short))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_longer_than_an_address_works_and_a_stale_socket_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let long = dir.path().join("x".repeat(150));
        std::fs::create_dir(&long).unwrap();
        let path = long.join("monitor.sock");
        drop(listen(&path, 0o600).unwrap());
        assert_eq!(connect(&path).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        let _listener = listen(&path, 0o600).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let client = connect(&path).unwrap();
        assert_eq!(peer_uid(&client).unwrap(), 0, "tests run as root");
    }
}
