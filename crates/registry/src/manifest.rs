//! Manifests and lists of them.

use std::fmt;

use serde::Deserialize;
use serde_json::Value;
use wherry_image_ref::Digest;

use crate::{Error, Result};

/// What manifests may be, in the order of preference; an `Accept` header.
pub(crate) const ACCEPT: &str = "application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.oci.image.index.v1+json";
/// Media types of configurations that containers can be made of; the last ones are mistakes of old registries.
const CONFIGS: [&str; 6] = [
    CONFIG_TYPE,
    "application/vnd.oci.image.config.v1+json",
    "application/octet-stream",
    "application/json",
    "text/html",
    "",
];
/// What the media types of an image's parts are, or begin with before a dot; artifacts have others.
const PARTS: [&str; 6] = [
    "application/vnd.oci.image",
    "application/vnd.docker",
    "application/octet-stream",
    "application/json",
    "text/html",
    "",
];

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

/// A manifest or a list of them, read but not judged.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ManifestDocument {
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

impl ManifestDocument {
    /// Reads a document. The content type that came with it is not believed where the document says something else.
    ///
    /// # Errors
    /// [`Error::Json`]; [`Error::Ambiguous`] for one that can be read in two ways; [`Error::ManifestClass`] for
    /// one in Docker's format of what is no image.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let value: Value =
            serde_json::from_slice(bytes).map_err(|error| Error::Json(go_syntax(bytes, &error)))?;
        let has = |key: &str| value.get(key).is_some_and(|value| !value.is_null());
        if has("manifests") && ["layers", "config", "fsLayers"].into_iter().any(has) {
            let is_index =
                value.get("mediaType").and_then(Value::as_str).is_none_or(|t| !t.contains("manifest.v"));
            return Err(Error::Ambiguous { is_index });
        }
        let document: Self = serde_json::from_value(value).map_err(|e| Error::Manifest(e.to_string()))?;
        match &document.config {
            Some(config)
                if document.media_type == Manifest::DOCKER_TYPE
                    && !CONFIGS.contains(&config.media_type.as_str()) =>
            {
                let is_plugin = config.media_type == "application/vnd.docker.plugin.v1+json";
                let class = if is_plugin { "plugin" } else { "unknown" };
                Err(Error::ManifestClass { media_type: config.media_type.clone(), class })
            }
            _ => Ok(document),
        }
    }

    /// What it calls itself.
    #[must_use]
    pub fn media_type(&self) -> &str {
        &self.media_type
    }

    /// Whether it is in the old format that nobody should use any more.
    #[must_use]
    pub fn is_schema_one(&self) -> bool {
        self.schema_version == 1
    }

    /// The image that it is, or the one that a list has for the platform; `None` means this host.
    ///
    /// # Errors
    /// [`Error::SchemaOne`], [`Error::NoMatchingManifest`], [`Error::MediaType`], [`Error::AiModel`].
    pub fn select(self, platform: Option<&Platform>) -> Result<Selected> {
        if self.is_schema_one() {
            return Err(Error::SchemaOne);
        }
        match self {
            Self { manifests: Some(manifests), .. } => choose(manifests, platform).map(Selected::Listed),
            Self { config: Some(config), layers, .. } => {
                let layers = layers.unwrap_or_default();
                for part in std::iter::once(&config).chain(&layers) {
                    part.check_type()?;
                }
                Ok(Selected::Image(Manifest { config, layers }))
            }
            Self { media_type, .. } => Err(Error::MediaType(media_type)),
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
    fn check_type(&self) -> Result<()> {
        let lower = self.media_type.to_lowercase();
        if lower.starts_with("application/vnd.docker.ai.") {
            return Err(Error::AiModel);
        }
        let fits = |part: &str| {
            lower == part
                || lower.strip_prefix(part).is_some_and(|rest| !part.is_empty() && rest.starts_with('.'))
        };
        if PARTS.iter().any(|part| fits(part)) {
            Ok(())
        } else {
            Err(Error::MediaType(self.media_type.clone()))
        }
    }

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

/// The best of a list. Manifests that name no platform are for any, and come last.
fn choose(manifests: Vec<Descriptor>, wanted: Option<&Platform>) -> Result<Descriptor> {
    let best = wanted.cloned().unwrap_or_else(Platform::best_of_host);
    let is = |candidate: &Platform| {
        let same = |platform: &Platform| platform.normal() == *candidate;
        manifests.iter().find(|manifest| manifest.platform.as_ref().is_some_and(same))
    };
    let found = best.candidates().iter().find_map(is);
    let found = found.or_else(|| manifests.iter().find(|manifest| manifest.platform.is_none()));
    let shown = || wanted.cloned().unwrap_or_else(Platform::host).to_string();
    found.cloned().ok_or_else(|| Error::NoMatchingManifest(shown()))
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

    /// As [`Self::host`], with the newest variant of the processor's instructions.
    #[must_use]
    pub fn best_of_host() -> Self {
        Self { variant: variant_of_processor().to_owned(), ..Self::host() }
    }

    /// The platforms whose programs run on this one, the best first, each in its normal form.
    fn candidates(&self) -> Vec<Self> {
        let normal = self.normal();
        let of = |architecture: &str, variant: &str| Self {
            os: normal.os.clone(),
            architecture: architecture.to_owned(),
            variant: variant.to_owned(),
        };
        let from = |variants: &[&str], first: &str| {
            let at = variants.iter().position(|variant| *variant == first).unwrap_or(0);
            variants.get(at..).unwrap_or_default().iter().map(|v| (*v).to_owned()).collect::<Vec<_>>()
        };
        const ARM: [&str; 4] = ["v8", "v7", "v6", "v5"];
        let arm = |first: &str| from(&ARM, first).iter().map(|v| of("arm", v)).collect::<Vec<_>>();
        match normal.architecture.as_str() {
            "amd64" => {
                let variants = from(&["v4", "v3", "v2", ""], &normal.variant);
                variants.iter().map(|v| of("amd64", v)).chain([of("386", "")]).collect()
            }
            "arm64" => {
                let mut all = vec![normal.clone()];
                all.extend(Some(of("arm64", "v8")).filter(|v8| *v8 != normal));
                all.extend(arm("v8"));
                all
            }
            "arm" => arm(&normal.variant),
            _ => vec![normal],
        }
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
        host.candidates().contains(&self.normal())
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

#[cfg(target_arch = "x86_64")]
fn variant_of_processor() -> &'static str {
    macro_rules! all {
        ($($feature:tt),*) => { true $(&& std::is_x86_feature_detected!($feature))* };
    }
    let v2 = all!("cmpxchg16b", "popcnt", "sse3", "sse4.1", "sse4.2", "ssse3");
    let v3 = v2 && all!("avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "lzcnt", "movbe");
    let v4 = v3 && all!("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl");
    match (v2, v3, v4) {
        (_, _, true) => "v4",
        (_, true, _) => "v3",
        (true, ..) => "v2",
        _ => "",
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn variant_of_processor() -> &'static str {
    // The field is filled by `host` where an architecture has variants.
    match std::env::consts::ARCH {
        "aarch64" => "v8",
        "arm" => "v7",
        _ => "",
    }
}

/// Why a text is no JSON, in the words of Go for the two usual cases.
pub(crate) fn go_syntax(bytes: &[u8], error: &serde_json::Error) -> String {
    let text = String::from_utf8_lossy(bytes);
    match text.trim_start().chars().next() {
        None => "unexpected end of JSON input".to_owned(),
        Some(first)
            if !matches!(first, '{' | '[' | '"' | '-' | 't' | 'f' | 'n') && !first.is_ascii_digit() =>
        {
            format!("invalid character '{first}' looking for beginning of value")
        }
        Some(_) => error.to_string(),
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

    fn read(bytes: &[u8], platform: Option<&Platform>) -> Result<Selected> {
        ManifestDocument::parse(bytes)?.select(platform)
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
            let chosen = match read(&list, Some(&platform(wanted))) {
                Ok(Selected::Listed(descriptor)) => Some(descriptor.digest),
                _ => None,
            };
            assert_eq!(chosen, expect.map(|text| Digest::of(text.as_bytes())), "{wanted}");
        };
        check("linux/amd64", Some("linux/amd64"));
        check("linux/arm64/v8", Some("linux/arm64"));
        check("linux/arm/v7", Some("linux/arm/v7"));
        check("linux/arm/v6", Some("linux/arm/v6"));
        check("linux/arm/v8", Some("linux/arm/v7"));
        check("linux/amd64/v3", Some("linux/amd64"));
        check("linux/arm/v5", None);
        check("linux/s390x", None);
        let error = read(&list, Some(&platform("linux/s390x"))).unwrap_err();
        assert_eq!(error.to_string(), "no matching manifest for linux/s390x in the manifest list entries");
    }

    #[test]
    fn ambiguous_and_foreign_documents_are_refused() {
        let check = |text: &str, expect: &str| {
            let error = read(text.as_bytes(), None).unwrap_err().to_string();
            assert!(error.contains(expect), "{error}");
        };
        check(
            r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#,
            "index: expected index but found manifest",
        );
        check(r#"{"schemaVersion":2,"manifests":[],"config":{}}"#, "expected index but found manifest");
        check(r#"{"schemaVersion":1}"#, "schema 1 support has been removed");
        check(r#"{"schemaVersion":2}"#, "unsupported media type");
        check("x", "invalid character 'x' looking for beginning of value");
        let helm = format!(
            r#"{{"schemaVersion":2,"config":{{"digest":"{}","mediaType":"application/vnd.cncf.helm.config.v1+json"}}}}"#,
            Digest::of(b"")
        );
        check(&helm, "unsupported media type application/vnd.cncf.helm.config");
        let docker = helm.replacen('{', &format!(r#"{{"mediaType":"{}","#, Manifest::DOCKER_TYPE), 1);
        check(
            &docker,
            r#"Encountered remote "application/vnd.cncf.helm.config.v1+json"(unknown) when fetching"#,
        );
        check(&helm.replace("vnd.cncf.helm", "vnd.docker.ai"), "AI models are not yet supported");
        check(&helm.replace("vnd.cncf.helm", "vnd.oci.images"), "unsupported media type");
    }

    #[test]
    fn dockers_manifest_is_dockerds_to_the_byte() {
        let hex = |text: &str| Digest::from_hex(text).unwrap();
        let config = hex("00d9f2c608792ef739abad7ec94c9637a35320e08d8507f5330bf56d1181aa1c");
        let layer = hex("8c29b4358f3e57c13b3014ec61c2e7739a81065d921d01e0e990991fff48bf10");
        let layers = [PushedLayer { digest: layer, size: 1_083_780 }];
        // As dockerd 28.5.2 pushed it.
        let digest = "fd8c51ea834e6ed93a0dfb3df4ac3188802c9d410985bb5f949100d5655412e8";
        assert_eq!(Digest::of(&Manifest::docker(&config, 509, &layers)), hex(digest));
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
