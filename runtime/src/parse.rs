//! `config.json` and its parts, read from text. A fault is named by its field.

use std::str::FromStr;

use oci_spec::runtime::{LinuxResources, Process, Spec};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{Error, Warning};

/// Reads a `config.json` (runtime specification, "Configuration"). What is left out is added to the warnings.
///
/// # Errors
/// [`Error::Malformed`] with the field, like `process.args[0]`, and what is wrong with it.
pub fn parse_spec(json: &[u8], warnings: &mut Vec<Warning>) -> Result<Spec, Error> {
    let spec: Spec = parse_with_process(json, "/process", warnings)?;
    // the types take a list for the fields in their order; this one would mean to be in all of the host's namespaces
    let listed = |value: Value| value.get("linux").is_some_and(Value::is_array);
    if spec.linux().as_ref().is_some_and(|linux| linux.namespaces().is_none())
        && serde_json::from_slice(json).is_ok_and(listed)
    {
        let reason = "invalid type: sequence, expected a map".to_owned();
        return Err(Error::Malformed { field: "linux".to_owned(), reason });
    }
    Ok(spec)
}

/// Reads a process (runtime specification, "Process") for [`crate::Container::exec`].
///
/// # Errors
/// As [`parse_spec`].
pub fn parse_process(json: &[u8], warnings: &mut Vec<Warning>) -> Result<Process, Error> {
    parse_with_process(json, "", warnings)
}

/// Reads resources (runtime specification, "Control groups") for [`crate::Container::update`].
///
/// # Errors
/// As [`parse_spec`].
pub fn parse_resources(json: &[u8]) -> Result<LinuxResources, Error> {
    parse(json)
}

/// The types are stricter about a process than the specification and runc are: it may be without `user` and `cwd`, some
/// flags of its scheduler have other names, and capabilities that do not exist (yet) are left out. That is mended only
/// if need be, since nearly all texts are fine.
fn parse_with_process<T: DeserializeOwned>(
    json: &[u8],
    process: &str,
    warnings: &mut Vec<Warning>,
) -> Result<T, Error> {
    let strict = match parse(json) {
        Ok(parsed) => return Ok(parsed),
        Err(error) => error,
    };
    let Ok(mut value) = serde_json::from_slice::<Value>(json) else { return Err(strict) };
    let Some(object) = value.pointer_mut(process).and_then(Value::as_object_mut) else { return Err(strict) };
    let unknown = mend(object);
    let Ok(mended) = serde_json::to_vec(&value) else { return Err(strict) };
    let parsed = parse(&mended)?;
    if !unknown.is_empty() {
        warnings.push(Warning::Capabilities { names: unknown });
    }
    Ok(parsed)
}

/// Fills in what a process may be without; gives the unknown capabilities that it takes out.
fn mend(process: &mut serde_json::Map<String, Value>) -> Vec<String> {
    process.entry("cwd").or_insert_with(|| json!(""));
    if let Some(user) = process.entry("user").or_insert_with(|| json!({})).as_object_mut() {
        for id in ["uid", "gid"] {
            user.entry(id).or_insert_with(|| json!(0));
        }
    }
    // two flags have other names in the types than in the specification
    let flags = process.get_mut("scheduler").and_then(|scheduler| scheduler.get_mut("flags")?.as_array_mut());
    for flag in flags.into_iter().flatten() {
        match flag.as_str() {
            Some("SCHED_FLAG_RESET_ON_FORK") => *flag = json!("SCHED_RESET_ON_FORK"),
            Some("SCHED_FLAG_DL_OVERRUN") => *flag = json!("SCHED_FLAG_D_L_OVERRUN"),
            _ => {}
        }
    }
    let mut unknown = Vec::new();
    let sets = process.get_mut("capabilities").and_then(Value::as_object_mut);
    for set in sets.into_iter().flat_map(|sets| sets.values_mut()).filter_map(Value::as_array_mut) {
        // Runtime specification, "Process": a capability "which cannot be mapped to a relevant kernel interface, or cannot be granted
        // otherwise, MUST be logged as a warning", and runtimes "SHOULD NOT fail" for it; runc keeps to that. So it is no error here.
        set.retain(|capability| {
            let Some(name) = capability.as_str() else { return true };
            let known = caps::Capability::from_str(name).is_ok();
            if !known && !unknown.iter().any(|other| other == name) {
                unknown.push(name.to_owned());
            }
            known
        });
    }
    unknown
}

fn parse<T: DeserializeOwned>(json: &[u8]) -> Result<T, Error> {
    let malformed = |field: &str, reason: String| {
        Err(Error::Malformed { field: one_line(field), reason: one_line(&reason) })
    };
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

/// An error is one line, whatever names it repeats.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_have_a_field() {
        let check = |json: &str, expect: &str| {
            let error = parse_spec(json.as_bytes(), &mut Vec::new()).unwrap_err().to_string();
            assert!(error.starts_with(expect), "{json}: {error}");
        };
        check("", "EOF while parsing a value at line 1 column 0");
        check("{", "EOF while parsing an object");
        check(" []", "it is not a JSON object");
        check("null", "it is not a JSON object");
        check("{}x", "trailing characters");
        let names = r#"{"process": {"user": {"uid": 0, "gid": 0}, "cwd": "/", "capabilities": {"bounding": ["CAP_\\\n"]}}}"#;
        let error =
            parse_spec(names.as_bytes(), &mut Vec::new()).map(drop).map_err(|error| error.to_string());
        assert!(!error.as_ref().is_err_and(|text| text.contains('\n')), "{error:?}");
        let key = r#"{"linux": {"unified": 1, "sysctl": {"a\nb": 1}}}"#;
        let error = parse_spec(key.as_bytes(), &mut Vec::new()).unwrap_err().to_string();
        assert_eq!(error.lines().count(), 1, "{error}");
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

    #[test]
    fn a_process_may_leave_things_out() {
        let text = r#"{ "args": ["x"], "cwd": "/", "capabilities": { "bounding": ["CAP_KILL", "CAP_NEW_THING"] },
            "scheduler": { "policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_DL_OVERRUN"] } }"#;
        let mut warnings = Vec::new();
        let process = parse_process(text.as_bytes(), &mut warnings).unwrap();
        assert_eq!((process.user().uid(), process.user().gid()), (0, 0));
        assert_eq!(process.capabilities().as_ref().unwrap().bounding().as_ref().unwrap().len(), 1);
        assert_eq!(warnings, [Warning::Capabilities { names: vec!["CAP_NEW_THING".to_owned()] }]);
        for bad in ["", "{", "[]", r#"{ "args": 1 }"#] {
            assert!(parse_process(bad.as_bytes(), &mut warnings).is_err(), "{bad}");
        }
    }
}
