//! Log servers: each entry of the container's output is sent to one, besides what is kept in a file.
//!
//! Nothing here waits: what the server does not take stays in a bounded queue, and a full queue either holds the container's
//! output back (mode `blocking`) or drops what is new (`non-blocking`), as the user chose. A server that is gone is looked for
//! again, with the patience that its protocol's driver has in dockerd.

mod clock;
mod fluentd;
mod gelf;
mod journald;
mod link;
mod syslog;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use wherry_container_log::{Splitter, Stream};
use wherry_monitor_api::{LogFormat, LogTarget, RemoteLog, WhenFull};

use self::link::{Link, Said, Sent};
use crate::monitor::Monitor;
use crate::poll::{Flags, Poller};
use crate::timers::Timer;

/// No pause between two tries is longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// So long a monitor whose container has ended goes on sending.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// One entry, as it came from the container.
#[derive(Debug, Clone, Copy)]
struct Entry<'a> {
    /// Without its newline.
    text: &'a [u8],
    stream: Stream,
    time_ns: i64,
    /// Of a line that was cut.
    part: Option<Part>,
}

/// A piece of a line that is longer than an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    /// The same for all pieces of a line.
    line: u64,
    /// From 1.
    ordinal: u32,
    last: bool,
}

/// What waits for a log server, and the way to it.
#[derive(Debug)]
pub(crate) struct Shipper {
    remote: RemoteLog,
    link: Link,
    queue: VecDeque<Vec<u8>>,
    /// Bytes in the queue.
    queued: usize,
    /// Messages at its front that a relay was given and has not counted yet.
    ahead: usize,
    /// Bytes of the first of them that it has counted.
    counted: usize,
    /// Bytes that are on their way of the message behind them.
    sent: usize,
    /// The server has the first message and is yet to say so.
    awaiting: bool,
    /// How often in a row there was no connection.
    failures: u32,
    target: usize,
    dropped: u64,
    /// When it was last told how many were dropped.
    told: Option<Instant>,
    /// Entries so far.
    ordinal: u64,
    splitter: Splitter,
    /// The line of each stream that is being continued.
    cut: [Option<Part>; 2],
}

impl Shipper {
    pub(crate) fn new(remote: RemoteLog) -> Self {
        Self {
            remote,
            link: Link::None,
            queue: VecDeque::new(),
            queued: 0,
            ahead: 0,
            counted: 0,
            sent: 0,
            awaiting: false,
            failures: 0,
            target: 0,
            dropped: 0,
            told: None,
            ordinal: 0,
            splitter: Splitter::default(),
            cut: [None; 2],
        }
    }

    /// Whether it sends that to there.
    pub(crate) fn is_for(&self, remote: &RemoteLog) -> bool {
        self.remote == *remote
    }

    /// Takes bytes of a stream, where no file is kept that cuts them into entries.
    pub(crate) fn feed(&mut self, stream: Stream, bytes: &[u8]) {
        let mut splitter = std::mem::take(&mut self.splitter);
        splitter.feed(stream, bytes, |text, time| self.push(stream, text, time));
        self.splitter = splitter;
    }

    /// A stream that was fed has ended.
    pub(crate) fn finish(&mut self, stream: Stream) {
        let mut splitter = std::mem::take(&mut self.splitter);
        splitter.finish(stream, |text, time| self.push(stream, text, time));
        self.splitter = splitter;
        self.end_line(stream);
    }

    /// What a stream brings next begins a line, though the last one may have had no end: the container's next run writes it.
    pub(crate) fn end_line(&mut self, stream: Stream) {
        self.cut[usize::from(stream == Stream::Stderr)] = None;
    }

    /// Takes an entry, with its newline if it has one.
    pub(crate) fn push(&mut self, stream: Stream, text: &[u8], time_ns: i64) {
        self.ordinal += 1;
        let whole = text.last() == Some(&b'\n');
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        let part = self.part(stream, whole);
        let entry = Entry { text, stream, time_ns, part };
        let datagrams = self
            .remote
            .targets
            .first()
            .is_none_or(|target| matches!(target, LogTarget::Udp(_) | LogTarget::UnixDatagram(_)));
        let Some(message) = encode(&self.remote.format, datagrams, &entry, self.ordinal) else { return };
        let full =
            self.queued + message.len() > usize::try_from(self.remote.buffer_bytes).unwrap_or(usize::MAX);
        if full && self.remote.when_full == WhenFull::Drop && !self.queue.is_empty() {
            self.dropped += 1;
            return;
        }
        self.queued += message.len();
        self.queue.push_back(message);
    }

    fn part(&mut self, stream: Stream, whole: bool) -> Option<Part> {
        let line = self.ordinal;
        let cut = self.cut.get_mut(usize::from(stream == Stream::Stderr))?;
        let part = match *cut {
            Some(before) => Some(Part { ordinal: before.ordinal + 1, last: whole, ..before }),
            None if whole => None,
            None => Some(Part { line, ordinal: 1, last: false }),
        };
        *cut = if whole { None } else { part };
        part
    }

    /// Whether the container's output must wait.
    pub(crate) fn is_full(&self) -> bool {
        self.remote.when_full == WhenFull::Block
            && self.queued >= usize::try_from(self.remote.buffer_bytes).unwrap_or(usize::MAX)
    }

    /// Whether all has been sent.
    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// Gives up what waits.
    fn give_up(&mut self) {
        self.dropped += self.queue.len() as u64;
        self.queue.clear();
        self.queued = 0;
        self.disconnect();
    }

    /// What is not known to have been sent is sent again on the next connection.
    fn disconnect(&mut self) {
        self.link = Link::None;
        (self.ahead, self.counted, self.sent, self.awaiting) = (0, 0, 0, false);
    }

    /// Sends what the server takes; gives the time after which to try again if there is no connection.
    fn work(&mut self, poller: &Poller) -> Option<Duration> {
        while self.ahead < self.queue.len() {
            if self.link.is_none() {
                let target = self.remote.targets.get(self.target % self.remote.targets.len().max(1));
                match target.map_or(Err(Errno::ADDRNOTAVAIL), |target| Link::open(target, poller)) {
                    Ok(link) => self.link = link,
                    Err(_) => return self.lost(),
                }
            }
            let Some(message) = self.queue.get(self.ahead) else { break };
            if self.awaiting {
                return None;
            }
            match self.link.send(message.get(self.sent..).unwrap_or_default()) {
                Sent::Bytes(bytes) => {
                    self.failures = 0;
                    self.sent += bytes;
                    if self.sent >= message.len() && self.link.counts() {
                        (self.ahead, self.sent) = (self.ahead + 1, 0);
                    } else if self.sent >= message.len() {
                        self.awaiting = self.needs_answer();
                        if !self.awaiting {
                            self.taken();
                        }
                    }
                }
                Sent::Later => return None,
                // One message that cannot be sent must not hold back the others.
                Sent::Impossible => {
                    self.dropped += 1;
                    self.taken();
                }
                Sent::Lost => return self.lost(),
            }
        }
        self.link.rest();
        None
    }

    fn taken(&mut self) {
        if let Some(message) = self.queue.pop_front() {
            self.queued -= message.len();
        }
        (self.sent, self.awaiting) = (0, false);
    }

    /// Lets go of messages that a relay has sent whole.
    fn forget_counted(&mut self) {
        while let Some(message) = self.queue.front().filter(|_| self.ahead > 0)
            && message.len() <= self.counted
        {
            self.counted -= message.len();
            self.queued -= message.len();
            self.ahead -= 1;
            self.queue.pop_front();
        }
    }

    fn needs_answer(&self) -> bool {
        matches!(self.remote.format, LogFormat::Fluentd { acknowledged: true, .. })
    }

    /// There is no connection (any more): when to look for one again.
    fn lost(&mut self) -> Option<Duration> {
        self.disconnect();
        self.target = self.target.wrapping_add(1);
        if self.failures >= self.remote.retries {
            self.failures = 0;
            self.give_up();
            return None;
        }
        let wait = Duration::from_millis(self.remote.retry_wait_ms);
        let factor = 1.5f64.powi(i32::try_from(self.failures.min(30)).unwrap_or(30));
        self.failures += 1;
        Some(wait.mul_f64(factor).min(LONGEST_PAUSE.max(wait)))
    }

    /// Something happened on the connection.
    fn ready(&mut self, flags: Flags) -> Result<(), ()> {
        match self.link.ready(flags) {
            Ok(Said::Taken(bytes)) => {
                self.counted += bytes;
                self.forget_counted();
                Ok(())
            }
            Ok(Said::Answer(answer)) => {
                if self.awaiting && !answer.is_empty() {
                    let front = self.queue.front().map_or(&[][..], Vec::as_slice);
                    if fluentd::confirms(&answer, front) {
                        self.taken();
                    }
                }
                Ok(())
            }
            Err(_) => Err(()),
        }
    }
}

/// The message of an entry; `None` for what the protocol has no message for.
fn encode(format: &LogFormat, datagrams: bool, entry: &Entry<'_>, ordinal: u64) -> Option<Vec<u8>> {
    match format {
        LogFormat::Syslog { form, facility, hostname, tag, counted } => {
            let line = syslog::message(*form, *facility, hostname, tag, *counted, entry)?;
            Some(if datagrams { link::datagram(&line) } else { line })
        }
        LogFormat::Journald { fields } => Some(link::datagram(&journald::message(fields, entry, ordinal))),
        LogFormat::Gelf { hostname, fields, compression } => {
            let json = gelf::json(hostname, fields, entry)?;
            Some(if datagrams {
                gelf::datagrams(&json, *compression, ordinal)
            } else {
                [&json[..], b"\0"].concat()
            })
        }
        LogFormat::Fluentd { tag, fields, nanoseconds, acknowledged } => {
            Some(fluentd::message(tag, fields, *nanoseconds, acknowledged.then_some(ordinal), entry))
        }
    }
}

impl Monitor {
    /// Sends to the log server what it takes now.
    pub(crate) fn ship(&mut self) {
        let Some(shipper) = &mut self.shipper else { return };
        if !self.timers.is_set(Timer::Ship)
            && let Some(pause) = shipper.work(&self.poller)
        {
            self.timers.set(Timer::Ship, pause);
        }
        let due = shipper.told.is_none_or(|told| told.elapsed() > LONGEST_PAUSE);
        if due && shipper.dropped > 0 {
            let dropped = std::mem::take(&mut shipper.dropped);
            shipper.told = Some(Instant::now());
            self.say(&format!("{dropped} log entries were not taken by the log server and are lost to it"));
        }
        if let Some(init) = self.run.as_ref().map(|run| run.init) {
            self.throttle(init);
        }
    }

    /// The log server takes more, has answered, or is gone.
    pub(crate) fn ship_ready(&mut self, flags: Flags) {
        let Some(shipper) = &mut self.shipper else { return };
        if shipper.ready(flags).is_err()
            && let Some(pause) = shipper.lost()
        {
            self.timers.set(Timer::Ship, pause);
        }
        self.ship();
    }

    /// The container has ended: what waits for the log server has some time left.
    pub(crate) fn ship_the_rest(&mut self) {
        self.ship();
        if self.shipper.as_ref().is_some_and(|shipper| !shipper.is_idle()) {
            self.timers.set(Timer::ShipEnd, LAST_WORDS);
        }
    }

    /// That time is over.
    pub(crate) fn end_shipping(&mut self) {
        if self.run.is_none()
            && let Some(shipper) = &mut self.shipper
        {
            shipper.give_up();
            self.ship();
        }
    }
}

#[cfg(test)]
mod tests;
