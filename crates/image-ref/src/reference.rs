//! Image references, normalised as Docker does.

use std::fmt;
use std::str::FromStr;

use crate::{Digest, DigestError};

/// The registry that a name without one means.
pub const DEFAULT_DOMAIN: &str = "docker.io";
/// The tag that a name without tag and digest means.
pub const DEFAULT_TAG: &str = "latest";
const OFFICIAL: &str = "library/";
const PATH_MAX_BYTES: usize = 255;

/// A normalised image reference: registry, repository, and a tag, a digest, both, or neither.
///
/// `Display` prints the full name (`docker.io/library/busybox:latest`), [`Reference::familiar`]
/// the one that users see (`busybox:latest`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is no [`Reference`]; the texts are dockerd's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// It does not follow the grammar.
    #[error("invalid reference format")]
    Format,
    /// The repository has upper-case letters.
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Uppercase(String),
    /// It would read as an image id.
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    LooksLikeId(String),
    /// The repository is longer than 255 bytes.
    #[error("repository name must not be more than 255 characters")]
    TooLong,
    /// What follows the `@` is no digest.
    #[error(transparent)]
    Digest(#[from] DigestError),
}

impl Reference {
    /// The registry's host, with a port if one is given: `docker.io`, `localhost:5000`.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository inside the registry: `library/busybox`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag, if there is one.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if there is one.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Whether there is neither tag nor digest.
    #[must_use]
    pub fn is_name_only(&self) -> bool {
        self.tag.is_none() && self.digest.is_none()
    }

    /// Adds the tag `latest` if there is neither tag nor digest.
    #[must_use]
    pub fn or_latest(mut self) -> Self {
        if self.is_name_only() {
            self.tag = Some(DEFAULT_TAG.to_owned());
        }
        self
    }

    /// The repository alone.
    #[must_use]
    pub fn name_only(&self) -> Self {
        Self { tag: None, digest: None, ..self.clone() }
    }

    /// This repository with `tag` and without digest.
    ///
    /// # Errors
    /// [`ReferenceError::Format`] if `tag` is none.
    pub fn with_tag(&self, tag: &str) -> Result<Self, ReferenceError> {
        if !is_tag(tag) {
            return Err(ReferenceError::Format);
        }
        Ok(Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    /// This repository with `digest` and without tag.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// The repository as users see it: without `docker.io/` and `library/`.
    #[must_use]
    pub fn familiar_name(&self) -> String {
        if self.domain != DEFAULT_DOMAIN {
            return self.full_name();
        }
        match self.path.strip_prefix(OFFICIAL) {
            Some(name) if !name.contains('/') => name.to_owned(),
            _ => self.path.clone(),
        }
    }

    /// The whole reference as users see it: `busybox:latest`, `localhost:5000/box@sha256:…`.
    #[must_use]
    pub fn familiar(&self) -> String {
        self.suffixed(self.familiar_name())
    }

    /// Registry and repository: `docker.io/library/busybox`.
    #[must_use]
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    fn suffixed(&self, mut name: String) -> String {
        if let Some(tag) = &self.tag {
            name.push(':');
            name.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            name.push('@');
            name.push_str(&digest.to_string());
        }
        name
    }
}

/// By the full name as text, which is the order in which dockerd lists names.
impl Ord for Reference {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        fn parts(reference: &Reference) -> impl Iterator<Item = u8> {
            let tag = reference.tag.iter().flat_map(|tag| b":".iter().copied().chain(tag.bytes()));
            let digest = reference.digest.map(|digest| format!("@{digest}").into_bytes()).unwrap_or_default();
            let name = reference.domain.bytes().chain(*b"/").chain(reference.path.bytes());
            name.chain(tag).chain(digest)
        }
        parts(self).cmp(parts(other))
    }
}

impl PartialOrd for Reference {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.suffixed(self.full_name()))
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if Digest::from_hex(text).is_ok() {
            return Err(ReferenceError::LooksLikeId(text.to_owned()));
        }
        let (domain, rest) = split_domain(text);
        // Docker looks for upper case in front of the first colon only: tags may have it.
        let before_tag = rest.split(':').next().unwrap_or_default();
        if before_tag.chars().any(char::is_uppercase) {
            return Err(ReferenceError::Uppercase(before_tag.to_owned()));
        }
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) => (rest.to_owned(), Some(parse_digest(digest)?)),
            None => (rest, None),
        };
        let (path, tag) = match rest.split_once(':') {
            Some((path, tag)) => (path.to_owned(), Some(tag.to_owned())),
            None => (rest, None),
        };
        if !is_domain(&domain)
            || !path.split('/').all(is_path_component)
            || !tag.as_deref().is_none_or(is_tag)
        {
            return Err(ReferenceError::Format);
        }
        if path.len() > PATH_MAX_BYTES {
            return Err(ReferenceError::TooLong);
        }
        Ok(Self { domain, path, tag, digest })
    }
}

/// A text that does not even look like a digest spoils the whole reference; one that does has an
/// error of its own.
fn parse_digest(text: &str) -> Result<Digest, ReferenceError> {
    let (algorithm, hex) = text.split_once(':').ok_or(ReferenceError::Format)?;
    let well_formed = algorithm.starts_with(|c: char| c.is_ascii_alphabetic())
        && algorithm.chars().all(|c| c.is_ascii_alphanumeric() || "-_+.".contains(c))
        && hex.len() >= 32
        && hex.bytes().all(|b| b.is_ascii_hexdigit());
    if well_formed { Ok(text.parse()?) } else { Err(ReferenceError::Format) }
}

/// Splits off the registry: what stands before the first slash, if it looks like a host.
fn split_domain(text: &str) -> (String, String) {
    let (domain, rest) = match text.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.chars().any(char::is_uppercase) =>
        {
            (if first == "index.docker.io" { DEFAULT_DOMAIN } else { first }, rest)
        }
        _ => (DEFAULT_DOMAIN, text),
    };
    let rest = if domain == DEFAULT_DOMAIN && !rest.contains('/') {
        format!("{OFFICIAL}{rest}")
    } else {
        rest.to_owned()
    };
    (domain.to_owned(), rest)
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = if domain.starts_with('[') {
        match domain.split_once(']') {
            Some((address, rest)) => {
                let inside = address.trim_start_matches('[');
                if inside.is_empty() || !inside.bytes().all(|b| b.is_ascii_hexdigit() || b == b':') {
                    return false;
                }
                match rest.strip_prefix(':') {
                    Some(port) => ("", Some(port)),
                    None if rest.is_empty() => ("", None),
                    None => return false,
                }
            }
            None => return false,
        }
    } else {
        match domain.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (domain, None),
        }
    };
    let host_is_good = domain.starts_with('[')
        || host.split('.').all(|label| {
            !label.is_empty()
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        });
    host_is_good && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
}

/// Lower-case letters and digits, in groups parted by `.`, `_`, `__` or any number of dashes.
fn is_path_component(component: &str) -> bool {
    let bytes = component.as_bytes();
    let alphanumeric = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if !alphanumeric(bytes.first()) || !alphanumeric(bytes.last()) {
        return false;
    }
    bytes.chunk_by(|a, b| alphanumeric(Some(a)) == alphanumeric(Some(b))).all(|group| {
        alphanumeric(group.first())
            || matches!(group, b"." | b"_" | b"__")
            || group.iter().all(|b| *b == b'-')
    })
}

fn is_tag(tag: &str) -> bool {
    tag.len() <= 128
        && tag.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && tag.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn normalises_and_shows_the_familiar_form() {
        let check = |text: &str, full: &str, familiar: &str| {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(
                (reference.to_string().as_str(), reference.familiar().as_str()),
                (full, familiar),
                "{text}"
            );
        };
        check("busybox", "docker.io/library/busybox", "busybox");
        check("busybox:1.0-A_b", "docker.io/library/busybox:1.0-A_b", "busybox:1.0-A_b");
        check("index.docker.io/busybox", "docker.io/library/busybox", "busybox");
        check("docker.io/library/busybox:x", "docker.io/library/busybox:x", "busybox:x");
        check("prakhar1989/static-site", "docker.io/prakhar1989/static-site", "prakhar1989/static-site");
        check("localhost/a", "localhost/a", "localhost/a");
        check("localhost:5000/a:b", "localhost:5000/a:b", "localhost:5000/a:b");
        check("LOCAL/a", "LOCAL/a", "LOCAL/a");
        check("[::1]:5000/a__b/c---d:t", "[::1]:5000/a__b/c---d:t", "[::1]:5000/a__b/c---d:t");
        check("index.docker.io/a/b", "docker.io/a/b", "a/b");
        check("docker.io/a", "docker.io/library/a", "a");
        check("127.0.0.1", "docker.io/library/127.0.0.1", "127.0.0.1");
        check("127.0.0.1:80", "docker.io/library/127.0.0.1:80", "127.0.0.1:80");
        check("127.0.0.1:8/a", "127.0.0.1:8/a", "127.0.0.1:8/a");
        check("a_b/c", "docker.io/a_b/c", "a_b/c");
        check("a.b:8080/c", "a.b:8080/c", "a.b:8080/c");
        check("a-b:1/c", "a-b:1/c", "a-b:1/c");
        check("xn--n3h.com/a:xn--n3h.com", "xn--n3h.com/a:xn--n3h.com", "xn--n3h.com/a:xn--n3h.com");
        check("a:_T.-x", "docker.io/library/a:_T.-x", "a:_T.-x");
        check(&format!("docker.io/{HEX}"), &format!("docker.io/library/{HEX}"), HEX);
        check(&HEX[1..], &format!("docker.io/library/{}", &HEX[1..]), &HEX[1..]);
        check("library/x/y", "docker.io/library/x/y", "library/x/y");
        check(
            &format!("a:t@sha256:{HEX}"),
            &format!("docker.io/library/a:t@sha256:{HEX}"),
            &format!("a:t@sha256:{HEX}"),
        );
    }

    #[test]
    fn sorts_by_the_full_name() {
        let mut names: Vec<Reference> =
            ["b", "a-b:1", "a:1", "me/a", "localhost/z"].iter().map(|t| t.parse().unwrap()).collect();
        names.sort();
        let sorted: Vec<String> = names.iter().map(Reference::familiar).collect();
        assert_eq!(sorted, ["a-b:1", "a:1", "b", "me/a", "localhost/z"]);
    }

    #[test]
    fn refuses_with_dockers_words() {
        let check = |text: &str, error: &str| {
            assert_eq!(text.parse::<Reference>().map_err(|e| e.to_string()), Err(error.to_owned()), "{text}");
        };
        check("", "invalid reference format");
        check("BAD", "invalid reference format: repository name (library/BAD) must be lowercase");
        check("a/B:c", "invalid reference format: repository name (a/B) must be lowercase");
        check(HEX, &format!("invalid repository name ({HEX}), cannot specify 64-byte hexadecimal strings"));
        for text in [
            "a:",
            ":a",
            "a b",
            "a//b",
            "-a",
            "a..b",
            "a___b",
            "a@b",
            "a.b:/c",
            "a:b:c",
            "http://a/b",
            "a/../b",
            "a-",
            "a-/b",
            "_a/b",
            "____/____",
            "a.-b/c",
            "a_.b",
            "a/",
            "a///b",
            "-a.b/c",
            "a-.b/c",
            "a:x:y/z",
            "[::1]",
            "[::1]:5000",
            "[fe80::1%eth0]:5000/a",
            "[::1.2.3.4]/a",
            "[::1/a",
            "a:-t",
            "a:.t",
            "a@:0",
            "é",
            "a:é",
            "a\n",
        ] {
            check(text, "invalid reference format");
        }
        check(&"a".repeat(256), "repository name must not be more than 255 characters");
        check(&format!("a@sha512:{HEX}"), "unsupported digest algorithm");
        check(&format!("a@sha256:{}", &HEX[..40]), "invalid checksum digest length");
        check(&format!("a:{}", "t".repeat(129)), "invalid reference format");
    }
}
