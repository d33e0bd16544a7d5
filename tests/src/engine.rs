//! One engine in a private host.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use serde_json::Value;

use crate::http::{Connection, Response};
use crate::init::Init;
use crate::{CommandLine, Output, Session, poll};

/// The program under test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binary(PathBuf);

impl Binary {
    /// What `ENGINE` names; without it target/release/wherryd.
    ///
    /// # Panics
    /// If there is no such program.
    pub fn from_environment() -> Binary {
        let built = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/release/wherryd");
        Binary::at(std::env::var_os("ENGINE").map_or_else(|| built.into(), PathBuf::from))
    }

    /// The program at this path.
    ///
    /// # Panics
    /// If there is no such program.
    pub fn at(path: PathBuf) -> Binary {
        let path = fs::canonicalize(&path)
            .unwrap_or_else(|_| panic!("no engine at {}: run `make build`, or set ENGINE", path.display()));
        Binary(path)
    }

    /// Is it a dockerd, with which the tests themselves are checked?
    pub fn is_reference(&self) -> bool {
        self.0.file_name().is_some_and(|name| name.to_string_lossy().starts_with("dockerd"))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

/// An engine of a [`crate::Host`]: its roots, its socket, its process.
#[derive(Debug)]
pub struct Engine {
    init: Arc<Init>,
    binary: Binary,
    root: PathBuf,
    /// Besides those that give it a place of its own.
    pub(crate) arguments: Vec<String>,
}

impl Engine {
    /// A new engine `name` with more arguments than its roots; not started yet.
    pub(crate) fn new(init: Arc<Init>, binary: Binary, name: &str, arguments: Vec<String>) -> Engine {
        let root = init.work.join(name);
        fs::create_dir_all(&root).expect("make the engine's folder");
        Engine { init, binary, root, arguments }
    }

    /// As [`Binary::is_reference`].
    pub(crate) fn is_reference(&self) -> bool {
        self.binary.is_reference()
    }

    /// The folder that holds its roots (`data`, `exec`), `socket`, `pid` and `log`.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The arguments that give it a place of its own, and those that the test added.
    pub fn arguments(&self) -> Vec<String> {
        let root = self.root.display();
        let place = format!(
            "-H unix://{root}/socket --data-root {root}/data --exec-root {root}/exec --pidfile {root}/pid"
        );
        place.split(' ').map(str::to_owned).chain(self.arguments.iter().cloned()).collect()
    }

    /// Its program and arguments as words of a shell.
    pub fn command_line(&self) -> String {
        let quoted = self.arguments().iter().map(|word| format!(" '{word}'")).collect::<String>();
        format!("{}{quoted}", self.binary.path().display())
    }

    /// Starts it and waits until it answers. Also after [`Engine::kill`] and [`Engine::stop`].
    ///
    /// # Panics
    /// If it ends, or does not answer within 60 s; with the end of its log.
    pub fn start(&self) {
        let log = self.root.join("log");
        let line = format!("setsid {} </dev/null >>{} 2>&1 & echo $!", self.command_line(), log.display());
        let pid = self.init.evaluate(&line).0;
        fs::write(self.root.join("started"), pid.trim()).expect("note the pid");
        poll("the engine's answer", 60, || {
            assert!(self.is_running(), "the engine ended:\n{}", self.log());
            self.try_ping()
        });
    }

    fn try_ping(&self) -> bool {
        let Ok(stream) = UnixStream::connect(self.root.join("socket")) else { return false };
        Connection::new(stream)
            .try_request("GET", "/_ping", &[], b"")
            .is_some_and(|answer| answer.status == 200)
    }

    /// Its pid inside the host.
    pub fn pid(&self) -> String {
        fs::read_to_string(self.root.join("started")).expect("the engine was started")
    }

    /// Does its process exist?
    pub fn is_running(&self) -> bool {
        self.signal("0")
    }

    /// Sends a signal; false if there is no process.
    pub fn signal(&self, signal: &str) -> bool {
        self.init.evaluate(&format!("kill -{signal} {} 2>/dev/null", self.pid())).1 == 0
    }

    /// SIGKILL, and the end of the process.
    pub fn kill(&self) {
        assert!(self.signal("KILL"), "the engine runs");
        self.init.evaluate(&format!("wait {} 2>/dev/null", self.pid()));
    }

    /// SIGTERM; returns the exit status.
    pub fn stop(&self) -> i32 {
        assert!(self.signal("TERM"), "the engine runs, its log ends:\n{}", self.log());
        poll("the engine to end after SIGTERM", 30, || !self.is_running());
        self.init.evaluate(&format!("wait {} 2>/dev/null", self.pid())).1
    }

    /// The last lines of its log.
    pub fn log(&self) -> String {
        let text = fs::read_to_string(self.root.join("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }

    /// A docker client for this engine, not yet running.
    pub fn docker_command(&self, line: &(impl CommandLine + ?Sized)) -> Command {
        self.client_command("docker", line)
    }

    /// Another client that finds the engine by the same variables, such as `docker-compose`; not yet running.
    pub fn client_command(&self, program: &str, line: &(impl CommandLine + ?Sized)) -> Command {
        let mut command = Command::new("timeout");
        command.args(["--foreground", "-k", "2", "120", program]).args(line.words()).stdin(Stdio::null());
        command
            .env("DOCKER_HOST", format!("unix://{}/socket", self.root.display()))
            .env("DOCKER_CONFIG", self.init.work.join("docker-config"))
            .env("DOCKER_CLI_HINTS", "false")
            .env("BUILDX_NO_DEFAULT_ATTESTATIONS", "1")
            .env("TERM", "xterm");
        for name in ["DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_API_VERSION", "DOCKER_DEFAULT_PLATFORM"] {
            command.env_remove(name);
        }
        command
    }

    /// Runs a docker client to its end.
    pub fn docker(&self, line: &(impl CommandLine + ?Sized)) -> Output {
        Output::of(self.docker_command(line))
    }

    /// As [`Engine::docker`], with standard input.
    pub fn docker_with_input(&self, line: &(impl CommandLine + ?Sized), input: &[u8]) -> Output {
        Output::with_input(self.docker_command(line), input)
    }

    /// A docker client in the background, on pipes.
    pub fn docker_session(&self, line: &(impl CommandLine + ?Sized)) -> Session {
        Session::on_pipes(self.docker_command(line))
    }

    /// A docker client in the background, on a terminal of 40 rows and 120 columns.
    pub fn docker_terminal(&self, line: &(impl CommandLine + ?Sized)) -> Session {
        Session::on_terminal(&self.docker_command(line))
    }

    /// A connection to the API.
    pub fn connect(&self) -> Connection<UnixStream> {
        let stream = UnixStream::connect(self.root.join("socket")).expect("connect to the engine");
        stream.set_read_timeout(Some(std::time::Duration::from_secs(60))).expect("set a limit");
        Connection::new(stream)
    }

    /// One request on a connection of its own. A body that is not null is sent as JSON.
    pub fn api(&self, method: &str, path: &str, body: &Value) -> Response {
        self.connect().json(method, path, body)
    }

    /// What `docker inspect` says of one object.
    pub fn inspect(&self, object: &str) -> Value {
        let text = self.docker(&["inspect", object]).ok().stdout;
        let mut list: Value = serde_json::from_str(&text).expect("inspect prints JSON");
        list[0].take()
    }
}
