//! Process 1 of a private host, and ways into its namespaces.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::poll::poll_quietly;
use crate::{CommandLine, Output, poll_value};

/// Ends a line of the shell's answer that holds its exit status.
const MARK: u8 = 1;

/// The running `host.sh`: all that is in its namespaces ends with it.
#[derive(Debug)]
pub(crate) struct Init {
    /// The folder of this host: engine's roots, sockets, logs. On the file system that all namespaces share.
    pub(crate) work: PathBuf,
    /// Process 1 of the namespaces, as seen from here.
    pub(crate) pid: u32,
    unshare: Child,
    shell: Mutex<Shell>,
}

#[derive(Debug)]
struct Shell {
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Shell {
    /// Output of the last line, and its exit status.
    fn answer(&mut self) -> (String, i32) {
        let mut text = Vec::new();
        self.output.read_until(MARK, &mut text).expect("read from host.sh");
        let mut code = String::new();
        self.output.read_line(&mut code).expect("read from host.sh");
        assert_eq!(text.pop(), Some(MARK), "host.sh ended: {}", String::from_utf8_lossy(&text));
        (String::from_utf8_lossy(&text).into_owned(), code.trim().parse().expect("exit status"))
    }
}

impl Init {
    /// Makes the namespaces, whose work folder is below `parent`.
    pub(crate) fn start(parent: &Path, environment: &[(&str, &str)]) -> Init {
        assert!(
            rustix::process::geteuid().is_root(),
            "the end-to-end tests need root: run `make test` as root"
        );
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        // Short, since a socket's path has room for 107 bytes, and outside /run, which the host hides.
        let work = parent.join(format!("wherry-t{}-{n}", std::process::id()));
        let _ = fs::remove_dir_all(&work);
        fs::create_dir_all(work.join("docker-config")).expect("make the work folder");
        let mut unshare = Command::new("bash")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/host.sh"))
            .arg(&work)
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start host.sh");
        let mut shell = Shell {
            input: unshare.stdin.take(),
            output: BufReader::new(unshare.stdout.take().expect("piped")),
        };
        shell.answer();
        let pid = poll_value("process 1 of the host", 10, || children(unshare.id()).first().copied());
        Init { work, pid, unshare, shell: Mutex::new(shell) }
    }

    /// Evaluates one line in process 1; for what must be its child. Returns standard output and exit status.
    pub(crate) fn evaluate(&self, line: &str) -> (String, i32) {
        let mut shell = self.shell.lock().expect("no other use has failed");
        let input = shell.input.as_mut().expect("open until dropped");
        writeln!(input, "{line}").expect("write to host.sh");
        shell.answer()
    }

    /// A command that will run inside.
    pub(crate) fn command(&self, line: &(impl CommandLine + ?Sized)) -> Command {
        let mut command = Command::new("timeout");
        command.args(["--foreground", "-k", "2", "120", "nsenter", "-m", "-n", "-p", "-u", "-t"]);
        command.arg(self.pid.to_string()).arg("--").args(line.words()).current_dir("/").stdin(Stdio::null());
        command
    }

    /// Runs a command inside.
    pub(crate) fn exec(&self, line: &(impl CommandLine + ?Sized)) -> Output {
        Output::of(self.command(line))
    }

    /// Runs `work` on a thread that is in the host's network: sockets made by it stay there.
    pub(crate) fn in_network<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        in_network_of(self.pid, work)
    }

    /// Connects from inside.
    pub(crate) fn connect(&self, address: SocketAddr) -> std::io::Result<TcpStream> {
        self.in_network(|| {
            let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            Ok(stream)
        })
    }

    /// All processes inside: pid as seen from here, and command line.
    pub(crate) fn processes(&self) -> Vec<(u32, String)> {
        let own = fs::read_link(format!("/proc/{}/ns/pid", self.pid)).expect("the host's process namespace");
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").expect("/proc").flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
            // Containers have process namespaces below the host's: follow the parents instead.
            let inside = fs::read_link(format!("/proc/{pid}/ns/pid")).is_ok_and(|ns| ns == own)
                || ancestors(pid).contains(&self.pid);
            if inside {
                let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                found.push((pid, String::from_utf8_lossy(&line).replace('\0', " ").trim().to_owned()));
            }
        }
        found
    }

    /// All processes inside but process 1 and those in a container's process namespace.
    pub(crate) fn servants(&self) -> Vec<(u32, String)> {
        let depth = inner_pids(self.pid).len();
        let serves = |pid: u32| pid != self.pid && inner_pids(pid).len() == depth;
        self.processes().into_iter().filter(|(pid, _)| serves(*pid)).collect()
    }

    /// A pid as seen from here, of one that is known inside.
    pub(crate) fn outer_pid(&self, inner: &str) -> Option<u32> {
        let depth = inner_pids(self.pid).len();
        let is_it = |pid: u32| inner_pids(pid).get(depth - 1).is_some_and(|known| known == inner);
        self.processes().into_iter().map(|(pid, _)| pid).find(|pid| is_it(*pid))
    }

    /// The folders of this host in the cgroup hierarchies, as seen from here.
    pub(crate) fn cgroups(&self) -> Vec<PathBuf> {
        let list = fs::read_to_string(self.work.join("cgroups")).expect("host.sh wrote it");
        list.lines().map(PathBuf::from).collect()
    }
}

impl Drop for Init {
    fn drop(&mut self) {
        // The end of its input ends the shell, and the kernel kills all others in the namespace.
        self.shell.get_mut().map(|shell| shell.input.take()).ok();
        let cgroups = self.cgroups();
        // What is frozen does not die.
        let ended = |unshare: &mut Child| !matches!(unshare.try_wait(), Ok(None));
        while !ended(&mut self.unshare) {
            cgroups.iter().for_each(|folder| thaw(folder));
            std::thread::sleep(Duration::from_millis(2));
        }
        let emptied = poll_quietly(20, || cgroups.iter().all(|c| remove_cgroup(c)).then_some(()));
        assert!(emptied.is_some() || std::thread::panicking(), "the host's cgroups do not become empty");
        let _ = fs::remove_dir_all(&self.work);
    }
}

/// Runs `work` on a thread that is in the network of this process.
pub(crate) fn in_network_of<T: Send>(pid: u32, work: impl FnOnce() -> T + Send) -> T {
    let namespace = fs::File::open(format!("/proc/{pid}/ns/net")).expect("the network namespace");
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("enter the network");
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The pids of a process in all of its namespaces, ours first.
fn inner_pids(pid: u32) -> Vec<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("NSpid:")).unwrap_or_default();
    line.split_whitespace().map(str::to_owned).collect()
}

/// Thaws all cgroups from this one downwards.
fn thaw(folder: &Path) {
    let _ = fs::write(folder.join("freezer.state"), "THAWED");
    let _ = fs::write(folder.join("cgroup.freeze"), "0");
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            thaw(&entry.path());
        }
    }
}

/// Removes a cgroup with those below it; true once it is gone.
fn remove_cgroup(folder: &Path) -> bool {
    if let Ok(entries) = fs::read_dir(folder) {
        for entry in entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())) {
            remove_cgroup(&entry.path());
        }
    }
    fs::remove_dir(folder).is_ok() || !folder.exists()
}

fn children(pid: u32) -> Vec<u32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().filter_map(|p| p.parse().ok()).collect()
}

fn ancestors(mut pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    while pid > 1 {
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { break };
        // The name, in parentheses, may hold anything.
        let Some(parent) = stat.rsplit(") ").next().and_then(|s| s.split(' ').nth(1)) else { break };
        pid = parent.parse().unwrap_or(0);
        found.push(pid);
    }
    found
}
