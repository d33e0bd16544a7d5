//! What can go wrong, by step.

use std::io;
use std::path::PathBuf;

use wherry_image_ref::{Digest, Reference, ReferenceError};

use crate::{Conflict, DiffId, ImageId, LoadError, UnpackError};

/// Result of the store's calls.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong in the store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A reference does not follow the grammar.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// Nothing has this name or id. The subject is as dockerd prints it.
    #[error("No such image: {0}")]
    NoSuchImage(String),
    /// Several images have ids with this prefix. To dockerd that is no image either.
    #[error("No such image: {0}")]
    Ambiguous(String),
    /// No writable layer of that name.
    #[error("no writable layer {0}")]
    NoSuchWritable(String),
    /// A writable layer of that name is there already.
    #[error("writable layer {0} exists already")]
    WritableExists(String),
    /// A name that is no container id: it would leave the folder of the layers.
    #[error("{0:?} cannot name a writable layer")]
    BadWritableName(String),
    /// An image names a layer that is not there.
    #[error("layer {0} is missing")]
    NoSuchLayer(DiffId),
    /// A configuration document cannot be read.
    #[error("configuration of image {id} is damaged")]
    Config {
        /// The image.
        id: ImageId,
        /// What the parser says.
        source: serde_json::Error,
    },
    /// A configuration document does not have the digest it is stored under.
    #[error("configuration of image {id} is damaged: its digest is {actual}")]
    ConfigDigest {
        /// The image.
        id: ImageId,
        /// What was found.
        actual: Digest,
    },
    /// The configuration names other layers than those that were given.
    #[error("image {0} does not consist of the layers that came with it")]
    LayerMismatch(ImageId),
    /// A reference that cannot be given to an image by `tag` (it has a digest).
    #[error("refusing to create a tag with a digest reference")]
    TagWithDigest(Reference),
    /// The index has a version that this program does not know.
    #[error("{path} has format version {version}, this program knows version 1")]
    IndexVersion {
        /// The index.
        path: PathBuf,
        /// What it says.
        version: u32,
    },
    /// A layer cannot be unpacked.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    /// A layer's uncompressed tar has another digest than the image's configuration says.
    #[error("layer verification failed: diff id {actual} instead of {expected}")]
    DiffId {
        /// What it should be.
        expected: DiffId,
        /// What it is.
        actual: DiffId,
    },
    /// A blob has another digest than the one that it was asked for by.
    #[error("filesystem layer verification failed for digest {expected}")]
    BlobDigest {
        /// What it should be.
        expected: Digest,
        /// What it is.
        actual: Digest,
    },
    /// A blob is longer or shorter than announced.
    #[error("blob {digest} has {actual} bytes instead of {expected}")]
    BlobSize {
        /// The blob.
        digest: Digest,
        /// What it should be.
        expected: u64,
        /// What it is.
        actual: u64,
    },
    /// An image cannot be removed.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// An archive cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A file operation failed.
    #[error("{action} {path}: {source}")]
    Io {
        /// What was tried, as in `create`.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A step of mounting an overlay failed.
    #[error("mount overlay: {step}: {source}")]
    Mount {
        /// The step, named by its system call.
        step: &'static str,
        /// Why not.
        source: io::Error,
    },
}

/// Adds step and subject to an I/O error.
pub(crate) trait Context<T> {
    fn context(self, action: &'static str, path: impl Into<PathBuf>) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, action: &'static str, path: impl Into<PathBuf>) -> Result<T> {
        self.map_err(|source| Error::Io { action, path: path.into(), source: source.into() })
    }
}
