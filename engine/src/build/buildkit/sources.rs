//! What only the client has, brought when the executor asks for it.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use tokio::sync::{Mutex, OnceCell};
use wherry_buildkit::control::Progress;
use wherry_buildkit::pb::services::Stat;
use wherry_buildkit::session::{Session, Sessions, SyncOptions};
use wherry_buildkit::sync::receive::Contents;
use wherry_registry::Credentials;

use super::attributes::{Place, Wanted};
use super::files::{ignore_from_client, patterns};
use super::folders::Lease;
use super::remote;
use crate::build::files::{Incoming, Known};
use crate::build::{Folder, Future, Lends, Offered, Origins, Sources};
use crate::engine::{Engine, blocking};
use crate::error::Error;

/// The client of one build.
pub(super) struct Client {
    pub(super) engine: Arc<Engine>,
    pub(super) session: Arc<Session>,
    pub(super) progress: Progress,
    /// Where folders may be that are not in it.
    pub(super) sessions: Arc<Sessions>,
    /// The build.
    pub(super) wanted: Wanted,
    /// What stays out of it, where that is known already.
    pub(super) ignore: Option<String>,
    /// Its files, where they have come with the Dockerfile.
    pub(super) fetched: Option<Arc<Folder>>,
    /// Further ones.
    pub(super) contexts: BTreeMap<String, Place>,
    /// Those that have come.
    pub(super) synced: Mutex<HashMap<String, Arc<OnceCell<Synced>>>>,
    /// Of what contexts that came from elsewhere are.
    pub(super) origins: Arc<std::sync::Mutex<Origins>>,
}

/// Files that have come.
pub(super) struct Synced {
    folder: Arc<Folder>,
    /// The files stay as they are as long as the build lasts.
    _lease: Arc<Lease>,
}

impl Client {
    async fn of_client(&self, name: &str, place: &str) -> Result<Arc<Folder>, Error> {
        let cell = self.synced.lock().await.entry(name.to_owned()).or_default().clone();
        let synced = cell.get_or_try_init(|| self.sync(name, place)).await?;
        Ok(synced.folder.clone())
    }

    /// Brings a folder of the client.
    async fn sync(&self, name: &str, place: &str) -> Result<Synced, Error> {
        let shown = if name.is_empty() { "internal".to_owned() } else { format!("context {name}") };
        let told = |status: wherry_buildkit::grpc::Status| Error::server(status.message);
        let (place, other) = self.wanted.folder(place);
        let session = match other {
            Some(id) => self.sessions.get(&id).await.map_err(|error| Error::server(error.to_string()))?,
            None => self.session.clone(),
        };
        let ignore = match (&self.ignore, name) {
            (Some(known), "") => Some(known.clone()),
            _ => ignore_from_client(&session, &place, &shown, &self.progress).await.map_err(told)?,
        };
        let kind = format!("{place}\n{}", session.shared_key());
        let folders = self.engine.builds.locals.clone();
        let (lease, root, ours) = blocking(move || {
            let lease = folders.lease(&kind)?;
            let (root, ours) = (lease.open()?, lease.open()?);
            Ok((Arc::new(lease), root, ours))
        })
        .await?;
        let step = self.progress.start(&match name {
            "" => "[internal] load build context".to_owned(),
            name => format!("[context {name}] load from client"),
        });
        let mut part = step.part("transferring context:", "transferring");
        let exclude = ignore.as_deref().map(patterns).unwrap_or_default();
        let options = SyncOptions { name: place, exclude, ..SyncOptions::default() };
        let known = Arc::new(lease.known());
        let incoming = Arriving { known: known.clone(), begun: HashMap::new(), _lease: lease.clone() };
        let synced = session.sync_to_folder(&options, root, incoming, |bytes| part.at(bytes, 0)).await;
        part.end();
        step.end(&synced);
        synced.map_err(|error| Error::server(error.to_string()))?;
        let folder = Arc::new(Folder { root: ours, temporary: None, known: Some(known), inside: None });
        Ok(Synced { folder, _lease: lease })
    }
}

/// What a session lends.
pub(super) struct Lender<'a> {
    pub(super) engine: &'a Arc<Engine>,
    pub(super) session: &'a Arc<Session>,
}

impl Lends for Lender<'_> {
    fn secret<'a>(&'a self, id: &'a str) -> Future<'a, Option<Vec<u8>>> {
        Box::pin(
            async move { self.session.secret(id).await.map_err(|error| Error::server(error.to_string())) },
        )
    }

    fn ssh<'a>(&'a self, id: &'a str) -> Future<'a, Result<Offered, String>> {
        Box::pin(async move {
            let has = self.session.has_agent(id).await.map_err(|error| Error::server(error.to_string()))?;
            match has {
                Ok(()) => offer(self.engine, self.session, id).map(Ok),
                Err(reason) => Ok(Err(reason)),
            }
        })
    }
}

impl Lends for Client {
    fn secret<'a>(&'a self, id: &'a str) -> Future<'a, Option<Vec<u8>>> {
        Box::pin(async move { Lender { engine: &self.engine, session: &self.session }.secret(id).await })
    }

    fn ssh<'a>(&'a self, id: &'a str) -> Future<'a, Result<Offered, String>> {
        Box::pin(async move { Lender { engine: &self.engine, session: &self.session }.ssh(id).await })
    }
}

impl Sources for Client {
    fn context<'a>(&'a self, name: &'a str) -> Future<'a, Option<Arc<Folder>>> {
        Box::pin(async move {
            let place = match name {
                "" => &self.wanted.context,
                name => match self.contexts.get(name) {
                    Some(place) => place,
                    None => return Ok(None),
                },
            };
            match place {
                Place::Client(place) => self.of_client(name, place).await.map(Some),
                Place::Upload(_) | Place::Remote(_) if name.is_empty() => Ok(self.fetched.clone()),
                Place::Upload(at) | Place::Remote(at) => {
                    let brought = remote::at(&self.engine, &self.session, at, (None, &self.progress)).await;
                    let (context, origins) = brought.map_err(|status| Error::server(status.message))?;
                    self.origins.lock().unwrap_or_else(PoisonError::into_inner).add(&origins);
                    Ok(Some(context.folder))
                }
                Place::Image(_) | Place::Input(_) => Ok(None),
            }
        })
    }

    fn credentials<'a>(&'a self, host: &'a str) -> Future<'a, Credentials> {
        Box::pin(async move {
            // The name under which BuildKit's clients keep what is for Docker Hub.
            let host = if host == "docker.io" { "registry-1.docker.io" } else { host };
            let found = match self.session.credentials(host).await {
                Ok(found) => found.unwrap_or_default(),
                // A client that offers none has none.
                Err(wherry_buildkit::session::Error::Unsupported(_)) => return Ok(Credentials::default()),
                Err(error) => return Err(Error::server(error.to_string())),
            };
            Ok(match found.username.is_empty() {
                true => Credentials { identity_token: found.secret, ..Credentials::default() },
                false => {
                    Credentials { username: found.username, password: found.secret, ..Credentials::default() }
                }
            })
        })
    }
}

/// Knows the files of a transfer by their digests when they have come, so that nobody needs to read them for that.
struct Arriving {
    known: Arc<Known>,
    /// Those of which some has come.
    begun: HashMap<u32, Incoming>,
    /// The folder is its build's as long as anything is written to it.
    _lease: Arc<Lease>,
}

impl Contents for Arriving {
    fn begin(&mut self, id: u32, stat: &Stat) {
        // Attributes are part of the digest, and not all that are listed can be set.
        if stat.xattrs.is_empty() {
            self.begun.insert(id, Incoming::new(stat.size));
        }
    }

    fn piece(&mut self, id: u32, bytes: &[u8]) {
        if let Some(incoming) = self.begun.get_mut(&id) {
            incoming.add(bytes);
        }
    }

    fn complete(&mut self, id: u32, file: BorrowedFd<'_>) {
        let digest = self.begun.remove(&id).and_then(Incoming::finish);
        if let (Some(digest), Ok(stat)) = (digest, rustix::fs::fstat(file)) {
            self.known.put(&stat, digest);
        }
    }
}

/// What serves a socket at which a client's SSH agent answers.
#[derive(Debug)]
struct Agent {
    folder: PathBuf,
    listener: tokio::task::JoinHandle<()>,
}

/// Offers an agent of the client at a new socket.
fn offer(engine: &Engine, session: &Arc<Session>, id: &str) -> Result<Offered, Error> {
    let folder = engine.config().exec_root.join("build").join(crate::id::hex64());
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
    made.map_err(Error::io("create", folder.display()))?;
    let path = folder.join("agent.sock");
    let socket = wherry_ipc::listen(&path, 0o600)
        .and_then(|socket| socket.set_nonblocking(true).map(|()| socket))
        .and_then(tokio::net::UnixListener::from_std)
        .map_err(Error::io("listen at", path.display()))?;
    let (session, agent) = (session.clone(), id.to_owned());
    let listener = tokio::spawn(async move {
        let mut carried = tokio::task::JoinSet::new();
        while let Ok((client, _)) = socket.accept().await {
            let (session, agent) = (session.clone(), agent.clone());
            carried.spawn(async move {
                if let Err(error) = session.forward_agent(&agent, client).await {
                    tracing::debug!(%error, "a connection to a client's SSH agent broke");
                }
            });
            // Those that have ended need not be kept.
            while carried.try_join_next().is_some() {}
        }
    });
    Ok(Offered { path, server: Box::new(Agent { folder, listener }) })
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.listener.abort();
        if let Err(error) = std::fs::remove_dir_all(&self.folder) {
            tracing::debug!(folder = %self.folder.display(), %error, "an agent's socket could not be removed");
        }
    }
}
