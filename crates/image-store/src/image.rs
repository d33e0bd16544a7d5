//! An image, as readers see it.

use std::sync::Arc;
use std::time::SystemTime;

use crate::{DiffId, Document, ImageConfig, ImageId};

/// An image and its names at one moment; a later change makes a new value.
#[derive(Debug, Clone)]
pub struct Image {
    /// The digest of its configuration document.
    pub id: ImageId,
    /// The image that it was built on, if that was done on this host.
    pub parent: Option<ImageId>,
    /// Whether a build on this host has made it: only then what its document says of its making is true.
    pub built: bool,
    /// The configuration document, parsed. [`crate::Store::raw_config`] has the bytes.
    pub document: Arc<Document>,
    /// Sum of the sizes of all files in all layers.
    pub size_bytes: u64,
    /// `name:tag`, in the form that users see, sorted by full name.
    pub repo_tags: Vec<String>,
    /// `name@digest`, likewise.
    pub repo_digests: Vec<String>,
    /// When it last got a tag.
    pub last_tagged: Option<SystemTime>,
}

impl Image {
    /// The part of the configuration that containers inherit.
    #[must_use]
    pub fn config(&self) -> &ImageConfig {
        &self.document.config
    }

    /// Its layers, the lowest first.
    #[must_use]
    pub fn diff_ids(&self) -> &[DiffId] {
        &self.document.rootfs.diff_ids
    }
}
