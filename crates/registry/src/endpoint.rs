//! Where a registry is to be found.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use wherry_image_ref::DEFAULT_DOMAIN;

use crate::dial;

/// Docker Hub's own registry.
const HUB: &str = "https://registry-1.docker.io";
/// Networks whose registries may always be spoken to in the clear.
const LOOPBACK: [&str; 2] = ["127.0.0.0/8", "::1/128"];

/// An address to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Scheme, host and perhaps a path, without a slash at the end.
    pub url: String,
    /// A mirror's failures say nothing about the registry it mirrors.
    pub mirror: bool,
    /// Whether its certificate is checked.
    pub verify: bool,
}

impl Endpoint {
    /// Whether it is spoken to through TLS.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.url.starts_with("https://")
    }
}

/// The administrator's settings.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// Mirrors of docker.io, in order, as URLs.
    pub mirrors: Vec<String>,
    /// Registries (`host`, `host:port`, or networks) that may be spoken to in the clear, or with any certificate.
    pub insecure: Vec<String>,
}

impl Policy {
    /// The addresses of the registry `domain`, in the order in which they are tried.
    pub async fn endpoints(&self, domain: &str) -> Vec<Endpoint> {
        if domain == DEFAULT_DOMAIN {
            let mut endpoints = Vec::new();
            for mirror in &self.mirrors {
                let url = mirror.trim_end_matches('/').to_owned();
                let host = url.split_once("://").map_or("", |(_, rest)| rest.split('/').next().unwrap_or(""));
                let verify = !self.is_insecure(host).await;
                endpoints.push(Endpoint { url, mirror: true, verify });
            }
            endpoints.push(Endpoint { url: HUB.into(), mirror: false, verify: true });
            return endpoints;
        }
        let insecure = self.is_insecure(domain).await;
        let at =
            |scheme: &str| Endpoint { url: format!("{scheme}://{domain}"), mirror: false, verify: !insecure };
        if insecure { vec![at("https"), at("http")] } else { vec![at("https")] }
    }

    /// Whether a registry may be spoken to in the clear: it is listed, or all that is needed is an
    /// address of it in a listed network. The loopback always is.
    pub async fn is_insecure(&self, domain: &str) -> bool {
        if self.insecure.iter().any(|listed| listed == domain) {
            return true;
        }
        let networks: Vec<IpNetwork> = self
            .insecure
            .iter()
            .map(String::as_str)
            .chain(LOOPBACK)
            .filter_map(|text| text.parse().ok())
            .collect();
        let host = host_of(domain);
        let addresses: Vec<IpAddr> = match host.parse() {
            Ok(address) => vec![address],
            Err(_) => match dial::lookup(host, 0).await {
                Ok(found) => found.into_iter().map(|address| address.ip()).collect(),
                Err(_) => Vec::new(),
            },
        };
        addresses.iter().any(|address| networks.iter().any(|network| network.contains(*address)))
    }
}

/// The host of `host[:port]`, without the brackets of an IPv6 address.
fn host_of(domain: &str) -> &str {
    match domain.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => domain.split(':').next().unwrap_or(domain),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn check(policy: &Policy, domain: &str, expect: &[&str]) {
        let urls: Vec<String> = policy.endpoints(domain).await.into_iter().map(|e| e.url).collect();
        assert_eq!(urls, expect, "{domain}");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn mirrors_come_first_and_only_insecure_registries_are_spoken_to_in_the_clear() {
        let policy = Policy {
            mirrors: vec!["http://127.0.0.1:5555/".into(), "https://m.example/x".into()],
            insecure: vec!["192.0.2.0/24".into(), "my.reg:80".into()],
        };
        let hub = ["http://127.0.0.1:5555", "https://m.example/x", "https://registry-1.docker.io"];
        check(&policy, "docker.io", &hub).await;
        check(&policy, "127.0.0.1:5000", &["https://127.0.0.1:5000", "http://127.0.0.1:5000"]).await;
        check(&policy, "[::1]:5000", &["https://[::1]:5000", "http://[::1]:5000"]).await;
        check(&policy, "192.0.2.9", &["https://192.0.2.9", "http://192.0.2.9"]).await;
        check(&policy, "my.reg:80", &["https://my.reg:80", "http://my.reg:80"]).await;
        check(&policy, "198.51.100.1:5000", &["https://198.51.100.1:5000"]).await;
    }
}
