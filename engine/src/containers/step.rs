//! The program of a build's step: it runs like a container's, by the same specification, network and monitor, but nobody
//! sees it as a container. It has no record on the disk; all that it needs lies below `EXEC_ROOT/build`, and what an engine
//! that was killed has left of it is ended and removed by the next one.

pub(crate) mod visible;

use std::any::Any;
use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::sync::mpsc::UnboundedReceiver;
use wherry_image_store::{Mountable, Writable, mount_detached};
use wherry_monitor_api::{
    AttachRequest, BodyEncoding, EventKind, Framing, LogDriver, LogSpec, OverlayRootfs, Reply, Request,
    RestartPolicy, Rootfs, StartSpec, run_dir,
};

use super::config::{Config, HostConfig, MountPoint};
use super::files::{self, EtcInput, EtcPaths};
use super::monitor::{CallError, Monitor, Signal, start_failure};
use super::network::{self, Joined};
use super::record::{self, Attachment, MountExtra, Record};
use super::users::{self, ResolvedUser};
use super::{create, leftovers, spec, start};
use crate::engine::{Engine, blocking};
use crate::error::Error;
use crate::server::ApiVersion;

/// The folder in a step's own folder in which file systems may be mounted that it needs.
pub(crate) const MOUNTS: &str = "mounts";
/// What stands before the reason for which a program could not be started.
const CREATE_FAILED: &str = "runc create failed: ";
/// Most bytes of output that are passed on at once.
const PIECE_BYTES: usize = 64 << 10;

/// What is to be run.
#[derive(Debug)]
pub(crate) struct Step {
    /// 64 hex digits.
    pub(crate) id: String,
    /// Its file system. Nobody else has it mounted.
    pub(crate) writable: Writable,
    /// Program, environment, folder, user, host name.
    pub(crate) config: Config,
    /// Limits, network mode, further hosts, privileges.
    pub(crate) host: HostConfig,
    /// Mounts, with sources that are there.
    pub(crate) mounts: Vec<(MountPoint, MountExtra)>,
    /// Its own folder, in which some of these sources may be.
    pub(crate) folder: Folder,
    /// What must not be given back before the program has ended.
    pub(crate) held: Box<dyn Any + Send + Sync>,
}

/// `EXEC_ROOT/build`: what would be `DATA_ROOT` and `EXEC_ROOT` for the files of a container.
pub(crate) fn exec_root(engine: &Engine) -> PathBuf {
    engine.config().exec_root.join("build")
}

/// Runs it to its end. Output goes to `output`, with the number of its stream (1, 2); the program waits for who takes it slowly. If
/// this future is dropped, the program is killed, and what it holds is given back after its end.
///
/// # Errors
/// What keeps it from being started, as `docker run` tells it.
pub(crate) async fn run<F>(
    engine: &Arc<Engine>,
    step: Step,
    mut output: impl FnMut(u8, Vec<u8>) -> F + Send,
) -> Result<i32, Error>
where
    F: Future<Output = ()> + Send,
{
    let exec_root = exec_root(engine);
    let record = Arc::new(record_of(engine, &step).await?);
    let dir = run_dir(&exec_root, &record.id);
    let mut cleanup = Cleanup {
        engine: engine.clone(),
        folder: Some(step.folder),
        record: record.clone(),
        monitor: None,
        network: false,
        held: Some(step.held),
    };
    std::fs::create_dir_all(dir.join("rootfs")).map_err(Error::io("create", dir.display()))?;
    let (monitor, mut signals) = Monitor::spawn(&engine.monitor_program, &dir, &record.id)
        .map_err(Error::io("start the monitor of", &record.id))?;
    cleanup.monitor = Some(monitor.clone());
    cleanup.network = true;
    let (joined, user) = tokio::join!(network::join(engine, &record), resolve(&step.writable, &record));
    let (joined, user) = (joined?, user.map_err(|error| not_run(&record, &error))?);
    let spec = specification(engine, &record, &joined, &user, &step.writable)?;
    let (ours, theirs) = UnixStream::pair().map_err(Error::io("make a socket for", "the step's output"))?;
    let theirs = theirs.into_std().map_err(Error::io("make a socket for", "the step's output"))?;
    let broken =
        |error: CallError| Error::Monitor { container: record.id.clone(), reason: error.to_string() };
    monitor.submit(Request::Subscribe { after: 0 }, &[]).map_err(broken)?;
    monitor.submit(Request::Attach(attach()), &[theirs.as_fd()]).map_err(broken)?;
    drop(theirs);
    // Whoever ends all steps finds the monitor from here on, and would not have found it before.
    if engine.builds.is_closed() {
        return Err(Error::server("the engine is shutting down"));
    }
    match monitor.call(Request::Start(Box::new(spec)), &[]).await {
        Ok(Reply::Started { .. }) => {}
        Ok(_) => return Err(broken(CallError::Unexpected)),
        Err(CallError::Refused(failure)) => {
            // As with BuildKit: the runtime says why in the step's output, and has failed.
            let text = start_failure(&failure).1;
            let reason = text.rsplit_once(CREATE_FAILED).map_or(text.as_str(), |(_, reason)| reason);
            output(2, format!("runc run failed: {reason}\n").into_bytes()).await;
            return Ok(1);
        }
        Err(error) => return Err(broken(error)),
    }
    // Acknowledged at once, as clients of the monitor wait for that.
    let ended = async {
        let code = exit_code(&mut signals).await;
        let _ = monitor.submit(Request::Acknowledge { up_to: u64::MAX }, &[]);
        code
    };
    let (read, code) = tokio::join!(read_output(ours, &mut output), ended);
    read.map_err(Error::io("read the output of", &record.id))?;
    let code = code.ok_or_else(|| broken(CallError::Gone))?;
    cleanup.finish().await;
    Ok(code)
}

/// Why a program was not even tried.
fn not_run(record: &Record, error: &Error) -> Error {
    let words = std::iter::once(&record.path).chain(&record.args).cloned().collect::<Vec<_>>().join(" ");
    let words = crate::text::go_quote(&words);
    Error::server(format!("process {words} did not complete successfully: {error}"))
}

/// The record of a container that would be the step.
async fn record_of(engine: &Arc<Engine>, step: &Step) -> Result<Record, Error> {
    let daemon = engine.config();
    let (config, mut host) = (step.config.clone(), step.host.clone());
    if matches!(host.network_mode.as_str(), "" | "default") {
        "bridge".clone_into(&mut host.network_mode);
    }
    create::fill_defaults(&mut host, &daemon, engine.cgroup_v2, ApiVersion::MAX);
    let mut networks = BTreeMap::new();
    if !host.network_mode.starts_with("container:") {
        networks.insert(host.network_mode.clone(), Attachment::default());
    }
    let mut words = config.entrypoint.iter().flatten().chain(config.cmd.iter().flatten()).cloned();
    let path = words.next().ok_or_else(|| Error::InvalidParameter("no command specified".into()))?;
    let args = words.collect();
    let mut mount_extras = BTreeMap::new();
    let mut mounts = Vec::new();
    for (mount, extra) in &step.mounts {
        mount_extras.insert(mount.destination.clone(), extra.clone());
        mounts.push(mount.clone());
    }
    Ok(Record {
        version: record::VERSION,
        id: step.id.clone(),
        name: step.id.clone(),
        created_ns: crate::clock::now_ns(),
        image: String::new(),
        path,
        args,
        config,
        host_config: host,
        mounts,
        mount_extras,
        networks,
        start_failure: None,
        started_before: false,
    })
}

/// Who runs it, by the files of its own file system; makes its working directory there.
async fn resolve(writable: &Writable, record: &Arc<Record>) -> Result<ResolvedUser, Error> {
    let (writable, record) = (writable.clone(), record.clone());
    blocking(move || {
        let root = mount_detached(Mountable::Writable(&writable))?;
        start::make_working_dir(root.as_fd(), &record.config.working_dir)?;
        let groups = record.host_config.group_add.clone().unwrap_or_default();
        users::resolve(root.as_fd(), &record.config.user, &groups)
    })
    .await
}

fn specification(
    engine: &Arc<Engine>,
    record: &Record,
    joined: &Joined,
    user: &ResolvedUser,
    writable: &Writable,
) -> Result<StartSpec, Error> {
    let (config, exec_root) = (engine.config(), exec_root(engine));
    let etc = write_etc(engine, record, joined)?;
    let netns = joined.netns();
    let dir = run_dir(&exec_root, &record.id);
    let oci = spec::generate(&spec::Input {
        record,
        config: &config,
        user,
        rootfs: &dir.join("rootfs"),
        netns: netns.as_deref(),
        etc: &etc,
        pid_ns: None,
        ipc_ns: None,
        shm: None,
        cgroup_v2: engine.cgroup_v2,
        extra_env: &[],
    })?;
    Ok(StartSpec {
        container: record.id.clone(),
        oci,
        rootfs: Rootfs::Overlay(OverlayRootfs {
            lower: writable.lower.clone(),
            upper: writable.upper.clone(),
            work: writable.work.clone(),
        }),
        systemd_cgroup: config.systemd_cgroup,
        state_path: dir.join("state.json"),
        log: LogSpec {
            driver: LogDriver::None,
            max_bytes: None,
            max_files: 1,
            compress: false,
            attributes: BTreeMap::new(),
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
    })
}

/// The three files in `/etc`, in the step's own folder.
fn write_etc(engine: &Engine, record: &Record, joined: &Joined) -> Result<EtcPaths, Error> {
    if let Joined::Other(_) = joined {
        let other = record.host_config.network_mode.strip_prefix("container:").unwrap_or_default();
        return Ok(EtcPaths::of(&engine.config().data_root, &engine.containers.find(other)?.id));
    }
    let config = engine.config();
    let input = EtcInput {
        record,
        config: &config,
        resolution: network::resolution(joined),
        addresses: &[],
        links: &[],
        host_gateways: &start::host_gateways(engine),
    };
    let paths = files::write(&exec_root(engine), &input)?;
    // As with BuildKit, in any network: the step knows its own name, and nothing of the host's.
    let hosts = files::step_hosts(&input);
    std::fs::write(&paths.hosts, hosts).map_err(Error::io("write", paths.hosts.display()))?;
    Ok(paths)
}

/// Output only, both streams over one socket.
fn attach() -> AttachRequest {
    AttachRequest {
        head: Vec::new(),
        stdin: false,
        stdout: true,
        stderr: true,
        stream: true,
        logs: false,
        framing: Framing::Multiplexed,
        encoding: BodyEncoding::UntilClose,
        detach_keys: Vec::new(),
        on_detach: String::new(),
        already_read: Vec::new(),
    }
}

/// Passes on what a monitor writes to an attached client, piece after piece, until it closes the socket.
///
/// # Errors
/// Those of the socket.
pub(crate) async fn read_output<F>(
    mut socket: UnixStream,
    output: &mut (impl FnMut(u8, Vec<u8>) -> F + Send),
) -> std::io::Result<()>
where
    F: Future<Output = ()> + Send,
{
    let mut head = [0; 8];
    loop {
        match socket.read_exact(&mut head).await {
            Ok(_) => {}
            Err(end) if end.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        }
        let [stream, _, _, _, a, b, c, d] = head;
        let mut left = u32::from_be_bytes([a, b, c, d]) as usize;
        while left > 0 {
            let mut piece = vec![0; left.min(PIECE_BYTES)];
            socket.read_exact(&mut piece).await?;
            left -= piece.len();
            output(stream, piece).await;
        }
    }
}

/// Waits for the program's end. `None` if its monitor went before.
async fn exit_code(signals: &mut UnboundedReceiver<Signal>) -> Option<i32> {
    while let Some(signal) = signals.recv().await {
        match signal {
            Signal::Event(event) => {
                if let EventKind::Exited { code, .. } = event.kind {
                    return Some(code);
                }
            }
            Signal::Gone => return None,
        }
    }
    None
}

/// A step's own folder, which goes with the value, what is mounted in it first.
#[derive(Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// The folder `EXEC_ROOT/build/containers/ID`.
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self(dir)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        remove_dir(&self.0);
    }
}

/// Ends the program, if it still runs, and removes all that was made for it.
struct Cleanup {
    engine: Arc<Engine>,
    /// Goes last: the monitor writes into it.
    folder: Option<Folder>,
    record: Arc<Record>,
    monitor: Option<Arc<Monitor>>,
    network: bool,
    /// Goes after the folder, in which it may be mounted.
    held: Option<Box<dyn Any + Send + Sync>>,
}

impl Cleanup {
    /// After the program's end.
    async fn finish(mut self) {
        if let Some(monitor) = self.monitor.take() {
            let _ = monitor.submit(Request::Release, &[]);
        }
        if std::mem::take(&mut self.network) {
            release_network(&self.engine, &self.record.id).await;
        }
    }
}

impl Drop for Cleanup {
    fn drop(&mut self) {
        if self.monitor.is_none() && !self.network {
            return;
        }
        let (engine, folder) = (self.engine.clone(), self.folder.take());
        let (record, monitor) = (self.record.clone(), self.monitor.take());
        let held = self.held.take();
        tokio::spawn(async move {
            if let Some(monitor) = monitor
                && let Err(CallError::Gone) = end(&monitor).await
            {
                // The program goes on without it.
                leftovers::clear_in(&engine, &record, &run_dir(&exec_root(&engine), &record.id)).await;
            }
            release_network(&engine, &record.id).await;
            drop(folder);
            drop(held);
        });
    }
}

/// Gives the network back, if the step had one of its own.
async fn release_network(engine: &Engine, id: &str) {
    use wherry_netd::protocol::Failure;
    match engine.netd.release_sandbox(id).await {
        Ok(()) | Err(Error::Network(Failure::NoSuchSandbox(_))) => {}
        Err(error) => {
            tracing::warn!(step = id, %error, "the network of a build's step could not be released")
        }
    }
}

/// Kills what a monitor holds and lets it go.
///
/// # Errors
/// [`CallError::Gone`]: there is none any more.
async fn end(monitor: &Monitor) -> Result<(), CallError> {
    let stop = Request::Stop { signal: 9, timeout_ms: Some(0), manual: true };
    // It may have ended by itself; then there is nothing to stop.
    let stopped = monitor.call(stop, &[]).await;
    let _ = monitor.submit(Request::Acknowledge { up_to: u64::MAX }, &[]);
    let _ = monitor.submit(Request::Release, &[]);
    match stopped {
        Err(CallError::Gone) => Err(CallError::Gone),
        _ => Ok(()),
    }
}

fn remove_dir(dir: &Path) {
    unmount(&dir.join(MOUNTS));
    let dir = dir.to_owned();
    if !is_removed(&dir, false) {
        // Its monitor is about to end, and writes a last time.
        std::thread::spawn(move || {
            let mut pauses = [10, 30, 100, 300, 1000].into_iter().map(std::time::Duration::from_millis);
            while let Some(pause) = pauses.next() {
                std::thread::sleep(pause);
                if is_removed(&dir, pauses.len() == 0) {
                    return;
                }
            }
        });
    }
}

/// Removes a folder; false if somebody has put something there meanwhile.
fn is_removed(dir: &Path, is_last: bool) -> bool {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty && !is_last => return false,
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(folder = %dir.display(), %error, "a build step's files could not be removed");
        }
        _ => {}
    }
    true
}

/// Unmounts what was mounted in a step's folder of mounts.
fn unmount(mounts: &Path) {
    for entry in std::fs::read_dir(mounts).into_iter().flatten().flatten() {
        if let Err(error) = crate::volumes::unmount(&entry.path()) {
            tracing::warn!(path = %entry.path().display(), %error, "a mount of a build's step stays");
        }
    }
}

/// Ends all steps: those that an engine before this one has left, or this one's own when it ends itself.
pub(crate) async fn end_all(engine: &Engine) {
    let exec_root = exec_root(engine);
    for entry in std::fs::read_dir(exec_root.join("containers")).into_iter().flatten().flatten() {
        let (dir, id) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        tracing::info!(step = id, "ending the step of a build that is interrupted");
        match Monitor::connect(&dir) {
            Ok(Some((monitor, _signals))) => {
                match monitor.hello().await {
                    Ok(_) => drop(end(&monitor).await),
                    Err(CallError::Gone) => {}
                    Err(error) => {
                        // Its folder stays, by which another engine may find it.
                        tracing::warn!(step = id, %error, "its monitor refuses us: the program goes on");
                        continue;
                    }
                }
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(folder = %dir.display(), %error, "its monitor does not answer"),
        }
        release_network(engine, &id).await;
        remove_dir(&dir);
    }
}
