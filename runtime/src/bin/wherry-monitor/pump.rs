//! Moves output from processes to the log and to clients.

use std::time::Duration;

use rustix::io::Errno;
use wherry_container_log::{Stream, Writer};

use crate::attach::{attach_job, send_output};
use crate::client::Role;
use crate::job::Kind;
use crate::monitor::Monitor;
use crate::poll::Flags;
use crate::timers::Timer;

/// Bytes per read: what a pipe holds.
const CHUNK: usize = 64 << 10;
/// Between two pieces of a log file that is compressed.
const COMPRESS_PAUSE: Duration = Duration::from_millis(10);
/// So many reads before others have their turn.
const ROUNDS: usize = 4;

impl Monitor {
    /// Reads a job's output. `to_the_end` goes on until there is none left, for a process that has ended.
    pub(crate) fn read_output(&mut self, number: u32, stream: Stream, to_the_end: bool) {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(CHUNK, 0);
        let mut rounds = 0;
        while to_the_end || rounds < ROUNDS {
            rounds += 1;
            let Some(job) = self.jobs.get(&number).filter(|job| !job.throttled) else { break };
            let Some(output) = job.io.output(stream) else { break };
            match rustix::io::read(output, &mut buffer[..]) {
                Ok(read @ 1..) => {
                    self.terminal_left(number, false);
                    self.deliver(number, stream, &buffer[..read]);
                    // A short read has emptied the pipe. A terminal gives a line or so at a time.
                    if read < CHUNK
                        && !to_the_end
                        && !self.jobs.get(&number).is_some_and(|job| job.io.is_tty())
                    {
                        break;
                    }
                }
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                // All have closed the terminal; but as long as its process lives it may be opened again, as systemd does.
                Err(Errno::IO) if job.io.is_tty() && job.exit.is_none() => {
                    self.terminal_left(number, true);
                    break;
                }
                Ok(_) | Err(_) => {
                    self.output_ended(number, stream);
                    break;
                }
            }
        }
        self.buffer = buffer;
    }

    fn deliver(&mut self, number: u32, stream: Stream, bytes: &[u8]) {
        let Some(job) = self.jobs.get_mut(&number) else { return };
        match &mut job.kind {
            Kind::Init => {
                self.log_output(stream, bytes);
            }
            Kind::Exec(_) => {}
            Kind::Probe(probe) => probe.take_output(bytes),
        }
        for (client_number, client) in &mut self.clients {
            if attach_job(client) == Some(number) {
                send_output(client, stream, bytes);
                if client.out.len() > 0 || client.is_hung_up() {
                    self.dirty.push(*client_number);
                }
            }
        }
        if !self.dirty.is_empty() {
            self.throttle(number);
        }
    }

    fn terminal_left(&mut self, number: u32, left: bool) {
        let Some(job) = self.jobs.get_mut(&number) else { return };
        if job.io.set_left(left) && job.io.wait_for_output(job.throttled).is_err() {
            self.say("a terminal cannot be waited for");
        }
    }

    fn output_ended(&mut self, number: u32, stream: Stream) {
        let Some(job) = self.jobs.get_mut(&number) else { return };
        job.io.close_output(stream);
        if matches!(job.kind, Kind::Init) {
            self.log_ended(stream);
        }
        self.finish_if_done(number);
    }

    /// Init's output, to where it is kept and to where it is sent.
    fn log_output(&mut self, stream: Stream, bytes: &[u8]) {
        match (&mut self.log, &mut self.shipper) {
            (Some(log), None) => log.write(stream, bytes),
            (Some(log), Some(shipper)) => {
                log.write_each(stream, bytes, |text, time| shipper.push(stream, text, time));
            }
            (None, Some(shipper)) => shipper.feed(stream, bytes),
            (None, None) => return,
        }
        self.log_grew = true;
        self.ship();
        if self.log.as_ref().is_some_and(Writer::is_compressing) {
            self.timers.set_earlier(Timer::Compress, COMPRESS_PAUSE);
        }
    }

    /// One of init's streams has ended.
    fn log_ended(&mut self, stream: Stream) {
        match (&mut self.log, &mut self.shipper) {
            (Some(log), None) => log.finish(stream),
            (Some(log), Some(shipper)) => {
                log.finish_each(stream, |text, time| shipper.push(stream, text, time));
                shipper.end_line(stream);
            }
            (None, Some(shipper)) => shipper.finish(stream),
            (None, None) => return,
        }
        self.log_grew = true;
        self.ship();
    }

    /// Compresses a piece of the log file that was rotated last; others have their turn in between.
    pub(crate) fn compress_log(&mut self) {
        if self.log.as_mut().is_some_and(Writer::compress_step) {
            self.timers.set(Timer::Compress, COMPRESS_PAUSE);
        }
    }

    /// Gives up the outputs of a job.
    pub(crate) fn close_outputs(&mut self, number: u32) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            if self.jobs.get(&number).is_some_and(|job| job.io.output(stream).is_some()) {
                self.output_ended(number, stream);
            }
        }
    }

    /// Something happened on a job's terminal.
    pub(crate) fn terminal_ready(&mut self, number: u32, flags: Flags) {
        if flags.contains(Flags::OUT) {
            self.pull_input(number);
        }
        if flags.intersects(Flags::IN | Flags::HUP | Flags::ERR) {
            self.read_output(number, Stream::Stdout, false);
        }
    }

    /// Something happened on a client's socket.
    pub(crate) fn client_ready(&mut self, number: u32, flags: Flags) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        if flags.intersects(Flags::HUP | Flags::ERR) {
            client.hang_up();
        }
        if flags.contains(Flags::RDHUP) && !matches!(client.role, Role::Attach(_)) {
            client.hang_up();
        }
        if let Some(job) =
            attach_job(client).filter(|_| flags.intersects(Flags::IN | Flags::HUP | Flags::ERR))
        {
            self.pull_input(job);
        }
        self.settle(number);
    }

    /// Brings a client up to date after anything has happened to it: sends, refills, waits for what is next, or lets it go.
    pub(crate) fn settle(&mut self, number: u32) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        client.flush();
        match &client.role {
            Role::Logs(_) => self.pump_logs(number),
            Role::Attach(_) => self.pump_history(number),
            Role::Wait(_) => {}
        }
        let Some(client) = self.clients.get_mut(&number) else { return };
        let job = attach_job(client);
        // What a client that is gone has sent is still of use, as long as somebody may read it.
        let reader = job.and_then(|job| self.jobs.get(&job)).filter(|job| job.io.takes_input());
        let unread = client.reads_input() && reader.is_some();
        let input = unread && reader.is_some_and(|job| job.io.input_room() > 0);
        if client.is_done(unread) {
            self.remove_client(number);
        } else if let Err(error) = client.wait_for(input) {
            self.say(&format!("a client cannot be waited for: {error}"));
            self.remove_client(number);
        }
        if let Some(job) = job.filter(|job| self.jobs.get(job).is_some_and(|job| job.throttled)) {
            self.throttle(job);
        }
    }

    fn remove_client(&mut self, number: u32) {
        if let Some(client) = self.clients.remove(&number) {
            client.close();
        }
        self.timers.cancel(Timer::LogsUntil(number));
        self.give_answers();
    }
}
