//! Named OCI runtimes: `--add-runtime name=path`, and `runtimes` in daemon.json.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value as Json;

use super::value::Value;

/// The name of the runtime that is built in, by which clients ask for dockerd's default.
pub(crate) const BUILT_IN: &str = "runc";
/// And its long form.
pub(crate) const BUILT_IN_SHIM: &str = "io.containerd.runc.v2";

/// Another program with runc's command line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Runtime {
    /// Looked up on the engine's search path, when a container starts, if it is only a name.
    pub(crate) path: PathBuf,
    /// Put before its command.
    pub(crate) args: Vec<String>,
    /// `runtimeType`: a shim of containerd's, which we do not have.
    pub(crate) shim: String,
}

/// Whether containers may ask for a runtime of this name.
pub(crate) fn is_known(name: &str, runtimes: &BTreeMap<String, Runtime>) -> bool {
    name.starts_with("io.containerd.") || name == BUILT_IN || runtimes.contains_key(name)
}

/// Reads the option.
///
/// # Errors
/// In words, with the runtime's name.
pub(super) fn read(given: Option<&Value>) -> Result<BTreeMap<String, Runtime>, String> {
    let mut runtimes = BTreeMap::new();
    match given {
        Some(Value::Map(paths)) => {
            for (name, path) in paths {
                runtimes.insert(name.clone(), Runtime { path: path.into(), ..Runtime::default() });
            }
        }
        Some(Value::Opaque(Json::Object(entries))) => {
            for (name, entry) in entries {
                runtimes.insert(name.clone(), from_json(name, entry)?);
            }
        }
        _ => {}
    }
    for (name, runtime) in &runtimes {
        if matches!(name.as_str(), BUILT_IN | BUILT_IN_SHIM) {
            return Err(format!("runtime name '{name}' is reserved"));
        }
        if runtime.path.as_os_str().is_empty() && runtime.shim.is_empty() {
            return Err(format!("runtime {name}: either a runtimeType or a path must be configured"));
        }
    }
    Ok(runtimes)
}

fn from_json(name: &str, entry: &Json) -> Result<Runtime, String> {
    let text = |key: &str| entry.get(key).and_then(Json::as_str).unwrap_or("").to_owned();
    let args = entry.get("runtimeArgs").and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
    let runtime = Runtime {
        path: text("path").into(),
        args: args.iter().filter_map(|arg| Some(arg.as_str()?.to_owned())).collect(),
        shim: text("runtimeType"),
    };
    if !runtime.shim.is_empty() && !runtime.path.as_os_str().is_empty() {
        return Err(format!("runtime {name}: cannot have both a path and a runtimeType"));
    }
    Ok(runtime)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn runtimes_of_flags_and_of_the_file() {
        let flags = Value::Map([("a".to_owned(), "/bin/a".to_owned())].into());
        assert_eq!(read(Some(&flags)).unwrap()["a"].path, PathBuf::from("/bin/a"));
        let file = |entry: Json| read(Some(&Value::Opaque(json!({ "b": entry }))));
        let read_ = file(json!({ "path": "b", "runtimeArgs": ["--debug"] })).unwrap();
        assert_eq!(
            read_["b"],
            Runtime { path: "b".into(), args: vec!["--debug".into()], shim: String::new() }
        );
        assert!(file(json!({})).is_err() && file(json!({ "path": "x", "runtimeType": "y" })).is_err());
        let reserved = Value::Map([("runc".to_owned(), "/bin/a".to_owned())].into());
        assert_eq!(read(Some(&reserved)).unwrap_err(), "runtime name 'runc' is reserved");
    }
}
