//! Results of steps that travel with an image: BuildKit's inline cache, a field of the image's document.
//!
//! The envelope is BuildKit's: base64 of a list of records, each with a digest and the number of the layer that is the result. The
//! digests are our own keys. BuildKit does not know ours, nor we BuildKit's, and either finds nothing in what the other wrote.

use std::collections::HashSet;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use wherry_image_store::{DiffId, Document};

use super::cache::Key;
use crate::clock;

/// The name of the field.
pub(super) const FIELD: &str = "moby.buildkit.cache.v0";

/// The result of a step of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StepResult {
    /// The step.
    pub(super) key: Key,
    /// The layer's number in its image, from below.
    pub(super) layer: usize,
    /// When it was made. Nanoseconds since the epoch.
    pub(super) created_ns: i64,
}

/// What a document says of layers and of the steps that made them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Carried {
    /// The layers, the lowest first.
    pub(crate) diff_ids: Vec<DiffId>,
    /// Those that steps made.
    pub(super) results: Vec<StepResult>,
}

/// Why it cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Malformed {
    /// The document, or what is in the field.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// The field's encoding.
    #[error("{FIELD}: {0}")]
    Base64(#[from] base64::DecodeError),
    /// A layer that the image has not.
    #[error("{FIELD}: record {digest} has layer {layer} of {layers}")]
    Layer {
        /// The record.
        digest: String,
        /// The layer's number.
        layer: usize,
        /// How many there are.
        layers: usize,
    },
}

#[derive(Deserialize)]
struct Field {
    #[serde(rename = "moby.buildkit.cache.v0", default)]
    records: Option<String>,
}

/// A record; what else BuildKit's have (what a step is made of) is passed over.
#[derive(Serialize, Deserialize)]
struct Record {
    #[serde(default)]
    layers: Vec<Result>,
    #[serde(default)]
    digest: String,
}

#[derive(Serialize, Deserialize)]
struct Result {
    layer: usize,
    #[serde(rename = "createdAt", default)]
    created_at: String,
}

/// The field's text for these results.
pub(super) fn write(results: &[StepResult]) -> String {
    let mut seen = HashSet::new();
    let records = results.iter().filter(|result| seen.insert(result.key)).map(|result| Record {
        layers: vec![Result { layer: result.layer, created_at: clock::rfc3339(result.created_ns) }],
        digest: result.key.to_string(),
    });
    let records: Vec<Record> = records.collect();
    BASE64_STANDARD.encode(crate::text::go_json(&records))
}

/// Reads a document of whatever origin. One without the field has no results.
///
/// # Errors
/// [`Malformed`].
pub(crate) fn read(document: &[u8]) -> std::result::Result<Carried, Malformed> {
    let diff_ids = serde_json::from_slice::<Document>(document)?.rootfs.diff_ids;
    let field: Field = serde_json::from_slice(document)?;
    let records: Option<Vec<Record>> = match field.records {
        Some(text) => serde_json::from_slice(&BASE64_STANDARD.decode(text)?)?,
        None => None,
    };
    let mut results = Vec::new();
    for record in records.unwrap_or_default() {
        for Result { layer, created_at } in record.layers {
            if layer >= diff_ids.len() {
                return Err(Malformed::Layer { digest: record.digest, layer, layers: diff_ids.len() });
            }
            // A digest of another kind is none of ours.
            if let Ok(key) = record.digest.parse() {
                let created_ns = clock::parse_rfc3339(&created_at).filter(|at| *at > 0).unwrap_or(0);
                results.push(StepResult { key, layer, created_ns });
            }
        }
    }
    Ok(Carried { diff_ids, results })
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use wherry_image_ref::Digest;

    use super::*;

    fn document(field: serde_json::Value) -> Vec<u8> {
        let ids = [Digest::of(b"one").to_string(), Digest::of(b"two").to_string()];
        json!({ "rootfs": { "type": "layers", "diff_ids": ids }, FIELD: field }).to_string().into_bytes()
    }

    fn encoded(records: serde_json::Value) -> Vec<u8> {
        document(BASE64_STANDARD.encode(records.to_string()).into())
    }

    #[test]
    fn what_is_written_is_read() {
        let of = |text: &[u8], layer| StepResult {
            key: Key::of(text),
            layer,
            created_ns: 1_795_311_198_000_000_001,
        };
        let results = [of(b"a", 0), of(b"b", 1), of(b"c", 1)];
        let read = read(&document(write(&results).into())).unwrap();
        assert_eq!((read.diff_ids.len(), read.results.as_slice()), (2, &results[..]));
        let twice = write(&[of(b"a", 0), of(b"a", 0)]);
        assert_eq!(twice, write(&[of(b"a", 0)]));
    }

    #[test]
    fn what_buildkit_writes_is_an_envelope_of_the_same_kind() {
        // As dockerd 28.5 writes it, shortened.
        let digest = Digest::of(b"x").to_string();
        let records = json!([
            { "digest": digest, "inputs": [[{ "link": 1 }]], "layers": [{ "layer": 1, "createdAt": "2026-11-22T15:00:00.5Z" }] },
            { "digest": Digest::of(b"y").to_string(), "inputs": [[{ "selector": "/a", "link": 0 }]] },
            { "digest": "sha512:abc", "layers": [{ "layer": 0 }] },
            { "digest": digest, "chains": [{ "layers": [0, 1] }] },
        ]);
        let read = read(&encoded(records)).unwrap();
        assert_eq!(read.results.iter().map(|result| result.layer).collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn what_is_malformed_is_told_and_nothing_else_happens() {
        let none = |document: &[u8]| read(document).map(|carried| carried.results.len()).ok();
        assert_eq!(none(&document(serde_json::Value::Null)), Some(0));
        assert_eq!(none(b"{}"), Some(0));
        for bad in [
            &b"not json"[..],
            &document(7.into()),
            &document("%%%".into()),
            &document("bm90IGpzb24=".into()),
            &encoded(json!({})),
            &encoded(json!([{ "digest": 1 }])),
            &encoded(json!([{ "digest": "sha256:x", "layers": [{ "layer": -1 }] }])),
            &encoded(json!([{ "digest": "sha256:x", "layers": [{ "layer": 2 }] }])),
        ] {
            assert_eq!(none(bad), None, "{}", String::from_utf8_lossy(bad));
        }
        let times = encoded(
            json!([{ "digest": Key::of(b"x").to_string(), "layers": [{ "layer": 0, "createdAt": "never" }] }]),
        );
        assert_eq!(read(&times).unwrap().results[0].created_ns, 0);
    }
}
