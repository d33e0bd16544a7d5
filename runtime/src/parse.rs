//! `config.json` and its parts, read from text. A fault is named by its field.

use oci_spec::runtime::{LinuxResources, Process, Spec};
use serde::de::DeserializeOwned;

use crate::Error;

/// Reads a `config.json` (runtime specification, "Configuration").
///
/// # Errors
/// [`Error::Malformed`] with the field, like `process.args[0]`, and what is wrong with it.
pub fn parse_spec(json: &[u8]) -> Result<Spec, Error> {
    parse(json)
}

/// Reads a process (runtime specification, "Process") for [`crate::Container::exec`].
///
/// # Errors
/// As [`parse_spec`].
pub fn parse_process(json: &[u8]) -> Result<Process, Error> {
    parse(json)
}

/// Reads resources (runtime specification, "Control groups") for [`crate::Container::update`].
///
/// # Errors
/// As [`parse_spec`].
pub fn parse_resources(json: &[u8]) -> Result<LinuxResources, Error> {
    parse(json)
}

fn parse<T: DeserializeOwned>(json: &[u8]) -> Result<T, Error> {
    let malformed = |field: &str, reason: String| Err(Error::Malformed { field: field.to_owned(), reason });
    // a list would be taken for the fields in their order
    if json.iter().find(|byte| !byte.is_ascii_whitespace()).is_some_and(|byte| *byte != b'{') {
        return malformed("", "it is not a JSON object".to_owned());
    }
    match serde_json::from_slice(json) {
        Ok(value) => return Ok(value),
        Err(error) if !error.is_data() => return malformed("", error.to_string()),
        Err(_) => {}
    }
    // what is wrong is known; where, a second and slower look tells
    match serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_slice(json)) {
        Ok(value) => Ok(value),
        Err(error) => {
            let path = error.path().to_string();
            let field = if path == "." { "" } else { path.trim_end_matches(".?") };
            malformed(field, error.inner().to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_have_a_field() {
        let check = |json: &str, expect: &str| {
            let error = parse_spec(json.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with(expect), "{json}: {error}");
        };
        check("", "EOF while parsing a value at line 1 column 0");
        check("{", "EOF while parsing an object");
        check(" []", "it is not a JSON object");
        check("null", "it is not a JSON object");
        check("{}x", "trailing characters");
        check(r#"{"ociVersion":1}"#, "ociVersion: invalid type: integer `1`, expected a string");
        check(
            r#"{"process":{"cwd":"/","user":{"uid":-1}}}"#,
            "process.user.uid: invalid value: integer `-1`",
        );
        check(
            r#"{"linux":{"namespaces":[{"type":"pid"},{"type":"foo"}]}}"#,
            "linux.namespaces[1].type: unknown variant `foo`",
        );
        check(r#"{"mounts":[{"type":"tmpfs"}]}"#, "mounts[0]: missing field `destination`");
        let deep = r#"{"annotations":"#.repeat(100_000);
        check(&deep, "annotations");
    }
}
