//! A stand-in for the engine, and the containers that it runs.

use std::collections::VecDeque;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wherry_ipc::Frames;
use wherry_monitor_api::{
    AttachRequest, BodyEncoding, Call, Event, EventKind, Failure, Framing, LogDriver, LogSpec, LogsRequest,
    Message, Reply, Request, RestartPolicy, Rootfs, StartSpec, State, VERSION, WaitCondition, WaitRequest,
};

/// Nothing here takes longer, on the slowest machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);
const APPLETS: &[&str] = &[
    "sh", "cat", "echo", "sleep", "ls", "wc", "head", "stty", "kill", "true", "false", "ps", "dd", "id",
    "tr", "yes", "seq", "touch", "rm", "grep", "usleep", "test", "stat", "readlink",
];

/// A container's folder, and its monitor.
pub(crate) struct Host {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) id: String,
    child: Option<Child>,
}

/// A control connection.
pub(crate) struct Engine {
    socket: UnixStream,
    frames: Frames,
    last_id: u64,
    replies: Vec<(u64, Result<Reply, Failure>)>,
    pub(crate) events: VecDeque<Event>,
}

impl Host {
    pub(crate) fn new() -> Self {
        assert!(rustix::process::geteuid().is_root(), "these tests need root");
        let dir = tempfile::tempdir().unwrap();
        let id = format!(
            "wherrytest{}",
            dir.path().file_name().unwrap().to_str().unwrap().trim_start_matches('.')
        );
        let root = dir.path().join("rootfs");
        for folder in ["bin", "proc", "sys", "dev", "tmp", "etc"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        fs::copy("/bin/busybox", root.join("bin/busybox")).expect("Debian's busybox-static is needed");
        for applet in APPLETS {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        Self { dir, id, child: None }
    }

    /// Starts the monitor.
    pub(crate) fn monitor(&mut self) -> Engine {
        let listener = wherry_ipc::listen(&self.socket_path(), 0o600).unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_wherry-monitor"))
            .arg(&self.id)
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .stdout(Stdio::from(OwnedFd::from(theirs)))
            .spawn()
            .unwrap();
        self.child = Some(child);
        let mut engine = Engine::over(ours);
        engine.greet();
        engine
    }

    /// Connects like a later engine.
    pub(crate) fn connect(&self) -> Engine {
        Engine::over(wherry_ipc::connect(&self.socket_path()).unwrap())
    }

    pub(crate) fn socket_path(&self) -> PathBuf {
        self.dir.path().join("monitor.sock")
    }

    pub(crate) fn log_path(&self) -> PathBuf {
        self.dir.path().join("log.json")
    }

    pub(crate) fn monitor_pid(&self) -> i32 {
        i32::try_from(self.child.as_ref().unwrap().id()).unwrap()
    }

    /// The state on disk.
    pub(crate) fn state(&self) -> Option<State> {
        wherry_durable::read_json(&self.dir.path().join("state.json")).unwrap()
    }

    /// Waits for the monitor to end by itself.
    pub(crate) fn monitor_ends(&mut self) {
        let child = self.child.as_mut().unwrap();
        let mut code = None;
        until("the monitor ends", || {
            code = child.try_wait().unwrap();
            code.is_some()
        });
        assert!(code.unwrap().success());
    }

    /// What starts `command` in a shell.
    pub(crate) fn shell(&self, command: &str) -> StartSpec {
        self.start(&["/bin/sh", "-c", command])
    }

    pub(crate) fn start(&self, arguments: &[&str]) -> StartSpec {
        StartSpec {
            container: self.id.clone(),
            oci: json!({
                "ociVersion": "1.2.0",
                "process": process(arguments),
                "root": {"path": self.dir.path().join("rootfs"), "readonly": false},
                "hostname": "wherry-test",
                "mounts": [
                    {"destination": "/proc", "type": "proc", "source": "proc"},
                    {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
                    {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
                     "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
                ],
                "linux": {
                    "cgroupsPath": format!("/{}", self.id),
                    "namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}, {"type": "network"}],
                },
            }),
            rootfs: Rootfs::Directory,
            systemd_cgroup: false,
            state_path: self.dir.path().join("state.json"),
            log: LogSpec {
                driver: LogDriver::JsonFile(self.log_path()),
                max_bytes: None,
                max_files: 1,
                compress: false,
                attributes: Default::default(),
                remote: None,
            },
            open_stdin: false,
            stdin_once: false,
            console_size: None,
            restart: RestartPolicy::No,
            restart_count: 0,
            external: None,
            checkpoint: None,
            health: None,
        }
    }

    /// The same with standard input, as `docker run -i`.
    pub(crate) fn interactive(&self, command: &str) -> StartSpec {
        StartSpec { open_stdin: true, stdin_once: true, ..self.shell(command) }
    }

    /// The same with a terminal, as `docker run -it`.
    pub(crate) fn terminal(&self, command: &str) -> StartSpec {
        let mut start = self.interactive(command);
        start.oci["process"]["terminal"] = true.into();
        start.console_size = Some((30, 100));
        start
    }

    /// The log's texts, joined. A line that is being written at this instant is not there yet.
    pub(crate) fn log_text(&self) -> String {
        let log = fs::read_to_string(self.log_path()).unwrap_or_default();
        let complete = log.lines().map_while(|line| serde_json::from_str::<Value>(line).ok());
        complete.map(|entry| entry["log"].as_str().unwrap().to_owned()).collect()
    }

    /// The folders of the container's cgroup that exist.
    pub(crate) fn cgroups(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let roots = fs::read_dir("/sys/fs/cgroup").unwrap().map(|entry| entry.unwrap().path());
        for root in roots.chain(["/sys/fs/cgroup".into()]) {
            let path = root.join(&self.id);
            if path.exists() {
                found.push(path);
            }
        }
        found
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // A test that failed leaves its container: the monitor's children are ended with it.
        if let Some(child) = &mut self.child
            && child.try_wait().is_ok_and(|ended| ended.is_none())
        {
            for pid in children(i32::try_from(child.id()).unwrap_or(0)) {
                let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).status();
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        // Its cgroup goes once its processes have left.
        let end = Instant::now() + LIMIT;
        while self.cgroups().iter().any(|folder| fs::remove_dir(folder).is_err()) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

pub(crate) fn children(pid: i32) -> Vec<i32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// `process` of the specification.
pub(crate) fn process(arguments: &[&str]) -> Value {
    json!({
        "args": arguments,
        "env": ["PATH=/bin", "HOME=/"],
        "cwd": "/",
        "user": {"uid": 0, "gid": 0},
        "terminal": false,
        "noNewPrivileges": false,
    })
}

impl Engine {
    pub(crate) fn over(socket: UnixStream) -> Self {
        Self { socket, frames: Frames::default(), last_id: 0, replies: Vec::new(), events: VecDeque::new() }
    }

    pub(crate) fn greet(&mut self) -> State {
        let reply = self.call(Request::Hello { version: VERSION }, &[]).unwrap();
        let Reply::Hello { state, .. } = reply else { panic!("{reply:?}") };
        self.ok(Request::Subscribe { after: 0 });
        *state
    }

    /// Sends a request; [`Engine::reply`] waits for what it answers.
    pub(crate) fn submit(&mut self, request: Request, fds: &[BorrowedFd<'_>]) -> u64 {
        self.last_id += 1;
        wherry_ipc::send(&self.socket, &Call { id: self.last_id, request }, fds).unwrap();
        self.last_id
    }

    pub(crate) fn reply(&mut self, id: u64) -> Result<Reply, Failure> {
        loop {
            if let Some(at) = self.replies.iter().position(|(other, _)| *other == id) {
                return self.replies.swap_remove(at).1;
            }
            assert!(self.receive(LIMIT), "no reply");
        }
    }

    pub(crate) fn call(&mut self, request: Request, fds: &[BorrowedFd<'_>]) -> Result<Reply, Failure> {
        let id = self.submit(request, fds);
        self.reply(id)
    }

    pub(crate) fn ok(&mut self, request: Request) {
        let what = format!("{request:?}");
        assert!(matches!(self.call(request, &[]), Ok(Reply::Ok)), "{what}");
    }

    pub(crate) fn start(&mut self, start: StartSpec) -> i32 {
        match self.call(Request::Start(Box::new(start)), &[]) {
            Ok(Reply::Started { pid, .. }) => pid,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn state(&mut self) -> State {
        match self.call(Request::State, &[]) {
            Ok(Reply::State(state)) => *state,
            other => panic!("{other:?}"),
        }
    }

    /// Reads messages once; false if none comes in time.
    fn receive(&mut self, limit: Duration) -> bool {
        self.socket.set_read_timeout(Some(limit)).unwrap();
        match self.frames.fill(self.socket.as_fd()) {
            Ok(()) => {}
            Err(wherry_ipc::Error::Socket(_)) => return false,
            Err(other) => panic!("the monitor is gone: {other}"),
        }
        while let Some((message, _)) = self.frames.message::<Message>().unwrap() {
            match message {
                Message::Reply { id, result } => self.replies.push((id, result)),
                Message::Event(event) => self.events.push_back(event),
            }
        }
        true
    }

    /// The next event, acknowledged.
    pub(crate) fn event(&mut self) -> EventKind {
        loop {
            if let Some(event) = self.events.pop_front() {
                self.ok(Request::Acknowledge { up_to: event.seq });
                return event.kind;
            }
            assert!(self.receive(LIMIT), "no event");
        }
    }

    /// Skips events up to init's end; its code and whether a restart follows.
    pub(crate) fn exited(&mut self) -> (i32, bool) {
        loop {
            if let EventKind::Exited { code, restarting, .. } = self.event() {
                return (code, restarting);
            }
        }
    }

    /// Whether no event comes for so long.
    pub(crate) fn is_quiet(&mut self, time: Duration) -> bool {
        self.events.is_empty() && !self.receive(time)
    }

    /// Hands a client over; gives its other end, behind the head of the response.
    pub(crate) fn client(&mut self, request: Request) -> UnixStream {
        let (mut client, handed) = UnixStream::pair().unwrap();
        let what = format!("{request:?}");
        match self.call(request, &[handed.as_fd()]) {
            Ok(Reply::Ok | Reply::ExecStarted { .. }) => {}
            other => panic!("{what}: {other:?}"),
        }
        client.set_read_timeout(Some(LIMIT)).unwrap();
        let mut head = [0; 4];
        client.read_exact(&mut head).unwrap();
        assert_eq!(&head, b"HEAD");
        client
    }

    pub(crate) fn attach(&mut self, request: AttachRequest) -> UnixStream {
        self.client(Request::Attach(request))
    }

    pub(crate) fn wait(&mut self, condition: WaitCondition) -> UnixStream {
        self.client(Request::Wait(WaitRequest {
            head: b"HEAD".to_vec(),
            condition,
            prefix: "{\"StatusCode\":".into(),
            suffix: "}\n".into(),
            encoding: BodyEncoding::Chunked,
        }))
    }

    pub(crate) fn release(&mut self, host: &mut Host) {
        self.ok(Request::Release);
        host.monitor_ends();
    }
}

/// Attached to everything, as `docker run -i`.
pub(crate) fn attached() -> AttachRequest {
    AttachRequest {
        head: b"HEAD".to_vec(),
        stdin: true,
        stdout: true,
        stderr: true,
        stream: true,
        logs: false,
        framing: Framing::Raw,
        encoding: BodyEncoding::UntilClose,
        detach_keys: vec![16, 17],
        on_detach: "detached\r\n".into(),
        already_read: Vec::new(),
    }
}

/// All of the log, going on.
pub(crate) fn following() -> LogsRequest {
    LogsRequest {
        head: b"HEAD".to_vec(),
        stdout: true,
        stderr: true,
        since_ns: None,
        until_ns: None,
        tail: None,
        timestamps: false,
        details: false,
        follow: true,
        framing: Framing::Raw,
        encoding: BodyEncoding::UntilClose,
    }
}

/// The body of the answer to a waiting client.
pub(crate) fn waited(code: i32) -> String {
    let body = format!("{{\"StatusCode\":{code}}}\n");
    format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len())
}

/// Everything up to the end of the connection.
pub(crate) fn rest(mut client: UnixStream) -> String {
    let mut bytes = Vec::new();
    client.read_to_end(&mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

/// Reads until the text so far contains `wanted`.
pub(crate) fn read_until(client: &mut UnixStream, wanted: &str) -> String {
    let (mut text, mut byte) = (Vec::new(), [0]);
    loop {
        match client.read(&mut byte) {
            Ok(1) => text.push(byte[0]),
            other => panic!("{other:?} before {wanted:?}, after {:?}", String::from_utf8_lossy(&text)),
        }
        if text.ends_with(wanted.as_bytes()) {
            return String::from_utf8_lossy(&text).into_owned();
        }
    }
}

pub(crate) fn type_in(client: &mut UnixStream, text: &str) {
    client.write_all(text.as_bytes()).unwrap();
}

/// Waits until something is true.
pub(crate) fn until(what: &str, mut is_true: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !is_true() {
        assert!(Instant::now() < end, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a process is there.
pub(crate) fn is_alive(pid: i32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}
