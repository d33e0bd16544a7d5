//! What a registry's failure means to the user, in dockerd's words.

use wherry_image_ref::Reference;
use wherry_registry::Error as Failure;

use crate::error::Error;

/// Whether the next endpoint should be tried: a mirror's refusals say nothing about the registry
/// that it mirrors, and what is no answer of a registry at all says nothing either.
pub(super) fn allows_fallback(failure: &Failure, mirror: bool) -> bool {
    match failure {
        Failure::Api(_) | Failure::Config(_) => mirror,
        Failure::MediaType(_) => false,
        Failure::Transport { .. }
        | Failure::Status(_)
        | Failure::ErrorBody { .. }
        | Failure::ManifestDigest(_)
        | Failure::Manifest(_)
        | Failure::NoMatchingManifest(_)
        | Failure::ConfigDigest(_)
        | Failure::Attempts { .. }
        | Failure::BlobUnknown
        | Failure::UploadUnknown
        | Failure::TokenAnswer(_)
        | Failure::NoToken
        | Failure::Login { .. }
        | Failure::TooLarge(_) => true,
    }
}

/// The answer for a pull of `reference` that failed so.
pub(super) fn translate(failure: &Failure, reference: &Reference) -> Error {
    let (name, whole) = (reference.familiar_name(), reference.familiar());
    match failure.api().map(|error| error.code.as_str()) {
        Some("DENIED") => Error::NotFound(format!(
            "pull access denied for {name}, repository does not exist or may require 'docker login': {failure}"
        )),
        Some("MANIFEST_UNKNOWN") => Error::NotFound(format!("manifest for {whole} not found: {failure}")),
        Some("NAME_UNKNOWN") => Error::NotFound(format!("repository {name} not found: {failure}")),
        _ => Error::server(failure.to_string()),
    }
}
