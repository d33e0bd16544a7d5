//! The documents that say what images an archive has.

use serde::Deserialize;
use wherry_image_ref::{Digest, Reference};

use super::Wanted;

/// An entry of `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct DockerManifest {
    pub(super) config: String,
    #[serde(default)]
    pub(super) repo_tags: Option<Vec<String>>,
    #[serde(default)]
    pub(super) layers: Option<Vec<String>>,
    #[serde(default)]
    pub(super) parent: Option<String>,
}

/// An OCI index or manifest, told apart by which lists it has.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct OciDocument {
    #[serde(default)]
    pub(super) manifests: Option<Vec<Descriptor>>,
    #[serde(default)]
    pub(super) config: Option<Descriptor>,
    #[serde(default)]
    pub(super) layers: Option<Vec<Descriptor>>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    pub(super) digest: Digest,
    #[serde(default)]
    pub(super) platform: Option<Platform>,
    #[serde(default)]
    pub(super) annotations: std::collections::BTreeMap<String, String>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Platform {
    pub(super) architecture: String,
    pub(super) os: String,
    #[serde(default)]
    pub(super) variant: String,
}

impl Descriptor {
    /// Where the blob is in an OCI layout.
    pub(super) fn path(&self) -> String {
        format!("blobs/sha256/{}", self.digest.hex())
    }

    /// The image's name, if it has a whole one: containerd's annotation, or OCI's when it is more
    /// than a tag.
    pub(super) fn name(&self) -> Option<Reference> {
        let whole = self.annotations.get("io.containerd.image.name");
        let short = self
            .annotations
            .get("org.opencontainers.image.ref.name")
            .filter(|name| name.contains([':', '/']));
        whole.or(short).and_then(|name| name.parse::<Reference>().ok()).map(Reference::or_latest)
    }

    /// Whether it is an image that is wanted, or that this host can run; without a platform it is tried.
    pub(super) fn fits(&self, wanted: Option<Wanted<'_>>) -> bool {
        self.platform.as_ref().is_none_or(|p| match wanted {
            Some(wanted) => wanted(&p.os, &p.architecture, &p.variant),
            None => p.os == "linux" && p.architecture == host_architecture(),
        })
    }
}

/// This machine's architecture, in Go's words.
pub(super) fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}
