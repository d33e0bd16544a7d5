//! `NOTIFY_SOCKET` (sd_notify(3)): a container that says it is ready says so to systemd through us.
//!
//! The container gets a socket of its own at /run/notify/notify.sock. Of what arrives there, `READY=1` is
//! passed on, together with the main process's id, for systemd cannot see through the pid namespace.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::OnceLock;

use oci_spec::runtime::{Mount, Spec};
use rustix::event::{PollFd, PollFlags, poll};

use crate::failure::Failure;
use crate::store::Store;

const FOLDER_INSIDE: &str = "/run/notify";
const NAME: &str = "notify.sock";

/// The socket of one container.
#[derive(Debug)]
pub(crate) struct NotifySocket {
    host: PathBuf,
    folder: PathBuf,
    socket: OnceLock<UnixDatagram>,
}

impl NotifySocket {
    /// If the caller wants to be notified.
    pub(crate) fn from_environment(store: &Store) -> Option<Self> {
        let host = std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty())?;
        Some(NotifySocket {
            host: host.into(),
            folder: store.folder().join("notify"),
            socket: OnceLock::new(),
        })
    }

    /// Gives the container the folder with the socket, and its path in the environment.
    pub(crate) fn add_to(&self, spec: &mut Spec) -> Result<(), Failure> {
        std::fs::DirBuilder::new()
            .mode(0o755)
            .create(&self.folder)
            .map_err(Failure::file("make", &self.folder))?;
        let mut mount = Mount::default();
        mount.set_destination(PathBuf::from(FOLDER_INSIDE));
        mount.set_typ(None);
        mount.set_source(Some(self.folder.clone()));
        let options = ["bind", "nosuid", "noexec", "nodev", "ro"];
        mount.set_options(Some(options.map(str::to_owned).to_vec()));
        let mut mounts = spec.mounts().clone().unwrap_or_default();
        mounts.push(mount);
        spec.set_mounts(Some(mounts));
        if let Some(process) = spec.process_mut() {
            let mut env = process.env().clone().unwrap_or_default();
            env.push(format!("NOTIFY_SOCKET={FOLDER_INSIDE}/{NAME}"));
            process.set_env(Some(env));
        }
        Ok(())
    }

    /// Makes the socket.
    pub(crate) fn bind(&self) -> Result<(), Failure> {
        let path = self.folder.join(NAME);
        let socket = UnixDatagram::bind(&path).map_err(Failure::file("bind", &path))?;
        // whoever the program runs as may write to it
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777))
            .map_err(Failure::file("change the mode of", &path))?;
        let _ = self.socket.set(socket);
        Ok(())
    }

    /// Its descriptor, once it is made.
    pub(crate) fn bound(&self) -> Option<BorrowedFd<'_>> {
        self.socket.get().map(AsFd::as_fd)
    }

    /// Waits until the container is ready, or has ended.
    pub(crate) fn relay(&self, pid: i32, pidfd: BorrowedFd<'_>) -> Result<(), Failure> {
        let Some(socket) = self.bound() else { return Ok(()) };
        loop {
            let mut sources = [
                PollFd::from_borrowed_fd(socket, PollFlags::IN),
                PollFd::from_borrowed_fd(pidfd, PollFlags::IN),
            ];
            match poll(&mut sources, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(Failure::file("wait for", "the container's readiness")(errno)),
            }
            let [message, end] = sources.map(|source| !source.revents().is_empty());
            if (message && self.pass_on(pid)?) || (end && !message) {
                return Ok(());
            }
        }
    }

    /// Reads a message and passes it on if it says `READY=`; says whether it did. `pid` 0 is not told: the caller waits for the
    /// process, and so is itself the service.
    pub(crate) fn pass_on(&self, pid: i32) -> Result<bool, Failure> {
        let Some(socket) = self.socket.get() else { return Ok(false) };
        let mut buffer = [0; 4096];
        let length = socket.recv(&mut buffer).map_err(Failure::file("read", &self.folder))?;
        let text = buffer.get(..length).unwrap_or_default();
        let Some(ready) = text.split(|byte| *byte == b'\n').find(|line| line.starts_with(b"READY=")) else {
            return Ok(false);
        };
        let mut message = [ready, b"\n"].concat();
        if pid > 0 {
            message.extend_from_slice(format!("MAINPID={pid}\n").as_bytes());
        }
        let failed = || Failure::file("notify", &self.host);
        let host = UnixDatagram::unbound().map_err(failed())?;
        host.send_to(&message, &self.host).map_err(failed())?;
        Ok(true)
    }
}
