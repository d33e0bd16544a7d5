//! What a build was made of, as its client may read it in the build's record: a SLSA predicate in BuildKit's form.
//!
//! Of BuildKit's form it has all that buildx writes into a metadata file unless it is asked for more; not the graph of steps, which
//! is BuildKit's own, the layers of each of them, and the host's load.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use serde_json::{Map, Value, json};
use wherry_buildkit::pb::Timestamp;

use super::attributes::{Place, Wanted};
use super::files::Definition;
use crate::build::Origins;
use crate::build::git::redacted;
use crate::clock;

/// What the client asked for.
pub(super) struct Asked<'a> {
    /// The front end's attributes.
    pub(super) options: &'a BTreeMap<String, String>,
    pub(super) wanted: &'a Wanted,
    pub(super) definition: &'a Definition,
    /// Of what its context is, if that is not a folder of the client.
    pub(super) context: Option<&'a Origins>,
    pub(super) began: Timestamp,
}

/// Attributes that are about this host rather than about the build.
const OF_THE_HOST: [&str; 4] = ["cgroup-parent", "image-resolve-mode", "platform", "cache-imports"];

/// The document.
pub(super) fn predicate(asked: &Asked<'_>, origins: &Origins) -> Vec<u8> {
    let locals = locals(asked.wanted, origins);
    // Of all else there is a digest.
    let is_complete = locals.is_empty();
    let mut parameters = Map::from_iter([("frontend".to_owned(), json!("dockerfile.v0"))]);
    let mut add = |name: &str, list: Value| {
        let is_empty =
            list.as_array().is_some_and(Vec::is_empty) || list.as_object().is_some_and(Map::is_empty);
        if !is_empty {
            parameters.insert(name.to_owned(), list);
        }
    };
    add("args", json!(arguments(asked.options)));
    add("secrets", lent(&origins.secrets));
    add("ssh", lent(&origins.agents));
    add("locals", json!(locals.iter().map(|name| json!({"name": name})).collect::<Vec<_>>()));
    let mut buildkit = json!({ "source": { "infos": [{
        "filename": asked.definition.name,
        "language": "Dockerfile",
        "data": base64::engine::general_purpose::STANDARD.encode(&asked.definition.text),
    }] } });
    let repository: BTreeMap<&str, String> = asked
        .options
        .iter()
        .filter_map(|(name, value)| Some((name.strip_prefix("vcs:")?, redacted(value))))
        .filter(|(_, value)| !value.is_empty())
        .collect();
    if !repository.is_empty() {
        buildkit["vcs"] = json!(repository);
    }
    let mut metadata = json!({
        "buildInvocationID": crate::id::hex64(),
        "buildStartedOn": clock::rfc3339(i64::try_from(asked.began.as_nanos()).unwrap_or(0)),
        "buildFinishedOn": clock::rfc3339(clock::now_ns()),
        "completeness": { "parameters": true, "environment": true, "materials": is_complete },
        "reproducible": false,
        "https://mobyproject.org/buildkit@v1#metadata": buildkit,
    });
    if is_complete && !origins.has_network {
        metadata["https://mobyproject.org/buildkit@v1#hermetic"] = true.into();
    }
    json!({
        "builder": { "id": "" },
        "buildType": "https://mobyproject.org/buildkit@v1",
        "materials": materials(origins),
        "invocation": {
            "configSource": config_source(asked),
            "parameters": parameters,
            "environment": { "platform": wherry_dockerfile::plan::Platform::host().to_string() },
        },
        "metadata": metadata,
    })
    .to_string()
    .into_bytes()
}

/// The client's folders by their names: those of contexts, and that of the Dockerfile.
fn locals(wanted: &Wanted, origins: &Origins) -> BTreeSet<String> {
    let own = local(wanted, &wanted.context);
    let dockerfile = wanted.dockerfile_in.as_ref().map(|name| wanted.folder(name).0);
    origins.locals.iter().cloned().chain(own).chain(dockerfile).collect()
}

/// Those of which files are in the result.
pub(super) fn used_locals(wanted: &Wanted, origins: &Origins) -> BTreeSet<String> {
    let named = wanted.contexts.iter().map(|(name, place)| (name.as_str(), place));
    let all = std::iter::once(("", &wanted.context)).chain(named);
    all.filter(|(name, _)| origins.contexts.contains(*name))
        .filter_map(|(_, place)| local(wanted, place))
        .collect()
}

fn local(wanted: &Wanted, place: &Place) -> Option<String> {
    match place {
        Place::Client(name) => Some(wanted.folder(name).0),
        _ => None,
    }
}

/// The attributes that say what is built, without those that are told elsewhere.
fn arguments(options: &BTreeMap<String, String>) -> BTreeMap<&str, String> {
    let main = main_context(options);
    let is_told_elsewhere = |name: &str| {
        OF_THE_HOST.contains(&name)
            || name == "filename"
            || name == main
            || name.starts_with("attest:")
            || name.starts_with("vcs:")
    };
    let shown = |name: &str, value: &str| match name.starts_with("context:") {
        true => redacted(value),
        false => value.to_owned(),
    };
    let arguments = options.iter().filter(|(name, _)| !is_told_elsewhere(name));
    arguments.map(|(name, value)| (name.as_str(), shown(name, value))).collect()
}

fn main_context(options: &BTreeMap<String, String>) -> &str {
    options.get("contextkey").map_or("context", String::as_str)
}

/// Where the Dockerfile came from.
fn config_source(asked: &Asked<'_>) -> Value {
    let mut source = Map::new();
    let repository = asked.context.and_then(|context| context.repositories.first_key_value());
    let file = asked.context.and_then(|context| context.downloads.first_key_value());
    let brought = repository.map(|(uri, commit)| (uri, of_commit(commit)));
    if let Some((uri, digest)) = brought.or_else(|| file.map(|(uri, digest)| (uri, of_digest(digest)))) {
        source.insert("uri".into(), json!(uri));
        source.insert("digest".into(), digest);
    } else if let Some(context) = asked.options.get(main_context(asked.options)).filter(|at| !at.is_empty()) {
        source.insert("uri".into(), redacted(context).into());
    }
    source.insert("entryPoint".into(), json!(asked.wanted.filename));
    Value::Object(source)
}

fn lent(all: &BTreeMap<String, bool>) -> Value {
    let lent = |(id, required): (&String, &bool)| match required {
        true => json!({"id": id}),
        false => json!({"id": id, "optional": true}),
    };
    all.iter().map(lent).collect()
}

fn materials(origins: &Origins) -> Vec<Value> {
    let images = origins.images.iter().map(|((reference, platform), known)| {
        json!({"uri": package_url(reference, platform), "digest": of_digest(known)})
    });
    let repositories =
        origins.repositories.iter().map(|(uri, commit)| json!({"uri": uri, "digest": of_commit(commit)}));
    let files = origins.downloads.iter().map(|(uri, known)| json!({"uri": uri, "digest": of_digest(known)}));
    images.chain(repositories).chain(files).collect()
}

fn of_digest(digest: &str) -> Value {
    let (algorithm, hex) = digest.split_once(':').unwrap_or(("sha256", digest));
    json!({ algorithm: hex })
}

fn of_commit(commit: &str) -> Value {
    json!({ if commit.len() == 64 { "sha256" } else { "sha1" }: commit })
}

/// `pkg:docker/busybox@latest?platform=linux%2Famd64`.
fn package_url(reference: &str, platform: &str) -> String {
    let Ok(parsed) = reference.parse::<wherry_image_ref::Reference>() else { return reference.to_owned() };
    let digest = parsed.digest().map(|digest| format!("digest={}&", digest.to_string().replace(':', "%3A")));
    let tag = match (parsed.tag(), &digest) {
        (Some(tag), _) => format!("@{tag}"),
        (None, Some(_)) => String::new(),
        (None, None) => "@latest".to_owned(),
    };
    let name = parsed.familiar_name().replace(':', "%3A");
    let platform = platform.replace('/', "%2F");
    format!("pkg:docker/{name}{tag}?{}platform={platform}", digest.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_have_package_urls() {
        let check = |reference: &str, url: &str| assert_eq!(package_url(reference, "linux/arm64/v8"), url);
        check("docker.io/library/busybox:1", "pkg:docker/busybox@1?platform=linux%2Farm64%2Fv8");
        check("h:5000/a/b", "pkg:docker/h%3A5000/a/b@latest?platform=linux%2Farm64%2Fv8");
        let hex = "0".repeat(64);
        check(
            &format!("docker.io/a/b@sha256:{hex}"),
            &format!("pkg:docker/a/b?digest=sha256%3A{hex}&platform=linux%2Farm64%2Fv8"),
        );
    }
}
