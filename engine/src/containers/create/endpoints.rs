//! The networks that a container is to be in.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use serde_json::Value;
use wherry_netd::protocol::{Driver, Network};

use super::super::config::{Config, EndpointSettings, HostConfig, NetworkingConfig};
use super::super::record::Attachment;
use crate::engine::Engine;
use crate::error::Error;
use crate::networks;
use crate::server::ApiVersion;

/// Works out what the container is attached to, from its network mode and the endpoints asked for. Networks need not
/// exist yet: a start fails then.
///
/// # Errors
/// 400 with dockerd's texts.
pub(super) async fn attachments(
    engine: &Arc<Engine>,
    host: &mut HostConfig,
    config: &mut Config,
    networking: NetworkingConfig,
    version: ApiVersion,
) -> Result<BTreeMap<String, Attachment>, Error> {
    check_links(engine, host)?;
    if matches!(host.network_mode.as_str(), "" | "default") {
        "bridge".clone_into(&mut host.network_mode);
    }
    if host.network_mode.starts_with("container:") || config.network_disabled {
        return Ok(BTreeMap::new());
    }
    let mut asked = networking.endpoints_config;
    if version < ApiVersion(1, 44) && asked.len() > 1 {
        let names: Vec<&str> = asked.keys().map(String::as_str).collect();
        return Err(Error::InvalidParameter(format!(
            "Container cannot be created with multiple network endpoints: {}",
            names.join(", ")
        )));
    }
    if asked.is_empty() {
        asked.insert(host.network_mode.clone(), Some(EndpointSettings::default()));
    }
    let mut attachments = BTreeMap::new();
    for (name, settings) in asked {
        let is_main = name == host.network_mode || name == "default";
        let name = if name == "default" { "bridge".to_owned() } else { name };
        let network = networks::find(engine, &name).await.ok();
        let refuse =
            |reason: String| Error::InvalidParameter(format!("invalid config for network {name}: {reason}"));
        let Some(mut settings) = settings else { return Err(refuse("EndpointsConfig is nil".into())) };
        if settings.mac_address.is_empty() && (is_main || attachments.is_empty()) {
            settings.mac_address.clone_from(&config.mac_address);
        }
        check(&settings, network.as_deref()).map_err(refuse)?;
        if is_main && config.mac_address.is_empty() {
            config.mac_address.clone_from(&settings.mac_address);
        }
        // By its name, whatever it was called by; its id is looked up again at each start, as the name may come to mean
        // another network.
        let key = network.as_ref().map_or_else(|| name.clone(), |n| n.spec.name.clone());
        attachments.insert(key, Attachment { network_id: String::new(), settings });
    }
    Ok(attachments)
}

fn check_links(engine: &Engine, host: &HostConfig) -> Result<(), Error> {
    for link in host.links.iter().flatten() {
        if link.is_empty() {
            return Err(Error::server("empty string specified for links"));
        }
        let parts: Vec<&str> = link.split(':').collect();
        let (1 | 2, Some(name)) = (parts.len(), parts.first()) else {
            return Err(Error::server(format!("bad format for links: {link}")));
        };
        let on_default_bridge = matches!(host.network_mode.as_str(), "" | "default" | "bridge");
        if on_default_bridge {
            engine
                .containers
                .find(name)
                .map_err(|e| Error::InvalidParameter(format!("could not get container for {name}: {e}")))?;
        }
    }
    Ok(())
}

/// Checks an endpoint's settings, where the network is known against it.
fn check(settings: &EndpointSettings, network: Option<&Network>) -> Result<(), String> {
    if !settings.mac_address.is_empty() && !is_mac(&settings.mac_address) {
        return Err(format!("invalid MAC address {}", settings.mac_address));
    }
    let mut problems = Vec::new();
    let user_defined = network.is_none_or(|n| n.spec.driver == Driver::Bridge && !n.default_bridge);
    if let Some(ipam) = &settings.ipam_config {
        let address = ipam.ipv4_address.as_str();
        if !address.is_empty() {
            let parsed = address.parse::<Ipv4Addr>();
            if parsed.is_err() {
                problems.push(format!("invalid IPv4 address: {address}"));
            }
            if !user_defined {
                problems.push("user specified IP address is supported on user defined networks only".into());
            }
            if network.is_some_and(|n| !has_own_subnet(n)) {
                problems.push(
                    "user specified IP address is supported only when connecting to networks with user configured \
                     subnets"
                        .into(),
                );
            } else if let (Ok(address), Some(network)) = (parsed, network) {
                problems.extend(outside(network, address));
            }
        }
    }
    if !user_defined && settings.aliases.as_ref().is_some_and(|a| !a.is_empty()) {
        problems
            .push("network-scoped alias is supported only for containers in user defined networks".into());
    }
    match problems.as_slice() {
        [] => Ok(()),
        [one] => Err(format!("invalid endpoint settings:\n{one}")),
        many => Err(format!("invalid endpoint settings:\n* {}", many.join("\n* "))),
    }
}

/// Whether somebody chose the network's subnet (the engine notes the request in the network's metadata).
fn has_own_subnet(network: &Network) -> bool {
    !network.default_bridge
        && network.spec.metadata.get("own_subnets").and_then(Value::as_bool) != Some(false)
}

fn outside(network: &Network, address: Ipv4Addr) -> Option<String> {
    let inside =
        network.spec.subnets.iter().any(|s| s.subnet.is_none_or(|subnet| subnet.contains(address.into())));
    (!inside).then(|| format!("no configured subnet or ip-range contain the IP address {address}"))
}

fn is_mac(text: &str) -> bool {
    let parts: Vec<&str> = text.split([':', '-']).collect();
    parts.len() == 6 && parts.iter().all(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::super::super::config::EndpointIpam;
    use super::*;

    #[test]
    fn endpoints_are_checked_in_dockerds_words() {
        let with_address = |address: &str| EndpointSettings {
            ipam_config: Some(EndpointIpam { ipv4_address: address.into(), ..EndpointIpam::default() }),
            ..EndpointSettings::default()
        };
        assert_eq!(check(&with_address("10.0.0.7"), None), Ok(()));
        let bad = check(&with_address("bad"), None);
        assert_eq!(bad, Err("invalid endpoint settings:\ninvalid IPv4 address: bad".into()));
        let mac = EndpointSettings { mac_address: "zz".into(), ..EndpointSettings::default() };
        assert_eq!(check(&mac, None), Err("invalid MAC address zz".into()));
        assert!(is_mac("02:42:ac:11:00:05") && !is_mac("02:42:ac:11:00") && !is_mac("02:42:ac:11:00:0g"));
    }
}
