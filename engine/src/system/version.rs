//! `GET /version`.

use serde_json::{Value, json};

use super::host;
use crate::config::BUILD;
use crate::server::ApiVersion;
use crate::{API_VERSION, ENGINE_VERSION};

/// The document. Versions are those of the dockerd whose behaviour we have; commit and build say who we are.
pub(super) fn document(experimental: bool) -> Value {
    let mut document = plain_document(experimental);
    if experimental {
        document["Experimental"] = Value::Bool(true); // only then is it there
    }
    document
}

fn plain_document(experimental: bool) -> Value {
    let ApiVersion(major, minor) = ApiVersion::MIN;
    let minimum = format!("{major}.{minor}");
    let (arch, kernel) = (host::go_arch(), host::kernel());
    json!({
        "Platform": { "Name": "" },
        "Components": [
            {
                "Name": "Engine",
                "Version": ENGINE_VERSION,
                "Details": {
                    "ApiVersion": API_VERSION,
                    "Arch": arch,
                    "BuildTime": "",
                    "Experimental": experimental.to_string(),
                    "GitCommit": BUILD,
                    "GoVersion": "",
                    "KernelVersion": kernel,
                    "MinAPIVersion": minimum,
                    "Os": "linux",
                },
            },
            {
                "Name": "wherry-runtime",
                "Version": env!("CARGO_PKG_VERSION"),
                "Details": { "GitCommit": "" },
            },
        ],
        "Version": ENGINE_VERSION,
        "ApiVersion": API_VERSION,
        "MinAPIVersion": minimum,
        "GitCommit": BUILD,
        "GoVersion": "",
        "Os": "linux",
        "Arch": arch,
        "KernelVersion": kernel,
        "BuildTime": "",
    })
}
