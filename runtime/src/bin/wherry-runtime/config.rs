//! Reading `config.json` and the process of an exec.

use std::io::Read;
use std::path::Path;
use std::str::FromStr;

use oci_spec::runtime::{Process, Spec};
use serde_json::{Value, json};
use wherry_runtime::{parse_process, parse_spec};

use crate::failure::Failure;
use crate::log::Log;

/// The specification of the bundle in that folder.
pub(crate) fn load_spec(bundle: &Path, log: &Log) -> Result<Spec, Failure> {
    let path = bundle.join("config.json");
    let text = match read(&path) {
        Err(Failure::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            return Err(Failure::NoSpecification);
        }
        other => other?,
    };
    let spec = lenient(&text, "/process", log, parse_spec).map_err(Failure::malformed(&path))?;
    check(spec.process().as_ref())?;
    warn_of_ambient(spec.process().as_ref(), log);
    Ok(spec)
}

/// A capability can be ambient only if it is inheritable, too; else the kernel leaves it out.
fn warn_of_ambient(process: Option<&Process>, log: &Log) {
    let Some(sets) = process.and_then(|process| process.capabilities().as_ref()) else { return };
    let inheritable = sets.inheritable().clone().unwrap_or_default();
    for capability in sets.ambient().iter().flatten().filter(|capability| !inheritable.contains(capability)) {
        log.warning(&format!("can't raise ambient capability CAP_{capability}: operation not permitted"));
    }
}

/// A process from a file.
pub(crate) fn load_process(path: &Path, log: &Log) -> Result<Process, Failure> {
    let process = lenient(&read(path)?, "", log, parse_process).map_err(Failure::malformed(path))?;
    check(Some(&process))?;
    Ok(process)
}

/// A file's content; one that is larger than any specification is refused.
fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    const LARGEST: u64 = 32 << 20;
    let mut text = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut text));
    match read {
        Ok(length) if length as u64 > LARGEST => Err(Failure::TooLarge { path: path.to_owned() }),
        Ok(_) => Ok(text),
        Err(error) => Err(Failure::file("read", path)(error)),
    }
}

/// What runc asks of every process, in its words.
pub(crate) fn check(process: Option<&Process>) -> Result<(), Failure> {
    let Some(process) = process else {
        return Err(Failure::Arguments("process property must not be empty"));
    };
    let cwd = process.cwd();
    if cwd.as_os_str().is_empty() {
        return Err(Failure::Arguments("Cwd property must not be empty"));
    }
    if !cwd.is_absolute() {
        return Err(Failure::Arguments("Cwd must be an absolute path"));
    }
    if process.args().as_ref().is_none_or(Vec::is_empty) {
        return Err(Failure::Arguments("args must not be empty"));
    }
    Ok(())
}

/// Parses. The types are stricter about a process than the specification and runc are: it may be without `user`
/// and `cwd`, some flags of its scheduler have other names, and capabilities that do not exist (yet) are left out with a warning. That is mended only if
/// need be, since nearly all files are fine.
fn lenient<T>(
    text: &[u8],
    process: &str,
    log: &Log,
    parse: fn(&[u8]) -> Result<T, wherry_runtime::Error>,
) -> Result<T, wherry_runtime::Error> {
    let strict = match parse(text) {
        Ok(parsed) => return Ok(parsed),
        Err(error) => error,
    };
    let Ok(mut value) = serde_json::from_slice::<Value>(text) else { return Err(strict) };
    let unknown = value.pointer_mut(process).map(mend).unwrap_or_default();
    let Ok(mended) = serde_json::to_vec(&value) else { return Err(strict) };
    let parsed = parse(&mended)?;
    if !unknown.is_empty() {
        log.warning(&format!("ignoring unknown or unavailable capabilities: [{}]", unknown.join(" ")));
    }
    Ok(parsed)
}

/// Fills in what may be missing; gives the unknown capabilities that it takes out.
fn mend(process: &mut Value) -> Vec<String> {
    let mut unknown = Vec::new();
    let Some(object) = process.as_object_mut() else { return unknown };
    object.entry("cwd").or_insert_with(|| json!(""));
    if let Some(user) = object.entry("user").or_insert_with(|| json!({})).as_object_mut() {
        for id in ["uid", "gid"] {
            user.entry(id).or_insert_with(|| json!(0));
        }
    }
    // two flags have other names in the types than in the specification
    let flags = object.get_mut("scheduler").and_then(|scheduler| scheduler.get_mut("flags")?.as_array_mut());
    for flag in flags.into_iter().flatten() {
        match flag.as_str() {
            Some("SCHED_FLAG_RESET_ON_FORK") => *flag = json!("SCHED_RESET_ON_FORK"),
            Some("SCHED_FLAG_DL_OVERRUN") => *flag = json!("SCHED_FLAG_D_L_OVERRUN"),
            _ => {}
        }
    }
    let sets = object.get_mut("capabilities").and_then(Value::as_object_mut);
    for set in sets.into_iter().flat_map(|sets| sets.values_mut()).filter_map(Value::as_array_mut) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_may_leave_things_out() {
        let text = r#"{ "args": ["x"], "cwd": "/", "capabilities": { "bounding": ["CAP_KILL", "CAP_NEW_THING"] },
            "scheduler": { "policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_DL_OVERRUN"] } }"#;
        let process: Process = lenient(text.as_bytes(), "", &Log::default(), parse_process).unwrap();
        assert_eq!((process.user().uid(), process.user().gid()), (0, 0));
        assert_eq!(process.capabilities().as_ref().unwrap().bounding().as_ref().unwrap().len(), 1);
        for bad in ["", "{", "[]", r#"{ "args": 1 }"#] {
            assert!(lenient(bad.as_bytes(), "", &Log::default(), parse_process).is_err(), "{bad}");
        }
    }
}
