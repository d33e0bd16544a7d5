//! `create` and `run`.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use wherry_runtime::{
    CgroupManager, Container, Launch, RootfsSource, Stdio, parse_spec, protect_own_program,
};

use crate::arguments::{Global, LaunchOptions, ProcessOptions};
use crate::failure::Failure;
use crate::foreground::{self, Signals};
use crate::store::{Record, Store, write_by_rename};
use crate::{console, time};

/// Makes a container that waits for `start`.
pub(crate) fn create(global: &Global, options: &LaunchOptions) -> Result<u8, Failure> {
    protect_own_program()?;
    let bundle = bundle(options)?;
    let spec = load_spec(&bundle)?;
    check_console(is_terminal(&spec), true, &options.process)?;
    launch(global, options, &bundle, &spec, true)?;
    Ok(0)
}

/// Makes a container and runs its program, in the foreground unless detached.
pub(crate) fn run(global: &Global, options: &LaunchOptions) -> Result<u8, Failure> {
    protect_own_program()?;
    let bundle = bundle(options)?;
    let spec = load_spec(&bundle)?;
    check_console(is_terminal(&spec), options.process.detach, &options.process)?;
    let signals = (!options.process.detach).then(Signals::catch).transpose()?;
    let (store, container, terminal) = launch(global, options, &bundle, &spec, false)?;
    let Some(signals) = signals else { return Ok(0) };
    let code = foreground::wait(&signals, container.pid(), container.pidfd(), terminal.as_ref())?;
    if !options.keep {
        container.delete(false)?;
        store.remove()?;
    }
    Ok(code)
}

fn bundle(options: &LaunchOptions) -> Result<PathBuf, Failure> {
    let path = options.bundle.as_deref().unwrap_or(Path::new("."));
    std::fs::canonicalize(path).map_err(Failure::file("open bundle", path))
}

/// The bundle's specification.
pub(crate) fn load_spec(bundle: &Path) -> Result<Spec, Failure> {
    let path = bundle.join("config.json");
    parse_spec(&read_json(&path)?).map_err(Failure::malformed(&path))
}

/// A file's content; one that is larger than any specification is refused.
pub(crate) fn read_json(path: &Path) -> Result<Vec<u8>, Failure> {
    const LARGEST: u64 = 32 << 20;
    let mut text = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut text));
    match read {
        Ok(length) if length as u64 > LARGEST => Err(Failure::TooLarge { path: path.to_owned() }),
        Ok(_) => Ok(text),
        Err(error) => Err(Failure::file("read", path)(error)),
    }
}

fn is_terminal(spec: &Spec) -> bool {
    spec.process().as_ref().is_some_and(|process| process.terminal() == Some(true))
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

fn launch(
    global: &Global,
    options: &LaunchOptions,
    bundle: &Path,
    spec: &Spec,
    wait: bool,
) -> Result<(Store, Container, Option<OwnedFd>), Failure> {
    let id = &options.id;
    let store =
        Store::new(&global.root, id).map_err(|_| wherry_runtime::Error::InvalidId { id: id.clone() })?;
    store.make()?;
    let result = launch_in(&store, global, options, bundle, spec, wait);
    if result.is_err() {
        store.remove()?;
    }
    let (container, terminal) = result?;
    Ok((store, container, terminal))
}

fn launch_in(
    store: &Store,
    global: &Global,
    options: &LaunchOptions,
    bundle: &Path,
    spec: &Spec,
    wait: bool,
) -> Result<(Container, Option<OwnedFd>), Failure> {
    let rootfs = RootfsSource::Bundle;
    let mut launch = Launch::new(&options.id, bundle, spec, &rootfs);
    launch.preserve_fds = preserve_fds(&options.process);
    launch.inherit_keyring = options.no_new_keyring;
    if global.systemd_cgroup {
        launch.cgroup_manager = CgroupManager::Systemd;
    }
    if is_terminal(spec) {
        launch.stdio = Stdio::Terminal { size: None };
    }
    launch.start_socket_in = wait.then(|| store.folder());
    let (container, terminal) = if wait { Container::create(&launch)? } else { Container::run(&launch)? };
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

/// The descriptors that systemd passes (`LISTEN_FDS`) come before those of `--preserve-fds`.
pub(crate) fn preserve_fds(options: &ProcessOptions) -> u32 {
    let listen = std::env::var("LISTEN_FDS").ok().and_then(|n| n.parse::<u32>().ok()).unwrap_or(0);
    options.preserve_fds.saturating_add(listen)
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
        write_by_rename(path, pid.to_string().as_bytes())?;
    }
    Ok(())
}
