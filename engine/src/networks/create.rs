//! `POST /networks/create`: Docker's words to netd's.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use hyper::StatusCode;
use ipnetwork::{IpNetwork, Ipv4Network};
use serde::Deserialize;
use wherry_netd::protocol::{Driver, Failure, NetworkSpec, SubnetSpec};

use super::shown::Metadata;
use crate::engine::Engine;
use crate::error::Error;
use crate::server::{Reply, Request, response};
use crate::text::go_quote;

/// The body. `null` stands for what is not said.
#[derive(Debug, Default, Deserialize)]
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

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Ipam {
    driver: Option<String>,
    options: Option<BTreeMap<String, String>>,
    config: Option<Vec<Subnet>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Subnet {
    subnet: Option<String>,
    #[serde(rename = "IPRange")]
    ip_range: Option<String>,
    gateway: Option<String>,
    auxiliary_addresses: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ConfigFrom {
    network: Option<String>,
}

pub(super) async fn create(engine: Arc<Engine>, mut request: Request) -> Result<Reply, Error> {
    let body: Create = request.optional_json().await?.unwrap_or_default();
    let spec = specification(body)?;
    let (id, name) = (spec.id.clone(), spec.name.clone());
    engine.netd.create_network(spec).await.map_err(|error| match error {
        Error::Network(failure @ Failure::PoolOverlap) => {
            Error::Forbidden(format!("invalid pool request: {failure}"))
        }
        // A name or address that another network has, or a shape that bridges do not have.
        Error::Network(Failure::Invalid(why)) => Error::Forbidden(why),
        other => other,
    })?;
    super::publish(&engine, "create", &id, &name, "bridge");
    let answer = serde_json::json!({ "Id": id, "Warning": "" });
    Ok(response::json(StatusCode::CREATED, &answer).into())
}

/// What netd is to make.
fn specification(body: Create) -> Result<NetworkSpec, Error> {
    let name = body.name.clone().unwrap_or_default();
    check_name(&name)?;
    check_kind(&body)?;
    let ipam = body.ipam.unwrap_or_default();
    if let Some(driver) = ipam.driver.as_deref().filter(|d| !matches!(*d, "" | "default")) {
        return Err(Error::NotFound(format!("plugin {} not found", go_quote(driver))));
    }
    let subnets = subnets(ipam.config.unwrap_or_default())?;
    let given = body.options.unwrap_or_default();
    let options = BridgeOptions::parse(&given)?;
    let metadata = Metadata {
        created_ns: crate::clock::now_ns(),
        labels: body.labels.unwrap_or_default(),
        options: given,
        ipam_options: ipam.options,
        gateway_unsaid: subnets.iter().any(|subnet| subnet.gateway.is_none()),
        attachable: body.attachable.unwrap_or(false),
    };
    Ok(NetworkSpec {
        id: crate::id::hex64(),
        name,
        driver: Driver::Bridge,
        subnets,
        internal: body.internal.unwrap_or(false),
        bridge: options.name,
        mtu: options.mtu,
        icc: options.icc,
        masquerade: options.masquerade,
        host_binding: options.host_binding,
        metadata: serde_json::to_value(metadata)
            .map_err(|e| Error::server(format!("describe network: {e}")))?,
    })
}

fn check_name(name: &str) -> Result<(), Error> {
    if name.is_empty() {
        return Err(Error::InvalidParameter("invalid name: name is empty".into()));
    }
    if matches!(name, "bridge" | "host" | "none" | "default") {
        return Err(Error::Forbidden(format!("operation is not permitted on predefined {name} network ")));
    }
    Ok(())
}

/// Refuses kinds of networks that there are not, here or at all.
fn check_kind(body: &Create) -> Result<(), Error> {
    let not_yet =
        |what: &str| Err(Error::NotImplemented(format!("{what} are not supported by this engine yet")));
    match body.driver.as_deref().unwrap_or("") {
        "" | "bridge" => {}
        only @ ("host" | "null") => {
            return Err(Error::Forbidden(format!(
                "only one instance of {} network is allowed",
                go_quote(only)
            )));
        }
        "overlay" => return Err(Error::Forbidden(crate::system::swarm::NOT_A_MANAGER.into())),
        driver @ ("macvlan" | "ipvlan") => return not_yet(&format!("{driver} networks")),
        other => return Err(Error::NotFound(format!("plugin {} not found", go_quote(other)))),
    }
    if body.scope.as_deref() == Some("swarm") {
        let text = "cannot create a swarm scoped network when swarm is not active";
        return Err(Error::Forbidden(text.into()));
    }
    if body.ingress == Some(true) {
        return Err(Error::Forbidden("Ingress network can only be global scope network".into()));
    }
    let from = body.config_from.as_ref().and_then(|c| c.network.as_deref()).unwrap_or("");
    if body.config_only == Some(true) || !from.is_empty() {
        return not_yet("configuration-only networks");
    }
    match (body.enable_ipv4, body.enable_ipv6) {
        (_, Some(true)) => not_yet("IPv6 networks"),
        (Some(false), _) => Err(Error::InvalidParameter("IPv4 or IPv6 must be enabled".into())),
        _ => Ok(()),
    }
}

/// The subnets, checked as dockerd does: it names all that is wrong at once.
fn subnets(given: Vec<Subnet>) -> Result<Vec<SubnetSpec>, Error> {
    let (mut subnets, mut wrong) = (Vec::new(), Vec::new());
    for subnet in given {
        if let Some(subnet) = check_subnet(&subnet, &mut wrong) {
            subnets.push(subnet);
        }
    }
    if wrong.is_empty() {
        return Ok(subnets);
    }
    Err(Error::InvalidParameter(format!("invalid network config:\n{}", wrong.join("\n"))))
}

fn check_subnet(given: &Subnet, wrong: &mut Vec<String>) -> Option<SubnetSpec> {
    let text = given.subnet.as_deref().unwrap_or("");
    let network = match text.parse::<IpNetwork>() {
        Ok(IpNetwork::V4(network)) if text.contains('/') => network,
        Ok(IpNetwork::V6(_)) => {
            wrong.push(format!("invalid subnet {text}: IPv6 networks are not supported by this engine yet"));
            return None;
        }
        _ => {
            wrong.push(format!("invalid subnet {text}: invalid CIDR block notation"));
            return None;
        }
    };
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
            reserved.insert(name.clone(), IpAddr::V4(address));
        }
    }
    Some(SubnetSpec {
        subnet: Some(IpNetwork::V4(network)),
        ip_range: ip_range.map(IpNetwork::V4),
        gateway: gateway.map(IpAddr::V4),
        reserved,
    })
}

fn check_range(subnet: Ipv4Network, text: &str, wrong: &mut Vec<String>) -> Option<Ipv4Network> {
    match text.parse::<Ipv4Network>() {
        Ok(range) if !text.contains('/') || range.ip() != range.network() => {
            let (network, prefix) = (range.network(), range.prefix());
            wrong.push(format!("invalid ip-range {text}: it should be {network}/{prefix}"));
            None
        }
        Ok(range) if range.prefix() >= subnet.prefix() && subnet.contains(range.ip()) => Some(range),
        Ok(_) => {
            wrong.push(format!("invalid ip-range {text}: parent subnet {subnet} doesn't contain ip-range"));
            None
        }
        Err(_) => {
            wrong.push(format!("invalid ip-range {text}: invalid CIDR block notation"));
            None
        }
    }
}

fn check_address(
    subnet: Ipv4Network,
    what: &str,
    name: &str,
    text: &str,
    wrong: &mut Vec<String>,
) -> Option<Ipv4Addr> {
    match text.parse::<Ipv4Addr>() {
        Ok(address) if subnet.contains(address) => Some(address),
        Ok(_) => {
            wrong.push(format!("invalid {what} {name}: parent subnet {subnet} doesn't contain this address"));
            None
        }
        Err(_) => {
            wrong.push(format!("invalid {what} {name}: invalid address"));
            None
        }
    }
}

/// The options of the bridge driver.
#[derive(Debug, PartialEq)]
struct BridgeOptions {
    name: Option<String>,
    mtu: Option<u32>,
    icc: bool,
    masquerade: bool,
    host_binding: Option<IpAddr>,
}

const MTU: &str = "com.docker.network.driver.mtu";
const BRIDGE: &str = "com.docker.network.bridge.";
/// IFNAMSIZ without the end.
const LONGEST_INTERFACE: usize = 15;

impl BridgeOptions {
    /// Reads what is known; other options are kept and shown, and mean nothing, as in dockerd.
    fn parse(given: &BTreeMap<String, String>) -> Result<Self, Error> {
        let mut options = Self { name: None, mtu: None, icc: true, masquerade: true, host_binding: None };
        for (option, value) in given {
            let failed = |why: String| {
                Error::InvalidParameter(format!("failed to parse {option} value: {value} ({why})"))
            };
            let flag = || crate::config::go_bool(value).map_err(failed);
            let not_yet = || {
                Err(Error::NotImplemented(format!("{option}={value} is not supported by this engine yet")))
            };
            match option.strip_prefix(BRIDGE) {
                None if option == MTU => options.mtu = Some(parse_mtu(value).map_err(failed)?),
                None => {}
                Some("name") if value.len() > LONGEST_INTERFACE => {
                    return Err(Error::server("numerical result out of range"));
                }
                Some("name") if !value.is_empty() => options.name = Some(value.clone()),
                Some("enable_icc") => options.icc = flag()?,
                Some("enable_ip_masquerade") => options.masquerade = flag()?,
                Some("host_binding_ipv4") => {
                    options.host_binding = Some(value.parse().map_err(|_| failed("nil ip".into()))?);
                }
                Some("inhibit_ipv4") if flag()? => return not_yet(),
                Some("gateway_mode_ipv4" | "gateway_mode_ipv6") => match value.as_str() {
                    "nat" => {}
                    "nat-unprotected" | "routed" | "isolated" => return not_yet(),
                    other => return Err(failed(format!("unknown gateway mode {other}"))),
                },
                Some("trusted_host_interfaces") if !value.is_empty() => return not_yet(),
                Some(_) => {}
            }
        }
        Ok(options)
    }
}

fn parse_mtu(text: &str) -> Result<u32, String> {
    let number: i64 =
        text.parse().map_err(|_| format!("strconv.Atoi: parsing {}: invalid syntax", go_quote(text)))?;
    u32::try_from(number).map_err(|_| "mtu must be a positive number".into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(body: serde_json::Value) -> Result<NetworkSpec, String> {
        specification(serde_json::from_value(body).unwrap()).map_err(|e| e.to_string())
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
