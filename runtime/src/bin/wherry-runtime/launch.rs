//! `create` and `run`.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use wherry_runtime::{
    CgroupManager, Container, Launch, RestoreOptions, RootfsSource, Stdio, protect_own_program_traced,
};

use crate::command_line::{CriuFlags, LaunchOptions, ProcessOptions};
use crate::config::load_spec;
use crate::control::{remove, warn};
use crate::failure::Failure;
use crate::foreground::{self, Signals, Waited};
use crate::notify::NotifySocket;
use crate::store::{Record, Store, write_by_rename};
use crate::{Session, checkpoint, console, time};

/// How a container comes to be.
#[derive(Clone, Copy)]
enum Way<'a> {
    /// It waits for `start`.
    Create,
    /// It runs at once.
    Run,
    /// It goes on where it was saved.
    Restore(&'a CriuFlags),
}

/// A new container, and what its caller takes care of.
struct Made {
    store: Store,
    container: Container,
    terminal: Option<OwnedFd>,
    notify: Option<NotifySocket>,
}

/// Puts this program's file out of the reach of containers.
pub(crate) fn protect(session: &Session) -> Result<(), Failure> {
    let exeseal = |line: &str| session.log.debug(|| format!("{} exeseal: {line}", session.program));
    Ok(protect_own_program_traced(session.log.trace(&exeseal))?)
}

/// Makes a container that waits for `start`.
pub(crate) fn create(session: &Session, options: &LaunchOptions) -> Result<u8, Failure> {
    protect(session)?;
    launch(session, options, Way::Create)?;
    Ok(0)
}

/// Makes a container and runs its program, in the foreground unless detached.
pub(crate) fn run(session: &Session, options: &LaunchOptions) -> Result<u8, Failure> {
    protect(session)?;
    run_by(session, options, Way::Run)
}

/// Makes a container from what `checkpoint` saved, in the foreground unless detached.
pub(crate) fn restore(session: &Session, options: &LaunchOptions, flags: &CriuFlags) -> Result<u8, Failure> {
    protect(session)?;
    run_by(session, options, Way::Restore(flags))
}

fn run_by(session: &Session, options: &LaunchOptions, way: Way<'_>) -> Result<u8, Failure> {
    let signals = (!options.process.detach).then(Signals::catch).transpose()?;
    let Made { store, container, terminal, notify } = launch(session, options, way)?;
    let Some(signals) = signals else {
        if let Some(notify) = notify {
            notify.relay(container.pid(), container.pidfd())?;
        }
        return Ok(0);
    };
    let process = Waited {
        pid: container.pid(),
        pidfd: container.pidfd(),
        terminal: terminal.as_ref(),
        notify: notify.as_ref(),
    };
    let code = foreground::wait(&signals, &process)?;
    session.log.debug(|| format!("process {} has ended with code {code}", container.pid()));
    if !options.keep {
        remove(session, &store, |log| warn(log, container.delete(false)))?;
    }
    Ok(code)
}

fn bundle(options: &LaunchOptions) -> Result<PathBuf, Failure> {
    let path = options.bundle.as_deref().unwrap_or(Path::new("."));
    std::fs::canonicalize(path).map_err(Failure::file("open bundle", path))
}

fn is_terminal(spec: &Spec) -> bool {
    spec.process().as_ref().is_some_and(|process| process.terminal() == Some(true))
}

/// A process's standard I/O. In the foreground, its terminal is copied to ours.
pub(crate) fn stdio(terminal: bool, detached: bool) -> Stdio<'static> {
    match (terminal, detached) {
        (true, true) => Stdio::Terminal { size: None },
        (true, false) => Stdio::CopiedTerminal,
        (false, _) => Stdio::Inherit,
    }
}

/// A terminal's master must have somebody who holds it.
pub(crate) fn check_console(terminal: bool, detached: bool, options: &ProcessOptions) -> Result<(), Failure> {
    match (terminal, detached, &options.console_socket) {
        (true, true, None) => {
            Err(Failure::Console("cannot allocate tty if runc will detach without setting console socket"))
        }
        (true, false, Some(_)) | (false, _, Some(_)) => {
            Err(Failure::Console("cannot use console socket if runc will not detach or allocate tty"))
        }
        _ => Ok(()),
    }
}

fn launch(session: &Session, options: &LaunchOptions, way: Way<'_>) -> Result<Made, Failure> {
    let bundle = bundle(options)?;
    let spec = load_spec(&bundle, &session.log)?;
    let detached = options.process.detach || matches!(way, Way::Create);
    check_console(is_terminal(&spec), detached, &options.process)?;
    let id = &options.id;
    let store = Store::new(&session.global.root, id)
        .map_err(|_| wherry_runtime::Error::InvalidId { id: id.clone() })?;
    store.make()?;
    session.log.debug(|| format!("bundle {}", bundle.display()));
    let result = prepare(session, &store, spec, way)
        .and_then(|(spec, notify)| Ok((launch_in(&store, session, options, &bundle, &spec, way)?, notify)));
    match result {
        Ok(((container, terminal), notify)) => Ok(Made { store, container, terminal, notify }),
        Err(failure) => {
            store.remove()?;
            Err(failure)
        }
    }
}

/// What the caller's environment adds to the specification.
fn prepare(
    session: &Session,
    store: &Store,
    mut spec: Spec,
    way: Way<'_>,
) -> Result<(Spec, Option<NotifySocket>), Failure> {
    session.descriptors.announce(&mut spec);
    let notify = NotifySocket::from_environment(store);
    if let Some(notify) = &notify {
        notify.add_to(&mut spec)?;
        if matches!(way, Way::Run) {
            notify.bind()?;
        }
    }
    Ok((spec, notify))
}

fn launch_in(
    store: &Store,
    session: &Session,
    options: &LaunchOptions,
    bundle: &Path,
    spec: &Spec,
    way: Way<'_>,
) -> Result<(Container, Option<OwnedFd>), Failure> {
    let rootfs = RootfsSource::Bundle;
    let mut launch = Launch::new(&options.id, bundle, spec, &rootfs);
    launch.preserve_fds = session.descriptors.all();
    launch.inherit_keyring = options.no_new_keyring;
    launch.no_pivot = options.no_pivot;
    if session.global.systemd_cgroup {
        launch.cgroup_manager = CgroupManager::Systemd;
    }
    launch.stdio = stdio(is_terminal(spec), options.process.detach || matches!(way, Way::Create));
    launch.start_socket_in = matches!(way, Way::Create).then(|| store.folder());
    let steps = |line: &str| session.log.debug(|| line.to_owned());
    launch.trace = session.log.trace(&steps);
    session.log.debug(|| "making namespaces and cgroup".to_owned());
    let (container, terminal) = match way {
        Way::Create => Container::create(&launch)?,
        Way::Run => Container::run(&launch)?,
        Way::Restore(flags) => {
            let own = RestoreOptions {
                lsm_profile: flags.lsm_profile.as_deref(),
                lsm_mount_context: flags.lsm_mount_context.as_deref(),
            };
            Container::restore(&launch, &checkpoint::options(flags), &own)?
        }
    };
    session.log.warnings(container.warnings());
    session.log.debug(|| format!("the container's first process is {}", container.pid()));
    if matches!(way, Way::Run) {
        session.log.debug(|| "it executes its program".to_owned());
    }
    match record(store, options, bundle, spec, &container, terminal.as_ref()) {
        Ok(()) => Ok((container, terminal)),
        Err(failure) => {
            container.delete(true)?;
            Err(failure)
        }
    }
}

/// Tells everybody who wants to know about the new container.
fn record(
    store: &Store,
    options: &LaunchOptions,
    bundle: &Path,
    spec: &Spec,
    container: &Container,
    terminal: Option<&OwnedFd>,
) -> Result<(), Failure> {
    hand_over(&options.process, container.pid(), container.pidfd(), terminal)?;
    store.save(&Record {
        created: time::now(),
        oci_version: spec.version().clone(),
        rootfs: spec.root().as_ref().map(|root| bundle.join(root.path())).unwrap_or_default(),
        annotations: spec.annotations().clone().unwrap_or_default().into_iter().collect(),
        state: container.save()?,
    })
}

/// Terminal, pidfd and pid, to where the options say.
pub(crate) fn hand_over(
    options: &ProcessOptions,
    pid: i32,
    pidfd: std::os::fd::BorrowedFd<'_>,
    terminal: Option<&OwnedFd>,
) -> Result<(), Failure> {
    if let (Some(socket), Some(master)) = (&options.console_socket, terminal) {
        console::send(socket, "/dev/pts/ptmx", std::os::fd::AsFd::as_fd(master))?;
    }
    if let Some(socket) = &options.pidfd_socket {
        console::send(socket, "pidfd", pidfd)?;
    }
    if let Some(path) = &options.pid_file {
        write_by_rename(path, pid.to_string().as_bytes(), 0o644)?;
    }
    Ok(())
}
