//! Documents that belong to a build of the history: the image's configuration, what it was made of, an error with its details.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use bytes::Bytes;
use prost::Message;
use sha2::{Digest, Sha256};

use super::backend::Outcome;
use crate::pb::RpcStatus;
use crate::pb::control::{BuildHistoryRecord, BuildResultInfo, Descriptor};

const CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const IN_TOTO: &str = "application/vnd.in-toto+json";
const ERROR: &str = "application/vnd.googeapis.google.rpc.status+proto";
const PREDICATE: (&str, &str) = ("in-toto.io/predicate-type", "https://slsa.dev/provenance/v0.2");

/// They are kept in the file of the build's record, whose own fields have smaller numbers.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Documents {
    #[prost(bytes = "bytes", repeated, tag = "1000")]
    all: Vec<Bytes>,
}

impl Documents {
    fn add(&mut self, media_type: &str, bytes: Vec<u8>) -> Descriptor {
        let bytes = Bytes::from(bytes);
        let size = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
        let digest = digest(&bytes);
        self.all.push(bytes);
        Descriptor { media_type: media_type.to_owned(), digest, size, annotations: BTreeMap::new() }
    }

    /// Those of a build that has done its work.
    pub(super) fn of_result(&mut self, record: &mut BuildHistoryRecord, outcome: &Outcome) {
        let mut result = BuildResultInfo::default();
        if let Some(config) = &outcome.config {
            let config = self.add(CONFIG, config.clone());
            // Older clients know the one field, newer ones the other.
            result.results.insert(0, config.clone());
            result.result = Some(config);
        }
        if !outcome.provenance.is_empty() {
            let mut provenance = self.add(IN_TOTO, outcome.provenance.clone());
            provenance.annotations.insert(PREDICATE.0.to_owned(), PREDICATE.1.to_owned());
            result.attestations.push(provenance);
        }
        record.result = (result != BuildResultInfo::default()).then_some(result);
    }

    /// That of one that has not.
    pub(super) fn of_error(&mut self, record: &mut BuildHistoryRecord, error: &RpcStatus) {
        record.external_error = Some(self.add(ERROR, error.encode_to_vec()));
    }

    /// The one of a digest.
    pub(super) fn find(self, wanted: &str) -> Option<Bytes> {
        self.all.into_iter().find(|document| digest(document) == wanted)
    }
}

/// Whether a build has such a document.
pub(super) fn has(record: &BuildHistoryRecord, digest: &str) -> bool {
    let of_result = record.result.iter().flat_map(|result| result.result.iter().chain(&result.attestations));
    of_result.chain(&record.external_error).any(|descriptor| descriptor.digest == digest)
}

fn digest(bytes: &[u8]) -> String {
    let mut text = String::from("sha256:");
    for byte in Sha256::digest(bytes) {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_found_by_their_digests_beside_the_record() {
        let mut record = BuildHistoryRecord { r#ref: "r".into(), ..BuildHistoryRecord::default() };
        let mut documents = Documents::default();
        let outcome =
            Outcome { provenance: b"{}".to_vec(), config: Some(b"config".to_vec()), ..Outcome::default() };
        documents.of_result(&mut record, &outcome);
        let bytes = [record.encode_to_vec(), documents.encode_to_vec()].concat();
        let read = BuildHistoryRecord::decode(bytes.as_slice()).unwrap();
        assert_eq!(read, record);
        let result = record.result.clone().unwrap();
        for (descriptor, content) in result.result.iter().chain(&result.attestations).zip(["config", "{}"]) {
            assert!(has(&record, &descriptor.digest));
            let read = Documents::decode(bytes.as_slice()).unwrap();
            assert_eq!(read.find(&descriptor.digest).as_deref(), Some(content.as_bytes()));
        }
        assert!(!has(&record, "sha256:00"));
    }
}
