//! How registries are reached: the administrator's settings, and who is asking.

use std::sync::OnceLock;

use hyper::header::HeaderMap;
use wherry_image_ref::Reference;
use wherry_registry::{
    Access, Client, Credentials, Endpoint, Error as Failure, Policy, Proxies, Repository, Settings,
};

use super::pull::Stop;
use super::registry_error::allows_fallback;
use crate::config::Config;
use crate::engine::Engine;
use crate::error::Error;
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
    client_of(engine, request.header("user-agent").unwrap_or_default(), headers)
}

/// A client for who calls itself `upstream`; `headers` are sent with each request.
pub(crate) fn client_of(engine: &Engine, upstream: &str, headers: HeaderMap) -> Client {
    Client::new(Settings {
        user_agent: user_agent(upstream),
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

/// The way through the addresses of a reference's registry, from one that cannot serve to the next.
pub(super) struct Endpoints<'a, Tell> {
    asked: Asked<'a>,
    access: Access,
    tell: Tell,
    left: std::vec::IntoIter<Endpoint>,
    /// Whoever speaks TLS is never spoken to in the clear.
    speaks_tls: bool,
    /// Whether the last one was a mirror.
    mirror: bool,
    last: Error,
}

/// Who asks a registry, and for what.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) client: &'a Client,
    pub(super) policy: &'a Policy,
    pub(super) credentials: &'a Credentials,
    pub(super) reference: &'a Reference,
}

impl<'a, Tell: Fn(&Failure) -> Error> Endpoints<'a, Tell> {
    /// Mirrors come first, but are for reading only. `tell` has the words for a registry's failure, `shown` is the
    /// reference where there is no registry to ask.
    pub(super) async fn new(asked: Asked<'a>, access: Access, shown: &str, tell: Tell) -> Self {
        let mut all = asked.policy.endpoints(asked.reference.domain()).await;
        if matches!(access, Access::Push) {
            all.retain(|endpoint| !endpoint.mirror);
        }
        let last = Error::server(format!("no endpoints found for {shown}"));
        Self { asked, access, tell, left: all.into_iter(), speaks_tls: false, mirror: false, last }
    }

    /// The repository at the next address that answers.
    pub(super) async fn next(&mut self) -> Option<Repository> {
        let Asked { client, credentials, reference, .. } = self.asked;
        loop {
            let speaks_tls = self.speaks_tls;
            let endpoint = self.left.find(|e| e.mirror || e.is_https() || !speaks_tls)?;
            match Repository::connect(client, &endpoint, reference.path(), credentials, self.access).await {
                Ok(repository) => {
                    self.mirror = endpoint.mirror;
                    self.speaks_tls |= endpoint.is_https() && !endpoint.mirror;
                    return Some(repository);
                }
                Err(failure) => {
                    tracing::info!(endpoint = endpoint.url, error = %failure, "no answer");
                    self.passed((self.tell)(&failure));
                }
            }
        }
    }

    /// Notes why the last one was of no use.
    ///
    /// # Errors
    /// The failure, if no other address would do better.
    pub(super) fn failed(&mut self, stop: Stop) -> Result<(), Error> {
        let another_may_do = stop.failure().is_some_and(|failure| allows_fallback(failure, self.mirror));
        let error = stop.into_error(&self.tell);
        if !another_may_do {
            return Err(error);
        }
        self.passed(error);
        Ok(())
    }

    /// Notes why the last one was of no use; any other address may do better.
    pub(super) fn passed(&mut self, error: Error) {
        tracing::info!(%error, "attempting the next endpoint");
        self.last = error;
    }

    /// Why none of them could serve.
    pub(super) fn into_last(self) -> Error {
        self.last
    }
}
