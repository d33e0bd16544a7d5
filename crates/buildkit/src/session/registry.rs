//! Sessions by their name, as long as their connections last.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::HeaderMap;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, watch};

use super::Error;
use crate::grpc::Channel;

/// How long a build waits for the session that it names: clients open both at once.
const ARRIVAL: Duration = Duration::from_secs(5);

/// A client's session.
#[derive(Debug)]
pub struct Session {
    id: String,
    shared_key: String,
    methods: HashSet<String>,
    pub(super) channel: Channel,
    ended: watch::Receiver<bool>,
}

impl Session {
    /// Its name.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What this client's sessions have in common, or nothing: transfers go on from where its last one ended.
    #[must_use]
    pub fn shared_key(&self) -> &str {
        &self.shared_key
    }

    /// Whether the client offers a method.
    ///
    /// # Errors
    /// That it does not.
    pub(super) fn require(&self, method: &'static str) -> Result<(), Error> {
        if self.methods.contains(method) { Ok(()) } else { Err(Error::Unsupported(method)) }
    }

    /// Whether the client offers a method.
    #[must_use]
    pub fn supports(&self, method: &str) -> bool {
        self.methods.contains(method)
    }

    /// Ends when the client has gone.
    pub async fn ended(&self) {
        let mut ended = self.ended.clone();
        // That the sender is gone means the same.
        let _ = ended.wait_for(|ended| *ended).await;
    }
}

/// All sessions.
#[derive(Debug, Default)]
pub struct Sessions {
    by_id: Mutex<HashMap<String, Arc<Session>>>,
    arrived: Notify,
}

impl Sessions {
    /// Holds the session that the headers of a request describe, on the connection that it was made on, until that ends.
    /// The answer `101` must have been sent.
    ///
    /// # Errors
    /// A session without id, or of a known one; a connection that does not begin.
    pub async fn hold<IO>(&self, headers: &HeaderMap, io: IO) -> Result<(), Error>
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let text =
            |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_string();
        let id = text("x-docker-expose-session-uuid");
        if id.is_empty() {
            return Err(Error::NoId);
        }
        let methods = headers
            .get_all("x-docker-expose-session-grpc-method")
            .iter()
            .filter_map(|v| v.to_str().ok().map(str::to_string))
            .collect();
        let (channel, connection) = Channel::connect(io).await?;
        let (end, ended) = watch::channel(false);
        let shared_key = text("x-docker-expose-session-sharedkey");
        let session = Session { id: id.clone(), shared_key, methods, channel, ended };
        match self.lock().entry(id.clone()) {
            Entry::Occupied(_) => return Err(Error::Exists(id)),
            Entry::Vacant(place) => place.insert(Arc::new(session)),
        };
        self.arrived.notify_waiters();
        let guard = Leave { sessions: self, id };
        if let Err(error) = connection.await {
            tracing::debug!(%error, "session ended");
        }
        drop(guard);
        // Receivers may all be gone.
        let _ = end.send(true);
        Ok(())
    }

    /// The session of an id; waits a little for one that is not there yet.
    ///
    /// # Errors
    /// That it does not come.
    pub async fn get(&self, id: &str) -> Result<Arc<Session>, Error> {
        let find = async {
            loop {
                let mut arrival = pin!(self.arrived.notified());
                arrival.as_mut().enable();
                let found = self.lock().get(id).cloned();
                if let Some(session) = found {
                    return session;
                }
                arrival.await;
            }
        };
        tokio::time::timeout(ARRIVAL, find).await.map_err(|_| Error::NotFound(id.to_string()))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Session>>> {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a session off the list, also when the task that holds it is dropped.
struct Leave<'a> {
    sessions: &'a Sessions,
    id: String,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.sessions.lock().remove(&self.id);
    }
}
