//! Waiting for a process in the foreground: signals go to it, and its terminal is ours.

#![allow(unsafe_code)] // signalfd, which rustix does not have

use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, waitid};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use wherry_runtime::resize_terminal;

use crate::failure::Failure;
use crate::notify::NotifySocket;

/// All signals that can be caught, as a descriptor. Must be made before the process is.
#[derive(Debug)]
pub(crate) struct Signals(OwnedFd);

impl Signals {
    /// Blocks all signals of this (the only) thread, and reads them from a descriptor instead.
    pub(crate) fn catch() -> Result<Signals, Failure> {
        // SAFETY: the sets are initialised by sigfillset before they are read.
        let fd = unsafe {
            let mut all = std::mem::zeroed::<libc::sigset_t>();
            libc::sigfillset(&raw mut all);
            libc::sigprocmask(libc::SIG_BLOCK, &raw const all, std::ptr::null_mut());
            libc::signalfd(-1, &raw const all, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
        };
        if fd < 0 {
            return Err(Failure::file("make", "signalfd")(std::io::Error::last_os_error()));
        }
        // SAFETY: a new descriptor that nobody else owns.
        Ok(Signals(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    fn next(&self) -> Option<i32> {
        let mut info = [0_u8; size_of::<libc::signalfd_siginfo>()];
        let read = rustix::io::read(&self.0, &mut info).ok()?;
        let number = info.get(..4)?.try_into().ok().map(u32::from_ne_bytes)?;
        i32::try_from(number).ok().filter(|_| read == info.len())
    }
}

/// A process in the foreground.
#[derive(Debug)]
pub(crate) struct Waited<'a> {
    pub(crate) pid: i32,
    pub(crate) pidfd: BorrowedFd<'a>,
    /// Its terminal's master.
    pub(crate) terminal: Option<&'a OwnedFd>,
    /// Where it says that it is ready.
    pub(crate) notify: Option<&'a NotifySocket>,
}

/// Waits until the process has ended; gives its exit code, 128 + signal for one that was killed.
pub(crate) fn wait(signals: &Signals, process: &Waited<'_>) -> Result<u8, Failure> {
    let Waited { pid, pidfd, terminal, notify } = *process;
    let _raw = terminal.map(|master| {
        copy_size(master);
        RawMode::enter()
    });
    let mut stdin_open = terminal.is_some();
    let mut notify = notify.and_then(|socket| Some((socket, socket.bound()?)));
    loop {
        let mut sources =
            vec![PollFd::from_borrowed_fd(pidfd, PollFlags::IN), PollFd::new(&signals.0, PollFlags::IN)];
        if let Some(master) = terminal {
            sources.push(PollFd::new(master, PollFlags::IN));
            if stdin_open {
                sources.push(PollFd::from_borrowed_fd(rustix::stdio::stdin(), PollFlags::IN));
            }
        }
        let notified = notify.as_ref().map(|(_, fd)| {
            sources.push(PollFd::from_borrowed_fd(*fd, PollFlags::IN));
            sources.len() - 1
        });
        match poll(&mut sources, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(Failure::file("wait for", "the process")(errno)),
        }
        let ready: Vec<bool> = sources.iter().map(|s| !s.revents().is_empty()).collect();
        let is = |index: usize| ready.get(index).copied().unwrap_or(false);
        if is(1) {
            forward(signals, pid, terminal);
        }
        if let (Some((socket, _)), Some(index)) = (notify, notified)
            && is(index)
            && socket.pass_on(0)?
        {
            notify = None;
        }
        if let Some(master) = terminal {
            if stdin_open && is(3) {
                stdin_open = copy(rustix::stdio::stdin(), master.as_fd());
            }
            if is(2) {
                copy(master.as_fd(), rustix::stdio::stdout());
            }
        }
        if is(0) {
            if let Some(master) = terminal {
                drain(master);
            }
            return exit_code(pidfd);
        }
    }
}

fn exit_code(pidfd: BorrowedFd<'_>) -> Result<u8, Failure> {
    let status =
        waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED).map_err(Failure::file("reap", "the process"))?;
    let code =
        status.and_then(|s| s.exit_status().or_else(|| s.terminating_signal().map(|signal| 128 + signal)));
    Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(255))
}

fn forward(signals: &Signals, pid: i32, terminal: Option<&OwnedFd>) {
    while let Some(signal) = signals.next() {
        match signal {
            // about our own children, pipes and time
            libc::SIGCHLD | libc::SIGPIPE | libc::SIGURG => {}
            libc::SIGWINCH => {
                if let Some(master) = terminal {
                    copy_size(master);
                }
            }
            other => {
                // SAFETY: a number from the kernel. Real-time signals are forwarded, too.
                let signal = unsafe { Signal::from_raw_unchecked(other) };
                if let Some(pid) = Pid::from_raw(pid) {
                    let _ = rustix::process::kill_process(pid, signal);
                }
            }
        }
    }
}

/// Copies what is there. Says whether there may be more.
fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> bool {
    let mut buffer = [0; 4096];
    let Ok(length) = rustix::io::read(from, &mut buffer) else { return false };
    let mut rest = buffer.get(..length).unwrap_or_default();
    while !rest.is_empty() {
        match rustix::io::write(to, rest) {
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
    length > 0
}

/// What the process wrote last.
fn drain(master: &OwnedFd) {
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    while poll(&mut [PollFd::new(master, PollFlags::IN)], Some(&now)) == Ok(1)
        && copy(master.as_fd(), rustix::stdio::stdout())
    {}
}

fn copy_size(master: &OwnedFd) {
    if let Ok(size) = tcgetwinsize(rustix::stdio::stdin()) {
        let _ = resize_terminal(master.as_fd(), size.ws_row, size.ws_col);
    }
}

/// Our own terminal passes everything on while this lives.
struct RawMode(Option<Termios>);

impl RawMode {
    fn enter() -> Self {
        let stdin = rustix::stdio::stdin();
        let Ok(before) = tcgetattr(stdin) else { return RawMode(None) };
        let mut raw = before.clone();
        raw.make_raw();
        let _ = tcsetattr(stdin, OptionalActions::Now, &raw);
        RawMode(Some(before))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, before);
        }
    }
}
