//! Starting a container: netd makes the network while the monitor comes up and the user is looked
//! up; then the monitor gets its specification and everything further is its own.

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, mkdirat, openat2};
use wherry_monitor_api::{LogSpec, OverlayRootfs, Reply, Request, RestartPolicy, Rootfs, StartSpec, run_dir};

use super::checkpoints::{self, Checkpoint};
use super::files::{self, EtcInput, EtcPaths};
use super::lifecycle::{broken, ensure_monitor, release_network};
use super::links::{self, Links};
use super::monitor::{CallError, Monitor, external_start_failure, start_failure};
use super::network::{self, Joined};
use super::record::{Record, StartFailure};
use super::state::{State, Transition};
use super::table::Container;
use super::users::{self, ResolvedUser};
use super::{image_mounts, leftovers, logging, remove, shared_memory, spec};
use crate::engine::{Engine, blocking};
use crate::error::Error;

/// Starts a container that does not run.
///
/// # Errors
/// 304 when it runs already; dockerd's texts for what cannot be started, after which it is as before, or
/// removed if it was to be (`--rm`).
pub(super) async fn start(engine: &Arc<Engine>, container: &Arc<Container>) -> Result<(), Error> {
    start_from(engine, container, None).await
}

/// As [`start`], from a checkpoint if one is given.
///
/// # Errors
/// As [`start`].
pub(super) async fn start_from(
    engine: &Arc<Engine>,
    container: &Arc<Container>,
    checkpoint: Option<&Checkpoint>,
) -> Result<(), Error> {
    let guard = container.transition.lock().await;
    let previous = container.status().state.clone();
    match &previous {
        State::Running { paused: true, .. } => {
            return Err(Error::Conflict("cannot start a paused container, try unpause instead".into()));
        }
        State::Running { .. } | State::Restarting { .. } => return Err(Error::NotModified),
        _ => {}
    }
    container
        .apply(&Transition::Start)
        .map_err(|_| Error::Conflict("container is marked for removal and cannot be started".into()))?;
    container.amend(|status| {
        status.restart_count = 0;
        status.manually_stopped = false;
    });
    match try_start(engine, container, checkpoint).await {
        Ok(()) => {
            drop(guard);
            links::refresh_receivers(engine, container);
            Ok(())
        }
        Err((code, error)) => {
            undo(engine, container, previous, code, &error).await;
            // Before anybody else may start it: that needs a monitor which stays.
            let monitor = container.monitor.lock().await.take();
            drop(guard);
            let_go(engine, container, monitor).await;
            Err(error)
        }
    }
}

/// After a failed start: the state of before, with the reason.
async fn undo(engine: &Arc<Engine>, container: &Arc<Container>, previous: State, code: i32, error: &Error) {
    if container.sandbox().is_some() {
        super::network_events(engine, container, crate::clock::now_ns(), "disconnect");
    }
    release_network(engine, container).await;
    shared_memory::release(&engine.config().exec_root, &container.id);
    image_mounts::release(&engine.config().exec_root, &container.id);
    let previous = Box::new(previous);
    if let Err(invalid) = container.apply(&Transition::StartFailed { previous }) {
        tracing::debug!(container = %container.id, error = %invalid, "start failed, but the state had moved on");
    }
    let failure = StartFailure { code, error: error.to_string() };
    let (engine, container) = (engine.clone(), container.clone());
    let saved = blocking(move || {
        container.update(&engine.config().data_root, |record| record.start_failure = Some(failure))
    })
    .await;
    if let Err(error) = saved {
        tracing::error!(%error, "the reason of a failed start could not be stored");
    }
}

/// Removes a `--rm` container that did not start, and lets its monitor and waiting clients go.
async fn let_go(engine: &Arc<Engine>, container: &Arc<Container>, monitor: Option<Arc<Monitor>>) {
    if container.record().host_config.auto_remove
        && let Err(error) = remove::remove(engine, container, remove::Options::auto()).await
    {
        tracing::warn!(container = %container.id, %error, "automatic removal after a failed start");
    }
    if let Some(monitor) = monitor {
        // It may have gone by itself.
        let _ = monitor.submit(Request::Release, &[]);
    }
}

type Failed = (i32, Error);

fn plain(error: Error) -> Failed {
    (128, error)
}

async fn try_start(
    engine: &Arc<Engine>,
    container: &Arc<Container>,
    checkpoint: Option<&Checkpoint>,
) -> Result<(), Failed> {
    let record = container.record();
    let images = checkpoint
        .map(|checkpoint| checkpoint.find(&engine.config(), &record, &format!("/{}", record.name)))
        .transpose();
    let images = images.map_err(plain)?;
    let (monitor, joined, prepared) = tokio::join!(
        ensure_monitor(engine, container),
        network::join(engine, &record),
        prepare(engine.clone(), record.clone()),
    );
    let known = engine.netd.known_networks().await;
    container.remember_networks(known.as_deref().unwrap_or_default());
    if joined.is_err() && known.is_ok() {
        // As dockerd: of a network that did not take the container in, it is told that it let it go.
        super::network_events(engine, container, crate::clock::now_ns(), "disconnect");
    }
    let joined = joined.map_err(plain)?;
    known.map_err(plain)?;
    if let Joined::Own(sandbox) = &joined {
        container.set_sandbox(Some((**sandbox).clone()));
    }
    let links = links::resolve(engine, &record).map_err(plain)?;
    let (monitor, prepared) = (monitor.map_err(plain)?, prepared.map_err(plain)?);
    let mut start = build(engine, container, &record, &joined, prepared, &links).map_err(plain)?;
    start.checkpoint = images;
    hand_over(engine, container, &monitor, start).await
}

/// Gives the specification to the monitor, and waits until the program runs.
async fn hand_over(
    engine: &Arc<Engine>,
    container: &Arc<Container>,
    monitor: &Arc<Monitor>,
    start: StartSpec,
) -> Result<(), Failed> {
    let (restores, is_external) = (start.checkpoint.is_some(), start.external.is_some());
    match monitor.call(Request::Start(Box::new(start)), &[]).await {
        Ok(Reply::Started { .. }) => {}
        Ok(_) => return Err(plain(broken(container, &CallError::Unexpected))),
        Err(CallError::Refused(failure)) if restores => {
            return Err(plain(checkpoints::restore_failure(&failure)));
        }
        Err(CallError::Refused(failure)) => {
            let (code, message) =
                if is_external { external_start_failure(&failure) } else { start_failure(&failure) };
            let error = if code == 128 { Error::server(message) } else { Error::InvalidParameter(message) };
            return Err((code, error));
        }
        Err(error) => {
            leftovers::clear(engine, container).await;
            return Err(plain(broken(container, &error)));
        }
    }
    container.mark_started();
    // The event that brings the state travels on the same connection, just behind the answer; a monitor that dies between
    // the two must not keep the container locked.
    let mut status = container.watch();
    let moved_on = status.wait_for(|s| s.state != State::Starting);
    let has_moved_on = matches!(tokio::time::timeout(Duration::from_secs(10), moved_on).await, Ok(Ok(_)));
    if !has_moved_on {
        leftovers::clear(engine, container).await;
        return Err(plain(broken(container, &CallError::Gone)));
    }
    tracing::debug!(container = %container.id, "started");
    if container.record().start_failure.is_some() {
        let (engine, container) = (engine.clone(), container.clone());
        blocking(move || container.update(&engine.config().data_root, |record| record.start_failure = None))
            .await
            .map_err(plain)?;
    }
    Ok(())
}

/// What was looked up before a start.
struct Prepared {
    user: ResolvedUser,
    log: LogSpec,
}

/// What must be looked up or made on the file system: mount sources, volumes' first contents, the user; and log servers.
async fn prepare(engine: Arc<Engine>, record: Arc<Record>) -> Result<Prepared, Error> {
    blocking(move || {
        super::mount_sources::prepare(&engine, &record)?;
        let writable = engine.store.writable(&record.id)?;
        let root = wherry_image_store::mount_detached(wherry_image_store::Mountable::Writable(&writable))?;
        make_working_dir(root.as_fd(), &record.config.working_dir)?;
        let groups = record.host_config.group_add.clone().unwrap_or_default();
        let user = users::resolve(root.as_fd(), &record.config.user, &groups)?;
        Ok(Prepared { user, log: logging::spec(&record, &engine.config())? })
    })
    .await
}

/// Makes the working directory where the image has none, as dockerd does. Links are followed inside the root only.
pub(super) fn make_working_dir(root: BorrowedFd<'_>, path: &str) -> Result<(), Error> {
    let inside = |path: &Path| {
        openat2(
            root,
            path,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::IN_ROOT,
        )
    };
    let failed = |e: rustix::io::Errno| Error::io("make the working directory", path)(e.into());
    let mut made = PathBuf::new();
    for part in Path::new(path).components().filter(|part| matches!(part, Component::Normal(_))) {
        let parent =
            inside(if made.as_os_str().is_empty() { Path::new(".") } else { &made }).map_err(failed)?;
        made.push(part);
        match inside(&made) {
            Ok(_) => {}
            Err(rustix::io::Errno::NOENT) => {
                mkdirat(&parent, Path::new(&part), Mode::from_raw_mode(0o755)).map_err(failed)?;
            }
            Err(rustix::io::Errno::NOTDIR) => {
                return Err(Error::server(format!("Cannot mkdir: {path} is not a directory")));
            }
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(())
}

fn build(
    engine: &Arc<Engine>,
    container: &Container,
    record: &Record,
    joined: &Joined,
    Prepared { user, log }: Prepared,
    links: &Links,
) -> Result<StartSpec, Error> {
    let user = &user;
    let config = engine.config();
    check_dns(record)?;
    let etc = write_etc(engine, record, joined, links)?;
    let netns = joined.netns();
    let rootfs = run_dir(&config.exec_root, &record.id).join("rootfs");
    match std::fs::create_dir(&rootfs) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(Error::io("create", rootfs.display())(e));
        }
        _ => {}
    }
    let pid_ns = joined_namespace(engine, &record.host_config.pid_mode, "pid", "PID")?;
    let ipc_ns = joined_namespace(engine, &record.host_config.ipc_mode, "ipc", "IPC")?;
    let shm = shared_memory::prepare(engine, record)?;
    let oci = spec::generate(&spec::Input {
        record,
        config: &config,
        user,
        rootfs: &rootfs,
        netns: netns.as_deref(),
        etc: &etc,
        pid_ns: pid_ns.as_deref(),
        ipc_ns: ipc_ns.as_deref(),
        shm: shm.as_deref(),
        cgroup_v2: engine.cgroup_v2,
        extra_env: &links.env,
    })?;
    let writable = engine.store.writable(&record.id)?;
    let external = super::runtimes::external(&record.host_config.runtime, &config)?;
    let health = super::health::probe(record, user, &links.env)?;
    Ok(StartSpec {
        container: container.id.clone(),
        oci,
        rootfs: Rootfs::Overlay(OverlayRootfs {
            lower: writable.lower,
            upper: writable.upper,
            work: writable.work,
        }),
        systemd_cgroup: config.systemd_cgroup,
        state_path: record.state_path(&config.data_root),
        log,
        open_stdin: record.config.open_stdin,
        stdin_once: record.config.stdin_once,
        console_size: console_size(record),
        restart: restart_policy(&record.host_config.restart_policy),
        restart_count: 0,
        health,
        external,
        checkpoint: None,
    })
}

/// What dockerd finds out about name servers only now.
fn check_dns(record: &Record) -> Result<(), Error> {
    for server in record.host_config.dns.iter().flatten() {
        if server.parse::<IpAddr>().is_err() {
            return Err(Error::server(format!(
                "bad nameserver address {server}: ParseAddr({}): unable to parse IP",
                crate::text::go_quote(server)
            )));
        }
    }
    Ok(())
}

fn console_size(record: &Record) -> Option<(u16, u16)> {
    let [rows, columns] = record.host_config.console_size;
    (rows != 0 && columns != 0).then_some((rows, columns))
}

fn joined_namespace(engine: &Engine, mode: &str, file: &str, what: &str) -> Result<Option<PathBuf>, Error> {
    let Some(other) = mode.strip_prefix("container:") else { return Ok(None) };
    let peer = engine.containers.find(other)?;
    match peer.status().state.pid() {
        0 => Err(Error::server(format!(
            "failed to join {what} namespace: container {} is not running",
            peer.id
        ))),
        pid => Ok(Some(PathBuf::from(format!("/proc/{pid}/ns/{file}")))),
    }
}

/// Writes the container's /etc files for the network that it is in.
pub(super) fn write_etc(
    engine: &Engine,
    record: &Record,
    joined: &Joined,
    links: &Links,
) -> Result<EtcPaths, Error> {
    let config = engine.config();
    if let Joined::Other(_) = joined {
        let mode = record.host_config.network_mode.strip_prefix("container:").unwrap_or_default();
        return Ok(EtcPaths::of(&config.data_root, &engine.containers.find(mode)?.id));
    }
    files::write(
        &config.data_root,
        &EtcInput {
            record,
            config: &config,
            resolution: network::resolution(joined),
            addresses: &addresses(joined),
            links: &links.hosts,
            host_gateways: &host_gateways(engine),
        },
    )
}

/// A container's own addresses, in the order of its interfaces.
pub(super) fn addresses(joined: &Joined) -> Vec<IpAddr> {
    match joined {
        Joined::Own(sandbox) => sandbox.endpoints.iter().flat_map(network::addresses).collect(),
        Joined::Host | Joined::Other(_) => Vec::new(),
    }
}

/// What `host-gateway` stands for: as the settings say, or else the default bridge's own addresses.
pub(crate) fn host_gateways(engine: &Engine) -> Vec<IpAddr> {
    let asked = engine.config().host_gateways.clone();
    if !asked.is_empty() {
        return asked;
    }
    let known = engine.netd.remembered();
    let bridge = known.iter().flat_map(|all| all.iter()).find(|network| network.default_bridge);
    bridge.into_iter().flat_map(|bridge| &bridge.spec.subnets).filter_map(|subnet| subnet.gateway).collect()
}

/// The policy as the monitor knows it.
pub(super) fn restart_policy(policy: &super::config::RestartPolicy) -> RestartPolicy {
    match policy.name.as_str() {
        "always" => RestartPolicy::Always,
        "unless-stopped" => RestartPolicy::UnlessStopped,
        "on-failure" => {
            RestartPolicy::OnFailure { max_retries: u32::try_from(policy.maximum_retry_count).unwrap_or(0) }
        }
        _ => RestartPolicy::No,
    }
}

/// Opens the root of a running container, to look up users in it.
pub(super) fn open_root(pid: i32) -> Result<std::os::fd::OwnedFd, Error> {
    let path = format!("/proc/{pid}/root");
    rustix::fs::openat(CWD, &path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| Error::io("open", path)(e.into()))
}
