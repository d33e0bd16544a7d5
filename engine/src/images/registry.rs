//! How registries are reached: the administrator's settings, and who is asking.

use std::sync::OnceLock;

use hyper::header::HeaderMap;
use wherry_image_ref::Reference;
use wherry_registry::{Client, Endpoint, Policy, Proxies, Settings};

use crate::config::Config;
use crate::engine::Engine;
use crate::server::Request;

/// Where registries' certificates are, by host.
const CERTIFICATES: &str = "/etc/docker/certs.d";

/// A client for one request: its connections end with it.
pub(crate) fn client(engine: &Engine, request: &Request) -> Client {
    let mut headers = HeaderMap::new();
    for (name, value) in &request.headers {
        if name.as_str().starts_with("x-meta-") {
            headers.append(name, value.clone());
        }
    }
    Client::new(Settings {
        user_agent: user_agent(request.header("user-agent").unwrap_or_default()),
        certificates: CERTIFICATES.into(),
        proxies: proxies(&engine.config()),
        headers,
    })
}

/// The administrator's settings of this moment.
pub(crate) fn policy(engine: &Engine) -> Policy {
    let config = engine.config();
    Policy { mirrors: config.registry_mirrors.clone(), insecure: config.insecure_registries.clone() }
}

/// Those of the settings, and where there are none those of our environment.
pub(crate) fn proxies(config: &Config) -> Proxies {
    let (given, inherited) = (config.proxies.clone(), Proxies::from_environment());
    let or = |given: String, inherited: String| if given.is_empty() { inherited } else { given };
    Proxies {
        http: or(given.http, inherited.http),
        https: or(given.https, inherited.https),
        exceptions: or(given.exceptions, inherited.exceptions),
    }
}

/// As dockerd: itself, the host, and the client that asked.
fn user_agent(upstream: &str) -> String {
    static OWN: OnceLock<String> = OnceLock::new();
    let own = OWN.get_or_init(|| {
        format!(
            "docker/{} git-commit/{} kernel/{} os/linux arch/{}",
            crate::ENGINE_VERSION,
            crate::config::BUILD,
            rustix::system::uname().release().to_string_lossy(),
            wherry_registry::Platform::host().architecture,
        )
    });
    if upstream.is_empty() {
        return own.clone();
    }
    let mut escaped = String::with_capacity(upstream.len());
    for character in upstream.chars() {
        if matches!(character, '\\' | '(' | ')' | ';') {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    format!("{own} UpstreamClient({escaped})")
}

/// The addresses of a reference's registry in their order, without those that a success of TLS rules out.
pub(super) struct Endpoints {
    left: std::vec::IntoIter<Endpoint>,
    speaks_tls: bool,
}

impl Endpoints {
    /// To pull from: mirrors come first.
    pub(super) async fn to_pull(policy: &Policy, reference: &Reference) -> Self {
        let left = policy.endpoints(reference.domain()).await.into_iter();
        Self { left, speaks_tls: false }
    }

    /// To push to: mirrors are for reading.
    pub(super) async fn to_push(policy: &Policy, reference: &Reference) -> Self {
        let mut all = policy.endpoints(reference.domain()).await;
        all.retain(|endpoint| !endpoint.mirror);
        Self { left: all.into_iter(), speaks_tls: false }
    }

    /// The next to try.
    pub(super) fn next(&mut self) -> Option<Endpoint> {
        let speaks_tls = self.speaks_tls;
        // Whoever speaks TLS is never spoken to in the clear.
        self.left.find(|endpoint| endpoint.mirror || endpoint.is_https() || !speaks_tls)
    }

    /// Notes that an endpoint answered.
    pub(super) fn answered(&mut self, endpoint: &Endpoint) {
        self.speaks_tls |= endpoint.is_https() && !endpoint.mirror;
    }
}
