//! Who takes over when netd dies: a second process of the same program, which does nothing but wait for the lock that
//! a living netd holds. The kernel hands it the lock the moment its holder is gone, however that came to pass, so
//! there is one writer at any time and names resolve again within milliseconds, also while no engine runs. A netd
//! that was told to end removes its socket first; then nobody takes over.
//!
//! netd starts its standby, and another one should that die; should both be killed at once, the next engine that
//! asks something starts anew.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use wherry_netd::protocol::SOCKET;

use crate::journal;

/// How long an ending netd may take to let go of its lock.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
/// A standby that ends while netd lives is replaced after this time.
const REPLACE_AFTER: Duration = Duration::from_secs(1);

/// How a wait for the right to be netd ended.
pub(crate) enum Turn {
    /// We are it as long as the file is open.
    Ours(File),
    /// Somebody else is, and answers; or nobody is to be.
    NotNeeded,
}

/// Waits for a short time, as who has been started to be netd does.
///
/// # Errors
/// A sentence.
pub(crate) fn claim(exec_root: &Path) -> Result<Turn, String> {
    let path = exec_root.join("netd/lock");
    let file = open(&path)?;
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Turn::Ours(file)),
            // A standby was faster.
            Err(TryLockError::WouldBlock) if UnixStream::connect(exec_root.join(SOCKET)).is_ok() => {
                return Ok(Turn::NotNeeded);
            }
            Err(TryLockError::WouldBlock) if begun.elapsed() < LOCK_PATIENCE => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(TryLockError::WouldBlock) => {
                return Err(format!("another wherry-netd holds {}", path.display()));
            }
            Err(TryLockError::Error(e)) => return Err(format!("lock {}: {e}", path.display())),
        }
    }
}

/// Waits, as a standby, for the end of the netd that is. If several wait (a netd was started by an engine although
/// there was one), they do so one behind the other.
///
/// # Errors
/// A sentence.
pub(crate) fn wait(exec_root: &Path) -> Result<Turn, String> {
    // A session of its own, so that what ends netd's process group does not end its standby.
    let _ = rustix::process::setsid();
    let place = locked(&exec_root.join("netd/standby.lock"))?;
    let file = locked(&exec_root.join("netd/lock"))?;
    drop(place);
    if exec_root.join(SOCKET).exists() {
        journal::note("netd has died: its standby takes over");
        return Ok(Turn::Ours(file));
    }
    Ok(Turn::NotNeeded)
}

fn locked(path: &Path) -> Result<File, String> {
    let file = open(path)?;
    file.lock().map_err(|e| format!("lock {}: {e}", path.display()))?;
    Ok(file)
}

fn open(path: &Path) -> Result<File, String> {
    let opened = OpenOptions::new().write(true).create(true).truncate(false).open(path);
    opened.map_err(|e| format!("open {}: {e}", path.display()))
}

/// Has a standby for as long as this process lives.
pub(crate) fn keep(exec_root: &Path, data_root: &Path) -> io::Result<()> {
    // The program that runs, also if its file has been replaced.
    let mut command = Command::new("/proc/self/exe");
    command.arg0("wherry-netd").arg("--standby");
    command.arg("--exec-root").arg(exec_root).arg("--data-root").arg(data_root);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let watch = move || {
        loop {
            let ended = command.spawn().and_then(|mut standby| standby.wait());
            let how = ended.map_or_else(|e| e.to_string(), |status| status.to_string());
            journal::note(format_args!("the standby has ended ({how}): there will be another one"));
            std::thread::sleep(REPLACE_AFTER);
        }
    };
    std::thread::Builder::new().name("standby".into()).stack_size(128 << 10).spawn(watch)?;
    Ok(())
}
