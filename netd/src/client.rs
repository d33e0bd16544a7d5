//! Asking netd, for callers that may block (the engine calls this from tokio's
//! `spawn_blocking`). Any number of threads share one [`Client`]; each call takes an idle
//! connection or makes one. A netd that was restarted in between is not noticed by callers, and a
//! [`Client`] from [`ensure_running`](crate::launch::ensure_running) starts one that has died.

use std::collections::BTreeSet;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::launch::{LaunchError, Launcher};
use crate::protocol::{
    EndpointSpec, Failure, Firewalld, Network, NetworkSpec, Reply, Request, Sandbox, SandboxSpec, Settings,
};

/// How long an answer may take. netd answers in milliseconds; only a firewall tool that waits for another
/// program's lock takes seconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(90);
const IDLE_CONNECTIONS: usize = 4;
/// So many new connections are tried, each of which may be to a netd that ends just then.
const NEW_CONNECTIONS: usize = 3;

/// Why a request brought no answer, or not the wanted one.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// netd understood and refused; nothing was changed.
    #[error(transparent)]
    Refused(#[from] Failure),
    /// Nobody listens at netd's socket.
    #[error("netd does not answer at {}: {source}", socket.display())]
    Connect {
        /// The socket's path.
        socket: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The connection broke; whether the request was carried out is not known. All requests may be repeated.
    #[error("talking to netd: {0}")]
    Ipc(#[from] wherry_ipc::Error),
    /// netd was not running and could not be started.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// The answer is not one to this request: netd and engine disagree about the protocol.
    #[error("netd's answer does not belong to the request {request}")]
    Unexpected {
        /// Which request.
        request: &'static str,
    },
}

/// A way to netd. Cheap to make; connects at the first call.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    idle: Mutex<Vec<UnixStream>>,
    launcher: Option<Launcher>,
}

impl Client {
    /// A client of the netd that listens at `socket` (`EXEC_ROOT/netd.sock`), started by somebody else.
    #[must_use]
    pub fn new(socket: PathBuf) -> Self {
        Self { socket, idle: Mutex::new(Vec::new()), launcher: None }
    }

    /// A client that starts netd again should it be gone.
    pub(crate) fn with_launcher(socket: PathBuf, launcher: Launcher) -> Self {
        Self { launcher: Some(launcher), ..Self::new(socket) }
    }

    /// Asks, and waits for the answer. A connection that netd's end broke is replaced: every request may be repeated
    /// without harm.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn call(&self, request: &Request) -> Result<Reply, ClientError> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let connection = match self.take_idle() {
                Some(connection) => connection,
                None => self.connect()?,
            };
            match exchange(&connection, request) {
                Ok(answer) => return self.finish(connection, answer),
                // All idle ones may be broken, and a new one may have met a netd on its last breath.
                Err(e) if is_broken(&e) && attempts < IDLE_CONNECTIONS + NEW_CONNECTIONS => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// netd's protocol version and process id.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn hello(&self) -> Result<(u32, u32), ClientError> {
        match self.call(&Request::Hello)? {
            Reply::Hello { version, pid } => Ok((version, pid)),
            _ => Err(ClientError::Unexpected { request: "Hello" }),
        }
    }

    /// [`Request::Configure`].
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn configure(&self, settings: Settings) -> Result<(), ClientError> {
        self.done(&Request::Configure(settings), "Configure")
    }

    /// [`Request::CreateNetwork`].
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn create_network(&self, spec: NetworkSpec) -> Result<Network, ClientError> {
        match self.call(&Request::CreateNetwork(spec))? {
            Reply::Network(network) => Ok(*network),
            _ => Err(ClientError::Unexpected { request: "CreateNetwork" }),
        }
    }

    /// [`Request::RemoveNetwork`].
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn remove_network(&self, network: &str) -> Result<(), ClientError> {
        self.done(&Request::RemoveNetwork { network: network.into() }, "RemoveNetwork")
    }

    /// All networks, in order of creation.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn networks(&self) -> Result<Vec<Network>, ClientError> {
        match self.call(&Request::Networks)? {
            Reply::Networks(networks) => Ok(networks),
            _ => Err(ClientError::Unexpected { request: "Networks" }),
        }
    }

    /// [`Request::CreateSandbox`].
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn create_sandbox(&self, spec: SandboxSpec) -> Result<Sandbox, ClientError> {
        self.sandbox(&Request::CreateSandbox(spec), "CreateSandbox")
    }

    /// [`Request::Connect`].
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn connect_endpoint(&self, sandbox: &str, endpoint: EndpointSpec) -> Result<Sandbox, ClientError> {
        self.sandbox(&Request::Connect { sandbox: sandbox.into(), endpoint }, "Connect")
    }

    /// [`Request::Disconnect`].
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn disconnect_endpoint(&self, sandbox: &str, network: &str) -> Result<Sandbox, ClientError> {
        self.sandbox(&Request::Disconnect { sandbox: sandbox.into(), network: network.into() }, "Disconnect")
    }

    /// [`Request::SetLinked`].
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn set_linked(
        &self,
        sandbox: &str,
        network: &str,
        linked: BTreeSet<String>,
    ) -> Result<(), ClientError> {
        let (sandbox, network) = (sandbox.into(), network.into());
        self.done(&Request::SetLinked { sandbox, network, linked }, "SetLinked")
    }

    /// [`Request::SetNames`].
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn set_names(
        &self,
        sandbox: &str,
        network: &str,
        names: Vec<String>,
        container: &str,
    ) -> Result<(), ClientError> {
        let (sandbox, network, container) = (sandbox.into(), network.into(), container.into());
        self.done(&Request::SetNames { sandbox, network, names, container }, "SetNames")
    }

    /// [`Request::ReleaseSandbox`].
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn release_sandbox(&self, sandbox: &str) -> Result<(), ClientError> {
        self.done(&Request::ReleaseSandbox { sandbox: sandbox.into() }, "ReleaseSandbox")
    }

    /// All sandboxes.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn sandboxes(&self) -> Result<Vec<Sandbox>, ClientError> {
        match self.call(&Request::Sandboxes)? {
            Reply::Sandboxes(sandboxes) => Ok(sandboxes),
            _ => Err(ClientError::Unexpected { request: "Sandboxes" }),
        }
    }

    /// [`Request::Firewalld`].
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn firewalld(&self) -> Result<Option<Firewalld>, ClientError> {
        match self.call(&Request::Firewalld)? {
            Reply::Firewalld(firewalld) => Ok(firewalld),
            _ => Err(ClientError::Unexpected { request: "Firewalld" }),
        }
    }

    /// [`Request::Shutdown`].
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn shutdown(&self) -> Result<(), ClientError> {
        self.done(&Request::Shutdown, "Shutdown")
    }

    fn done(&self, request: &Request, name: &'static str) -> Result<(), ClientError> {
        match self.call(request)? {
            Reply::Ok => Ok(()),
            _ => Err(ClientError::Unexpected { request: name }),
        }
    }

    fn sandbox(&self, request: &Request, name: &'static str) -> Result<Sandbox, ClientError> {
        match self.call(request)? {
            Reply::Sandbox(sandbox) => Ok(*sandbox),
            _ => Err(ClientError::Unexpected { request: name }),
        }
    }

    fn take_idle(&self) -> Option<UnixStream> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn finish(&self, connection: UnixStream, answer: Result<Reply, Failure>) -> Result<Reply, ClientError> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_CONNECTIONS {
            idle.push(connection);
        }
        Ok(answer?)
    }

    fn connect(&self) -> Result<UnixStream, ClientError> {
        let source = match dial(&self.socket) {
            Ok(connection) => return Ok(connection),
            Err(source) => source,
        };
        if let Some(launcher) = &self.launcher
            && is_absence(&source)
        {
            launcher.ensure_running()?;
            return dial(&self.socket)
                .map_err(|source| ClientError::Connect { socket: self.socket.clone(), source });
        }
        Err(ClientError::Connect { socket: self.socket.clone(), source })
    }
}

/// Whether a failure to connect says that no netd lives.
pub(crate) fn is_absence(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused)
}

/// Whether a conversation failed because the other end has ended.
pub(crate) fn is_broken(error: &wherry_ipc::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected};
    match error {
        wherry_ipc::Error::Closed => true,
        wherry_ipc::Error::Socket(e) => matches!(e.kind(), BrokenPipe | ConnectionReset | NotConnected),
        _ => false,
    }
}

/// A fresh connection to `socket`.
pub(crate) fn dial(socket: &Path) -> std::io::Result<UnixStream> {
    let connection = wherry_ipc::connect(socket)?;
    connection.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    Ok(connection)
}

/// One request and its answer.
pub(crate) fn exchange(
    connection: &UnixStream,
    request: &Request,
) -> Result<Result<Reply, Failure>, wherry_ipc::Error> {
    wherry_ipc::send(connection, request, &[])?;
    Ok(wherry_ipc::receive(connection)?.0)
}
