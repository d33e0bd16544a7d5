//! What the loop waits for.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

pub(crate) use rustix::event::epoll::EventFlags as Flags;

/// Where an event comes from. Numbers are never used twice, so that an event of something that was closed in the
/// same round finds nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Listener,
    /// The kernel ran out of memory for the container.
    Memory,
    /// An engine's connection.
    Control(u32),
    Client(u32),
    /// The end of a job's process.
    Process(u32),
    /// A job's standard input takes more.
    Stdin(u32),
    Stdout(u32),
    Stderr(u32),
    /// A job's terminal, both ways.
    Terminal(u32),
    /// The log server.
    LogServer,
}

impl Source {
    fn encode(self) -> u64 {
        let (kind, number) = match self {
            Self::Listener => (0, 0),
            Self::Memory => (1, 0),
            Self::Control(n) => (2, n),
            Self::Client(n) => (3, n),
            Self::Process(n) => (4, n),
            Self::Stdin(n) => (5, n),
            Self::Stdout(n) => (6, n),
            Self::Stderr(n) => (7, n),
            Self::Terminal(n) => (8, n),
            Self::LogServer => (9, 0),
        };
        kind << 32 | u64::from(number)
    }

    fn decode(data: u64) -> Option<Self> {
        let number = data as u32;
        Some(match data >> 32 {
            0 => Self::Listener,
            1 => Self::Memory,
            2 => Self::Control(number),
            3 => Self::Client(number),
            4 => Self::Process(number),
            5 => Self::Stdin(number),
            6 => Self::Stdout(number),
            7 => Self::Stderr(number),
            8 => Self::Terminal(number),
            9 => Self::LogServer,
            _ => return None,
        })
    }
}

/// So many events are taken at once; more wait for the next round.
const AT_ONCE: usize = 32;

/// The epoll instance, shared by everything that is registered in it.
#[derive(Debug, Clone)]
pub(crate) struct Poller {
    epoll: Rc<OwnedFd>,
}

impl Poller {
    pub(crate) fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self { epoll: Rc::new(epoll) })
    }

    /// Waits at most so long. Returns early, without events, after a signal.
    pub(crate) fn wait(&self, limit: Option<Duration>) -> io::Result<Vec<(Source, Flags)>> {
        let limit = limit.map(|limit| Timespec {
            tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(limit.subsec_nanos()),
        });
        let mut space = [MaybeUninit::<epoll::Event>::uninit(); AT_ONCE];
        let ready = match epoll::wait(&*self.epoll, &mut space[..], limit.as_ref()) {
            Ok((ready, _)) => ready,
            Err(Errno::INTR) => &mut [],
            Err(e) => return Err(e.into()),
        };
        Ok(ready.iter().filter_map(|event| Some((Source::decode(event.data.u64())?, event.flags))).collect())
    }
}

/// A descriptor that the loop may wait for. It leaves the epoll instance when it is dropped, even if
/// another process holds the same open file (the engine, of a client's socket).
#[derive(Debug)]
pub(crate) struct Polled {
    fd: OwnedFd,
    source: Source,
    poller: Poller,
    wanted: Option<Flags>,
}

impl Polled {
    /// Not waited for yet.
    pub(crate) fn new(poller: &Poller, fd: OwnedFd, source: Source) -> Self {
        Self { fd, source, poller: poller.clone(), wanted: None }
    }

    /// Waits for these events from now on (and always for hang-ups and errors); `None` for nothing at all.
    pub(crate) fn want(&mut self, flags: Option<Flags>) -> io::Result<()> {
        if flags == self.wanted {
            return Ok(());
        }
        let data = epoll::EventData::new_u64(self.source.encode());
        let epoll = &*self.poller.epoll;
        match (self.wanted, flags) {
            (None, Some(flags)) => epoll::add(epoll, &self.fd, data, flags)?,
            (Some(_), Some(flags)) => epoll::modify(epoll, &self.fd, data, flags)?,
            (_, None) => epoll::delete(epoll, &self.fd)?,
        }
        self.wanted = flags;
        Ok(())
    }
}

impl AsFd for Polled {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Polled {
    fn drop(&mut self) {
        // It cannot fail for a descriptor that is open and registered.
        let _ = self.want(None);
    }
}
