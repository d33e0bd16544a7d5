//! Who takes over when netd dies: a second process of the same program, which does nothing but wait for the lock that
//! a living netd holds. The kernel wakes it the moment the holder is gone, however that came to pass, so there is one
//! writer at any time and names resolve again within milliseconds, also while no engine runs. Whoever else is started to be
//! netd lets a waiting standby go first: it has what was left. A netd that was told to end removes its socket first; then
//! nobody takes over.
//!
//! netd starts its standby and leaves it the resolvers' sockets and relayed connections ([`crate::handover`]); should it die, another one; should both be killed at once, the next engine that
//! asks something starts anew.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use wherry_netd::protocol::SOCKET;

use crate::handover::{Handover, Heir, Left};
use crate::journal;

/// Held by the standby that waits.
const STANDBY_LOCK: &str = "netd/standby.lock";
/// How long an ending netd may take to let go of its lock.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
/// So long a standby that waits goes first. After that it has given up, and what was left to it is closed.
const STANDBY_PATIENCE: Duration = Duration::from_secs(3);
/// A standby that ends while netd lives is replaced after this time.
const REPLACE_AFTER: Duration = Duration::from_secs(1);

/// How a wait for the right to be netd ended.
pub(crate) enum Turn {
    /// We are it as long as the file is open.
    Ours {
        /// The lock.
        lock: File,
        /// What the one before us left.
        left: Left,
    },
    /// Somebody else is, and answers; or nobody is to be.
    NotNeeded,
}

/// Waits for a short time, as who has been started to be netd does.
///
/// # Errors
/// A sentence.
pub(crate) fn claim(exec_root: &Path) -> Result<Turn, String> {
    let path = exec_root.join("netd/lock");
    let (file, place) = (open(&path)?, open(&exec_root.join(STANDBY_LOCK))?);
    let begun = Instant::now();
    loop {
        // A lock is not handed to who waits for it, but goes to who asks first when it is free.
        let standby_waits = matches!(place.try_lock(), Err(TryLockError::WouldBlock));
        let tried = match standby_waits && begun.elapsed() < STANDBY_PATIENCE {
            true => Err(TryLockError::WouldBlock),
            false => file.try_lock(),
        };
        // It was only to be looked at; if it is not held there is nothing to give back.
        let _ = place.unlock();
        match tried {
            Ok(()) => return Ok(Turn::Ours { lock: file, left: Left::default() }),
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
/// there was one), they do so one behind the other; those whose netd is gone soon end.
///
/// # Errors
/// A sentence.
pub(crate) fn wait(exec_root: &Path) -> Result<Turn, String> {
    // A session of its own, so that what ends netd's process group does not end its standby.
    let _ = rustix::process::setsid();
    let heir = inherit().map_err(|e| format!("hear from netd: {e}"))?;
    let place = locked(&exec_root.join(STANDBY_LOCK))?;
    let lock = locked(&exec_root.join("netd/lock"))?;
    drop(place);
    if exec_root.join(SOCKET).exists() {
        journal::note("netd has died: its standby takes over");
        return Ok(Turn::Ours { lock, left: heir.claim() });
    }
    Ok(Turn::NotNeeded)
}

/// netd speaks to our standard input, which is then nothing.
fn inherit() -> io::Result<Arc<Heir>> {
    let from = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    Heir::listen(from)
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
pub(crate) fn keep(exec_root: &Path, data_root: &Path, handover: Arc<Handover>) -> io::Result<()> {
    // The program that runs, also if its file has been replaced.
    let mut command = Command::new("/proc/self/exe");
    command.arg0("wherry-netd").arg("--standby");
    command.arg("--exec-root").arg(exec_root).arg("--data-root").arg(data_root);
    command.stdout(Stdio::null());
    let mut run = move || {
        let (ours, theirs) = UnixStream::pair()?;
        let mut standby = command.stdin(Stdio::from(OwnedFd::from(theirs))).spawn()?;
        // Else our own copy would keep it from seeing our end.
        command.stdin(Stdio::null());
        handover.begin(ours)?;
        standby.wait()
    };
    let watch = move || {
        loop {
            let how = run().map_or_else(|e| e.to_string(), |status| status.to_string());
            journal::note(format_args!("the standby has ended ({how}): there will be another one"));
            std::thread::sleep(REPLACE_AFTER);
        }
    };
    std::thread::Builder::new().name("standby".into()).stack_size(128 << 10).spawn(watch)?;
    Ok(())
}
