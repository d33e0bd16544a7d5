//! The engine's end of the connection to a container's monitor, and how a monitor is started.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{MemfdFlags, SealFlags};
use tokio::io::Interest;
use tokio::sync::{mpsc, oneshot};
use wherry_ipc::Frames;
use wherry_monitor_api::{Call, Event, Failure, FailureKind, Message, Reply, Request, SOCKET, VERSION};

/// Where programs are looked for if we have not been told.
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The program that monitors run, as a sealed copy in memory: whatever a container finds under
/// `/proc/PID/exe`, it cannot change what the next monitor executes (CVE-2019-5736).
#[derive(Debug)]
pub(crate) struct Program {
    memory: OwnedFd,
}

impl Program {
    /// Copies the binary at `path` into sealed memory. Blocking; once per engine.
    ///
    /// # Errors
    /// Those of reading it and of memfd_create.
    pub(crate) fn load(path: &Path) -> io::Result<Self> {
        // MFD_EXEC is asked for first, for hosts where vm.memfd_noexec would deny it; kernels before 6.3 do not know it.
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let memory = rustix::fs::memfd_create("wherry-monitor", flags | MemfdFlags::EXEC)
            .or_else(|_| rustix::fs::memfd_create("wherry-monitor", flags))?;
        let mut copy = File::from(memory);
        io::copy(&mut File::open(path)?, &mut copy)?;
        let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&copy, seals)?;
        Ok(Self { memory: copy.into() })
    }

    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.memory.as_raw_fd()))
    }
}

/// Why a call got no answer, or a bad one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// The monitor refused.
    #[error("{}", .0.message)]
    Refused(Failure),
    /// The monitor has gone.
    #[error("the monitor has gone")]
    Gone,
    /// The answer is of the wrong kind.
    #[error("the monitor gave an unexpected answer")]
    Unexpected,
}

/// What arrives from a monitor unasked.
#[derive(Debug)]
pub(crate) enum Signal {
    /// Something happened to the container.
    Event(Event),
    /// The connection is closed: no more will come.
    Gone,
}

type Answer = oneshot::Sender<Result<Reply, Failure>>;

/// A connection to a monitor.
#[derive(Debug)]
pub(crate) struct Monitor {
    socket: Arc<tokio::net::UnixStream>,
    next_id: AtomicU64,
    /// Calls without an answer yet; `None` once the monitor has gone.
    pending: Arc<Mutex<Option<HashMap<u64, Answer>>>>,
}

impl Monitor {
    /// Starts a monitor for `container`, whose socket will be in `run_dir` (which is made). What it
    /// says unasked comes through the receiver.
    ///
    /// # Errors
    /// Those of making the sockets and of executing the program.
    pub(crate) fn spawn(
        program: &Program,
        run_dir: &Path,
        container: &str,
    ) -> io::Result<(Arc<Self>, mpsc::UnboundedReceiver<Signal>)> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(run_dir)?;
        let listener = wherry_ipc::listen(&run_dir.join(SOCKET), 0o600)?;
        let (ours, theirs) = UnixStream::pair()?;
        let mut child = tokio::process::Command::new(program.path())
            .arg0("wherry-monitor")
            .arg(container)
            .env_clear()
            // Where it finds other runtimes and criu.
            .env("PATH", std::env::var_os("PATH").unwrap_or_else(|| SEARCH_PATH.into()))
            // Where its log relay finds the host's certificates.
            .envs(
                ["SSL_CERT_FILE", "SSL_CERT_DIR"]
                    .iter()
                    .filter_map(|name| Some((name, std::env::var_os(name)?))),
            )
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .stdout(Stdio::from(OwnedFd::from(theirs)))
            .stderr(Stdio::inherit())
            .spawn()?;
        crate::daemon::limits::restore(child.id());
        tokio::spawn(async move {
            // Reaps it; its exit code says nothing that its state file does not.
            let _ = child.wait().await;
        });
        Self::over(ours)
    }

    /// Connects to a monitor that an earlier engine started. `Ok(None)` when none is there.
    ///
    /// # Errors
    /// Other errors of connecting.
    pub(crate) fn connect(
        run_dir: &Path,
    ) -> io::Result<Option<(Arc<Self>, mpsc::UnboundedReceiver<Signal>)>> {
        match wherry_ipc::connect(&run_dir.join(SOCKET)) {
            Ok(socket) => Self::over(socket).map(Some),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    fn over(socket: UnixStream) -> io::Result<(Arc<Self>, mpsc::UnboundedReceiver<Signal>)> {
        socket.set_nonblocking(true)?;
        let socket = Arc::new(tokio::net::UnixStream::from_std(socket)?);
        let pending = Arc::new(Mutex::new(Some(HashMap::new())));
        let (signals, receiver) = mpsc::unbounded_channel();
        tokio::spawn(read_messages(socket.clone(), pending.clone(), signals));
        Ok((Arc::new(Self { socket, next_id: AtomicU64::new(1), pending }), receiver))
    }

    /// Greets the monitor and learns its state.
    ///
    /// # Errors
    /// [`CallError`]; a monitor of another version refuses.
    pub(crate) async fn hello(&self) -> Result<wherry_monitor_api::State, CallError> {
        match self.call(Request::Hello { version: VERSION }, &[]).await? {
            Reply::Hello { state, .. } => Ok(*state),
            _ => Err(CallError::Unexpected),
        }
    }

    /// Sends a request now; the answer comes through the receiver. So that several requests can be on
    /// their way in an order that is kept.
    ///
    /// # Errors
    /// [`CallError::Gone`].
    pub(crate) fn submit(&self, request: Request, fds: &[BorrowedFd<'_>]) -> Result<Pending, CallError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        pending.as_mut().ok_or(CallError::Gone)?.insert(id, sender);
        // Under the lock, so that frames of two callers do not mix. It waits only while the monitor, which does
        // nothing but serve its sockets, has 200 KiB unread.
        match wherry_ipc::send(self.socket.as_fd(), &Call { id, request }, fds) {
            Ok(()) => Ok(Pending(receiver)),
            Err(_) => Err(CallError::Gone),
        }
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// [`CallError`].
    pub(crate) async fn call(&self, request: Request, fds: &[BorrowedFd<'_>]) -> Result<Reply, CallError> {
        self.submit(request, fds)?.answer().await
    }
}

/// An answer to come.
#[derive(Debug)]
pub(crate) struct Pending(oneshot::Receiver<Result<Reply, Failure>>);

impl Pending {
    /// Waits for it.
    ///
    /// # Errors
    /// [`CallError`].
    pub(crate) async fn answer(self) -> Result<Reply, CallError> {
        match self.0.await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(failure)) => Err(CallError::Refused(failure)),
            Err(_) => Err(CallError::Gone),
        }
    }
}

async fn read_messages(
    socket: Arc<tokio::net::UnixStream>,
    pending: Arc<Mutex<Option<HashMap<u64, Answer>>>>,
    signals: mpsc::UnboundedSender<Signal>,
) {
    let mut frames = Frames::default();
    while socket.readable().await.is_ok() {
        let filled = socket.try_io(Interest::READABLE, || match frames.fill(socket.as_fd()) {
            Err(wherry_ipc::Error::Socket(error)) => Err(error),
            Err(_) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(()) => Ok(()),
        });
        match filled {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(_) => break,
        }
        while let Ok(Some((message, _))) = frames.message::<Message>() {
            match message {
                Message::Reply { id, result } => {
                    let mut pending = pending.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Some(answer) = pending.as_mut().and_then(|p| p.remove(&id)) {
                        // The caller may have given up.
                        let _ = answer.send(result);
                    }
                }
                Message::Event(event) => {
                    // The follower lives as long as the container.
                    let _ = signals.send(Signal::Event(event));
                }
            }
        }
    }
    // Dropping the senders tells all callers.
    *pending.lock().unwrap_or_else(PoisonError::into_inner) = None;
    let _ = signals.send(Signal::Gone);
}

/// Whether a failed start was the program's fault, and what `docker run` shows then: dockerd's exit code and the
/// words that containerd and runc put around the reason.
pub(crate) fn start_failure(failure: &Failure) -> (i32, String) {
    let reason = reason(failure);
    let code = match failure.kind {
        FailureKind::NotFound => 127,
        FailureKind::NotExecutable => 126,
        FailureKind::BadProcess => 127,
        FailureKind::State | FailureKind::NoSuchExec | FailureKind::Protocol | FailureKind::System => 128,
    };
    let text = format!(
        "failed to create task for container: failed to create shim task: OCI runtime create failed: runc create \
         failed: unable to start container process: error during container init: {reason}"
    );
    (code, text)
}

/// The same where another runtime has made the container, or was to: the words are its own.
pub(crate) fn external_start_failure(failure: &Failure) -> (i32, String) {
    let (code, _) = start_failure(failure);
    let reason = reason(failure);
    let text = format!(
        "failed to create task for container: failed to create shim task: OCI runtime create failed: {reason}"
    );
    (code, text)
}

/// The same for an exec.
pub(crate) fn exec_failure(failure: &Failure) -> (i32, String) {
    let (code, _) = start_failure(failure);
    let text = format!(
        "OCI runtime exec failed: exec failed: unable to start container process: {}",
        reason(failure)
    );
    (if code == 128 { 126 } else { code }, text)
}

fn reason(failure: &Failure) -> String {
    match failure.errno {
        Some(errno) if failure.kind == FailureKind::System => {
            format!("{}: {}", failure.message, io::Error::from_raw_os_error(errno))
        }
        _ => failure.message.clone(),
    }
}
