//! `wherry-netd`: the process that owns all host networking of one engine's containers.

mod announce;
mod args;
mod background;
mod backstage;
mod core;
mod dns;
mod firewall;
mod handover;
mod ipam;
mod journal;
mod limits;
mod memory;
mod namespace;
mod netlink;
mod ports;
mod random;
mod relay;
mod server;
mod standby;
mod store;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use wherry_netd::protocol;

use crate::args::{Action, Mode};
use crate::background::Side;
use crate::core::Netd;
use crate::handover::Left;
use crate::server::End;
use crate::standby::Turn;
use crate::store::Paths;

/// Threads that open sockets in other namespaces at the same time, for resolvers.
const MOST_ENTERING: usize = 4;

fn main() -> ExitCode {
    memory::save();
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    match args::parse(args) {
        Ok(Action::Run { exec_root, data_root, mode }) => run(&exec_root, &data_root, mode),
        Ok(Action::Help) => print(args::USAGE),
        Ok(Action::Version) => print(concat!("wherry-netd ", env!("CARGO_PKG_VERSION"), "\n")),
        Err(e) => complain(&format!("{e}; see --help")),
    }
}

fn run(exec_root: &Path, data_root: &Path, mode: Mode) -> ExitCode {
    let roots = std::fs::create_dir_all(exec_root.join("netd"))
        .and_then(|()| std::fs::create_dir_all(data_root))
        .and_then(|()| Ok((exec_root.canonicalize()?, data_root.canonicalize()?)));
    let (exec_root, data_root) = match roots {
        Ok(roots) => roots,
        Err(e) => return complain(&format!("prepare {}: {e}", exec_root.display())),
    };
    let mut ready = None;
    if mode == Mode::Background {
        match background::fork(&exec_root.join("netd/netd.log")) {
            Ok(Side::Parent(code)) => return code,
            Ok(Side::Child(child)) => ready = Some(child),
            Err(e) => return complain(&format!("go into the background: {e}")),
        }
    }
    let turn = if mode == Mode::Standby { standby::wait(&exec_root) } else { standby::claim(&exec_root) };
    let ours = match turn {
        Ok(Turn::Ours { lock, left }) => Ok((lock, left)),
        Ok(Turn::NotNeeded) => {
            if let Some(ready) = ready {
                ready.tell();
            }
            return ExitCode::SUCCESS;
        }
        Err(why) => Err(why),
    };
    match ours.and_then(|(lock, left)| start(&exec_root, &data_root, lock, left)) {
        Ok(started) => {
            if let Some(ready) = ready {
                ready.tell();
            }
            memory::give_back();
            server::serve(&started.listener, &started.netd, &started.end)
        }
        Err(why) => {
            journal::note(&why);
            if let Some(ready) = ready {
                ready.give_up(&why);
            }
            ExitCode::FAILURE
        }
    }
}

/// A netd that answers.
struct Started {
    listener: UnixListener,
    netd: Arc<Netd>,
    end: End,
    /// Held as long as the process lives.
    _lock: File,
}

/// `left`: what a netd before us left.
fn start(exec_root: &Path, data_root: &Path, lock: File, left: Left) -> Result<Started, String> {
    limits::raise_descriptors();
    let paths = Paths::prepare(exec_root, data_root).map_err(|e| {
        format!("prepare folders in {} and {}: {e}", exec_root.display(), data_root.display())
    })?;
    let end = End { socket: exec_root.join(protocol::SOCKET) };
    let runtime = start_runtime(end.clone()).map_err(|e| format!("start the runtime thread: {e}"))?;
    let netd = Netd::new(paths, runtime).map_err(|failure| failure.to_string())?;
    netd.restore(left).map_err(|e| format!("read back the state: {e}"))?;
    let listener = wherry_ipc::listen(&end.socket, 0o600)
        .map_err(|e| format!("listen at {}: {e}", end.socket.display()))?;
    journal::note(format_args!("answering at {}", end.socket.display()));
    standby::keep(exec_root, data_root, netd.handover())
        .map_err(|e| format!("start the standby's thread: {e}"))?;
    Ok(Started { listener, netd: Arc::new(netd), end, _lock: lock })
}

/// The thread of resolvers and relays. SIGTERM and SIGINT end the process; sandboxes, bridges and rules stay.
fn start_runtime(end: End) -> io::Result<tokio::runtime::Handle> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(MOST_ENTERING)
        .thread_stack_size(128 << 10)
        .build()?;
    let handle = runtime.handle().clone();
    let (mut terminate, mut interrupt) = {
        let _context = runtime.enter();
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
    };
    std::thread::Builder::new().name("runtime".into()).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        });
        end.now()
    })?;
    Ok(handle)
}

fn print(text: &str) -> ExitCode {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn complain(text: &str) -> ExitCode {
    // Where standard error is closed there is nobody to tell.
    let _ = writeln!(io::stderr().lock(), "wherry-netd: {text}");
    ExitCode::FAILURE
}
