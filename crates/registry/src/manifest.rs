//! Manifests and lists of them.

use std::fmt;

use serde::Deserialize;
use wherry_image_ref::Digest;

use crate::{Error, Result};

/// What manifests may be, in the order of preference; an `Accept` header.
pub(crate) const ACCEPT: &str = "application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.oci.image.index.v1+json";
/// Media types of configurations that containers can be made of; artifacts have others.
const CONFIGS: [&str; 2] =
    ["application/vnd.docker.container.image.v1+json", "application/vnd.oci.image.config.v1+json"];

const CONFIG_TYPE: &str = "application/vnd.docker.container.image.v1+json";
const LAYER_TYPE: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

/// A blob by digest, type and size.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Digest of its bytes.
    pub digest: Digest,
    /// Its length in bytes.
    #[serde(default)]
    pub size: u64,
    /// Its type.
    #[serde(default)]
    pub media_type: String,
    #[serde(default)]
    platform: Option<Platform>,
}

/// Operating system and processor, in Go's words.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`.
    pub architecture: String,
    /// `v7`, or nothing.
    pub variant: String,
}

/// A manifest of one image.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// Its configuration document.
    pub config: Descriptor,
    /// Its layers, the lowest first.
    pub layers: Vec<Descriptor>,
}

/// A layer as a gzipped blob of a registry.
#[derive(Debug, Clone, Copy)]
pub struct PushedLayer {
    /// Digest of the compressed bytes.
    pub digest: Digest,
    /// Their number.
    pub size: u64,
}

/// What a document turned out to be.
#[derive(Debug, Clone)]
pub enum Selected {
    /// An image.
    Image(Manifest),
    /// A list, of which this is the image for the platform.
    Listed(Descriptor),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    #[serde(default)]
    schema_version: u32,
    #[serde(default)]
    media_type: String,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
}

impl Manifest {
    /// Reads a manifest or a list, and chooses from the latter. The content type that came with it
    /// is not believed where the document says something else.
    ///
    /// # Errors
    /// [`Error::Manifest`], [`Error::NoMatchingManifest`], [`Error::MediaType`].
    pub fn read(bytes: &[u8], platform: &Platform) -> Result<Selected> {
        let document: Document = serde_json::from_slice(bytes).map_err(|e| Error::Manifest(e.to_string()))?;
        if document.schema_version == 1 {
            return Err(Error::MediaType("application/vnd.docker.distribution.manifest.v1+prettyjws".into()));
        }
        match document {
            Document { manifests: Some(_), layers: Some(_), .. } => {
                Err(Error::Manifest("it has both manifests and layers".into()))
            }
            Document { manifests: Some(manifests), .. } => choose(manifests, platform).map(Selected::Listed),
            Document { config: Some(config), layers, .. } => {
                if !config.media_type.is_empty() && !CONFIGS.contains(&config.media_type.as_str()) {
                    return Err(Error::MediaType(config.media_type));
                }
                Ok(Selected::Image(Self { config, layers: layers.unwrap_or_default() }))
            }
            Document { media_type, .. } => Err(Error::MediaType(media_type)),
        }
    }
}

impl Manifest {
    /// The media type of what [`Self::docker`] makes.
    pub const DOCKER_TYPE: &'static str = "application/vnd.docker.distribution.manifest.v2+json";

    /// A manifest in Docker's schema 2, byte for byte as dockerd writes it, so that the same image gets the same digest.
    #[must_use]
    pub fn docker(config: &Digest, config_size: u64, layers: &[PushedLayer]) -> Vec<u8> {
        let blob = |media_type: &str, size: u64, digest: &Digest, depth: &str| {
            format!(
                "{{\n{depth}   \"mediaType\": \"{media_type}\",\n{depth}   \"size\": {size},\n{depth}   \"digest\": \"{digest}\"\n{depth}}}"
            )
        };
        let config = blob(CONFIG_TYPE, config_size, config, "   ");
        let layers: Vec<String> = layers
            .iter()
            .map(|layer| format!("      {}", blob(LAYER_TYPE, layer.size, &layer.digest, "      ")))
            .collect();
        let layers = match layers.as_slice() {
            [] => "[]".to_owned(),
            layers => format!("[\n{}\n   ]", layers.join(",\n")),
        };
        format!(
            "{{\n   \"schemaVersion\": 2,\n   \"mediaType\": \"{}\",\n   \"config\": {config},\n   \"layers\": {layers}\n}}",
            Self::DOCKER_TYPE
        )
        .into_bytes()
    }
}

impl Descriptor {
    /// Whether it is a gzipped layer by its media type.
    #[must_use]
    pub fn is_gzip(&self) -> bool {
        self.media_type.ends_with("gzip")
    }

    /// Whether it is a layer that registries need not have: Windows' base layers are such.
    #[must_use]
    pub fn is_foreign(&self) -> bool {
        self.media_type.contains(".foreign.") || self.media_type.contains(".nondistributable.")
    }
}

fn choose(manifests: Vec<Descriptor>, wanted: &Platform) -> Result<Descriptor> {
    let fits = |manifest: &&Descriptor| manifest.platform.as_ref().is_some_and(|p| p.runs_on(wanted));
    let exact = |manifest: &&Descriptor| {
        fits(manifest)
            && manifest.platform.as_ref().is_some_and(|p| p.normal().variant == wanted.normal().variant)
    };
    let found = manifests.iter().find(exact).or_else(|| manifests.iter().find(fits));
    found.cloned().ok_or_else(|| Error::NoMatchingManifest(wanted.to_string()))
}

impl Platform {
    /// The one of this process.
    #[must_use]
    pub fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", ""),
            "aarch64" => ("arm64", "v8"),
            "arm" => ("arm", "v7"),
            "x86" => ("386", ""),
            "powerpc64" => ("ppc64le", ""),
            other => (other, ""),
        };
        Self { os: "linux".into(), architecture: architecture.into(), variant: variant.into() }
    }

    /// Reads `os[/architecture[/variant]]` or an architecture alone.
    ///
    /// # Errors
    /// containerd's words for what it is not.
    pub fn parse(text: &str) -> std::result::Result<Self, String> {
        let parts: Vec<&str> = text.split('/').collect();
        let plain = |part: &&str| {
            !part.is_empty()
                && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
        };
        if parts.len() > 3 {
            return Err(format!("{text:?}: cannot parse platform specifier: invalid argument"));
        }
        if let Some(bad) = parts.iter().find(|part| !plain(part)) {
            return Err(format!(
                "{bad:?} is an invalid component of {text:?}: platform specifier component must match \"^[A-Za-z0-9_.-]+$\": invalid argument"
            ));
        }
        let lower = |part: &str| part.to_lowercase();
        let host = Self::host();
        Ok(match parts.as_slice() {
            [one] if is_os(&lower(one)) => Self { os: lower(one), ..host },
            [one] if is_architecture(&lower(one)) => {
                Self { os: host.os, architecture: lower(one), variant: String::new() }.normal()
            }
            [os, architecture] => {
                Self { os: lower(os), architecture: lower(architecture), variant: String::new() }.normal()
            }
            [os, architecture, variant] => {
                Self { os: lower(os), architecture: lower(architecture), variant: lower(variant) }.normal()
            }
            _ => return Err(format!("{text:?}: unknown operating system or architecture: invalid argument")),
        })
    }

    /// Whether an image for this platform runs on `host`.
    #[must_use]
    pub fn runs_on(&self, host: &Self) -> bool {
        let (image, host) = (self.normal(), host.normal());
        let same = image.os == host.os && image.architecture == host.architecture;
        match image.architecture.as_str() {
            // Newer variants run what is for older ones.
            "arm" => same && image.variant <= host.variant,
            _ => {
                same && (image.variant.is_empty() || host.variant.is_empty() || image.variant <= host.variant)
            }
        }
    }

    /// Whether both are the same, however they are written.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        self.normal() == other.normal()
    }

    /// With one word for each architecture and variant.
    fn normal(&self) -> Self {
        let mut normal = self.clone();
        let (architecture, variant) = match (self.architecture.as_str(), self.variant.as_str()) {
            ("x86_64" | "x86-64" | "amd64", "v1" | "") => ("amd64", ""),
            ("x86_64" | "x86-64", variant) => ("amd64", variant),
            ("aarch64" | "arm64", "8" | "v8" | "") => ("arm64", "v8"),
            ("arm", "" | "7") => ("arm", "v7"),
            ("armhf", _) => ("arm", "v7"),
            ("armel", _) => ("arm", "v6"),
            ("i386", _) => ("386", ""),
            (architecture, variant) => (architecture, variant),
        };
        (normal.architecture, normal.variant) = (architecture.to_owned(), variant.to_owned());
        normal
    }
}

fn is_os(text: &str) -> bool {
    matches!(text, "linux" | "windows" | "darwin" | "freebsd" | "macos" | "netbsd" | "openbsd" | "solaris")
}

fn is_architecture(text: &str) -> bool {
    matches!(
        text,
        "amd64"
            | "x86_64"
            | "x86-64"
            | "arm64"
            | "aarch64"
            | "arm"
            | "armhf"
            | "armel"
            | "386"
            | "i386"
            | "ppc64le"
            | "s390x"
            | "riscv64"
            | "loong64"
            | "mips64le"
            | "ppc64"
    )
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", self.variant) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        Platform::parse(text).unwrap()
    }

    fn list(platforms: &[&str]) -> Vec<u8> {
        let entries: Vec<_> = platforms
            .iter()
            .map(|text| {
                let p = platform(text);
                let shown =
                    serde_json::json!({"os": p.os, "architecture": p.architecture, "variant": p.variant});
                serde_json::json!({"digest": Digest::of(text.as_bytes()), "size": 1, "platform": shown})
            })
            .collect();
        serde_json::json!({"schemaVersion": 2, "manifests": entries}).to_string().into_bytes()
    }

    #[test]
    fn the_image_for_the_platform_is_chosen() {
        let list = list(&["windows/amd64", "linux/arm/v6", "linux/arm/v7", "linux/arm64", "linux/amd64"]);
        let check = |wanted: &str, expect: Option<&str>| {
            let chosen = match Manifest::read(&list, &platform(wanted)) {
                Ok(Selected::Listed(descriptor)) => Some(descriptor.digest),
                _ => None,
            };
            assert_eq!(chosen, expect.map(|text| Digest::of(text.as_bytes())), "{wanted}");
        };
        check("linux/amd64", Some("linux/amd64"));
        check("linux/arm64/v8", Some("linux/arm64"));
        check("linux/arm/v7", Some("linux/arm/v7"));
        check("linux/arm/v6", Some("linux/arm/v6"));
        check("linux/arm/v5", None);
        check("linux/s390x", None);
        let error = Manifest::read(&list, &platform("linux/s390x")).unwrap_err();
        assert_eq!(error.to_string(), "no matching manifest for linux/s390x in the manifest list entries");
    }

    #[test]
    fn ambiguous_and_foreign_documents_are_refused() {
        let check = |text: &str, expect: &str| {
            let error = Manifest::read(text.as_bytes(), &Platform::host()).unwrap_err().to_string();
            assert!(error.contains(expect), "{error}");
        };
        check(r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#, "both manifests and layers");
        check(r#"{"schemaVersion":1}"#, "manifest.v1+prettyjws");
        check(r#"{"schemaVersion":2}"#, "unsupported media type");
        check("x", "invalid manifest");
        let helm = format!(
            r#"{{"schemaVersion":2,"config":{{"digest":"{}","mediaType":"application/vnd.cncf.helm.config.v1+json"}}}}"#,
            Digest::of(b"")
        );
        check(&helm, "helm.config");
    }

    #[test]
    fn platforms_are_read_with_containerds_errors() {
        assert_eq!(platform("linux"), Platform::host());
        assert_eq!(platform("x86_64").to_string(), "linux/amd64");
        assert_eq!(platform("linux/aarch64").to_string(), "linux/arm64/v8");
        let check = |text: &str, expect: &str| assert_eq!(Platform::parse(text).unwrap_err(), expect);
        check("foo/bar/baz/q", "\"foo/bar/baz/q\": cannot parse platform specifier: invalid argument");
        check("foo", "\"foo\": unknown operating system or architecture: invalid argument");
    }
}
