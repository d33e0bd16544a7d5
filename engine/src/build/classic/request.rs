//! The parameters of `POST /build`, as dockerd reads them.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use wherry_image_ref::Reference;
use wherry_registry::{Credentials, Platform};

use crate::build::Limits;
use crate::containers::config::Ulimit;
use crate::error::Error;
use crate::images::credentials;
use crate::server::{ApiVersion, Query, Request};

/// What a client asks for.
#[derive(Debug)]
pub(super) struct Asked {
    /// Path in the context; empty for `Dockerfile`.
    pub(super) dockerfile: String,
    /// Names of the image.
    pub(super) names: Vec<Reference>,
    /// A URL that the context is at; empty for the body.
    pub(super) remote: String,
    /// Only the image's id is told.
    pub(super) quiet: bool,
    pub(super) no_cache: bool,
    pub(super) cache_from: Vec<String>,
    pub(super) pull: bool,
    /// Containers of steps that succeeded are removed.
    pub(super) remove: bool,
    /// Those of failed ones, too.
    pub(super) force_remove: bool,
    pub(super) build_args: BTreeMap<String, String>,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) limits: Limits,
    pub(super) target: String,
    pub(super) platform: Option<Platform>,
    /// By which `/build/cancel` finds it.
    pub(super) build_id: String,
    /// By the names that the client has for registries.
    pub(super) credentials: BTreeMap<String, Credentials>,
}

impl Asked {
    /// Reads the parameters.
    ///
    /// # Errors
    /// 400 with dockerd's texts for what it refuses; 500 for names that are none, as there.
    pub(super) fn read(request: &Request, experimental: bool) -> Result<Self, Error> {
        let query = &request.query;
        check_version(query)?;
        if query.flag("squash") {
            let reason = if experimental {
                "squash is not supported by this engine"
            } else {
                "squash is only supported with experimental mode"
            };
            return Err(Error::InvalidParameter(reason.into()));
        }
        if query.get("securityopt").is_some() {
            return Err(Error::InvalidParameter("security options are not supported on linux".into()));
        }
        let text = |name: &str| query.get(name).unwrap_or_default().to_owned();
        let platform = query.get("platform").filter(|_| request.version >= ApiVersion(1, 32));
        let platform = platform.map(Platform::parse).transpose().map_err(Error::InvalidParameter)?;
        let build_args: Option<BTreeMap<String, Option<String>>> = json(query, "buildargs", "build args")?;
        let labels: Option<BTreeMap<String, String>> = json(query, "labels", "labels")?;
        Ok(Self {
            dockerfile: text("dockerfile"),
            names: names(query)?,
            remote: text("remote"),
            quiet: query.flag("q"),
            no_cache: query.flag("nocache"),
            cache_from: json(query, "cachefrom", "cache-from")?.unwrap_or_default(),
            pull: query.flag("pull"),
            remove: query.flag_or("rm", true),
            force_remove: query.flag("forcerm"),
            build_args: build_args
                .into_iter()
                .flatten()
                .filter_map(|(name, value)| Some((name, value?)))
                .collect(),
            labels: labels.unwrap_or_default(),
            limits: limits(query)?,
            target: text("target"),
            platform,
            build_id: text("buildid"),
            credentials: credentials::of_registries(request),
        })
    }

    /// The credentials for the registry of a reference.
    pub(super) fn credentials_for(&self, reference: &Reference) -> Credentials {
        let domain = reference.domain();
        let known = match domain {
            "docker.io" => {
                self.credentials.get("https://index.docker.io/v1/").or(self.credentials.get("docker.io"))
            }
            domain => {
                self.credentials.get(domain).or_else(|| self.credentials.get(&format!("https://{domain}")))
            }
        };
        known.cloned().unwrap_or_default()
    }
}

fn check_version(query: &Query) -> Result<(), Error> {
    match query.get("version") {
        None | Some("1") => Ok(()),
        Some("2") => Err(Error::NotImplemented(
            "BuildKit is reached through /grpc here, as buildx does it; /build is the classic builder (version=1)".into(),
        )),
        Some(other) => {
            Err(Error::InvalidParameter(format!("invalid version {}", crate::text::go_quote(other))))
        }
    }
}

/// What is no name is told as a 500, as by dockerd.
fn names(query: &Query) -> Result<Vec<Reference>, Error> {
    let mut names: Vec<Reference> = Vec::new();
    for text in query.all("t").filter(|text| !text.is_empty()) {
        let reference: Reference = text
            .parse()
            .map_err(|error| Error::server(wherry_image_store::Error::Reference(error).to_string()))?;
        if reference.digest().is_some() {
            return Err(Error::server("build tag cannot contain a digest"));
        }
        let reference = reference.or_latest();
        if !names.contains(&reference) {
            names.push(reference);
        }
    }
    Ok(names)
}

fn limits(query: &Query) -> Result<Limits, Error> {
    // What is no number is none, as with dockerd; but for the size of /dev/shm.
    let number = |name: &str| query.get(name).and_then(|text| text.parse().ok()).unwrap_or(0);
    let shm_size = match query.get("shmsize").unwrap_or_default() {
        "" => 0,
        text => text.parse().map_err(|_| {
            let quoted = crate::text::go_quote(text);
            Error::server(format!("strconv.ParseInt: parsing {quoted}: invalid syntax"))
        })?,
    };
    let text = |name: &str| query.get(name).unwrap_or_default().to_owned();
    let ulimits: Option<Vec<Ulimit>> = json(query, "ulimits", "ulimit settings")?;
    Ok(Limits {
        memory: number("memory"),
        memory_swap: number("memswap"),
        cpu_shares: number("cpushares"),
        cpu_period: number("cpuperiod"),
        cpu_quota: number("cpuquota"),
        cpuset_cpus: text("cpusetcpus"),
        cpuset_mems: text("cpusetmems"),
        cgroup_parent: text("cgroupparent"),
        shm_size,
        ulimits: ulimits.unwrap_or_default(),
        extra_hosts: query.all("extrahosts").filter(|host| !host.is_empty()).map(str::to_owned).collect(),
        network: text("networkmode"),
    })
}

/// A parameter that is a JSON document.
fn json<T: DeserializeOwned>(query: &Query, name: &str, what: &str) -> Result<Option<T>, Error> {
    let Some(text) = query.get(name) else { return Ok(None) };
    serde_json::from_str::<Option<T>>(text).map_err(|error| {
        let reason = crate::server::json::syntax_error(text.as_bytes(), &error);
        Error::InvalidParameter(format!("error reading {what}: {reason}"))
    })
}
