//! `GET /images/search`: asks an index, Docker Hub's or the one that is named, or a registry's catalog.

use std::sync::Arc;

use hyper::StatusCode;
use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use wherry_image_ref::DEFAULT_DOMAIN;
use wherry_registry::{Client, Credentials, Endpoint, catalog, query_escape};

use super::registry_error::plain;
use super::{credentials, registry};
use crate::engine::Engine;
use crate::error::Error;
use crate::server::{Filters, Reply, Request, response};

const HUB_INDEX: &str = "https://index.docker.io/v1/";
const DEFAULT_LIMIT: i64 = 25;
const MAX_ANSWER_BYTES: usize = 4 << 20;

#[derive(Debug, Deserialize)]
struct Answer {
    #[serde(default)]
    results: Vec<Found>,
}

/// A repository, in dockerd's order of fields.
#[derive(Debug, Serialize, Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Found {
    star_count: i64,
    is_official: bool,
    name: String,
    /// Always false: the field lost its meaning.
    #[serde(skip_deserializing)]
    is_automated: bool,
    description: String,
}

pub(super) async fn search(engine: Arc<Engine>, request: &Request) -> Result<Reply, Error> {
    let limit = match request.query.get("limit") {
        None => DEFAULT_LIMIT,
        Some(text) => text.parse().map_err(|_| {
            let quoted = crate::text::go_quote(text);
            Error::InvalidParameter(format!(
                "invalid limit specified: strconv.Atoi: parsing {quoted}: invalid syntax"
            ))
        })?,
    };
    let filters = Filters::parse(request.query.get("filters"), &["is-automated", "is-official", "stars"])?;
    let wanted = Wanted::new(&filters)?;
    let limit = if limit == 0 { DEFAULT_LIMIT } else { limit };
    if !(1..=100).contains(&limit) {
        return Err(Error::InvalidParameter(format!("limit {limit} is outside the range of [1, 100]")));
    }
    let term = request.query.get("term").unwrap_or("");
    if term.contains("://") {
        let text = format!("invalid repository name: repository name ({term}) should not have a scheme");
        return Err(Error::InvalidParameter(text));
    }
    let client = registry::client(&engine, request);
    let credentials = credentials::of(request);
    let (index, term) = index(&engine, &client, term).await?;
    let mut found = ask(&client, &index, term, limit, &credentials).await?;
    found.retain(|found| wanted.includes(found));
    Ok(response::json(StatusCode::OK, &found).into())
}

/// What the index finds; of a registry that has no search, the repositories whose names have the term in them.
async fn ask(
    client: &Client,
    index: &Index,
    term: &str,
    limit: i64,
    credentials: &Credentials,
) -> Result<Vec<Found>, Error> {
    let url = format!("{}search?q={}&n={limit}", index.url, query_escape(term));
    let (status, body) = client
        .get(&url, &headers(credentials), index.verify, MAX_ANSWER_BYTES)
        .await
        .map_err(|failure| Error::server(failure.to_string()))?;
    if status == StatusCode::OK {
        let answer: Answer = serde_json::from_slice(&body)
            .map_err(|e| Error::server(format!("error decoding registry search results: {e}")))?;
        return Ok(answer.results);
    }
    let unexpected = format!("Unexpected status code {}", status.as_u16());
    let Some(registry) = index.registry.as_ref().filter(|_| status == StatusCode::NOT_FOUND) else {
        return Err(Error::server(unexpected));
    };
    let names = catalog(client, registry, credentials).await.map_err(|f| plain(&f, f.to_string()))?;
    let names = names.ok_or_else(|| {
        Error::server(format!(
            "{unexpected}: the registry at {} has neither a search (/v1/search) nor a catalog (/v2/_catalog)",
            registry.url
        ))
    })?;
    let fitting = names.into_iter().filter(|name| name.contains(term));
    let fitting = fitting.take(usize::try_from(limit).unwrap_or_default());
    Ok(fitting.map(|name| Found { name, ..Found::default() }).collect())
}

struct Index {
    url: String,
    verify: bool,
    /// The same registry's newer side, if it is not Docker Hub.
    registry: Option<Endpoint>,
}

impl Index {
    fn of(scheme: &str, host: &str, verify: bool) -> Self {
        let registry = Endpoint { url: format!("{scheme}://{host}"), mirror: false, verify };
        Self { url: format!("{scheme}://{host}/v1/"), verify, registry: Some(registry) }
    }
}

/// The index that a term names (`host:port/term`), and what is left of the term.
async fn index<'a>(engine: &Engine, client: &Client, term: &'a str) -> Result<(Index, &'a str), Error> {
    let hub = Index { url: HUB_INDEX.into(), verify: true, registry: None };
    let Some((host, rest)) = term.split_once('/') else { return Ok((hub, term)) };
    if host == DEFAULT_DOMAIN || host == "index.docker.io" {
        return Ok((hub, rest));
    }
    if !host.contains(['.', ':']) && host != "localhost" {
        return Ok((hub, term));
    }
    let verify = !registry::policy(engine).is_insecure(host).await;
    let secure = Index::of("https", host, verify);
    let Err(https) = ping(client, &secure).await else { return Ok((secure, rest)) };
    if verify {
        return Err(Error::InvalidParameter(format!(
            "invalid registry endpoint {}: {https}. If this private registry supports only HTTP or HTTPS with an \
             unknown CA certificate, please add `--insecure-registry {host}` to the daemon's arguments. In the case \
             of HTTPS, if you have access to the registry's CA certificate, no need for the flag; simply place the CA \
             certificate at /etc/docker/certs.d/{host}/ca.crt",
            secure.url
        )));
    }
    let clear = Index::of("http", host, verify);
    match ping(client, &clear).await {
        Ok(()) => Ok((clear, rest)),
        Err(http) => Err(Error::InvalidParameter(format!(
            "invalid registry endpoint \"{}\". HTTPS attempt: {https}. HTTP attempt: {http}",
            clear.url
        ))),
    }
}

async fn ping(client: &Client, index: &Index) -> Result<(), wherry_registry::Error> {
    let url = format!("{}_ping", index.url);
    client.get(&url, &[], index.verify, MAX_ANSWER_BYTES).await.map(|_| ())
}

fn headers(credentials: &Credentials) -> Vec<(HeaderName, HeaderValue)> {
    let token = (HeaderName::from_static("x-docker-token"), HeaderValue::from_static("true"));
    let basic = credentials.basic().map(|value| (AUTHORIZATION, value));
    basic.into_iter().chain([token]).collect()
}

/// The filters, read.
struct Wanted {
    official: Option<bool>,
    automated: Option<bool>,
    stars: i64,
}

impl Wanted {
    fn new(filters: &Filters) -> Result<Self, Error> {
        let mut stars = 0;
        for text in filters.values("stars") {
            let count: i64 = text.parse().map_err(|_| {
                let quoted = crate::text::go_quote(text);
                Error::InvalidParameter(format!(
                    "invalid filter 'stars={text}': strconv.Atoi: parsing {quoted}: invalid syntax"
                ))
            })?;
            stars = stars.max(count);
        }
        Ok(Self {
            official: filters.boolean("is-official")?,
            automated: filters.boolean("is-automated")?,
            stars,
        })
    }

    fn includes(&self, found: &Found) -> bool {
        self.automated != Some(true)
            && self.official.is_none_or(|official| official == found.is_official)
            && found.star_count >= self.stars
    }
}
