//! The platform that a client wants, in the form of the API's JSON.

use std::sync::Arc;

use serde::Deserialize;
use wherry_image_store::{Document, Image};
use wherry_registry::Platform;

use crate::engine::Engine;
use crate::error::Error;
use crate::server::{ApiVersion, Request, json};

/// As the client writes it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Written {
    architecture: String,
    os: String,
    variant: String,
    #[serde(rename = "os.version")]
    os_version: String,
    #[serde(rename = "os.features")]
    os_features: Vec<String>,
}

/// The parameter `platform` of save, load and history; clients before 1.48 could not ask for one.
///
/// # Errors
/// 400 with dockerd's texts.
pub(super) fn asked(request: &Request) -> Result<Option<Platform>, Error> {
    if request.version < ApiVersion(1, 48) {
        return Ok(None);
    }
    let mut given = request.query.all("platform");
    let first = given.next();
    if given.next().is_some() {
        return Err(Error::InvalidParameter("multiple platform parameters not supported".into()));
    }
    first.filter(|text| !text.is_empty()).map(decode).transpose()
}

/// Reads `{"os":…,"architecture":…}`.
///
/// # Errors
/// 400 with dockerd's texts.
pub(super) fn decode(text: &str) -> Result<Platform, Error> {
    let written: Written = serde_json::from_str(text).map_err(|error| {
        let reason = json::syntax_error(text.as_bytes(), &error);
        Error::InvalidParameter(format!("failed to parse platform: {reason}"))
    })?;
    let has_more =
        !(written.variant.is_empty() && written.os_version.is_empty() && written.os_features.is_empty());
    let message = match (written.os.as_str(), written.architecture.as_str()) {
        ("", "") if has_more => "optional platform fields provided, but OS and Architecture are missing",
        ("", _) | (_, "") => "both OS and Architecture must be provided",
        _ => {
            return Ok(Platform {
                os: written.os,
                architecture: written.architecture,
                variant: written.variant,
            });
        }
    };
    Err(Error::InvalidParameter(message.into()))
}

/// An image by name or id; with a platform it must be one that such a host runs.
///
/// # Errors
/// Those of the look-up; 404 for an image of another platform.
pub(super) fn find(engine: &Engine, name: &str, platform: Option<&Platform>) -> Result<Arc<Image>, Error> {
    let image = engine.store.image(&engine.store.resolve(name)?)?;
    let has = of(&image.document);
    match platform {
        Some(wanted) if !has.runs_on(wanted) => Err(Error::NotFound(format!(
            "image with reference {name} was found but its platform ({has}) does not match the specified platform ({wanted})"
        ))),
        _ => Ok(image),
    }
}

fn of(document: &Document) -> Platform {
    Platform {
        os: document.os.clone(),
        architecture: document.architecture.clone(),
        variant: document.variant.clone(),
    }
}

/// Whether an image for `os`, `architecture` and `variant` is for `platform`, and for no other.
pub(super) fn is(platform: &Platform, os: &str, architecture: &str, variant: &str) -> bool {
    let image =
        Platform { os: os.to_owned(), architecture: architecture.to_owned(), variant: variant.to_owned() };
    platform.is(&image)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_read_and_compared() {
        let arm = decode(r#"{"os":"linux","architecture":"arm64"}"#).unwrap();
        assert!(is(&arm, "linux", "arm64", "v8") && is(&arm, "linux", "arm64", ""));
        assert!(!is(&arm, "linux", "amd64", "") && !is(&arm, "linux", "arm64", "v9"));
        let fails = |text: &str, expect: &str| assert_eq!(decode(text).unwrap_err().to_string(), expect);
        fails("{}", "both OS and Architecture must be provided");
        fails(r#"{"os":"linux"}"#, "both OS and Architecture must be provided");
        fails(
            r#"{"variant":"v8"}"#,
            "optional platform fields provided, but OS and Architecture are missing",
        );
        fails("x", "failed to parse platform: invalid character 'x' looking for beginning of value");
    }
}
