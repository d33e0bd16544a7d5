//! A network as the API shows it.

use std::collections::BTreeMap;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};
use wherry_netd::protocol::{Driver, Endpoint, Network};

/// What netd keeps of a network for us.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Metadata {
    /// Nanoseconds since the epoch.
    pub(super) created_ns: i64,
    pub(super) labels: BTreeMap<String, String>,
    /// Driver options as they were given.
    pub(super) options: BTreeMap<String, String>,
    /// IPAM options; null when none were given.
    pub(super) ipam_options: Option<BTreeMap<String, String>>,
    pub(super) attachable: bool,
    /// The subnets that were given.
    pub(super) chosen: Vec<IpNetwork>,
    /// Those that were given without a gateway, which is then not shown either.
    pub(super) gateways_unsaid: Vec<IpNetwork>,
    /// As it was given; `local` if it was not.
    pub(super) scope: String,
    /// Name of the description that it was made from.
    pub(super) config_from: String,
    /// Of a description: the request that made it.
    pub(super) request: serde_json::Value,
}

impl Metadata {
    pub(super) fn of(network: &Network) -> Self {
        serde_json::from_value(network.spec.metadata.clone()).unwrap_or_default()
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Shown {
    name: String,
    id: String,
    created: String,
    scope: String,
    driver: &'static str,
    #[serde(rename = "EnableIPv4")]
    enable_ipv4: bool,
    #[serde(rename = "EnableIPv6")]
    enable_ipv6: bool,
    #[serde(rename = "IPAM")]
    ipam: Ipam,
    internal: bool,
    attachable: bool,
    ingress: bool,
    config_from: ConfigFrom,
    config_only: bool,
    containers: BTreeMap<String, Member>,
    options: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Ipam {
    driver: &'static str,
    options: Option<BTreeMap<String, String>>,
    config: Option<Vec<Subnet>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Subnet {
    subnet: String,
    #[serde(rename = "IPRange", skip_serializing_if = "Option::is_none")]
    ip_range: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    auxiliary_addresses: BTreeMap<String, String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct ConfigFrom {
    network: String,
}

/// A container in a network.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Member {
    pub(super) name: String,
    #[serde(rename = "EndpointID")]
    pub(super) endpoint_id: String,
    pub(super) mac_address: String,
    #[serde(rename = "IPv4Address")]
    pub(super) ipv4_address: String,
    #[serde(rename = "IPv6Address")]
    pub(super) ipv6_address: String,
}

impl From<&Endpoint> for Member {
    fn from(endpoint: &Endpoint) -> Self {
        Self {
            name: endpoint.spec.container_name.clone(),
            endpoint_id: endpoint.spec.id.clone(),
            mac_address: endpoint.mac.clone(),
            ipv4_address: endpoint.ipv4.map(|a| a.to_string()).unwrap_or_default(),
            ipv6_address: endpoint.ipv6.map(|a| a.to_string()).unwrap_or_default(),
        }
    }
}

/// A driver's name.
pub(crate) fn driver_name(driver: Driver) -> &'static str {
    match driver {
        Driver::Bridge => "bridge",
        Driver::Host => "host",
        Driver::Null | Driver::Description => "null",
        Driver::Macvlan => "macvlan",
        Driver::Ipvlan => "ipvlan",
    }
}

/// Whether dockerd makes it by itself.
pub(super) fn is_predefined(network: &Network) -> bool {
    network.default_bridge || matches!(network.spec.driver, Driver::Host | Driver::Null)
}

/// The network with these containers. The predefined ones are as old as the engine's process, as with dockerd.
pub(super) fn show(started_ns: i64, network: &Network, containers: BTreeMap<String, Member>) -> Shown {
    let metadata = Metadata::of(network);
    let spec = &network.spec;
    let unsaid = |subnet: Option<IpNetwork>| subnet.is_some_and(|s| metadata.gateways_unsaid.contains(&s));
    let subnets = spec.subnets.iter().map(|subnet| Subnet {
        subnet: subnet.subnet.map(|s| s.to_string()).unwrap_or_default(),
        ip_range: subnet.ip_range.map(|r| r.to_string()),
        gateway: subnet.gateway.filter(|_| !unsaid(subnet.subnet)).map(|g| g.to_string()),
        auxiliary_addresses: subnet
            .reserved
            .iter()
            .map(|(name, ip)| (name.clone(), ip.to_string()))
            .collect(),
    });
    let subnets: Vec<Subnet> = subnets.collect();
    Shown {
        name: spec.name.clone(),
        id: spec.id.clone(),
        created: crate::clock::rfc3339(if metadata.created_ns > 0 {
            metadata.created_ns
        } else {
            started_ns
        }),
        scope: if metadata.scope.is_empty() { "local".into() } else { metadata.scope },
        driver: driver_name(spec.driver),
        // dockerd shows those without links as if they had IPv4.
        enable_ipv4: spec.ipv4 || !spec.driver.has_links(),
        enable_ipv6: spec.ipv6,
        ipam: Ipam {
            driver: "default",
            options: metadata.ipam_options,
            config: Some(subnets).filter(|s| !s.is_empty()),
        },
        internal: spec.internal,
        attachable: metadata.attachable,
        ingress: false,
        config_from: ConfigFrom { network: metadata.config_from },
        config_only: spec.driver == Driver::Description,
        containers,
        options: if network.default_bridge { default_bridge_options(network) } else { metadata.options },
        labels: metadata.labels,
    }
}

fn default_bridge_options(network: &Network) -> BTreeMap<String, String> {
    let spec = &network.spec;
    let host_ip = spec.host_binding.map_or_else(|| "0.0.0.0".to_string(), |ip| ip.to_string());
    let options = [
        ("com.docker.network.bridge.default_bridge", "true".to_string()),
        ("com.docker.network.bridge.enable_icc", spec.icc.to_string()),
        ("com.docker.network.bridge.enable_ip_masquerade", spec.masquerade.to_string()),
        ("com.docker.network.bridge.host_binding_ipv4", host_ip),
        ("com.docker.network.bridge.name", spec.bridge.clone().unwrap_or_default()),
        ("com.docker.network.driver.mtu", spec.mtu.unwrap_or(1500).to_string()),
    ];
    options.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
}

#[cfg(test)]
mod tests {
    use wherry_netd::protocol::{NetworkSpec, SubnetSpec};

    use super::*;

    fn network(metadata: &Metadata, subnet: SubnetSpec) -> Network {
        let spec = NetworkSpec {
            id: "3bc3".into(),
            name: "t2".into(),
            subnets: vec![subnet],
            internal: true,
            bridge: Some("t2br".into()),
            mtu: Some(1400),
            metadata: serde_json::to_value(metadata).unwrap(),
            ..NetworkSpec::default()
        };
        Network { spec, default_bridge: false, created_ms: 0, endpoints: BTreeMap::new() }
    }

    #[test]
    fn a_network_is_shown_as_dockerd_does() {
        let metadata = Metadata {
            created_ns: 1_795_311_713_476_180_175,
            labels: BTreeMap::from([("a".into(), "b".into())]),
            options: BTreeMap::from([("com.docker.network.driver.mtu".into(), "1400".into())]),
            ipam_options: None,
            attachable: true,
            ..Metadata::default()
        };
        let subnet = SubnetSpec {
            subnet: Some("10.99.0.0/16".parse().unwrap()),
            ip_range: Some("10.99.5.0/24".parse().unwrap()),
            gateway: Some("10.99.0.7".parse().unwrap()),
            reserved: BTreeMap::from([("a".into(), "10.99.0.9".parse().unwrap())]),
        };
        let member = Member {
            name: "nd1".into(),
            endpoint_id: "30de".into(),
            mac_address: "ee:12:0e:ed:b5:74".into(),
            ipv4_address: "10.99.0.2/16".into(),
            ipv6_address: String::new(),
        };
        let shown = show(0, &network(&metadata, subnet), BTreeMap::from([("3396".into(), member)]));
        assert_eq!(
            serde_json::to_string(&shown).unwrap(),
            concat!(
                r#"{"Name":"t2","Id":"3bc3","Created":"2026-11-22T01:41:53.476180175Z","Scope":"local","Driver":"bridge","#,
                r#""EnableIPv4":true,"EnableIPv6":false,"IPAM":{"Driver":"default","Options":null,"Config":[{"#,
                r#""Subnet":"10.99.0.0/16","IPRange":"10.99.5.0/24","Gateway":"10.99.0.7","#,
                r#""AuxiliaryAddresses":{"a":"10.99.0.9"}}]},"Internal":true,"Attachable":true,"Ingress":false,"#,
                r#""ConfigFrom":{"Network":""},"ConfigOnly":false,"Containers":{"3396":{"Name":"nd1","EndpointID":"30de","#,
                r#""MacAddress":"ee:12:0e:ed:b5:74","IPv4Address":"10.99.0.2/16","IPv6Address":""}},"#,
                r#""Options":{"com.docker.network.driver.mtu":"1400"},"Labels":{"a":"b"}}"#
            )
        );
    }
}
