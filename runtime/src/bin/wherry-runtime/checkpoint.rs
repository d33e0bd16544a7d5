//! `checkpoint`; `restore` is a launch of another kind.

use std::fs::{File, OpenOptions};
use std::os::fd::AsFd;

use wherry_runtime::{CheckpointOptions, CriuOptions, Status};

use crate::Session;
use crate::command_line::CriuFlags;
use crate::config::load_spec;
use crate::control::{remove, warn};
use crate::failure::Failure;
use crate::store::Store;

/// Saves a container to disk; it is gone afterwards, unless it was to go on.
pub(crate) fn checkpoint(session: &Session, store: &Store, flags: &CriuFlags) -> Result<(), Failure> {
    let container = store.open()?.1.ok_or(Failure::NotCheckpointed(Status::Stopped))?;
    match container.status() {
        Status::Running | Status::Paused => {}
        status => return Err(Failure::NotCheckpointed(status)),
    }
    check_parent(flags)?;
    let spec = load_spec(container.bundle(), &session.log)?;
    let status = flags.status_fd.map(reopen).transpose()?;
    let own = CheckpointOptions {
        parent: flags.parent.as_deref(),
        leave_running: flags.leave_running,
        pre_dump: flags.pre_dump,
        status: status.as_ref().map(AsFd::as_fd),
        page_server: flags.page_server.as_ref().map(|(address, port)| (address.as_str(), *port)),
    };
    container.checkpoint(&spec, &options(flags), &own)?;
    if flags.leave_running || flags.pre_dump {
        return Ok(());
    }
    remove(session, store, |log| warn(log, container.delete(true)))
}

/// A descriptor of the caller's, by its number.
fn reopen(number: i32) -> Result<File, Failure> {
    let path = format!("/proc/self/fd/{number}");
    OpenOptions::new().write(true).open(&path).map_err(Failure::file("open", path))
}

/// What both commands tell criu. As with runc, the network's devices and addresses are somebody else's.
pub(crate) fn options(flags: &CriuFlags) -> CriuOptions<'_> {
    CriuOptions {
        work: flags.work.as_deref(),
        tcp_established: flags.tcp_established,
        tcp_skip_in_flight: flags.tcp_skip_in_flight,
        external_unix_sockets: flags.external_unix_sockets,
        shell_job: flags.shell_job,
        file_locks: flags.file_locks,
        link_remap: flags.link_remap,
        lazy_pages: flags.lazy_pages,
        empty_network: true,
        auto_dedup: flags.auto_dedup,
        cgroups: flags.cgroups,
        ..CriuOptions::new(&flags.images)
    }
}

/// criu takes an earlier image's folder only relative to the new one's, and does not mind if there is none.
fn check_parent(flags: &CriuFlags) -> Result<(), Failure> {
    let Some(parent) = &flags.parent else { return Ok(()) };
    if parent.is_absolute() {
        return Err(Failure::Arguments("--parent-path must be relative"));
    }
    // made first, since the path may lead through it
    let made = std::fs::create_dir_all(&flags.images);
    made.map_err(Failure::file("make", &flags.images))?;
    let found = std::fs::read_dir(flags.images.join(parent));
    found.map(drop).map_err(Failure::file("invalid --parent-path:", parent))
}
