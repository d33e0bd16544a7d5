//! Getting in: Basic, or a bearer token from the place that the registry names.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Method, StatusCode};
use serde::Deserialize;

use crate::http::{Ask, Client, read};
use crate::refusal::failure;
use crate::{Error, Result, TransportError};

const MAX_TOKEN_BYTES: usize = 1 << 20;
const TOKEN_TIMEOUT: Duration = Duration::from_secs(15);
/// As what we ask for tokens.
const CLIENT_ID: &str = "docker";

/// What a user has for a registry. All empty means anonymous.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Credentials {
    /// Name.
    pub username: String,
    /// Password.
    pub password: String,
    /// A refresh token, in place of both.
    #[serde(rename = "identitytoken")]
    pub identity_token: String,
    /// A bearer token that is used as it is.
    #[serde(rename = "registrytoken")]
    pub registry_token: String,
}

impl Credentials {
    /// The `Authorization` header for name and password, if there are both.
    #[must_use]
    pub fn basic(&self) -> Option<HeaderValue> {
        if self.username.is_empty() || self.password.is_empty() {
            return None;
        }
        let pair = STANDARD.encode(format!("{}:{}", self.username, self.password));
        secret(format!("Basic {pair}"))
    }
}

fn secret(text: String) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// What a registry wants, learnt from its first answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    Nothing,
    Basic,
    Bearer { realm: String, service: Option<String> },
}

impl Challenge {
    /// Reads the headers of an answer to `GET /v2/`.
    pub(crate) fn of(status: StatusCode, headers: &HeaderMap) -> Self {
        if status != StatusCode::UNAUTHORIZED {
            return Self::Nothing;
        }
        let values = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|v| v.to_str().ok());
        let challenges: Vec<(String, HashMap<String, String>)> = values.filter_map(parse).collect();
        for (scheme, parameters) in &challenges {
            if scheme == "bearer"
                && let Some(realm) = parameters.get("realm")
            {
                return Self::Bearer { realm: realm.clone(), service: parameters.get("service").cloned() };
            }
        }
        let basic = challenges.iter().any(|(scheme, _)| scheme == "basic");
        if basic { Self::Basic } else { Self::Nothing }
    }

    /// The `Authorization` header for requests with these `scopes` (`repository:PATH:pull`).
    pub(crate) async fn authorize(
        &self,
        client: &Client,
        credentials: &Credentials,
        scopes: &[String],
        verify: bool,
    ) -> std::result::Result<Grant, AuthError> {
        match self {
            Self::Nothing => Ok(Grant::lasting(None)),
            Self::Basic => match credentials.basic() {
                Some(header) => Ok(Grant::lasting(Some(header))),
                None => Err(AuthError::NoCredentials),
            },
            Self::Bearer { .. } if !credentials.registry_token.is_empty() => {
                Ok(Grant::lasting(secret(format!("Bearer {}", credentials.registry_token))))
            }
            Self::Bearer { realm, service } => {
                let service = service.as_deref();
                let token = Token { client, credentials, scopes, verify, realm, service, offline: false };
                Ok(token.fetch().await.map_err(AuthError::Token)?.grant())
            }
        }
    }

    /// As [`Self::authorize`] without a scope, and asks for a token that can take the password's place.
    pub(crate) async fn log_in(
        &self,
        client: &Client,
        credentials: &Credentials,
        verify: bool,
    ) -> std::result::Result<(Grant, String), AuthError> {
        let Self::Bearer { realm, service } = self else {
            return Ok((self.authorize(client, credentials, &[], verify).await?, String::new()));
        };
        let service = service.as_deref();
        let token = Token { client, credentials, scopes: &[], verify, realm, service, offline: true };
        let answer = token.fetch().await.map_err(AuthError::Token)?;
        Ok((answer.grant(), answer.refresh_token))
    }
}

/// Leave to make requests.
#[derive(Debug, Clone)]
pub(crate) struct Grant {
    pub(crate) header: Option<HeaderValue>,
    /// When it ends, if it does.
    pub(crate) until: Option<Instant>,
}

impl Grant {
    fn lasting(header: Option<HeaderValue>) -> Self {
        Self { header, until: None }
    }

    pub(crate) fn holds(&self) -> bool {
        self.until.is_none_or(|until| Instant::now() < until)
    }
}

/// Why there is no `Authorization` header.
pub(crate) enum AuthError {
    NoCredentials,
    Token(Error),
}

impl AuthError {
    /// The failure of the request that needed it.
    pub(crate) fn of(self, ask: &Ask) -> Error {
        let source = match self {
            Self::NoCredentials => TransportError::NoCredentials,
            Self::Token(error) => TransportError::Token(Box::new(error)),
        };
        crate::http::transport(ask, source)
    }
}

/// A request for a token.
struct Token<'a> {
    client: &'a Client,
    credentials: &'a Credentials,
    scopes: &'a [String],
    verify: bool,
    realm: &'a str,
    service: Option<&'a str>,
    /// Whether a token is wanted that lasts, in place of the password.
    offline: bool,
}

/// Older servers do not say how long, and meant this.
const LEAST_LIFE_S: u64 = 60;

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
    #[serde(default)]
    refresh_token: String,
    #[serde(default)]
    expires_in: u64,
}

impl TokenAnswer {
    fn grant(&self) -> Grant {
        let token = if self.access_token.is_empty() { &self.token } else { &self.access_token };
        let life = Duration::from_secs(self.expires_in.max(LEAST_LIFE_S));
        Grant { header: secret(format!("Bearer {token}")), until: Instant::now().checked_add(life) }
    }
}

impl Token<'_> {
    async fn fetch(&self) -> Result<TokenAnswer> {
        let ask = if self.credentials.identity_token.is_empty() { self.get() } else { self.post() };
        let response = self.client.send(&ask).await?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = read(&ask, response, MAX_TOKEN_BYTES).await?;
        if !status.is_success() {
            return Err(failure(status, &headers, &body));
        }
        let answer: TokenAnswer =
            serde_json::from_slice(&body).map_err(|e| Error::TokenAnswer(e.to_string()))?;
        if answer.token.is_empty() && answer.access_token.is_empty() {
            return Err(Error::NoToken);
        }
        Ok(answer)
    }

    fn get(&self) -> Ask {
        let mut parameters = Vec::new();
        let basic = self.credentials.basic();
        if basic.is_some() {
            parameters.push(("account", self.credentials.username.as_str()));
        }
        if self.offline {
            parameters.extend([("client_id", CLIENT_ID), ("offline_token", "true")]);
        }
        parameters.extend(self.scopes.iter().map(|scope| ("scope", scope.as_str())));
        parameters.extend(self.service.map(|service| ("service", service)));
        let separator = if self.realm.contains('?') { '&' } else { '?' };
        let url = format!("{}{separator}{}", self.realm, form(&parameters));
        let mut ask = Ask::new(Method::GET, url, self.verify);
        ask.timeout = TOKEN_TIMEOUT;
        ask.headers.extend(basic.map(|value| (AUTHORIZATION, value)));
        ask
    }

    fn post(&self) -> Ask {
        let mut ask = Ask::new(Method::POST, self.realm, self.verify);
        let parameters = [
            ("client_id", CLIENT_ID),
            ("grant_type", "refresh_token"),
            ("refresh_token", &self.credentials.identity_token),
            ("scope", &self.scopes.join(" ")),
            ("service", self.service.unwrap_or_default()),
        ];
        ask.timeout = TOKEN_TIMEOUT;
        ask.body = Bytes::from(form(&parameters));
        ask.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        ask
    }
}

/// `name=value&…`, percent-encoded.
fn form(parameters: &[(&str, &str)]) -> String {
    let pairs: Vec<String> =
        parameters.iter().map(|(name, value)| format!("{name}={}", query_escape(value))).collect();
    pairs.join("&")
}

/// Escapes a value for the query of a URL, as Go's `url.QueryEscape`.
#[must_use]
pub fn query_escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' ' => out.push('+'),
            b if b.is_ascii_alphanumeric() || b"-_.~".contains(&b) => out.push(char::from(b)),
            b => out.push_str(&format!("%{b:02X}")),
        }
    }
    out
}

/// Reads one challenge: its scheme in lower case, and its parameters.
pub(crate) fn parse(header: &str) -> Option<(String, HashMap<String, String>)> {
    let (scheme, mut rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
    let mut parameters = HashMap::new();
    loop {
        rest = rest.trim_start_matches([' ', ',']);
        let Some((name, tail)) = rest.split_once('=') else { break };
        let (value, tail) = match tail.strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => {
                let end = tail.find(',').unwrap_or(tail.len());
                let (value, tail) = tail.split_at(end);
                (value.trim().to_owned(), tail)
            }
        };
        parameters.insert(name.trim().to_lowercase(), value);
        rest = tail;
    }
    (!scheme.is_empty()).then(|| (scheme.to_lowercase(), parameters))
}

/// A quoted string after its first quote, and what follows it.
fn unquote(quoted: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return Some((value, quoted.get(at + 1..)?)),
            '\\' => value.push(characters.next()?.1),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let mut headers = HeaderMap::new();
        let text = r#"Bearer realm="https://auth/token",service="reg \"x\"", error=invalid_token"#;
        headers.append(WWW_AUTHENTICATE, HeaderValue::from_static(r#"Basic realm="r""#));
        assert_eq!(Challenge::of(StatusCode::UNAUTHORIZED, &headers), Challenge::Basic);
        assert_eq!(Challenge::of(StatusCode::OK, &headers), Challenge::Nothing);
        headers.append(WWW_AUTHENTICATE, HeaderValue::from_static(text));
        let expect =
            Challenge::Bearer { realm: "https://auth/token".into(), service: Some("reg \"x\"".into()) };
        assert_eq!(Challenge::of(StatusCode::UNAUTHORIZED, &headers), expect);
        let (_, parameters) = parse(text).unwrap();
        assert_eq!(parameters["error"], "invalid_token");
        assert!(parse("Bearer realm=\"open").is_none());
    }

    #[test]
    fn parameters_are_encoded() {
        assert_eq!(
            form(&[("scope", "repository:a/b:pull,push"), ("x", "é")]),
            "scope=repository%3Aa%2Fb%3Apull%2Cpush&x=%C3%A9"
        );
    }
}
