//! Start-up, in an order in which each step may rely on those before.

use std::fs::File;
use std::io::IsTerminal;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock, RwLock};

use tokio::signal::unix::{SignalKind, signal};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};

use super::pidfile::Pidfile;
use super::{
    StartError, activation, identity, limits, listen, notify, program, reload as reloading, shutdown,
};
use crate::build::{self, Builds};
use crate::config::Config;
use crate::containers::monitor::Program;
use crate::containers::{self, Containers};
use crate::engine::{Engine, blocking};
use crate::error::Error;
use crate::events::Bus;
use crate::images::Registries;
use crate::networks::Netd;
use crate::volumes::{self, Volumes};

/// Requests are short, and blocking work has threads of its own.
const WORKERS: usize = 2;
/// Of each thread: the steps of a build wait for each other one within the other, a thousand deep. Unused, it takes no memory.
const STACK_BYTES: usize = 8 << 20;

/// Runs the daemon until it is told to end.
pub(super) fn run(config: Config) -> Result<(), StartError> {
    if !rustix::process::geteuid().is_root() {
        return Err(StartError::NotRoot);
    }
    let passed = activation::take();
    start_log(&config);
    crate::server::response::announce_experimental(config.experimental);
    for note in &config.without_effect {
        tracing::warn!("{note}");
    }
    limits::raise();
    program::note();
    make_root(&config.data_root)?;
    make_root(&config.exec_root)?;
    let _pidfile = Pidfile::create(&config.pidfile)?;
    let _lock = lock_data_root(&config.data_root)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .thread_stack_size(STACK_BYTES)
        .enable_all()
        .build()
        .map_err(StartError::system("start threads"))?;
    let result = runtime.block_on(serve(config, passed));
    // Requests that still wait for something end with the process.
    runtime.shutdown_background();
    result
}

async fn serve(config: Config, passed: Vec<activation::Passed>) -> Result<(), StartError> {
    let mut signals = Signals::new()?;
    let listeners = listen::open(&config, passed).await?;
    let engine = open_engine(config).await?;
    build::reconcile(&engine).await;
    containers::reconcile(engine.clone()).await?;
    release_volumes(&engine).await?;
    let accepting: Vec<_> =
        listeners.open.into_iter().map(|listener| tokio::spawn(listener.serve(engine.clone()))).collect();
    notify::send("READY=1");
    tracing::info!(hosts = ?engine.config().hosts, "Daemon has completed initialization");
    signals.serve(&engine).await;
    notify::send("STOPPING=1");
    for task in accepting {
        task.abort();
    }
    tokio::select! {
        () = shutdown::shutdown(&engine) => {}
        () = signals.end() => tracing::warn!("told to end a second time: containers are left as they are"),
    }
    for path in listeners.files {
        // Somebody may have removed it.
        let _ = std::fs::remove_file(path);
    }
    Ok(())
}

/// Unmounts volumes of containers that ended while no engine was there.
async fn release_volumes(engine: &Arc<Engine>) -> Result<(), StartError> {
    let engine = engine.clone();
    blocking(move || {
        let volumes = engine.volumes.list();
        volumes::release(&engine, volumes.iter().map(|volume| volume.name.as_str()));
        Ok(())
    })
    .await?;
    Ok(())
}

/// Opens all that is on disk, and netd.
async fn open_engine(config: Config) -> Result<Arc<Engine>, StartError> {
    let id = identity::read_or_make(&config.data_root)?;
    let (data_root, exec_root) = (config.data_root.clone(), config.exec_root.clone());
    let mut settings = config.network.clone();
    if !settings.default_pools.iter().any(|(pool, _)| pool.is_ipv6()) {
        settings.default_pools.extend(crate::networks::own_ipv6_pool(&id));
    }
    let (events, netd, store, registries, volumes, builds, containers, monitor_program) =
        blocking(move || {
            let events = Bus::open(&data_root)?;
            let netd = Netd::open(&exec_root, &data_root, &sibling("wherry-netd"))?;
            netd.client().configure(settings)?;
            let stored = build::Stored::read(&data_root);
            let (store, kept) = wherry_image_store::Store::open_keeping(&data_root, &stored.layers())
                .map_err(|e| Error::server(format!("open the image store: {e}")))?;
            let builds = Builds::open(&data_root, &store, stored)?;
            // Those that the builds want are theirs by now.
            drop(kept);
            let registries = Registries::open(&data_root, &store)?;
            let volumes = Volumes::open(&data_root)?;
            let containers = Containers::open(&data_root)?;
            let program = sibling("wherry-monitor");
            let monitor_program = Program::load(&program).map_err(Error::io("load", program.display()))?;
            Ok((events, netd, store, registries, volumes, builds, containers, monitor_program))
        })
        .await?;
    Ok(Arc::new(Engine {
        id,
        started_ns: crate::clock::now_ns(),
        config: RwLock::new(Arc::new(config)),
        events,
        store,
        registries,
        netd,
        containers,
        volumes,
        builds,
        buildkit: crate::build::buildkit::BuildKit::default(),
        monitor_program,
        cgroup_v2: Path::new("/sys/fs/cgroup/cgroup.controllers").exists(),
        stopping: AtomicBool::new(false),
    }))
}

/// One of our programs: beside our own executable, else where the PATH has it.
fn sibling(name: &str) -> PathBuf {
    let beside = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.join(name)));
    let on_path =
        || std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(name)).find(|p| p.exists());
    beside.filter(|path| path.exists()).or_else(on_path).unwrap_or_else(|| name.into())
}

struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> Result<Self, StartError> {
        let open = |kind| signal(kind).map_err(StartError::system("handle signals"));
        Ok(Self {
            terminate: open(SignalKind::terminate())?,
            interrupt: open(SignalKind::interrupt())?,
            hangup: open(SignalKind::hangup())?,
        })
    }

    /// Reloads at each SIGHUP; returns when we are told to end.
    async fn serve(&mut self, engine: &Engine) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => break,
                _ = self.interrupt.recv() => break,
                _ = self.hangup.recv() => reloading::reload(engine),
            }
        }
    }

    /// Returns when we are told to end once more.
    async fn end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

type LevelHandle = reload::Handle<LevelFilter, Registry>;
static LEVEL: OnceLock<LevelHandle> = OnceLock::new();

/// The log goes to stderr, where the service manager or a file takes it.
fn start_log(config: &Config) {
    let (filter, handle) = reload::Layer::new(level(config));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    tracing_subscriber::registry().with(filter).with(lines).init();
    // Set once: this runs once.
    let _ = LEVEL.set(handle);
}

/// Puts the configuration's log level in force.
pub(super) fn set_log_level(config: &Config) {
    if let Some(handle) = LEVEL.get() {
        // The subscriber lives as long as the process.
        let _ = handle.reload(level(config));
    }
}

fn level(config: &Config) -> LevelFilter {
    match config.log_level.as_str() {
        _ if config.debug => LevelFilter::DEBUG,
        "debug" => LevelFilter::DEBUG,
        "warn" => LevelFilter::WARN,
        "error" | "fatal" => LevelFilter::ERROR,
        _ => LevelFilter::INFO,
    }
}

fn make_root(path: &Path) -> Result<(), StartError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o710)
        .create(path)
        .map_err(StartError::io("create", path))
}

/// One engine per data root: each file has one writer.
fn lock_data_root(data_root: &Path) -> Result<File, StartError> {
    let path = data_root.join("wherryd.lock");
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(StartError::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(StartError::DataRootInUse { path: data_root.into() }),
        Err(std::fs::TryLockError::Error(e)) => Err(StartError::io("lock", path)(e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_root_has_one_engine() {
        let folder = tempfile::tempdir().unwrap();
        let first = lock_data_root(folder.path()).unwrap();
        assert!(matches!(lock_data_root(folder.path()), Err(StartError::DataRootInUse { .. })));
        drop(first);
        lock_data_root(folder.path()).unwrap();
    }
}
