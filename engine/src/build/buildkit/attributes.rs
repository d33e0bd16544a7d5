//! What the attributes of a front end ask for.

use std::collections::BTreeMap;

use wherry_buildkit::grpc::Status;
use wherry_buildkit::pb::control::CacheOptionsEntry;
use wherry_dockerfile::plan::NamedContext;
use wherry_registry::Platform;

use crate::build::{Limits, NoCache};
use crate::containers::config::Ulimit;

/// Where files of a build are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// With the client, under this name.
    Client(String),
    /// What the client sends once, under this path.
    Upload(String),
    /// A repository or an archive.
    Remote(String),
    /// An image.
    Image(String),
    /// The result of another build, by the name under which it was given.
    Input(String),
}

impl Place {
    /// As the plan knows a further context.
    pub(super) fn as_named(&self) -> NamedContext {
        match self {
            Self::Image(reference) => NamedContext::Image(reference.clone()),
            Self::Client(_) | Self::Upload(_) | Self::Remote(_) | Self::Input(_) => NamedContext::Files,
        }
    }
}

/// A build, as far as its attributes say.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// Path of the Dockerfile.
    pub(super) filename: String,
    /// The client's name for the folder that it is in; none: it is in the context.
    pub(super) dockerfile_in: Option<String>,
    /// The build's own context.
    pub(super) context: Place,
    /// Further ones, by name.
    pub(super) contexts: BTreeMap<String, Place>,
    pub(super) target: String,
    pub(super) build_args: BTreeMap<String, String>,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) platform: Option<Platform>,
    pub(super) pull: bool,
    pub(super) no_cache: NoCache,
    /// Caches elsewhere to take results from.
    pub(super) imports: Vec<CacheOptionsEntry>,
    /// What was asked for and is not done, for the client to be told: it changes no file of the image.
    pub(super) unheeded: Vec<String>,
    pub(super) limits: Limits,
    /// When the image is to have been made.
    pub(super) epoch_s: Option<i64>,
    /// A question instead of a build.
    pub(super) request: Option<String>,
    /// The front end that the client names, in place of what the Dockerfile says.
    pub(super) syntax: Option<String>,
    /// Sessions other than the build's own that offer folders, by the folders' names: `[PREFIX:]ID`.
    sessions: BTreeMap<String, String>,
}

impl Wanted {
    /// Reads the attributes; those of BuildKit that change nothing for one platform and without attestations are left.
    ///
    /// # Errors
    /// What is malformed or not supported.
    pub(super) fn read(
        frontend: &str,
        options: &BTreeMap<String, String>,
        imports: &[CacheOptionsEntry],
    ) -> Result<Self, Status> {
        let text = |name: &str| options.get(name).filter(|value| !value.is_empty()).cloned();
        let syntax = match frontend {
            "dockerfile.v0" => text("build-arg:BUILDKIT_SYNTAX"),
            "gateway.v0" => Some(text("source").unwrap_or_default()),
            other => return Err(Status::unknown(format!("frontend {other} not found"))),
        };
        let context_in = text("contextkey").unwrap_or_else(|| "context".into());
        let context = match text("context") {
            None => Place::Client(context_in),
            Some(at) => place_of_context(&at),
        };
        let dockerfile_in = match (&context, text("dockerfilekey")) {
            (_, Some(key)) => Some(key),
            (Place::Client(_), None) => Some("dockerfile".into()),
            _ => None,
        };
        Ok(Self {
            filename: text("filename").unwrap_or_else(|| "Dockerfile".into()),
            dockerfile_in,
            context,
            contexts: named_contexts(options)?,
            target: text("target").unwrap_or_default(),
            build_args: with_prefix(options, "build-arg:"),
            labels: with_prefix(options, "label:"),
            platform: text("platform").as_deref().map(platform).transpose()?,
            pull: options.get("image-resolve-mode").is_some_and(|mode| mode == "pull"),
            no_cache: match options.get("no-cache") {
                None => NoCache::Nothing,
                Some(stages) if stages.is_empty() => NoCache::Everything,
                Some(stages) => NoCache::Stages(stages.split(',').map(str::to_owned).collect()),
            },
            imports: all_imports(options, imports),
            unheeded: unheeded(options),
            limits: limits(options)?,
            epoch_s: epoch(options)?,
            request: text("requestid"),
            syntax,
            sessions: with_prefix(options, "local-sessionid:"),
        })
    }
}

impl Wanted {
    /// Under which name which session offers a folder of the client; without an id it is the build's own.
    pub(super) fn folder(&self, name: &str) -> (String, Option<String>) {
        match self.sessions.get(name).map(|session| session.split_once(':').ok_or(session)) {
            None => (name.to_owned(), None),
            Some(Err(id)) => (name.to_owned(), Some(id.clone())),
            Some(Ok((prefix, id))) => (format!("{prefix}-{name}"), Some(id.to_owned())),
        }
    }
}

/// What a context's address means: buildx offers what came on its standard input under a host of its own.
fn place_of_context(at: &str) -> Place {
    let uploaded = at.strip_prefix("http://buildkit-session").filter(|path| path.starts_with('/'));
    match (uploaded, at.strip_prefix("local:"), at.strip_prefix("docker-image://")) {
        (Some(path), _, _) => Place::Upload(path.to_owned()),
        (_, Some(name), _) => Place::Client(name.to_owned()),
        (_, _, Some(image)) => Place::Image(image.to_owned()),
        (None, None, None) => match at.strip_prefix("input:") {
            Some(name) => Place::Input(name.to_owned()),
            None => Place::Remote(at.to_owned()),
        },
    }
}

fn named_contexts(options: &BTreeMap<String, String>) -> Result<BTreeMap<String, Place>, Status> {
    let mut contexts = BTreeMap::new();
    for (name, at) in with_prefix(options, "context:") {
        if at.starts_with("oci-layout://") {
            let text =
                "contexts of the kind oci-layout are not supported by this engine: load the image instead";
            return Err(Status::unknown(text));
        }
        // With a platform behind it a context is for that platform only, and there is one.
        let name = name.split("::").next().unwrap_or_default().to_owned();
        contexts.insert(name, place_of_context(&at));
    }
    Ok(contexts)
}

fn with_prefix(options: &BTreeMap<String, String>, prefix: &str) -> BTreeMap<String, String> {
    let found =
        options.iter().filter_map(|(key, value)| Some((key.strip_prefix(prefix)?.to_owned(), value.clone())));
    found.collect()
}

fn platform(text: &str) -> Result<Platform, Status> {
    if text.contains(',') {
        return Err(Status::unknown(
            "multi-platform builds are not supported by the docker driver: build for one platform",
        ));
    }
    Platform::parse(text).map_err(Status::unknown)
}

/// The caches of the request, and those that older clients name among the options; each once.
fn all_imports(options: &BTreeMap<String, String>, imports: &[CacheOptionsEntry]) -> Vec<CacheOptionsEntry> {
    let older = options.get("cache-from").into_iter().flat_map(|list| list.split(','));
    let older = older.filter(|name| !name.is_empty()).map(|name| CacheOptionsEntry {
        r#type: "registry".to_owned(),
        attrs: BTreeMap::from([("ref".to_owned(), name.to_owned())]),
    });
    let mut all: Vec<CacheOptionsEntry> = Vec::new();
    for entry in imports.iter().cloned().chain(older) {
        if !all.contains(&entry) {
            all.push(entry);
        }
    }
    all
}

/// Options that this front end reads and does not follow.
fn unheeded(options: &BTreeMap<String, String>) -> Vec<String> {
    let named = ["hostname", "build-arg:BUILDKIT_SANDBOX_HOSTNAME"];
    let named = named.into_iter().filter(|name| options.contains_key(*name)).map(str::to_owned);
    named.map(|what| format!("not supported, and left out: {what}")).collect()
}

/// `SOURCE_DATE_EPOCH`, in seconds.
fn epoch(options: &BTreeMap<String, String>) -> Result<Option<i64>, Status> {
    let given = options.get("build-arg:SOURCE_DATE_EPOCH").filter(|text| !text.is_empty());
    let read = given.map(|text| {
        text.parse().map_err(|_| {
            let quoted = crate::text::go_quote(text);
            let reason = format!("strconv.ParseInt: parsing {quoted}: invalid syntax");
            Status::unknown(format!("invalid SOURCE_DATE_EPOCH: {text}: {reason}"))
        })
    });
    read.transpose()
}

fn limits(options: &BTreeMap<String, String>) -> Result<Limits, Status> {
    let text = |name: &str| options.get(name).filter(|value| !value.is_empty());
    let mut limits =
        Limits { cgroup_parent: text("cgroup-parent").cloned().unwrap_or_default(), ..Limits::default() };
    for host in text("add-hosts").iter().flat_map(|list| list.split(',')) {
        let Some((name, address)) = host.split_once('=') else {
            return Err(Status::unknown(format!("invalid key-value pair: {host}")));
        };
        limits.extra_hosts.push(format!("{name}:{address}"));
    }
    limits.network = match text("force-network-mode").map(String::as_str) {
        None | Some("default" | "sandbox") => String::new(),
        Some(mode @ ("host" | "none")) => mode.to_owned(),
        Some(other) => return Err(Status::unknown(format!("invalid network mode {other:?}"))),
    };
    if let Some(size) = text("shm-size") {
        limits.shm_size =
            size.parse().map_err(|_| Status::unknown(format!("invalid shm-size: {size}: not a number")))?;
    }
    for ulimit in text("ulimit").iter().flat_map(|list| list.split(',')) {
        limits
            .ulimits
            .push(parse_ulimit(ulimit).ok_or_else(|| Status::unknown(format!("invalid ulimit {ulimit}")))?);
    }
    Ok(limits)
}

/// `nofile=1024:2048`, or one number for both.
fn parse_ulimit(text: &str) -> Option<Ulimit> {
    let (name, values) = text.split_once('=')?;
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    Some(Ulimit { name: name.to_owned(), soft: soft.parse().ok()?, hard: hard.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn what_buildx_sends_is_understood() {
        let wanted = Wanted::read(
            "dockerfile.v0",
            &options(&[
                ("filename", "sub/D"),
                ("target", "t"),
                ("build-arg:A", "1"),
                ("label:l", ""),
                ("platform", "linux/arm64"),
                ("image-resolve-mode", "pull"),
                ("no-cache", "a,b"),
                ("add-hosts", "x=10.0.0.1,six=::1"),
                ("force-network-mode", "host"),
                ("shm-size", "1024"),
                ("ulimit", "nofile=1:2,core=0"),
                ("cgroup-parent", "/c"),
                ("context:base::linux/arm64", "docker-image://busybox"),
                ("context:dir", "local:dir"),
                ("context:git", "https://example.com/r.git#main"),
                ("context:other", "input:other"),
            ]),
            &[],
        );
        let wanted = wanted.unwrap();
        assert_eq!((wanted.filename.as_str(), wanted.target.as_str(), wanted.pull), ("sub/D", "t", true));
        assert_eq!(wanted.dockerfile_in.as_deref(), Some("dockerfile"));
        assert_eq!(wanted.build_args, options(&[("A", "1")]));
        assert_eq!(wanted.labels, options(&[("l", "")]));
        assert_eq!(wanted.no_cache, NoCache::Stages(vec!["a".into(), "b".into()]));
        assert_eq!(wanted.limits.extra_hosts, ["x:10.0.0.1", "six:::1"]);
        assert_eq!((wanted.limits.network.as_str(), wanted.limits.shm_size), ("host", 1024));
        assert_eq!((wanted.limits.ulimits[0].soft, wanted.limits.ulimits[0].hard), (1, 2));
        assert_eq!(wanted.contexts["base"], Place::Image("busybox".into()));
        assert_eq!(wanted.contexts["dir"], Place::Client("dir".into()));
        assert_eq!(wanted.contexts["git"], Place::Remote("https://example.com/r.git#main".into()));
        assert_eq!(wanted.contexts["other"], Place::Input("other".into()));
    }

    #[test]
    fn folders_may_be_in_another_session() {
        let options = options(&[("local-sessionid:context", "p:s1"), ("local-sessionid:dockerfile", "s2")]);
        let wanted = Wanted::read("dockerfile.v0", &options, &[]).unwrap();
        assert_eq!(wanted.folder("context"), ("p-context".into(), Some("s1".into())));
        assert_eq!(wanted.folder("dockerfile"), ("dockerfile".into(), Some("s2".into())));
        assert_eq!(wanted.folder("other"), ("other".into(), None));
    }

    #[test]
    fn contexts_from_elsewhere_have_their_dockerfile() {
        let read = |at: &str| Wanted::read("dockerfile.v0", &options(&[("context", at)]), &[]).unwrap();
        let upload = read("http://buildkit-session/abc");
        assert_eq!((upload.context, upload.dockerfile_in), (Place::Upload("/abc".into()), None));
        assert_eq!(
            read("http://buildkit-sessions/x").context,
            Place::Remote("http://buildkit-sessions/x".into())
        );
    }

    #[test]
    fn what_is_not_supported_is_refused() {
        for (frontend, key, value) in [
            ("other.v0", "filename", "x"),
            ("dockerfile.v0", "platform", "linux/amd64,linux/arm64"),
            ("dockerfile.v0", "platform", "a/b/c/d"),
            ("dockerfile.v0", "force-network-mode", "mine"),
            ("dockerfile.v0", "add-hosts", "x"),
            ("dockerfile.v0", "ulimit", "nofile"),
            ("dockerfile.v0", "shm-size", "big"),
            ("dockerfile.v0", "context:x", "oci-layout://y"),
        ] {
            assert!(
                Wanted::read(frontend, &options(&[(key, value)]), &[]).is_err(),
                "{frontend} {key}={value}"
            );
        }
    }
}
