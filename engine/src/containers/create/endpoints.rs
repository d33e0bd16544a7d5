//! The networks that a container is to be in.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use wherry_netd::protocol::{Driver, Network};

use super::super::config::{Config, EndpointSettings, HostConfig, NetworkingConfig};
use super::super::network as network_of_container;
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
    let mut asked = networking.endpoints_config;
    if asked.is_empty() {
        asked.insert(host.network_mode.clone(), Some(EndpointSettings::default()));
    }
    move_mac_address(&host.network_mode, config, &mut asked, version).map_err(Error::InvalidParameter)?;
    if host.network_mode.starts_with("container:") || config.network_disabled {
        return Ok(BTreeMap::new());
    }
    if version < ApiVersion(1, 44) && asked.len() > 1 {
        let names: Vec<&str> = asked.keys().map(String::as_str).collect();
        return Err(Error::InvalidParameter(format!(
            "Container cannot be created with multiple network endpoints: {}",
            names.join(", ")
        )));
    }
    let mut attachments = BTreeMap::new();
    for (name, settings) in asked {
        let name = if name == "default" { "bridge".to_owned() } else { name };
        let is_main = name == host.network_mode;
        let network = networks::find(engine, &name).await.ok();
        let refuse =
            |reason: String| Error::InvalidParameter(format!("invalid config for network {name}: {reason}"));
        let Some(settings) = settings else { return Err(refuse("EndpointsConfig is nil".into())) };
        check(&settings, network.as_deref()).map_err(refuse)?;
        if is_main && has_interface(&host.network_mode) {
            config.mac_address.clone_from(&settings.mac_address);
        }
        // By its name, whatever it was called by; its id is looked up again at each start, as the name may come to mean
        // another network.
        let key = network.as_ref().map_or_else(|| name.clone(), |n| n.spec.name.clone());
        attachments.insert(key, Attachment { settings, ..Attachment::default() });
    }
    Ok(attachments)
}

/// Whether a container of this network mode has an interface of its own from the start.
fn has_interface(mode: &str) -> bool {
    !matches!(mode, "host" | "none") && !mode.starts_with("container:")
}

/// Moves the MAC address that old clients give a container to one of its endpoints, which alone have any.
fn move_mac_address(
    mode: &str,
    config: &mut Config,
    asked: &mut BTreeMap<String, Option<EndpointSettings>>,
    version: ApiVersion,
) -> Result<(), String> {
    let mac = std::mem::take(&mut config.mac_address);
    let is_old = version < ApiVersion(1, 44);
    if mac.is_empty() {
        if is_old {
            asked.values_mut().flatten().for_each(|settings| settings.mac_address.clear());
        }
        return Ok(());
    }
    if !has_interface(mode) {
        return if is_old {
            Err("conflicting options: mac-address and the network mode".into())
        } else {
            Ok(())
        };
    }
    let main = asked.keys().find(|name| is_old || *name == mode || (*name == "default" && mode == "bridge"));
    let Some(main) = main.cloned() else {
        return Err("unable to migrate container-wide MAC address to a specific network: HostConfig.NetworkMode must match the \
                    identity of a network in NetworkSettings.Networks"
            .into());
    };
    let Some(Some(settings)) = asked.get_mut(&main) else { return Ok(()) };
    if !is_old && !settings.mac_address.is_empty() && settings.mac_address != mac {
        return Err(
            "the container-wide MAC address must match the endpoint-specific MAC address for the main \
                    network, or be left empty"
                .into(),
        );
    }
    settings.mac_address = mac;
    Ok(())
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
pub(in crate::containers) fn check(
    settings: &EndpointSettings,
    network: Option<&Network>,
) -> Result<(), String> {
    if !settings.mac_address.is_empty() && !is_mac(&settings.mac_address) {
        return Err(format!("invalid MAC address {}", settings.mac_address));
    }
    let mut problems = Vec::new();
    let user_defined =
        network.is_none_or(|n| !n.default_bridge && !matches!(n.spec.driver, Driver::Host | Driver::Null));
    if let Some(ipam) = &settings.ipam_config {
        let v4 = ipam.ipv4_address.parse::<Ipv4Addr>().ok().map(IpAddr::V4);
        let v6 = ipam.ipv6_address.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
        for (text, parsed, family) in [(&ipam.ipv4_address, v4, "IPv4"), (&ipam.ipv6_address, v6, "IPv6")] {
            if text.is_empty() {
                continue;
            }
            if parsed.is_none() {
                problems.push(format!("invalid {family} address: {text}"));
            }
            if !user_defined {
                problems.push("user specified IP address is supported on user defined networks only".into());
            }
            problems.extend(network.and_then(|n| not_in(n, text, parsed, family == "IPv6")));
        }
        for text in ipam.link_local_ips.iter().flatten() {
            if text.parse::<IpAddr>().is_err() {
                problems.push(format!("invalid link-local IP address: {text}"));
            }
        }
    }
    let options = settings.driver_opts.iter().flatten();
    for (_, sysctls) in options.filter(|(name, _)| *name == network_of_container::SYSCTLS) {
        problems.extend(sysctls.split(',').filter(|s| !s.is_empty()).filter_map(not_of_an_interface));
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

/// Why a network cannot give this address. (What is chosen there is noted in the network's metadata.)
fn not_in(network: &Network, text: &str, address: Option<IpAddr>, v6: bool) -> Option<String> {
    let chosen = networks::chosen_subnets(network);
    let mut chosen = chosen.iter().filter(|subnet| subnet.is_ipv6() == v6).peekable();
    if chosen.peek().is_none() {
        return Some(
            "user specified IP address is supported only when connecting to networks with user configured subnets"
                .into(),
        );
    }
    let inside = address.is_some_and(|address| chosen.any(|subnet| subnet.contains(address)));
    (!inside).then(|| format!("no configured subnet or ip-range contain the IP address {text}"))
}

/// Refuses an endpoint's kernel parameter that is not one of its interface.
fn not_of_an_interface(sysctl: &str) -> Option<String> {
    let lower = sysctl.to_lowercase();
    let name = lower.split('=').next().unwrap_or_default();
    let parts = name.split('.').collect::<Vec<_>>();
    let fits = matches!(parts.as_slice(), ["net", "ipv4" | "ipv6" | "mpls", _, "ifname", _]);
    let shown = if name.contains("ifname") { lower.as_str() } else { sysctl };
    (!fits).then(|| {
        format!(
            "unrecognised network interface sysctl '{shown}'; represent 'net.X.Y.ethN.Z=V' as 'net.X.Y.IFNAME.Z=V', \
             'X' must be 'ipv4', 'ipv6' or 'mpls'"
        )
    })
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
