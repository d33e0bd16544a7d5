//! Between a monitor and its server.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use wherry_monitor_api::TlsServer;

use crate::{Connection, Error};

/// So much is read at once from the monitor. No more is taken before all of it has been sent.
const PIECE: usize = 64 << 10;

/// Sends what comes from the monitor, as [`TlsServer`] says, until it closes its end.
///
/// # Errors
/// [`Error`]. What the monitor has not been told is sent, it has to send again.
pub fn run(server: &TlsServer, mut monitor: UnixStream) -> Result<(), Error> {
    let mut connection = Connection::open(server)?;
    tell(&mut monitor, &[0; 4])?;
    let mut piece = vec![0; PIECE];
    let mut taken: u32 = 0;
    loop {
        let full = connection.session.wants_write();
        let ready = wait(&connection, &monitor, full).map_err(Error::Lost)?;
        if ready.server {
            let answer = connection.receive()?;
            if server.answers && !answer.is_empty() {
                tell(&mut monitor, &answer)?;
            }
        }
        if ready.monitor {
            // With something unsent there it has not closed its end, but ended.
            let read = if full { 0 } else { monitor.read(&mut piece).map_err(Error::Monitor)? };
            if read == 0 {
                return end(connection);
            }
            connection.push(piece.get(..read).unwrap_or_default())?;
            taken += u32::try_from(read).unwrap_or(0);
        }
        connection.flush()?;
        if taken > 0 && !connection.session.wants_write() {
            if !server.answers {
                tell(&mut monitor, &taken.to_be_bytes())?;
            }
            taken = 0;
        }
    }
}

struct Ready {
    server: bool,
    monitor: bool,
}

/// Waits until there is something to do; while the connection is full, nothing is taken from the monitor.
fn wait(connection: &Connection, monitor: &UnixStream, full: bool) -> io::Result<Ready> {
    let (from_server, from_monitor) = match full {
        true => (PollFlags::IN | PollFlags::OUT, PollFlags::empty()),
        false => (PollFlags::IN, PollFlags::IN),
    };
    let mut fds = [PollFd::new(&connection.socket, from_server), PollFd::new(monitor, from_monitor)];
    loop {
        match poll(&mut fds, None) {
            Ok(_) => break,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let [server, monitor] = fds.map(|fd| fd.revents());
    Ok(Ready { server: server.intersects(!PollFlags::OUT), monitor: !monitor.is_empty() })
}

/// A monitor always reads; one that has ended does not matter any more.
fn tell(monitor: &mut UnixStream, bytes: &[u8]) -> Result<(), Error> {
    monitor.write_all(bytes).map_err(Error::Monitor)
}

/// The monitor has nothing more to say.
fn end(mut connection: Connection) -> Result<(), Error> {
    connection.session.send_close_notify();
    connection.flush()
}
