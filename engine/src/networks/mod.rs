//! Networks: Docker's endpoints over netd, which keeps them.

mod create;
mod netd;
mod options;
mod shown;

use std::collections::BTreeMap;
use std::sync::Arc;

use hyper::StatusCode;
pub(crate) use netd::Netd;
use serde::de::DeserializeOwned;
pub(crate) use shown::driver_name;
use shown::{Member, Metadata, is_predefined};
use wherry_netd::protocol::{Driver, Failure, Network};

use crate::containers::connect;
use crate::engine::Engine;
use crate::error::Error;
use crate::router::Route;
use crate::server::{Filters, Reply, Request, response};
use crate::text::go_quote;

/// Answers requests below `/networks`.
///
/// # Errors
/// Those of the handlers; `PageNotFound` for other paths.
pub(crate) async fn route(engine: Arc<Engine>, route: &Route, request: Request) -> Result<Reply, Error> {
    let (method, segments) = route.parts();
    match (method, segments.as_slice()) {
        ("GET", ["networks"] | ["networks", ""]) => list(&engine, &request).await,
        ("POST", ["networks", "create"]) => create::create(engine, request).await,
        ("POST", ["networks", "prune"]) => prune(&engine, &request).await,
        ("GET", ["networks", name]) => inspect(&engine, name, &request).await,
        ("DELETE", ["networks", name]) => remove(&engine, name).await,
        ("POST", ["networks", name, "connect"]) => {
            let body: connect::Connect = body(request).await?;
            check_reference(&body.container)?;
            engine.containers.find(&body.container)?;
            let network = find(&engine, name).await?;
            connect::connect(&engine, &network, body).await?;
            Ok(response::empty(StatusCode::OK).into())
        }
        ("POST", ["networks", name, "disconnect"]) => {
            let body: connect::Disconnect = body(request).await?;
            check_reference(&body.container)?;
            let container = engine.containers.find(&body.container);
            let found = find(&engine, name).await;
            let network = match (container, found) {
                (Err(missing), _) if !body.force => return Err(missing),
                // dockerd looks for the networks of those that do not run nowhere else.
                (Ok(container), Err(Error::NotFound(_))) if !container.status().state.is_running() => {
                    return Err(connect::not_connected(&container, name));
                }
                (_, found) => found?,
            };
            connect::disconnect(&engine, &network, body).await?;
            Ok(response::empty(StatusCode::OK).into())
        }
        _ => Err(Error::PageNotFound),
    }
}

async fn body<T: DeserializeOwned + Default>(mut request: Request) -> Result<T, Error> {
    Ok(request.optional_json().await?.unwrap_or_default())
}

fn check_reference(container: &str) -> Result<(), Error> {
    if container.is_empty() {
        return Err(Error::InvalidParameter("invalid name or ID supplied: \"\"".into()));
    }
    Ok(())
}

/// A network by its name, its id, or the only one whose id begins so. Its `endpoints` may be out of date.
///
/// # Errors
/// 404 `network X not found`; 400 when several ids begin so.
pub(crate) async fn find(engine: &Engine, name_or_id: &str) -> Result<Arc<Network>, Error> {
    let known = engine.netd.known_networks().await?;
    choose(&known, name_or_id, |network| &network.spec).cloned()
}

/// The one of `networks` that is meant.
fn choose<'a, T>(
    networks: &'a [T],
    name_or_id: &str,
    spec: impl Fn(&T) -> &wherry_netd::protocol::NetworkSpec,
) -> Result<&'a T, Error> {
    let exact = networks
        .iter()
        .find(|n| spec(n).id == name_or_id)
        .or_else(|| networks.iter().find(|n| spec(n).name == name_or_id));
    if let Some(network) = exact {
        return Ok(network);
    }
    let mut prefixed =
        networks.iter().filter(|n| !name_or_id.is_empty() && spec(n).id.starts_with(name_or_id));
    match (prefixed.next(), prefixed.count()) {
        (Some(network), 0) => Ok(network),
        (Some(_), others) => Err(Error::InvalidParameter(format!(
            "network {name_or_id} is ambiguous ({} matches found based on ID prefix)",
            others + 1
        ))),
        (None, _) => Err(Error::NotFound(format!("network {name_or_id} not found"))),
    }
}

/// The subnets of a network that somebody chose.
pub(crate) fn chosen_subnets(network: &Network) -> Vec<ipnetwork::IpNetwork> {
    Metadata::of(network).chosen
}

/// Where IPv6 subnets come from if the administrator has not said: a /48 of this host's own (RFC 4193), in /64s.
pub(crate) fn own_ipv6_pool(engine_id: &str) -> Option<(ipnetwork::IpNetwork, u8)> {
    // The id is a random UUID; RFC 4193 asks for 40 random bits.
    let digits: String = engine_id.chars().filter(char::is_ascii_hexdigit).take(10).collect();
    let global_id = u64::from_str_radix(&digits, 16).ok()?.to_be_bytes();
    let mut octets = [0u8; 16];
    octets[0] = 0xfd;
    octets[1..6].copy_from_slice(&global_id[3..]);
    let base = std::net::Ipv6Addr::from(octets);
    Some((ipnetwork::IpNetwork::new(base.into(), 48).ok()?, 64))
}

/// Publishes an event of a network.
fn publish(engine: &Engine, action: &str, id: &str, name: &str, driver: &str) {
    let attributes =
        BTreeMap::from([("name".to_string(), name.to_string()), ("type".to_string(), driver.to_string())]);
    engine.events.publish("network", action, id, attributes);
}

async fn list(engine: &Engine, request: &Request) -> Result<Reply, Error> {
    let known = ["dangling", "driver", "id", "label", "name", "scope", "type"];
    let filters = Filters::parse(request.query.get("filters"), &known)?;
    let dangling = dangling(&filters)?;
    if let Some(bad) = filters.values("type").iter().find(|t| !matches!(t.as_str(), "custom" | "builtin")) {
        return Err(Error::server(format!("invalid filter: 'type'='{bad}'")));
    }
    let networks = engine.netd.networks().await?;
    let wanted = |network: &&Network| {
        let spec = &network.spec;
        let kind = if is_predefined(network) { "builtin" } else { "custom" };
        // dockerd does not look at containers here either.
        let used = is_predefined(network);
        let metadata = Metadata::of(network);
        let scope = if metadata.scope.is_empty() { "local" } else { metadata.scope.as_str() };
        filters.any("driver", |d| d == driver_name(spec.driver))
            && filters.found_in("id", &spec.id)
            && filters.found_in("name", &spec.name)
            && filters.any("scope", |s| s == scope)
            && filters.any("type", |t| t == kind)
            && filters.labels(&metadata.labels)
            && dangling.is_none_or(|dangling| dangling != used)
    };
    let shown: Vec<_> = networks
        .iter()
        .filter(wanted)
        .map(|network| shown::show(engine.started_ns, network, BTreeMap::new()))
        .collect();
    Ok(response::json(StatusCode::OK, &shown).into())
}

fn dangling(filters: &Filters) -> Result<Option<bool>, Error> {
    match filters.values("dangling") {
        [] => Ok(None),
        [one] if one == "true" || one == "1" => Ok(Some(true)),
        [one] if one == "false" || one == "0" => Ok(Some(false)),
        _ => Err(Error::InvalidParameter(
            "invalid value for filter 'dangling', must be \"true\" (or \"1\"), or \"false\" (or \"0\")"
                .into(),
        )),
    }
}

async fn inspect(engine: &Engine, name: &str, request: &Request) -> Result<Reply, Error> {
    if let Some(verbose) = request.query.get("verbose") {
        crate::config::go_bool(verbose)
            .map_err(|why| Error::InvalidParameter(format!("invalid value for verbose: {verbose}: {why}")))?;
    }
    let networks = engine.netd.networks().await?;
    let network = choose(&networks, name, |network| &network.spec)?;
    if request.query.get("scope").is_some_and(|scope| scope != "local") {
        return Err(Error::NotFound(format!("network {name} not found")));
    }
    Ok(response::json(StatusCode::OK, &shown::show(engine.started_ns, network, members(engine, network)))
        .into())
}

/// The containers in a network. Those of `host` and `none` are unknown to netd, which does nothing for them.
fn members(engine: &Engine, network: &Network) -> BTreeMap<String, Member> {
    if network.spec.driver.has_links() {
        let members = network.endpoints.iter().map(|(id, endpoint)| (id.clone(), Member::from(&**endpoint)));
        return members.collect();
    }
    let running = engine.containers.all().into_iter().filter(|c| c.status().state.is_running());
    let inside = running.filter_map(|container| {
        let record = container.record();
        record.networks.contains_key(&network.spec.name).then(|| {
            let member = Member {
                name: record.name.clone(),
                endpoint_id: crate::id::of_both(&container.id, &network.spec.id),
                mac_address: String::new(),
                ipv4_address: String::new(),
                ipv6_address: String::new(),
            };
            (container.id.clone(), member)
        })
    });
    inside.collect()
}

async fn remove(engine: &Engine, name: &str) -> Result<Reply, Error> {
    let network = find(engine, name).await?;
    let spec = &network.spec;
    if is_predefined(&network) {
        return Err(Error::Forbidden(format!(
            "{} is a pre-defined network and cannot be removed",
            spec.name
        )));
    }
    if spec.driver == Driver::Description {
        let known = engine.netd.known_networks().await?;
        if known.iter().any(|other| Metadata::of(other).config_from == spec.name) {
            return Err(Error::Forbidden(format!(
                "error while removing network: configuration network {} is in use",
                go_quote(&spec.name)
            )));
        }
    }
    engine.netd.remove_network(&spec.id).await.map_err(|error| match error {
        Error::Network(Failure::HasEndpoints { name, endpoints }) => {
            let shown: Vec<String> = endpoints
                .iter()
                .map(|(container, id)| {
                    let short = id.get(..12).unwrap_or(id);
                    format!("name:{} id:{}", go_quote(container), go_quote(short))
                })
                .collect();
            Error::Forbidden(format!(
                "error while removing network: network {name} has active endpoints ({})",
                shown.join(", ")
            ))
        }
        other => other,
    })?;
    publish(engine, "destroy", &spec.id, &spec.name, driver_name(spec.driver));
    Ok(response::empty(StatusCode::NO_CONTENT).into())
}

async fn prune(engine: &Engine, request: &Request) -> Result<Reply, Error> {
    let filters = Filters::parse(request.query.get("filters"), &["label", "label!", "until"])?;
    let mut until = None;
    for value in filters.values("until") {
        until = Some(crate::images::when::until(value).map_err(|e| Error::InvalidParameter(e.to_string()))?);
    }
    let mut pruned: Option<Vec<String>> = None;
    for network in engine.netd.networks().await? {
        let metadata = Metadata::of(&network);
        let wanted = !is_predefined(&network)
            // Descriptions stay: nobody can tell whether they are of use.
            && network.spec.driver != Driver::Description
            && network.endpoints.is_empty()
            && filters.labels(&metadata.labels)
            && until.is_none_or(|until| metadata.created_ns < until);
        if !wanted {
            continue;
        }
        match engine.netd.remove_network(&network.spec.id).await {
            Ok(()) => {
                publish(
                    engine,
                    "destroy",
                    &network.spec.id,
                    &network.spec.name,
                    driver_name(network.spec.driver),
                );
                pruned.get_or_insert_default().push(network.spec.name);
            }
            // Somebody came in, or another request removed it.
            Err(error) => tracing::warn!(network = network.spec.name, %error, "could not be pruned"),
        }
    }
    let reclaimed = BTreeMap::from([("reclaimed".to_string(), "0".to_string())]);
    engine.events.publish("network", "prune", "", reclaimed);
    Ok(response::json(StatusCode::OK, &serde_json::json!({ "NetworksDeleted": pruned })).into())
}
