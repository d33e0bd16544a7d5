//! The way to netd for async code.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use wherry_netd::protocol::{EndpointSpec, Network, NetworkSpec, Sandbox, SandboxSpec};
use wherry_netd::{Client, ClientError};

use crate::engine::blocking;
use crate::error::Error;

/// netd, which is started again should it be gone. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Netd(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    client: Client,
    /// What the networks are (not who is in them), since each container's creation and start looks them up.
    /// Only this engine makes and removes networks; each such request forgets the memory.
    networks: Mutex<Option<Arc<[Arc<Network>]>>>,
}

impl From<ClientError> for Error {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Refused(failure) => Self::Network(failure),
            other => Self::Netd(other.to_string()),
        }
    }
}

impl Netd {
    /// Makes sure that this pair of roots has its netd. Blocks.
    ///
    /// # Errors
    /// netd cannot be started or does not answer.
    pub(crate) fn open(exec_root: &Path, data_root: &Path, binary: &Path) -> Result<Self, Error> {
        let client = wherry_netd::ensure_running(exec_root, data_root, binary)
            .map_err(|e| Error::Netd(e.to_string()))?;
        Ok(Self(Arc::new(Inner { client, networks: Mutex::new(None) })))
    }

    /// Blocking use of the client, for callers on a thread that may block.
    pub(crate) fn client(&self) -> &Client {
        &self.0.client
    }

    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Client) -> Result<T, ClientError> + Send + 'static,
    ) -> Result<T, Error> {
        let inner = self.0.clone();
        blocking(move || question(&inner.client).map_err(Error::from)).await
    }

    /// All networks with their endpoints as they are now, in order of creation.
    ///
    /// # Errors
    /// netd's.
    pub(crate) async fn networks(&self) -> Result<Vec<Network>, Error> {
        self.ask(Client::networks).await
    }

    /// All networks, with endpoints that may be out of date. Does not ask netd when the answer is known.
    ///
    /// # Errors
    /// netd's.
    pub(crate) async fn known_networks(&self) -> Result<Arc<[Arc<Network>]>, Error> {
        if let Some(known) = self.memory().clone() {
            return Ok(known);
        }
        let fresh: Arc<[Arc<Network>]> = self.networks().await?.into_iter().map(Arc::new).collect();
        *self.memory() = Some(fresh.clone());
        Ok(fresh)
    }

    /// What [`Netd::known_networks`] remembers, if it does.
    pub(crate) fn remembered(&self) -> Option<Arc<[Arc<Network>]>> {
        self.memory().clone()
    }

    /// Makes a network.
    ///
    /// # Errors
    /// netd's.
    pub(crate) async fn create_network(&self, spec: NetworkSpec) -> Result<Network, Error> {
        let made = self.ask(move |netd| netd.create_network(spec)).await;
        self.forget();
        made
    }

    /// Removes a network (full id) without endpoints.
    ///
    /// # Errors
    /// netd's.
    pub(crate) async fn remove_network(&self, id: &str) -> Result<(), Error> {
        let id = id.to_string();
        let done = self.ask(move |netd| netd.remove_network(&id)).await;
        self.forget();
        done
    }

    /// Makes a container's network namespace.
    ///
    /// # Errors
    /// netd's.
    pub(crate) async fn create_sandbox(&self, spec: SandboxSpec) -> Result<Sandbox, Error> {
        self.ask(move |netd| netd.create_sandbox(spec)).await
    }

    /// Adds an endpoint to a sandbox.
    ///
    /// # Errors
    /// netd's.
    pub(crate) async fn connect(&self, sandbox: &str, endpoint: EndpointSpec) -> Result<Sandbox, Error> {
        let sandbox = sandbox.to_string();
        self.ask(move |netd| netd.connect_endpoint(&sandbox, endpoint)).await
    }

    /// Removes a sandbox's endpoint in a network (full id).
    ///
    /// # Errors
    /// netd's.
    pub(crate) async fn disconnect(&self, sandbox: &str, network: &str) -> Result<Sandbox, Error> {
        let (sandbox, network) = (sandbox.to_string(), network.to_string());
        self.ask(move |netd| netd.disconnect_endpoint(&sandbox, &network)).await
    }

    /// Replaces the names of a sandbox's endpoint, and the name of its container.
    ///
    /// # Errors
    /// netd's.
    pub(crate) async fn set_names(
        &self,
        sandbox: &str,
        network: &str,
        names: Vec<String>,
        container: &str,
    ) -> Result<(), Error> {
        let (sandbox, network) = (sandbox.to_string(), network.to_string());
        let container = container.to_string();
        self.ask(move |netd| netd.set_names(&sandbox, &network, names, &container)).await
    }

    /// Replaces what a sandbox's endpoint is linked to.
    ///
    /// # Errors
    /// netd's.
    pub(crate) async fn set_linked(
        &self,
        sandbox: &str,
        network: &str,
        linked: BTreeSet<String>,
    ) -> Result<(), Error> {
        let (sandbox, network) = (sandbox.to_string(), network.to_string());
        self.ask(move |netd| netd.set_linked(&sandbox, &network, linked.clone())).await
    }

    /// Removes a sandbox; one that is not there is fine.
    ///
    /// # Errors
    /// netd's.
    pub(crate) async fn release_sandbox(&self, sandbox: &str) -> Result<(), Error> {
        let sandbox = sandbox.to_string();
        self.ask(move |netd| netd.release_sandbox(&sandbox)).await
    }

    /// All sandboxes.
    ///
    /// # Errors
    /// netd's.
    pub(crate) async fn sandboxes(&self) -> Result<Vec<Sandbox>, Error> {
        self.ask(Client::sandboxes).await
    }

    /// Ends netd.
    ///
    /// # Errors
    /// netd's.
    pub(crate) async fn shutdown(&self) -> Result<(), Error> {
        self.ask(Client::shutdown).await
    }

    fn forget(&self) {
        *self.memory() = None;
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, Option<Arc<[Arc<Network>]>>> {
        self.0.networks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
