//! What a registry's failure means to the user, in dockerd's words.

use hyper::StatusCode;
use wherry_image_ref::Reference;
use wherry_registry::Error as Failure;

use crate::error::Error;

/// Whether the next endpoint should be tried: a mirror's refusals say nothing about the registry
/// that it mirrors, and what is no answer of a registry at all says nothing either.
pub(super) fn allows_fallback(failure: &Failure, mirror: bool) -> bool {
    match failure {
        // A bare code is too little to stop at.
        Failure::Api(errors) => mirror || errors.first().is_none_or(|error| error.message.is_none()),
        Failure::Config(_) => mirror,
        Failure::MediaType(_) => false,
        Failure::Transport { .. }
        | Failure::Status(_)
        | Failure::ErrorBody { .. }
        | Failure::ManifestDigest(_)
        | Failure::Json(_)
        | Failure::Manifest(_)
        | Failure::Ambiguous { .. }
        | Failure::ManifestClass { .. }
        | Failure::SchemaOne
        | Failure::AiModel
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
    match failure {
        Failure::SchemaOne => Error::InvalidParameter(failure.to_string().replace(
            " More information",
            &format!(
                " Suggest the author of {reference} to upgrade the image to the OCI Format or Docker Image manifest v2, \
                 schema 2. More information"
            ),
        )),
        Failure::ManifestClass { .. } => Error::InvalidParameter(failure.to_string()),
        _ => match failure.api() {
            Some(error) => match (error.code, &error.message) {
                ("DENIED", Some(_)) => Error::NotFound(format!(
                    "pull access denied for {name}, repository does not exist or may require 'docker login': {error}"
                )),
                ("MANIFEST_UNKNOWN", Some(_)) => {
                    Error::NotFound(format!("manifest for {whole} not found: {error}"))
                }
                ("NAME_UNKNOWN", Some(_)) => Error::NotFound(format!("repository {name} not found: {error}")),
                _ => plain(failure, error.to_string()),
            },
            None => plain(failure, failure.to_string()),
        },
    }
}

/// An answer with these words, and the status that the registry's error stands for.
pub(super) fn plain(failure: &Failure, message: String) -> Error {
    let status = failure.api().and_then(|error| StatusCode::from_u16(error.status()).ok());
    Error::Docker { status: status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), message }
}
