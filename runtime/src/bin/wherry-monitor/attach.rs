//! Clients that are attached to a process's standard I/O.

use std::os::fd::OwnedFd;
use std::time::Duration;

use wherry_container_log::{Format, Query, Reader, Stream};
use wherry_monitor_api::{AttachRequest, EventKind, Failure, FailureKind, Framing, LogDriver, Phase};

use crate::client::{Client, Role};
use crate::control::failure;
use crate::job::Kind;
use crate::keys::DetachKeys;
use crate::logs;
use crate::monitor::{Monitor, Run};
use crate::ship::Shipper;

/// Output is no longer read while a client has more than this to take.
const HIGH: usize = 128 << 10;
/// It is read again from here on.
const LOW: usize = 32 << 10;
/// The first who attaches to a run that is younger sees it from its beginning.
const YOUNG: Duration = Duration::from_millis(100);

/// An attached client.
#[derive(Debug)]
pub(crate) struct Attach {
    /// The job; `None` waits for the container's next start.
    pub(crate) job: Option<u32>,
    /// Whether what it sends is still read.
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
    /// Whether it stays after the log so far.
    stream: bool,
    framing: Framing,
    keys: DetachKeys,
    on_detach: String,
    /// Input that had come before it was attached.
    early: Vec<u8>,
    /// The log so far, as much as is not sent. The process's output waits meanwhile.
    history: Option<Box<Reader>>,
}

impl Attach {
    fn new(request: AttachRequest) -> (Self, Vec<u8>) {
        let attach = Self {
            job: None,
            stdin: request.stdin && request.stream,
            stdout: request.stdout,
            stderr: request.stderr,
            stream: request.stream,
            framing: request.framing,
            keys: DetachKeys::new(request.detach_keys),
            on_detach: request.on_detach,
            early: request.already_read,
            history: None,
        };
        (attach, request.head)
    }

    fn wants(&self, stream: Stream) -> bool {
        match stream {
            Stream::Stdout => self.stdout,
            Stream::Stderr => self.stderr,
        }
    }
}

/// Sends output to one client.
pub(crate) fn send_output(client: &mut Client, stream: Stream, bytes: &[u8]) {
    let Role::Attach(attach) = &client.role else { return };
    // Whoever still reads the log so far finds this there, too.
    if bytes.is_empty() || !attach.wants(stream) || attach.history.is_some() {
        return;
    }
    match attach.framing {
        Framing::Raw => client.send(&[], bytes),
        Framing::Multiplexed => client.send(&wherry_container_log::write_header(stream, bytes.len()), bytes),
    }
}

/// The job of an attached client has ended: it goes once it has taken all output.
pub(crate) fn end_attached(client: &mut Client) {
    match &mut client.role {
        Role::Attach(attach) if attach.history.is_some() => attach.stream = false,
        _ => client.finish(),
    }
}

impl Monitor {
    /// Attaches a client to the container, now or when it is started.
    pub(crate) fn attach(&mut self, request: AttachRequest, socket: OwnedFd) -> Result<(), Failure> {
        if let (None, Some(_)) = (&self.run, self.released) {
            return Err(failure(FailureKind::State, "the container is being removed"));
        }
        if let (None, Phase::Exited { .. }, true) = (&self.run, &self.phase, request.stream) {
            // Whoever waits for the next start waits at the monitor that will make it.
            return Err(failure(FailureKind::State, "the container has ended"));
        }
        let news = self.run.as_mut().and_then(|run| run.is_news_to(&request).then_some(run));
        let since_ns = match news {
            _ if request.logs => Some(None),
            Some(run) if request.stream => Some(Some(run.started_at_ns)),
            _ => None,
        };
        let job = self.run.as_ref().map(|run| run.init);
        let number = self.add_attached(request, socket, job);
        if let Some(since_ns) = since_ns {
            self.begin_history(number, since_ns);
        }
        self.attached(number);
        Ok(())
    }

    /// Registers an attached client; [`Monitor::attached`] then begins to serve it.
    pub(crate) fn add_attached(&mut self, request: AttachRequest, socket: OwnedFd, job: Option<u32>) -> u32 {
        let number = self.next_number();
        let encoding = request.encoding;
        let (mut attach, head) = Attach::new(request);
        attach.job = job;
        let client = Client::new(&self.poller, number, socket, &head, encoding, Role::Attach(attach));
        self.clients.insert(number, client);
        number
    }

    /// Moves what can be moved for a client that has just been attached.
    pub(crate) fn attached(&mut self, number: u32) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        let Role::Attach(attach) = &client.role else { return };
        if !attach.stream && attach.history.is_none() {
            client.finish();
        }
        let job = attach_job(client);
        if let Some(job) = job {
            self.throttle(job);
            self.pull_input(job);
        }
        self.settle(number);
    }

    fn begin_history(&mut self, number: u32, since_ns: Option<i64>) {
        let Some(LogDriver::JsonFile(path)) = self.plan.as_ref().map(|plan| &plan.log.driver) else { return };
        let Some(Role::Attach(attach)) = self.clients.get_mut(&number).map(|client| &mut client.role) else {
            return;
        };
        // Following, because what a process writes last before it ends is only there.
        let query = Query {
            stdout: attach.stdout,
            stderr: attach.stderr,
            since_ns,
            until_ns: None,
            tail: None,
            follow: true,
        };
        match Reader::open(path, query) {
            Ok(reader) => attach.history = Some(Box::new(reader)),
            Err(error) => self.say(&format!("the log cannot be read: {error}")),
        }
    }

    /// Sends more of the log so far, and goes over to live output at its end.
    pub(crate) fn pump_history(&mut self, number: u32) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        while client.out.len() < LOW {
            let Role::Attach(attach) = &mut client.role else { return };
            let Some(reader) = &mut attach.history else { return };
            let format = Format { framing: logs::framing(attach.framing), timestamps: false, details: false };
            let mut piece = Vec::new();
            let filled = reader.fill(&mut piece, &format, LOW);
            let more = matches!(filled, Ok(wherry_container_log::Filled::More));
            if !more {
                attach.history = None;
            }
            let live = attach.stream;
            client.send(&[], &piece);
            if more {
                continue;
            }
            // What has been read and is not yet a line is in no log, and must not be missed either.
            for stream in [Stream::Stdout, Stream::Stderr] {
                let pending = self.log.as_ref().map_or(&[][..], |log| log.pending(stream));
                send_output(client, stream, pending);
            }
            if !live {
                client.finish();
            }
        }
    }

    /// Reads from the job's clients as much as it has room for, and writes it.
    pub(crate) fn pull_input(&mut self, job_number: u32) {
        let numbers = self.attached_to(job_number);
        for number in numbers {
            self.pull_from(job_number, number);
        }
        if let Some(job) = self.jobs.get_mut(&job_number) {
            job.io.write_input();
            if job.io.wait_for_output(job.throttled).is_err() {
                self.say("a terminal cannot be waited for");
            }
        }
    }

    fn pull_from(&mut self, job_number: u32, number: u32) {
        let mut buffer = [0; 16 << 10];
        loop {
            let Some(job) = self.jobs.get_mut(&job_number) else { return };
            let Some(client) = self.clients.get_mut(&number) else { return };
            let closing = client.is_closing();
            let Role::Attach(attach) = &mut client.role else { return };
            if !attach.stdin || closing {
                return;
            }
            let early = std::mem::take(&mut attach.early);
            let room = job.io.input_room().min(buffer.len());
            let typed = if early.is_empty() && room > 0 {
                match client.receive(&mut buffer[..room]) {
                    Ok(0) => return self.input_ended(job_number, number),
                    Ok(read) => &buffer[..read],
                    Err(rustix::io::Errno::AGAIN) => return,
                    Err(_) => {
                        client.hang_up();
                        return self.input_ended(job_number, number);
                    }
                }
            } else if early.is_empty() {
                return;
            } else {
                &early[..]
            };
            if !job.io.is_tty() {
                job.io.push_input(typed);
            } else if let Role::Attach(attach) = &mut client.role {
                let mut input = Vec::new();
                let detached = attach.keys.filter(typed, &mut input);
                job.io.push_input(&input);
                if detached {
                    return self.detach(job_number, number);
                }
            }
            job.io.write_input();
        }
    }

    /// A client will send nothing more.
    fn input_ended(&mut self, job_number: u32, number: u32) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        if let Role::Attach(attach) = &mut client.role {
            attach.stdin = false;
        }
        let Some(job) = self.jobs.get_mut(&job_number) else { return };
        if job.stdin_once && !job.io.is_tty() {
            job.io.end_input();
        } else {
            // As dockerd: where its end is not the program's, it is the client's.
            client.finish();
        }
        self.dirty.push(number);
    }

    fn detach(&mut self, job_number: u32, number: u32) {
        let exec = match self.jobs.get(&job_number).map(|job| &job.kind) {
            Some(Kind::Exec(exec)) => Some(exec.clone()),
            _ => None,
        };
        if let Some(client) = self.clients.get_mut(&number) {
            if let Role::Attach(attach) = &mut client.role {
                let farewell = std::mem::take(&mut attach.on_detach);
                send_output(client, Stream::Stdout, farewell.as_bytes());
            }
            client.finish();
        }
        self.record(EventKind::Detached { exec });
        self.dirty.push(number);
    }

    /// Attaches the clients that came before the start.
    pub(crate) fn adopt_waiting_clients(&mut self, job: u32) {
        let mut adopted = Vec::new();
        let mut attached = (false, false);
        for (number, client) in &mut self.clients {
            if let Role::Attach(attach) = &mut client.role
                && attach.job.is_none()
            {
                attach.job = Some(job);
                adopted.push(*number);
                if attach.stream {
                    attached = (attached.0 || attach.stdout, attached.1 || attach.stderr);
                }
            }
        }
        if let Some(run) = &mut self.run {
            run.attached = attached;
        }
        for number in adopted {
            self.attached(number);
        }
    }

    /// The clients attached to a job.
    pub(crate) fn attached_to(&self, job: u32) -> Vec<u32> {
        self.clients
            .iter()
            .filter(|(_, client)| attach_job(client) == Some(job))
            .map(|(number, _)| *number)
            .collect()
    }

    /// Stops or resumes reading a job's output, as its clients keep up.
    pub(crate) fn throttle(&mut self, job_number: u32) {
        let Some(job) = self.jobs.get_mut(&job_number) else { return };
        let limit = if job.throttled { LOW } else { HIGH };
        let alive = job.exit.is_none();
        let unshipped = matches!(job.kind, Kind::Init) && self.shipper.as_ref().is_some_and(Shipper::is_full);
        job.throttled = alive
            && (unshipped
                || self.clients.values().any(|client| match &client.role {
                    Role::Attach(attach) if attach.job == Some(job_number) && !client.is_hung_up() => {
                        attach.history.is_some() || client.out.len() > limit
                    }
                    _ => false,
                }));
        if job.io.wait_for_output(job.throttled).is_err() {
            self.say("output cannot be waited for");
        }
    }
}

impl Run {
    /// Whether it has just begun, and nobody was attached to this output before. Compose 1 attaches to what it has just
    /// started, and dockerd takes long enough over a start that it misses little.
    fn is_news_to(&mut self, request: &AttachRequest) -> bool {
        let (stdout, stderr) = self.attached;
        self.attached = (stdout || request.stdout, stderr || request.stderr);
        self.attached != (stdout, stderr) && self.started.elapsed() < YOUNG
    }
}

/// The job that a client is attached to.
pub(crate) fn attach_job(client: &Client) -> Option<u32> {
    match &client.role {
        Role::Attach(attach) => attach.job,
        Role::Wait(_) | Role::Logs(_) => None,
    }
}
