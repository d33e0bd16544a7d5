//! Images as files: what `docker load` reads and `docker save` writes.

mod load;
mod manifest;
mod save;

pub use load::{LoadEvent, Observer, Wanted};
pub use save::Saved;

use wherry_image_ref::Digest;

use crate::{DiffId, ImageId};

/// Why an archive cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The archive itself is malformed, or its source failed.
    #[error(transparent)]
    Tar(#[from] crate::TarError),
    /// It has neither `manifest.json` nor `index.json`.
    #[error("the archive has neither manifest.json (docker-archive) nor index.json (OCI layout)")]
    NoManifest,
    /// `manifest.json` is a null.
    #[error("invalid manifest, manifest cannot be null (but can be [])")]
    NullManifest,
    /// A name without a tag, or with a digest.
    #[error("invalid tag {0:?}")]
    Tag(String),
    /// An image says that it was built on another, and its history says that it was not.
    #[error("image {parent} is not a valid parent for {image}")]
    Parent {
        /// The image.
        image: ImageId,
        /// What it calls its parent.
        parent: ImageId,
    },
    /// A document in it is no JSON of the right shape.
    #[error("{document} in the archive: {source}")]
    Document {
        /// Its path in the archive.
        document: String,
        /// What the parser says.
        source: serde_json::Error,
    },
    /// A document names a file that is not there, or is of another kind.
    #[error("{0} is named by the archive's manifest, but not in the archive")]
    Missing(String),
    /// A blob's content has another digest than its name says.
    #[error("{document} in the archive has digest {actual}")]
    Digest {
        /// Its path in the archive.
        document: String,
        /// What was found.
        actual: Digest,
    },
    /// The number of layers differs between manifest and configuration.
    #[error("invalid manifest, layers length mismatch: expected {expected}, got {actual}")]
    LayerCount {
        /// In the manifest.
        expected: usize,
        /// In the configuration.
        actual: usize,
    },
    /// A layer is not the one that the configuration names.
    #[error("invalid diffID for layer {layer}: expected {expected:?}, got {actual:?}")]
    DiffId {
        /// Its number, from 0.
        layer: usize,
        /// In the configuration.
        expected: DiffId,
        /// In the archive.
        actual: DiffId,
    },
    /// A layer in it cannot be unpacked.
    #[error("{path} in the archive: {reason}")]
    Layer {
        /// Its path in the archive.
        path: String,
        /// The failure, in words: it was kept until the manifest said that the layer matters.
        reason: String,
    },
    /// The image is for another operating system.
    #[error("cannot load {0} image on linux")]
    OperatingSystem(String),
    /// The archive's documents are larger than any honest ones.
    #[error("the archive's documents are too large")]
    TooLarge,
    /// A document can be read both as an index and as a manifest.
    #[error("{0} in the archive is ambiguous: it has both manifests and layers")]
    Ambiguous(String),
}
