use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use crate::engine::Binary;
use crate::http::{Connection, Response};
use crate::init::{Init, in_network_of};
use crate::leftovers::{self, Baseline};
use crate::{CommandLine, Engine, Output, Session};

/// The one address of a private host.
pub const HOST_ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 73);

/// A private host with an engine. Dropping it removes all containers, checks that nothing is left behind,
/// stops the engine, and ends everything. It is an [`Engine`] by dereference.
#[derive(Debug)]
pub struct Host {
    init: Arc<Init>,
    engine: Engine,
    baseline: Baseline,
    discarded: bool,
}

impl Host {
    /// A host whose engine has the image `busybox`.
    #[expect(clippy::new_without_default, reason = "starting an engine is nothing that a default does")]
    pub fn new() -> Host {
        Host::with_arguments(&[])
    }

    /// As [`Host::new`], with more arguments for the engine.
    pub fn with_arguments(arguments: &[&str]) -> Host {
        Host::of(Binary::from_environment(), arguments)
    }

    /// As [`Host::new`], where only the unified cgroup hierarchy is mounted.
    pub fn with_unified_cgroups() -> Host {
        Host::start(Binary::from_environment(), &[], &[("WHERRY_TEST_CGROUP", "v2")])
    }

    /// As [`Host::with_arguments`], where the unified cgroup hierarchy is not mounted beside those of version 1.
    pub fn with_plain_cgroups(arguments: &[&str]) -> Host {
        Host::start(Binary::from_environment(), arguments, &[("WHERRY_TEST_CGROUP", "v1-only")])
    }

    /// As [`Host::with_arguments`], where the engine finds a criu that knows this kernel.
    ///
    /// # Panics
    /// If there is none.
    pub fn with_criu(arguments: &[&str]) -> Host {
        let found = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/programs/find-criu"));
        Host::with_search_path(Output::of(found).ok().out(), arguments)
    }

    /// As [`Host::with_arguments`], where the engine looks for programs in these folders.
    pub fn with_search_path(path: &str, arguments: &[&str]) -> Host {
        Host::start(Binary::from_environment(), arguments, &[("PATH", path)])
    }

    /// As [`Host::with_arguments`], of this program.
    pub fn of(binary: Binary, arguments: &[&str]) -> Host {
        Host::start(binary, arguments, &[])
    }

    /// As [`Host::of`], whose work folder, with all data of the engine, is below `parent` (a short path).
    pub fn below(parent: &Path, binary: Binary, arguments: &[&str]) -> Host {
        Host::start_below(parent, binary, arguments, &[])
    }

    fn start(binary: Binary, arguments: &[&str], environment: &[(&str, &str)]) -> Host {
        Host::start_below(Path::new("/var/tmp"), binary, arguments, environment)
    }

    fn start_below(parent: &Path, binary: Binary, arguments: &[&str], environment: &[(&str, &str)]) -> Host {
        let init = Arc::new(Init::start(parent, environment));
        let arguments = arguments.iter().map(ToString::to_string).collect();
        let engine = Engine::new(Arc::clone(&init), binary, "engine", arguments);
        engine.start();
        let archive = init.work.join("busybox.tar");
        image_archive(&archive, "busybox:latest", "");
        engine.docker(&["load", "-q", "-i", &archive.display().to_string()]).ok();
        let baseline = Baseline::take(&init, &engine);
        Host { init, engine, baseline, discarded: false }
    }

    /// A second engine on the same host; not started yet.
    pub fn another_engine(&self, name: &str, arguments: &[&str]) -> Engine {
        let arguments = arguments.iter().map(ToString::to_string).collect();
        Engine::new(Arc::clone(&self.init), Binary::from_environment(), name, arguments)
    }

    /// Ends the engine with SIGTERM, and starts it with other arguments than before.
    ///
    /// # Panics
    /// If it does not end well, or does not start.
    pub fn restart_with(&mut self, arguments: &[&str]) {
        assert_eq!(self.engine.stop(), 0, "the engine ends well");
        self.engine.arguments = arguments.iter().map(ToString::to_string).collect();
        self.engine.start();
    }

    /// A folder that the test, the host and the engine see alike.
    pub fn folder(&self) -> &Path {
        &self.init.work
    }

    /// A folder of this name below [`Host::folder`], with these files: path, text.
    pub fn folder_with(&self, name: &str, files: &[(&str, &str)]) -> PathBuf {
        let folder = self.folder().join(name);
        for (path, text) in files {
            let path = folder.join(path);
            let parent = path.parent().expect("it is below the folder");
            fs::create_dir_all(parent).and_then(|()| fs::write(&path, text)).expect("write a file");
        }
        folder
    }

    /// Loads busybox under another name, with this JSON as its configuration.
    pub fn load_image(&self, name: &str, config: &str) {
        let archive = self.image_archive(name, config);
        self.docker(&["load", "-q", "-i", &archive.display().to_string()]).ok();
    }

    /// An archive of such an image.
    pub fn image_archive(&self, name: &str, config: &str) -> PathBuf {
        let archive = self.init.work.join(format!("{}.tar", name.replace(['/', ':'], "-")));
        image_archive(&archive, name, config);
        archive
    }

    /// Runs a command on the host.
    pub fn exec(&self, line: &(impl CommandLine + ?Sized)) -> Output {
        self.init.exec(line)
    }

    /// Runs a command on the host, in the background.
    pub fn exec_session(&self, line: &(impl CommandLine + ?Sized)) -> Session {
        Session::on_pipes(self.init.command(line))
    }

    /// Starts a program that serves as long as the returned value lives, and the host does. Its output goes to a file.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn serve(&self, name: &str, line: &str) -> Servant {
        let log = self.init.work.join(format!("{name}.log"));
        let started = format!("setsid {line} </dev/null >>{} 2>&1 & echo $!", log.display());
        let pid = self.init.evaluate(&started).0.trim().to_owned();
        Servant { init: Arc::clone(&self.init), pid, log }
    }

    /// A command that will run on the host.
    pub fn command(&self, line: &(impl CommandLine + ?Sized)) -> Command {
        self.init.command(line)
    }

    /// Connects to an address from the host.
    ///
    /// # Errors
    /// As the kernel says; waits for 5 s at most.
    pub fn connect_to(&self, address: impl Into<SocketAddr>) -> std::io::Result<TcpStream> {
        self.init.connect(address.into())
    }

    /// Runs `work` on a thread in the host's network.
    pub fn in_network<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.init.in_network(work)
    }

    /// The host's network, for threads that outlive this borrow.
    pub(crate) fn inner_network(&self) -> Network {
        Network(self.init.pid)
    }

    /// Runs `work` on a thread in a running container's network.
    ///
    /// # Panics
    /// If the container does not run.
    pub fn in_container<T: Send>(&self, name: &str, work: impl FnOnce() -> T + Send) -> T {
        let pid = self.inspect(name)["State"]["Pid"].to_string();
        let pid = self.init.outer_pid(&pid).expect("a running container's process");
        in_network_of(pid, work)
    }

    /// GETs a page from the host; `None` if there is no connection or no answer.
    pub fn http_get(&self, address: impl Into<SocketAddr>, path: &str) -> Option<Response> {
        let stream = self.connect_to(address).ok()?;
        Connection::new(stream).try_request("GET", path, &[("Connection", "close")], b"")
    }

    /// All processes inside: pid as seen from the test, and command line.
    pub fn processes(&self) -> Vec<(u32, String)> {
        self.init.processes()
    }

    /// All processes that keep things going, as [`Host::processes`]: without process 1 and what runs in containers.
    pub fn servants(&self) -> Vec<(u32, String)> {
        self.init.servants()
    }

    /// The folders of this host in the cgroup hierarchies, as seen from the test.
    pub fn cgroups(&self) -> Vec<PathBuf> {
        self.init.cgroups()
    }

    /// Takes what is there now as what may stay: after a second engine, whose rules are nothing of ours.
    pub fn settle(&mut self) {
        self.baseline = Baseline::take(&self.init, &self.engine);
    }

    /// Ends everything without any check: for measuring engines that are not under test.
    pub fn discard(mut self) {
        self.discarded = true;
    }

    /// Removes all containers, networks and volumes, and checks that nothing of them is left.
    ///
    /// # Panics
    /// If something is.
    pub fn clean(&self) {
        let ids = self.docker("ps -aq").ok();
        if !ids.out().is_empty() {
            let mut line = vec!["rm", "-fv"];
            line.extend(ids.stdout.split_whitespace());
            self.docker(line.as_slice()).ok();
        }
        self.docker("network prune -f").ok();
        leftovers::check(&self.init, &self.engine, &self.baseline);
    }
}

/// A host's network. Of no use after the host's end.
#[derive(Debug, Clone)]
pub(crate) struct Network(u32);

impl Network {
    /// Runs `work` on a thread in it.
    pub(crate) fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        in_network_of(self.0, work)
    }
}

/// A program that serves on a host until this is dropped.
#[derive(Debug)]
pub struct Servant {
    init: Arc<Init>,
    pid: String,
    log: PathBuf,
}

impl Servant {
    /// What it has written.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Servant {
    fn drop(&mut self) {
        self.init.evaluate(&format!("kill {pid} 2>/dev/null; wait {pid} 2>/dev/null", pid = self.pid));
    }
}

impl Deref for Host {
    type Target = Engine;

    fn deref(&self) -> &Engine {
        &self.engine
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if self.discarded {
            return;
        }
        if std::thread::panicking() {
            eprintln!("the engine's log ends:\n{}", self.engine.log());
            return;
        }
        if !self.engine.is_running() {
            self.engine.start();
        }
        self.clean();
        let status = self.engine.stop();
        assert!(status == 0, "the engine ended with {status} after SIGTERM:\n{}", self.engine.log());
    }
}

fn image_archive(path: &Path, name: &str, config: &str) {
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/busybox-image.sh"));
    command.arg(path).args([name, config]);
    Output::of(command).ok();
}
