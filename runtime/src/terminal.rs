//! Terminals, as their master's holder sees them.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::termios::{Winsize, tcsetwinsize};

/// Sets the size of a terminal, of which `master` is any end.
///
/// # Errors
/// What the kernel answers, `ENOTTY` for a descriptor that is no terminal.
pub fn resize_terminal(master: BorrowedFd<'_>, rows: u16, cols: u16) -> io::Result<()> {
    tcsetwinsize(master, Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 })?;
    Ok(())
}
