//! Joining a container to a network, or taking it out, while it runs or before.

use std::sync::Arc;

use serde::Deserialize;
use wherry_netd::protocol::{Driver, Network};

use super::config::EndpointSettings;
use super::network;
use super::record::Attachment;
use super::table::Container;
use crate::engine::{Engine, blocking};
use crate::error::Error;

/// The body of a connect request.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Connect {
    /// Name or id.
    pub(crate) container: String,
    /// What is asked of the endpoint.
    pub(crate) endpoint_config: Option<EndpointSettings>,
}

/// The body of a disconnect request.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Disconnect {
    /// Name or id.
    pub(crate) container: String,
    /// Whether to do it for a container that is not there.
    pub(crate) force: bool,
}

/// Connects a container to a network.
///
/// # Errors
/// 404 for an unknown container, 403 for one that is in the network already, 400 for one that cannot be in several.
pub(crate) async fn connect(engine: &Arc<Engine>, network: &Network, body: Connect) -> Result<(), Error> {
    let container = engine.containers.find(&body.container)?;
    let _guard = container.transition.lock().await;
    let name = network.spec.name.clone();
    refuse_modes(&container, network)?;
    let settings = body.endpoint_config.unwrap_or_default();
    super::create::check_endpoint(&settings, Some(network)).map_err(Error::InvalidParameter)?;
    let record = container.record();
    if record.networks.contains_key(&name) && container.status().state.is_running() {
        return Err(Error::Forbidden(format!(
            "endpoint with name {} already exists in network {name}",
            record.name
        )));
    }
    let running = container.status().state.is_running();
    let network_id = if running { network.spec.id.clone() } else { String::new() };
    let attachment = Attachment { network_id, settings, connected: true };
    if container.status().state.is_running() && network.spec.driver.has_links() {
        let mut endpoint = network::endpoint(engine, &record, network, &attachment)?;
        // Published there if they are nowhere else.
        endpoint.ports = network::ports(&record)?;
        let sandbox = engine.netd.connect(&container.id, endpoint).await?;
        refresh(engine, &container, sandbox);
    }
    save(engine, &container, move |record| {
        record.networks.insert(name, attachment);
    })
    .await?;
    if container.status().state.is_running() {
        super::network_event(engine, &container, "connect", &network.spec.id).await;
    }
    Ok(())
}

fn refuse_modes(container: &Container, network: &Network) -> Result<(), Error> {
    const SHARES: &str = "container sharing network namespace with another container or host cannot be connected to any other network";
    const HOST: &str =
        "cannot connect container to host network - container must be created in host network mode";
    const NONE: &str =
        "container cannot be connected to multiple networks with one of the networks in private (none) mode";
    let record = container.record();
    let shares = record.host_config.network_mode.starts_with("container:");
    let has_others = record.networks.keys().any(|name| name != "none");
    match network.spec.driver {
        _ if shares => Err(Error::InvalidParameter(SHARES.into())),
        Driver::Host => Err(Error::InvalidParameter(HOST.into())),
        _ if record.networks.contains_key("host") => Err(Error::InvalidParameter(SHARES.into())),
        Driver::Null if has_others => Err(Error::InvalidParameter(NONE.into())),
        Driver::Null => Ok(()),
        _ if record.networks.contains_key("none") => Err(Error::InvalidParameter(NONE.into())),
        Driver::Description => {
            Err(Error::Forbidden("cannot create endpoint on configuration-only network".into()))
        }
        Driver::Bridge | Driver::Macvlan | Driver::Ipvlan => Ok(()),
    }
}

/// In dockerd's words, which differ a little.
pub(crate) fn not_connected(container: &Container, network: &str) -> Error {
    let the = if container.status().state.is_running() { "" } else { "the " };
    Error::server(format!("container {} is not connected to {the}network {network}", container.id))
}

/// Takes a container out of a network.
///
/// # Errors
/// 404 for an unknown container (unless `force`), 500 when it is not in the network, 400 when that is the host's.
pub(crate) async fn disconnect(
    engine: &Arc<Engine>,
    network: &Network,
    body: Disconnect,
) -> Result<(), Error> {
    let container = match engine.containers.find(&body.container) {
        Ok(container) => container,
        // What netd still has of a container that is gone is released with its sandbox.
        Err(_) if body.force => return force(engine, network, &body.container).await,
        Err(error) => return Err(error),
    };
    let _guard = container.transition.lock().await;
    let name = network.spec.name.clone();
    if !container.record().networks.contains_key(&name) {
        return Err(not_connected(&container, &name));
    }
    if network.spec.driver == Driver::Host {
        return Err(Error::InvalidParameter(
            "cannot disconnect container from host network - container was created in host network mode"
                .into(),
        ));
    }
    let runs = container.status().state.is_running();
    if runs && network.spec.driver.has_links() {
        let sandbox = engine.netd.disconnect(&container.id, &network.spec.id).await?;
        refresh(engine, &container, sandbox);
    }
    save(engine, &container, move |record| {
        record.networks.remove(&name);
    })
    .await?;
    if runs {
        super::network_event(engine, &container, "disconnect", &network.spec.id).await;
    }
    Ok(())
}

/// Takes what is left of a container that is gone, by its id or name, out of a network.
async fn force(engine: &Engine, network: &Network, container: &str) -> Result<(), Error> {
    let now = engine.netd.networks().await?;
    let endpoints = now.iter().filter(|n| n.spec.id == network.spec.id).flat_map(|n| &n.endpoints);
    let left =
        endpoints.filter(|(id, endpoint)| *id == container || endpoint.spec.container_name == container);
    let left = left.map(|(id, _)| id.clone()).next();
    let id = left.ok_or_else(|| Error::NotFound(format!("endpoint {container} not found")))?;
    engine.netd.disconnect(&id, &network.spec.id).await.map(drop)
}

/// Notes a running container's new endpoints, and writes its /etc files for them: with its first user-defined network
/// comes 127.0.0.11.
fn refresh(engine: &Arc<Engine>, container: &Container, sandbox: wherry_netd::protocol::Sandbox) {
    let joined = network::Joined::Own(Box::new(sandbox.clone()));
    container.set_sandbox(Some(sandbox));
    let record = container.record();
    let written = super::links::resolve(engine, &record)
        .and_then(|links| super::start::write_etc(engine, &record, &joined, &links));
    if let Err(error) = written {
        tracing::warn!(container = %container.id, %error, "the files in /etc could not be brought up to date");
    }
}

async fn save(
    engine: &Arc<Engine>,
    container: &Arc<Container>,
    change: impl FnOnce(&mut super::record::Record) + Send + 'static,
) -> Result<(), Error> {
    let (data_root, container) = (engine.config().data_root.clone(), container.clone());
    blocking(move || container.update(&data_root, change).map(drop)).await
}
