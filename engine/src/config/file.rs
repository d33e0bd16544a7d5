//! daemon.json.

use std::path::Path;

use serde_json::{Map, Value as Json};

use super::options::{self, Spec};
use super::settings::Settings;
use super::value::go_print;

/// What the file says, and its raw values for messages.
#[derive(Debug, Default)]
pub(super) struct FileSettings {
    pub(super) settings: Settings,
    raw: Vec<(&'static Spec, Json)>,
}

impl FileSettings {
    /// Reads the file at `path`. One that is not there is empty, unless it was named on the command line.
    pub(super) fn read(path: &Path, named: bool) -> Result<Self, String> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && !named => return Ok(Self::default()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(format!("open {}: no such file or directory", path.display()));
            }
            Err(e) => return Err(format!("open {}: {e}", path.display())),
        };
        Self::parse(&bytes)
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii();
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let document: Json = serde_json::from_slice(bytes).map_err(|e| match e.classify() {
            serde_json::error::Category::Eof => "invalid JSON: unexpected end of JSON input".to_string(),
            _ => format!("invalid JSON: {e}"),
        })?;
        let Json::Object(object) = document else {
            return Err("invalid JSON: an object is needed, like {\"debug\": true}".into());
        };
        let (mut found, mut unknown) = (Self::default(), Vec::new());
        flatten(object, &mut found.raw, &mut unknown);
        if !unknown.is_empty() {
            return Err(format!(
                "the following directives don't match any configuration option: {}",
                unknown.join(", ")
            ));
        }
        for (spec, json) in &found.raw {
            let value = spec.kind.read_json(spec.key, json).map_err(|e| format!("invalid JSON: {e}"))?;
            found.settings.put(spec.id(), value);
        }
        Ok(found)
    }

    /// Refuses what is given in both places, as dockerd does: which of them to follow would be a guess.
    pub(super) fn check_conflicts(&self, flags: &Settings) -> Result<(), String> {
        let mut conflicts: Vec<String> = Vec::new();
        for (spec, json) in &self.raw {
            if let Some(flag) = flags.get(spec.id()) {
                conflicts.push(format!("{}: (from flag: {flag}, from file: {})", spec.key, go_print(json)));
            }
        }
        conflicts.sort();
        if conflicts.is_empty() {
            return Ok(());
        }
        Err(format!(
            "the following directives are specified both as a flag and in the configuration file: {}",
            conflicts.join(", ")
        ))
    }
}

/// Known keys to `found`, others to `unknown`; an object under an unknown key groups options (`proxies`), so its keys count.
fn flatten(object: Map<String, Json>, found: &mut Vec<(&'static Spec, Json)>, unknown: &mut Vec<String>) {
    for (key, value) in object {
        match (options::by_key(&key), value) {
            (_, Json::Null) => {}
            (Some(spec), value) => found.push((spec, value)),
            (None, Json::Object(inner)) => flatten(inner, found, unknown),
            (None, _) => unknown.push(key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        FileSettings::parse(text.as_bytes()).unwrap_err()
    }

    #[test]
    fn unknown_keys_are_named() {
        assert_eq!(
            error(r#"{"nosuch":1,"foo":{"bar":2}}"#),
            "the following directives don't match any configuration option: nosuch, bar"
        );
        assert!(error("{bad").starts_with("invalid JSON: "));
        assert_eq!(error("{"), "invalid JSON: unexpected end of JSON input");
        assert!(error("[]").starts_with("invalid JSON: "));
        assert!(error("{} x").starts_with("invalid JSON: "));
    }

    #[test]
    fn empty_files_and_nulls_say_nothing() {
        for text in ["", " \n", "{}", r#"{"debug":null}"#] {
            assert_eq!(FileSettings::parse(text.as_bytes()).unwrap().settings, Settings::default());
        }
    }

    #[test]
    fn flag_and_file_must_not_both_say_it() {
        let check = |file: &str, flags: &[&str], expect: &str| {
            let flags = super::super::flags::parse(flags.iter().map(Into::into)).unwrap();
            let found = FileSettings::parse(file.as_bytes()).unwrap().check_conflicts(&flags).unwrap_err();
            assert_eq!(
                found,
                format!(
                    "the following directives are specified both as a flag and in the configuration file: {expect}"
                )
            );
        };
        check(r#"{"debug":true}"#, &["--debug"], "debug: (from flag: true, from file: true)");
        check(
            r#"{"log-opts":{"a":"b"}, "mtu":1400}"#,
            &["--log-opt=c=d", "--mtu", "3"],
            "log-opts: (from flag: map[c:d], from file: map[a:b]), mtu: (from flag: 3, from file: 1400)",
        );
        check(
            r#"{"default-address-pools":[{"base":"10.0.0.0/8","size":24}]}"#,
            &["--default-address-pool", "base=10.1.0.0/16,size=24"],
            "default-address-pools: (from flag: 10.1.0.0/16 24, from file: [map[base:10.0.0.0/8 size:24]])",
        );
    }
}
