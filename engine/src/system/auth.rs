//! `POST /auth`: `docker login`.

use std::sync::Arc;

use hyper::StatusCode;
use serde::{Deserialize, Serialize};
use wherry_registry::{Credentials, Error as Failure, TransportError, log_in};

use crate::engine::Engine;
use crate::error::Error;
use crate::images::registry;
use crate::server::{Reply, Request, json, response};

/// Docker Hub's registry, for those who name none.
const HUB: &str = "https://index.docker.io/v1/";
const MAX_BODY_BYTES: usize = 1 << 20;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Login {
    #[serde(flatten)]
    credentials: Credentials,
    #[serde(rename = "serveraddress")]
    server: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    identity_token: String,
    status: &'static str,
}

/// Checks credentials with a registry.
///
/// # Errors
/// 401 when the registry refuses them in its own words, 500 for what else goes wrong, with dockerd's texts.
pub(super) async fn check(engine: Arc<Engine>, mut request: Request) -> Result<Reply, Error> {
    let body = request.bytes(MAX_BODY_BYTES).await?;
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(Error::server("EOF"));
    }
    let login: Option<Login> =
        serde_json::from_slice(&body).map_err(|error| Error::server(json::syntax_error(&body, &error)))?;
    let login = login.unwrap_or_default();
    let server = if login.server.is_empty() { HUB } else { &login.server };
    let client = registry::client(&engine, &request);
    let mut last = Error::server("no endpoints");
    for endpoint in registry::policy(&engine).endpoints(host(server)).await {
        if endpoint.mirror {
            continue; // they get no one's password
        }
        match log_in(&client, &endpoint, &login.credentials).await {
            Ok(identity_token) => {
                let answer = Answer { identity_token, status: "Login Succeeded" };
                return Ok(response::json(StatusCode::OK, &answer).into());
            }
            // Whoever refuses is the right one: what comes next would be in the clear.
            Err(failure) if is_refusal(&failure) => {
                return Err(Error::Docker { status: StatusCode::UNAUTHORIZED, message: failure.to_string() });
            }
            Err(failure) => {
                tracing::info!(endpoint = endpoint.url, error = %failure, "trying the next endpoint");
                last = Error::server(failure.to_string());
            }
        }
    }
    Err(last)
}

/// The registry that an address names: `https://index.docker.io/v1/`, `my.registry:5000`.
fn host(address: &str) -> &str {
    let rest = address.strip_prefix("https://").or_else(|| address.strip_prefix("http://"));
    let host = rest.unwrap_or(address).split('/').next().unwrap_or_default();
    if host == "index.docker.io" { wherry_image_ref::DEFAULT_DOMAIN } else { host }
}

/// Whether the token server says that the credentials are wrong.
fn is_refusal(failure: &Failure) -> bool {
    let Failure::Transport { source: TransportError::Token(refused), .. } = failure else { return false };
    refused.api().is_some_and(|error| error.code == "UNAUTHORIZED")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_name_a_registry() {
        assert_eq!(host("https://index.docker.io/v1/"), "docker.io");
        assert_eq!(host("my.registry:5000"), "my.registry:5000");
        assert_eq!(host("http://my.registry/v2/"), "my.registry");
    }
}
