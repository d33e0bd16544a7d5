//! `POST /networks/create`: Docker's words to netd's.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use hyper::StatusCode;
use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};
use wherry_netd::protocol::{Driver, Failure, NetworkSpec, SubnetSpec};

use super::options;
use super::shown::Metadata;
use crate::engine::Engine;
use crate::error::Error;
use crate::server::{Reply, Request, response};
use crate::text::go_quote;

/// The body. `null` stands for what is not said.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Create {
    name: Option<String>,
    driver: Option<String>,
    scope: Option<String>,
    #[serde(rename = "EnableIPv4")]
    enable_ipv4: Option<bool>,
    #[serde(rename = "EnableIPv6")]
    enable_ipv6: Option<bool>,
    #[serde(rename = "IPAM")]
    ipam: Option<Ipam>,
    internal: Option<bool>,
    attachable: Option<bool>,
    ingress: Option<bool>,
    config_only: Option<bool>,
    config_from: Option<ConfigFrom>,
    options: Option<BTreeMap<String, String>>,
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Ipam {
    driver: Option<String>,
    options: Option<BTreeMap<String, String>>,
    config: Option<Vec<Subnet>>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Subnet {
    subnet: Option<String>,
    #[serde(rename = "IPRange")]
    ip_range: Option<String>,
    gateway: Option<String>,
    auxiliary_addresses: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ConfigFrom {
    network: Option<String>,
}

pub(super) async fn create(engine: Arc<Engine>, mut request: Request) -> Result<Reply, Error> {
    let mut body: Create = request.optional_json().await?.unwrap_or_default();
    let name = body.name.clone().unwrap_or_default();
    check_name(&name)?;
    check_kind(&body)?;
    if let Some(from) = referred(&body).map(str::to_owned) {
        body = described(&engine, body, &from).await?;
    }
    if body.config_only != Some(true) {
        let driver = body.driver.as_deref().filter(|d| !d.is_empty()).unwrap_or("bridge");
        if let Some(defaults) = engine.config().default_network_options.get(driver) {
            let options = body.options.get_or_insert_default();
            for (name, value) in defaults {
                options.entry(name.clone()).or_insert_with(|| value.clone());
            }
        }
    }
    enable_by_options(&mut body)?;
    let spec = specification(body)?;
    let (id, driver) = (spec.id.clone(), super::shown::driver_name(spec.driver));
    engine.netd.create_network(spec).await.map_err(|error| match error {
        Error::Network(failure @ Failure::PoolOverlap) => {
            Error::Forbidden(format!("invalid pool request: {failure}"))
        }
        // What the drivers refuse is, to dockerd, its own failure.
        Error::Network(Failure::Invalid(why)) => Error::server(why),
        other => other,
    })?;
    super::publish(&engine, "create", &id, &name, driver);
    let answer = serde_json::json!({ "Id": id, "Warning": "" });
    Ok(response::json(StatusCode::CREATED, &answer).into())
}

/// Families may be switched by driver options, too (`default-network-opts` has nothing else); what the request itself says counts.
fn enable_by_options(body: &mut Create) -> Result<(), Error> {
    const FAMILIES: [&str; 2] = ["com.docker.network.enable_ipv4", "com.docker.network.enable_ipv6"];
    let mut none = BTreeMap::new();
    let options = body.options.as_mut().unwrap_or(&mut none);
    for (name, enabled) in FAMILIES.into_iter().zip([&mut body.enable_ipv4, &mut body.enable_ipv6]) {
        if enabled.is_some() {
            options.remove(name);
        } else if let Some(value) = options.get(name) {
            let parsed = crate::config::go_bool(value);
            *enabled = Some(parsed.map_err(|_| {
                Error::InvalidParameter(format!("driver-opt {} is not a valid bool", go_quote(name)))
            })?);
        }
    }
    if body.config_only != Some(true) && body.enable_ipv4 == Some(false) && body.enable_ipv6 != Some(true) {
        return Err(Error::InvalidParameter("IPv4 or IPv6 must be enabled".into()));
    }
    Ok(())
}

/// The description that a network is to be made from.
fn referred(body: &Create) -> Option<&str> {
    body.config_from.as_ref()?.network.as_deref().filter(|name| !name.is_empty())
}

/// The request with what the description says in the place of its own.
async fn described(engine: &Engine, body: Create, from: &str) -> Result<Create, Error> {
    let known = engine.netd.known_networks().await?;
    let found = known.iter().find(|n| n.spec.driver == Driver::Description && n.spec.name == from);
    let Some(found) = found else {
        return Err(Error::NotFound(format!("configuration network {} does not exist", go_quote(from))));
    };
    if body.options.as_ref().is_some_and(|options| !options.is_empty()) {
        let text =
            "network driver options are not supported if the network depends on a configuration network";
        return Err(Error::Forbidden(text.into()));
    }
    let ipam = body.ipam.as_ref();
    let own_ipam = ipam.is_some_and(|ipam| {
        ipam.config.as_ref().is_some_and(|c| !c.is_empty())
            || ipam.options.as_ref().is_some_and(|o| !o.is_empty())
    });
    let own_labels = body.labels.as_ref().is_some_and(|labels| !labels.is_empty());
    if own_ipam || own_labels || body.enable_ipv6 == Some(true) || body.enable_ipv4 == Some(false) {
        let text = "user specified configurations are not supported if the network depends on a configuration network";
        return Err(Error::Forbidden(text.into()));
    }
    let description = Metadata::of(found).request;
    let description: Create = serde_json::from_value(description)
        .map_err(|e| Error::server(format!("read the description of network {from}: {e}")))?;
    Ok(Create {
        enable_ipv4: description.enable_ipv4,
        enable_ipv6: description.enable_ipv6,
        ipam: description.ipam,
        options: description.options,
        labels: description.labels,
        ..body
    })
}

/// What netd is to make.
fn specification(body: Create) -> Result<NetworkSpec, Error> {
    let config_only = body.config_only == Some(true);
    let request = if config_only {
        serde_json::to_value(&body).map_err(|e| Error::server(format!("describe network: {e}")))?
    } else {
        serde_json::Value::Null
    };
    let config_from = referred(&body).unwrap_or_default().to_owned();
    let ipam = body.ipam.unwrap_or_default();
    if let Some(driver) = ipam.driver.as_deref().filter(|d| !matches!(*d, "" | "default")) {
        return Err(match driver {
            "null" if ipam.config.as_ref().is_some_and(|c| !c.is_empty()) => Error::InvalidParameter(
                "null ipam driver does not handle specific address pool requests".into(),
            ),
            "null" => Error::InvalidParameter("ipv4 pool is empty".into()),
            other => Error::NotFound(format!("plugin {} not found", go_quote(other))),
        });
    }
    let given = body.options.unwrap_or_default();
    let mut spec = NetworkSpec {
        id: crate::id::hex64(),
        name: body.name.unwrap_or_default(),
        driver: match body.driver.as_deref() {
            _ if config_only => Driver::Description,
            Some("macvlan") => Driver::Macvlan,
            Some("ipvlan") => Driver::Ipvlan,
            _ => Driver::Bridge,
        },
        ipv4: body.enable_ipv4 != Some(false),
        ipv6: body.enable_ipv6 == Some(true),
        internal: body.internal.unwrap_or(false),
        ..NetworkSpec::default()
    };
    spec.subnets = subnets(ipam.config.unwrap_or_default(), spec.ipv4, spec.ipv6)?;
    options::apply(&given, &mut spec)?;
    let scope = body.scope.filter(|scope| !scope.is_empty());
    let metadata = Metadata {
        created_ns: crate::clock::now_ns(),
        labels: body.labels.unwrap_or_default(),
        options: given,
        ipam_options: ipam.options,
        chosen: spec.subnets.iter().filter_map(|s| s.subnet).collect(),
        gateways_unsaid: spec
            .subnets
            .iter()
            .filter(|s| s.gateway.is_none())
            .filter_map(|s| s.subnet)
            .collect(),
        attachable: body.attachable.unwrap_or(false),
        scope: scope.unwrap_or_else(|| "local".into()),
        config_from,
        request,
    };
    spec.metadata =
        serde_json::to_value(metadata).map_err(|e| Error::server(format!("describe network: {e}")))?;
    Ok(spec)
}

fn check_name(name: &str) -> Result<(), Error> {
    if name.trim().is_empty() {
        return Err(Error::InvalidParameter("invalid name: name is empty".into()));
    }
    if matches!(name, "bridge" | "host" | "none" | "default") {
        return Err(Error::Forbidden(format!("operation is not permitted on predefined {name} network ")));
    }
    Ok(())
}

/// Refuses kinds of networks that there are not, here or at all.
fn check_kind(body: &Create) -> Result<(), Error> {
    let forbidden = |text: &str| Err(Error::Forbidden(text.into()));
    if body.driver.as_deref() == Some("overlay") {
        return forbidden(crate::system::swarm::NOT_A_MANAGER);
    }
    if body.scope.as_deref() == Some("swarm") {
        return forbidden("cannot create a swarm scoped network when swarm is not active");
    }
    if body.config_only == Some(true) {
        if referred(body).is_some() {
            return forbidden("a configuration network cannot depend on another configuration network");
        }
        let scoped = body.scope.as_deref().is_some_and(|scope| !scope.is_empty());
        if [body.ingress, body.internal, body.attachable].contains(&Some(true)) || scoped {
            return forbidden(
                "configuration network can only contain network specific fields. Network operator fields like \
                 [ ingress | internal | attachable | scope ] are not supported.",
            );
        }
        return Ok(());
    }
    if body.ingress == Some(true) {
        return forbidden("Ingress network can only be global scope network");
    }
    match body.driver.as_deref().unwrap_or("") {
        "" | "bridge" | "macvlan" | "ipvlan" => {}
        only @ ("host" | "null") => {
            return Err(Error::Forbidden(format!(
                "only one instance of {} network is allowed",
                go_quote(only)
            )));
        }
        other => return Err(Error::NotFound(format!("plugin {} not found", go_quote(other)))),
    }
    Ok(())
}

/// The subnets, those of the enabled families checked as dockerd does: it names all that is wrong at once.
fn subnets(given: Vec<Subnet>, ipv4: bool, ipv6: bool) -> Result<Vec<SubnetSpec>, Error> {
    let (mut subnets, mut wrong) = (Vec::new(), Vec::new());
    for subnet in given {
        if let Some(subnet) = check_subnet(&subnet, ipv4, ipv6, &mut wrong) {
            subnets.push(subnet);
        }
    }
    if wrong.is_empty() {
        return Ok(subnets);
    }
    Err(Error::InvalidParameter(format!("invalid network config:\n{}", wrong.join("\n"))))
}

fn check_subnet(given: &Subnet, ipv4: bool, ipv6: bool, wrong: &mut Vec<String>) -> Option<SubnetSpec> {
    let text = given.subnet.as_deref().unwrap_or("");
    let network = match text.parse::<IpNetwork>() {
        Ok(network) if text.contains('/') => network,
        _ => {
            wrong.push(format!("invalid subnet {text}: invalid CIDR block notation"));
            return None;
        }
    };
    let enabled = if network.is_ipv4() { ipv4 } else { ipv6 };
    let mut ignored = Vec::new();
    // Nobody looks at what is said of a family that the network does not have.
    let wrong = if enabled { wrong } else { &mut ignored };
    if network.ip() != network.network() {
        wrong.push(format!("invalid subnet {text}: it should be {}/{}", network.network(), network.prefix()));
    }
    let ip_range =
        given.ip_range.as_deref().filter(|r| !r.is_empty()).and_then(|r| check_range(network, r, wrong));
    let gateway = given.gateway.as_deref().filter(|g| !g.is_empty());
    let gateway = gateway.and_then(|g| check_address(network, "gateway", g, g, wrong));
    let mut reserved = BTreeMap::new();
    for (name, address) in given.auxiliary_addresses.iter().flatten() {
        if let Some(address) = check_address(network, "auxiliary address", name, address, wrong) {
            reserved.insert(name.clone(), address);
        }
    }
    Some(SubnetSpec { subnet: Some(network), ip_range, gateway, reserved })
}

/// dockerd's words for what is of the other family than its subnet.
fn other_family(subnet: IpNetwork) -> &'static str {
    if subnet.is_ipv4() { "parent subnet is an IPv4 block" } else { "parent subnet is an IPv6 block" }
}

fn check_range(subnet: IpNetwork, text: &str, wrong: &mut Vec<String>) -> Option<IpNetwork> {
    let Ok(range) = text.parse::<IpNetwork>() else {
        wrong.push(format!("invalid ip-range {text}: invalid CIDR block notation"));
        return None;
    };
    if range.is_ipv4() != subnet.is_ipv4() {
        wrong.push(format!("invalid ip-range {text}: {}", other_family(subnet)));
    } else if !text.contains('/') || range.ip() != range.network() {
        let (network, prefix) = (range.network(), range.prefix());
        wrong.push(format!("invalid ip-range {text}: it should be {network}/{prefix}"));
    } else if range.prefix() >= subnet.prefix() && subnet.contains(range.ip()) {
        return Some(range);
    } else {
        wrong.push(format!("invalid ip-range {text}: parent subnet {subnet} doesn't contain ip-range"));
    }
    None
}

fn check_address(
    subnet: IpNetwork,
    what: &str,
    name: &str,
    text: &str,
    wrong: &mut Vec<String>,
) -> Option<IpAddr> {
    match text.parse::<IpAddr>() {
        Ok(address) if subnet.contains(address) => return Some(address),
        Ok(address) if address.is_ipv4() != subnet.is_ipv4() => {
            wrong.push(format!("invalid {what} {name}: {}", other_family(subnet)));
        }
        Ok(_) => {
            wrong.push(format!("invalid {what} {name}: parent subnet {subnet} doesn't contain this address"));
        }
        Err(_) => wrong.push(format!("invalid {what} {name}: invalid address")),
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(body: serde_json::Value) -> Result<NetworkSpec, String> {
        let body: Create = serde_json::from_value(body).unwrap();
        let mut body = body;
        let checked = check_name(body.name.as_deref().unwrap_or_default()).and_then(|()| check_kind(&body));
        let checked = checked.and_then(|()| enable_by_options(&mut body));
        checked.and_then(|()| specification(body)).map_err(|e| e.to_string())
    }

    #[test]
    fn what_is_wrong_is_told_in_dockerds_words() {
        let check = |body: serde_json::Value, expect: &str| assert_eq!(read(body).unwrap_err(), expect);
        let subnet = |config: serde_json::Value| json!({"Name": "w1", "IPAM": {"Config": [config]}});
        check(json!({}), "invalid name: name is empty");
        check(json!({"Name": "host"}), "operation is not permitted on predefined host network ");
        check(json!({"Name": "x", "Driver": "host"}), "only one instance of \"host\" network is allowed");
        check(json!({"Name": "x", "Driver": "nosuch"}), "plugin \"nosuch\" not found");
        check(json!({"Name": "x", "IPAM": {"Driver": "nosuch"}}), "plugin \"nosuch\" not found");
        check(json!({"Name": "x", "EnableIPv4": false}), "IPv4 or IPv6 must be enabled");
        let config = "invalid network config:\n";
        check(
            subnet(json!({"Subnet": "10.99.0.1/16"})),
            &format!("{config}invalid subnet 10.99.0.1/16: it should be 10.99.0.0/16"),
        );
        check(
            subnet(json!({"Gateway": "10.1.1.1"})),
            &format!("{config}invalid subnet : invalid CIDR block notation"),
        );
        check(
            subnet(json!({"Subnet": "10.99.0.0/16", "Gateway": "10.1.1.1"})),
            &format!(
                "{config}invalid gateway 10.1.1.1: parent subnet 10.99.0.0/16 doesn't contain this address"
            ),
        );
        check(
            subnet(json!({"Subnet": "10.99.0.0/16", "IPRange": "10.1.1.0/24"})),
            &format!(
                "{config}invalid ip-range 10.1.1.0/24: parent subnet 10.99.0.0/16 doesn't contain ip-range"
            ),
        );
        check(
            subnet(json!({"Subnet": "10.99.0.0/16", "AuxiliaryAddresses": {"a": "10.1.1.1"}})),
            &format!(
                "{config}invalid auxiliary address a: parent subnet 10.99.0.0/16 doesn't contain this address"
            ),
        );
        check(
            json!({"Name": "x", "Options": {"com.docker.network.bridge.enable_icc": "maybe"}}),
            "failed to parse com.docker.network.bridge.enable_icc value: maybe (strconv.ParseBool: parsing \"maybe\": \
             invalid syntax)",
        );
        check(
            json!({"Name": "x", "Options": {"com.docker.network.bridge.host_binding_ipv4": "x"}}),
            "failed to parse com.docker.network.bridge.host_binding_ipv4 value: x (nil ip)",
        );
        check(
            subnet(json!({"Subnet": "10.44.0.0/16", "IPRange": "fd00::/64"})),
            &format!("{config}invalid ip-range fd00::/64: parent subnet is an IPv4 block"),
        );
        let both = |config: serde_json::Value| json!({"Name": "w1", "EnableIPv6": true, "IPAM": {"Config": [config]}});
        check(
            both(json!({"Subnet": "fd00::/64", "Gateway": "fd00:1::1"})),
            &format!(
                "{config}invalid gateway fd00:1::1: parent subnet fd00::/64 doesn't contain this address"
            ),
        );
        check(
            both(json!({"Subnet": "fd00::1/64"})),
            &format!("{config}invalid subnet fd00::1/64: it should be fd00::/64"),
        );
        // Without IPv6 nobody looks.
        assert!(read(subnet(json!({"Subnet": "fd00::1/64", "Gateway": "10.1.1.1"}))).is_ok());
        let config_only = |more: serde_json::Value| {
            let mut body = json!({"Name": "c1", "ConfigOnly": true});
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            body
        };
        check(
            config_only(json!({"ConfigFrom": {"Network": "x"}})),
            "a configuration network cannot depend on another configuration network",
        );
        assert_eq!(read(config_only(json!({}))).unwrap().driver, Driver::Description);
    }

    #[test]
    fn everything_said_reaches_netd_or_is_kept() {
        let spec = read(json!({
            "Name": "t2", "CheckDuplicate": true, "Driver": "bridge", "Internal": true, "Attachable": true,
            "IPAM": {"Driver": "default", "Options": {}, "Config": [{"Subnet": "10.99.0.0/16", "Gateway": "10.99.0.7"}]},
            "Options": {"com.docker.network.bridge.name": "t2br", "com.docker.network.driver.mtu": "1400",
                "com.docker.network.bridge.enable_icc": "false", "nosuch": "a"},
            "Labels": {"a": "b"}, "ConfigFrom": null, "Scope": "",
        }))
        .unwrap();
        assert!(spec.internal && !spec.icc && spec.masquerade);
        assert_eq!((spec.bridge.as_deref(), spec.mtu), (Some("t2br"), Some(1400)));
        assert_eq!(spec.subnets[0].gateway, Some("10.99.0.7".parse().unwrap()));
        let metadata: Metadata = serde_json::from_value(spec.metadata).unwrap();
        assert_eq!(metadata.ipam_options, Some(BTreeMap::new()));
        assert_eq!(metadata.options["nosuch"], "a");
        assert!(metadata.attachable && metadata.labels["a"] == "b");
        assert_eq!(read(json!({"Name": "t"})).unwrap().subnets, []);
    }
}
