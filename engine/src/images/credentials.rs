//! The `X-Registry-Auth` header.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use wherry_registry::Credentials;

use crate::server::Request;

const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The credentials that came with a request. The header may be missing, empty, `null`, or base64 with
/// or without padding; like dockerd we take what cannot be read for nothing.
pub(super) fn of(request: &Request) -> Credentials {
    request.header("x-registry-auth").and_then(decode).unwrap_or_default()
}

/// The credentials for each registry that came with a build, by the name that the client has for it.
pub(crate) fn of_registries(request: &Request) -> BTreeMap<String, Credentials> {
    let read = |header: &str| {
        let bytes = LENIENT.decode(header.trim()).ok()?;
        serde_json::from_slice::<Option<BTreeMap<String, Credentials>>>(&bytes).ok()?
    };
    request.header("x-registry-config").and_then(read).unwrap_or_default()
}

fn decode(header: &str) -> Option<Credentials> {
    let bytes = LENIENT.decode(header.trim()).ok()?;
    serde_json::from_slice::<Option<Credentials>>(&bytes).ok()?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forms_are_read() {
        let text = r#"{"username":"vinod1","password":"p?>","serveraddress":"x"}"#;
        let padded = base64::engine::general_purpose::URL_SAFE.encode(text);
        for header in [padded.clone(), padded.trim_end_matches('=').to_owned()] {
            let read = decode(&header).unwrap();
            assert_eq!((read.username.as_str(), read.password.as_str()), ("vinod1", "p?>"));
        }
        for header in ["", "null", "bnVsbA==", "bnVsbA", "e30="] {
            assert_eq!(decode(header).unwrap_or_default(), Credentials::default(), "{header}");
        }
    }
}
