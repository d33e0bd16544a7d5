//! A process in the container, init or a further one, and its standard I/O.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use wherry_container_log::Stream;

use crate::poll::{Flags, Polled, Poller, Source};
use crate::probe::Probe;

/// So much input waits for a process before clients are no longer read.
const INPUT_LIMIT: usize = 64 << 10;

/// What a process is.
#[derive(Debug)]
pub(crate) enum Kind {
    Init,
    /// An exec, by its id.
    Exec(String),
    /// The health probe.
    Probe(Probe),
}

/// A process and its standard I/O.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) kind: Kind,
    pub(crate) pid: i32,
    /// Reports the end of the process; dropped then.
    pub(crate) pidfd: Option<Polled>,
    pub(crate) io: Io,
    /// The exit code, once it has ended.
    pub(crate) exit: Option<i32>,
    /// Standard input closes when a client's input ends.
    pub(crate) stdin_once: bool,
    /// Output is not read, because a client has not taken what it was sent.
    pub(crate) throttled: bool,
}

/// Our ends of a process's standard I/O.
#[derive(Debug, Default)]
pub(crate) struct Io {
    /// The terminal's master; the others are `None` then.
    terminal: Option<Polled>,
    stdin: Option<Polled>,
    stdout: Option<Polled>,
    stderr: Option<Polled>,
    input: Vec<u8>,
    close_stdin: bool,
    tty: bool,
    /// Nobody has the terminal open at the moment.
    left: bool,
}

/// The process's ends, to be closed once it has them.
#[derive(Debug)]
pub(crate) struct Ends {
    pub(crate) stdin: OwnedFd,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

/// Which of the streams are connected to us; the others are `/dev/null`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Connected {
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
}

impl Io {
    /// Makes pipes for job `number`.
    pub(crate) fn pipes(
        poller: &Poller,
        number: u32,
        connected: Connected,
    ) -> rustix::io::Result<(Self, Ends)> {
        let mut io = Self::default();
        let stdin = if connected.stdin {
            let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
            io.stdin = Some(Polled::new(poller, nonblocking(write)?, Source::Stdin(number)));
            read
        } else {
            null()?
        };
        let output = |wanted: bool, source: Source| {
            if !wanted {
                return Ok((None, null()?));
            }
            let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
            Ok((Some(Polled::new(poller, nonblocking(read)?, source)), write))
        };
        let (ours, stdout) = output(connected.stdout, Source::Stdout(number))?;
        io.stdout = ours;
        let (ours, stderr) = output(connected.stderr, Source::Stderr(number))?;
        io.stderr = ours;
        Ok((io, Ends { stdin, stdout, stderr }))
    }

    /// Takes a terminal's master.
    pub(crate) fn terminal(poller: &Poller, number: u32, master: OwnedFd) -> rustix::io::Result<Self> {
        let terminal = Some(Polled::new(poller, nonblocking(master)?, Source::Terminal(number)));
        Ok(Self { terminal, tty: true, ..Self::default() })
    }

    pub(crate) fn is_tty(&self) -> bool {
        self.tty
    }

    /// The terminal's master.
    pub(crate) fn master(&self) -> Option<BorrowedFd<'_>> {
        self.terminal.as_ref().map(AsFd::as_fd)
    }

    /// Where a stream is read, if it has not ended.
    pub(crate) fn output(&self, stream: Stream) -> Option<BorrowedFd<'_>> {
        let pipe = match stream {
            Stream::Stdout => self.terminal.as_ref().or(self.stdout.as_ref()),
            Stream::Stderr => self.stderr.as_ref(),
        };
        pipe.map(AsFd::as_fd)
    }

    /// A stream has ended.
    pub(crate) fn close_output(&mut self, stream: Stream) {
        match stream {
            Stream::Stdout => (self.terminal, self.stdout) = (None, None),
            Stream::Stderr => self.stderr = None,
        }
    }

    /// Notes whether anybody has the terminal open; true if that is new.
    pub(crate) fn set_left(&mut self, left: bool) -> bool {
        std::mem::replace(&mut self.left, left) != left
    }

    /// Whether all output has been read.
    pub(crate) fn has_ended(&self) -> bool {
        self.terminal.is_none() && self.stdout.is_none() && self.stderr.is_none()
    }

    /// Waits for output, or not while it is throttled.
    pub(crate) fn wait_for_output(&mut self, throttled: bool) -> rustix::io::Result<()> {
        let flags = (!throttled).then_some(Flags::IN);
        for pipe in [&mut self.stdout, &mut self.stderr].into_iter().flatten() {
            pipe.want(flags).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
        }
        let mut both = flags.unwrap_or(Flags::empty());
        if !self.input.is_empty() {
            both |= Flags::OUT;
        }
        if self.left {
            // Reported once, not for as long as it lasts; and again when somebody writes to it.
            both = Flags::IN | Flags::ET;
        }
        if let Some(terminal) = &mut self.terminal {
            let wanted = (!both.is_empty()).then_some(both);
            terminal.want(wanted).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
        }
        Ok(())
    }

    /// Whether it takes input, now or later.
    pub(crate) fn takes_input(&self) -> bool {
        !self.close_stdin && (self.stdin.is_some() || self.terminal.is_some())
    }

    /// How many bytes of input it takes now.
    pub(crate) fn input_room(&self) -> usize {
        if self.takes_input() { INPUT_LIMIT.saturating_sub(self.input.len()) } else { 0 }
    }

    /// Queues input.
    pub(crate) fn push_input(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// Ends the input behind what is queued.
    pub(crate) fn end_input(&mut self) {
        self.close_stdin = true;
    }

    /// Writes queued input as far as the process takes it, and waits until it takes more.
    pub(crate) fn write_input(&mut self) {
        let Some(end) = self.stdin.as_mut().or(self.terminal.as_mut()) else {
            self.input = Vec::new();
            return;
        };
        let mut written = 0;
        while let Some(rest) = self.input.get(written..).filter(|rest| !rest.is_empty()) {
            match rustix::io::write(&*end, rest) {
                Ok(n) => written += n,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                // The process has closed it: there is nobody to write to.
                Err(_) => {
                    self.stdin = None;
                    self.input = Vec::new();
                    return;
                }
            }
        }
        self.input.drain(..written);
        if self.input.is_empty() {
            self.input = Vec::new();
            if self.close_stdin {
                self.stdin = None;
            }
        }
        if let Some(stdin) = &mut self.stdin {
            // A pipe that nobody reads would report that again and again: only while something waits.
            let wanted = (!self.input.is_empty()).then_some(Flags::OUT);
            if stdin.want(wanted).is_err() {
                self.stdin = None;
            }
        }
    }
}

impl Job {
    /// A process that has just been started.
    pub(crate) fn new(
        poller: &Poller,
        number: u32,
        kind: Kind,
        pid: i32,
        pidfd: OwnedFd,
        io: Io,
    ) -> std::io::Result<Self> {
        let mut pidfd = Polled::new(poller, pidfd, Source::Process(number));
        pidfd.want(Some(Flags::IN))?;
        let mut job =
            Self { kind, pid, pidfd: Some(pidfd), io, exit: None, stdin_once: true, throttled: false };
        job.io.wait_for_output(false)?;
        Ok(job)
    }
}

/// Ours alone, so that the flag concerns nobody else: the ends of a pipe are separate open files.
fn nonblocking(fd: OwnedFd) -> rustix::io::Result<OwnedFd> {
    let flags = rustix::fs::fcntl_getfl(&fd)?;
    rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
    Ok(fd)
}

fn null() -> rustix::io::Result<OwnedFd> {
    rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, rustix::fs::Mode::empty())
}
