//! What a step leaves: layers, each of which is here, or offered by a cache elsewhere and not fetched yet.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use wherry_image_ref::Digest;
use wherry_image_store::{DiffId, Layer};

use super::cache::Key;
use super::inline::StepResult;
use super::key;
use super::offers::Offer;

/// A file system, and when the last of it was made.
#[derive(Debug, Clone)]
pub(super) struct FileSystem {
    /// The lowest first.
    pub(super) parts: Vec<Part>,
    /// Nanoseconds since the epoch; 0 where nothing was made.
    pub(super) created_ns: i64,
}

/// A layer of a file system.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) at: At,
    /// As the result of a step; layers of base images are none.
    pub(super) made: Option<Made>,
}

/// A step that left a layer.
#[derive(Debug, Clone)]
pub(super) struct Made {
    /// By all that it works on.
    pub(super) key: Key,
    /// By what makes all that it works on, if it takes files of stages and somebody wants to know.
    pub(super) definition: Option<Definition>,
    /// When. Nanoseconds since the epoch.
    pub(super) created_ns: i64,
    /// The instruction.
    pub(super) description: String,
}

/// A step by what makes all that it works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Definition {
    pub(super) key: Key,
    /// The layers below it: on others, its own would be out of place.
    pub(super) below: Digest,
}

/// Where a layer is.
#[derive(Debug, Clone)]
pub(super) enum At {
    /// In the store.
    Here(Arc<Layer>),
    /// In a cache from which it can be had.
    Offered(Offer),
}

impl FileSystem {
    /// Without files.
    pub(super) fn empty() -> Self {
        Self { parts: Vec::new(), created_ns: 0 }
    }

    /// Of layers that no step of ours made.
    pub(super) fn of_layers(layers: impl IntoIterator<Item = Layer>) -> Self {
        let parts = layers.into_iter().map(|layer| Part { at: At::Here(Arc::new(layer)), made: None });
        Self { parts: parts.collect(), created_ns: 0 }
    }

    /// With what a step left on top of it.
    pub(super) fn with(&self, at: At, made: Made) -> Self {
        let (mut parts, created_ns) = (self.parts.clone(), made.created_ns);
        parts.push(Part { at, made: Some(made) });
        Self { parts, created_ns }
    }

    /// The layers' ids, the lowest first.
    pub(super) fn diff_ids(&self) -> Vec<DiffId> {
        let ids = self.parts.iter().map(|part| match &part.at {
            At::Here(layer) => layer.diff_id(),
            At::Offered(offer) => offer.diff_id(),
        });
        ids.collect()
    }

    /// Notes by which definition the topmost layer was made.
    pub(super) fn define(&mut self, key: Key) {
        let ids = self.diff_ids();
        let below = ids.split_last().map(|(_, below)| key::of_layers(below));
        if let (Some(made), Some(below)) = (self.parts.last_mut().and_then(|part| part.made.as_mut()), below)
        {
            made.definition = Some(Definition { key, below });
        }
    }

    /// Which steps left which of its layers.
    pub(super) fn results(&self) -> Vec<StepResult> {
        let mut results = Vec::new();
        for (layer, part) in self.parts.iter().enumerate() {
            let Some(made) = &part.made else { continue };
            let keys = [made.key].into_iter().chain(made.definition.map(|definition| definition.key));
            results.extend(keys.map(|key| StepResult { key, layer, created_ns: made.created_ns }));
        }
        results
    }
}
