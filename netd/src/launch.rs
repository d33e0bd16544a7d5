//! Starting wherry-netd where none runs. netd outlives whoever starts it: it forks into the
//! background by itself (`--background`), so that its starter gets no zombie and knows, when the
//! command ends, that netd answers.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::client::{Client, dial, exchange, is_absence, is_broken};
use crate::protocol::{Reply, Request, SOCKET, VERSION};

/// Why netd could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The folder or lock file that keeps two engines from starting two netds.
    #[error("prepare {} to start netd: {source}", path.display())]
    Prepare {
        /// Folder or lock file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The binary could not be run.
    #[error("run {}: {source}", binary.display())]
    Run {
        /// The binary.
        binary: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It ran and gave up; `message` is what it said.
    #[error("netd did not start: {message}")]
    GaveUp {
        /// Its last words.
        message: String,
    },
    /// It runs but does not answer the way this version expects.
    #[error("netd at {} speaks another version of the protocol", socket.display())]
    Version {
        /// Its socket.
        socket: PathBuf,
    },
    /// It runs but the conversation fails.
    #[error("netd does not answer: {0}")]
    Ipc(#[from] wherry_ipc::Error),
}

/// How to start the netd of one pair of roots.
#[derive(Debug, Clone)]
pub(crate) struct Launcher {
    exec_root: PathBuf,
    data_root: PathBuf,
    binary: PathBuf,
}

/// Makes sure that the netd of this pair of roots runs and speaks our protocol: starts `binary` unless somebody
/// listens at `EXEC_ROOT/netd.sock`. netd logs to `EXEC_ROOT/netd/netd.log`. Any number of engines may
/// call this at once. The client starts netd again if a later call finds it dead. Blocks for some
/// milliseconds.
///
/// # Errors
/// See [`LaunchError`].
pub fn ensure_running(exec_root: &Path, data_root: &Path, binary: &Path) -> Result<Client, LaunchError> {
    let launcher =
        Launcher { exec_root: exec_root.into(), data_root: data_root.into(), binary: binary.into() };
    launcher.ensure_running()?;
    Ok(Client::with_launcher(launcher.socket(), launcher))
}

impl Launcher {
    fn socket(&self) -> PathBuf {
        self.exec_root.join(SOCKET)
    }

    pub(crate) fn ensure_running(&self) -> Result<(), LaunchError> {
        if self.answers()? {
            return Ok(());
        }
        let _lock = self.lock()?;
        // Another engine may have started it while we waited for the lock.
        if self.answers()? {
            return Ok(());
        }
        self.start()?;
        if self.answers()? {
            return Ok(());
        }
        Err(LaunchError::GaveUp { message: format!("nobody listens at {}", self.socket().display()) })
    }

    fn answers(&self) -> Result<bool, LaunchError> {
        let connection = match dial(&self.socket()) {
            Ok(connection) => connection,
            Err(e) if is_absence(&e) => return Ok(false),
            Err(e) => return Err(LaunchError::Ipc(e.into())),
        };
        match exchange(&connection, &Request::Hello) {
            Ok(Ok(Reply::Hello { version: VERSION, .. })) => Ok(true),
            Ok(_) => Err(LaunchError::Version { socket: self.socket() }),
            // It is just ending: its socket was still there, its threads are not.
            Err(e) if is_broken(&e) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    fn lock(&self) -> Result<File, LaunchError> {
        let folder = self.exec_root.join("netd");
        let prepare = |path: &Path, source| LaunchError::Prepare { path: path.into(), source };
        std::fs::create_dir_all(&folder).map_err(|e| prepare(&folder, e))?;
        let path = folder.join("start.lock");
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|e| prepare(&path, e))?;
        file.lock().map_err(|e| prepare(&path, e))?;
        Ok(file)
    }

    fn start(&self) -> Result<(), LaunchError> {
        let output = Command::new(&self.binary)
            .arg("--exec-root")
            .arg(&self.exec_root)
            .arg("--data-root")
            .arg(&self.data_root)
            .arg("--background")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .output()
            .map_err(|source| LaunchError::Run { binary: self.binary.clone(), source })?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let message = match said.trim() {
            "" => output.status.to_string(),
            text => text.to_string(),
        };
        Err(LaunchError::GaveUp { message })
    }
}
