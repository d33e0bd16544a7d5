//! Names of units, and where their cgroups are.

use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;

use super::bus::Value;
use crate::Error;

const FIELD: &str = "linux.cgroupsPath";

/// Which unit a container wants to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wish {
    /// The slice that it is in.
    pub(super) slice: String,
    /// `PREFIX-NAME.scope`, or a name that ends with `.slice`.
    pub(super) name: String,
}

impl Wish {
    /// From `slice:prefix:name`; an empty slice is `default_slice`, and no path at all `:wherry:ID`.
    pub(super) fn parse(path: &str, id: &str, default_slice: &str) -> Result<Self, Error> {
        let (slice, prefix, name) = if path.is_empty() {
            ("", "wherry", id)
        } else {
            let parts: Vec<&str> = path.split(':').collect();
            let [slice, prefix, name] = parts.as_slice() else {
                return Err(Error::spec(
                    FIELD,
                    format!(
                        "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got {path:?} instead"
                    ),
                ));
            };
            (*slice, *prefix, *name)
        };
        let slice = if slice.is_empty() { default_slice } else { slice };
        let name = match (name.ends_with(".slice"), prefix) {
            (true, _) => name.to_owned(),
            (false, "") => format!("{name}.scope"),
            (false, prefix) => format!("{prefix}-{name}.scope"),
        };
        let valid = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
        if name.len() > 255 || !name.chars().all(valid) || name.starts_with(".") {
            return Err(Error::spec(FIELD, format!("{name:?} is not the name of a unit")));
        }
        slice_path(slice)?;
        Ok(Wish { slice: slice.to_owned(), name })
    }

    /// The cgroup, below the manager's own.
    pub(super) fn cgroup(&self, manager: &str) -> Result<PathBuf, Error> {
        let manager = Path::new("/").join(manager.trim_start_matches('/'));
        let relative = slice_path(&self.slice)?;
        Ok(manager.join(relative).join(&self.name))
    }
}

/// A slice's folder: `a-b.slice` is in `a.slice/a-b.slice`; `-.slice` is the root (systemd.slice(5)).
fn slice_path(slice: &str) -> Result<PathBuf, Error> {
    let invalid = || Error::spec(FIELD, format!("{slice:?} is not the name of a slice"));
    if slice == "-.slice" {
        return Ok(PathBuf::new());
    }
    let stem = slice.strip_suffix(".slice").ok_or_else(invalid)?;
    if stem.is_empty() || stem.contains('/') || stem.split('-').any(str::is_empty) {
        return Err(invalid());
    }
    let mut path = PathBuf::new();
    let ends = stem.match_indices('-').map(|(at, _)| at).chain([stem.len()]);
    for end in ends {
        path.push(format!("{}.slice", stem.get(..end).unwrap_or(stem)));
    }
    Ok(path)
}

/// What annotations `org.systemd.property.NAME` ask for, as runc reads them: the value is text in GVariant's format, and
/// a name that ends with `Sec` takes seconds.
pub(super) fn annotated(spec: &Spec) -> Result<Vec<(String, Value)>, Error> {
    let mut properties = Vec::new();
    for (key, text) in spec.annotations().iter().flatten() {
        let Some(name) = key.strip_prefix("org.systemd.property.") else { continue };
        let invalid = |reason: &str| Err(Error::spec("annotations", format!("{key}: {text:?} {reason}")));
        if name.len() < 2 || !name.chars().all(|c| c.is_ascii_alphabetic()) {
            return invalid("is for no property: a name has letters only");
        }
        let Some(value) = parse(text.trim()) else {
            return invalid("is not a value in GVariant's text format");
        };
        match name.strip_suffix("Sec").filter(|stem| !stem.ends_with('U')) {
            Some(stem) => {
                let Some(micros) = microseconds(&value) else { return invalid("is not a number of seconds") };
                properties.push((format!("{stem}USec"), Value::Uint64(micros)));
            }
            None => properties.push((name.to_owned(), value)),
        }
    }
    properties.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(properties)
}

fn microseconds(value: &Value) -> Option<u64> {
    const MICRO: u64 = 1_000_000;
    match value {
        Value::Uint64(seconds) => seconds.checked_mul(MICRO),
        Value::Uint32(seconds) => u64::from(*seconds).checked_mul(MICRO),
        Value::Int64(seconds) => u64::try_from(*seconds).ok()?.checked_mul(MICRO),
        Value::Int32(seconds) => u64::try_from(*seconds).ok()?.checked_mul(MICRO),
        Value::Double(seconds) if *seconds >= 0.0 && *seconds < 1e12 => Some((seconds * 1e6) as u64),
        _ => None,
    }
}

/// A value in GVariant's text format: strings in quotes, `true`, numbers with or without a type before them, lists of
/// one type.
fn parse(text: &str) -> Option<Value> {
    for quote in ['\'', '"'] {
        if let Some(inner) = text.strip_prefix(quote) {
            let inner = inner.strip_suffix(quote)?;
            return (!inner.contains([quote, '\\'])).then(|| Value::text(inner));
        }
    }
    if let Some(list) = text.strip_prefix('[') {
        let elements: Vec<Value> =
            list.strip_suffix(']')?.split(',').map(|element| parse(element.trim())).collect::<Option<_>>()?;
        let kind = elements.first()?.signature();
        return elements.iter().all(|e| e.signature() == kind).then_some(Value::Array(kind, elements));
    }
    if let Some((kind, number)) = text.split_once(' ') {
        let number = number.trim();
        return match kind {
            "byte" => number.parse().ok().map(Value::Byte),
            "int32" => number.parse().ok().map(Value::Int32),
            "uint32" => number.parse().ok().map(Value::Uint32),
            "int64" => number.parse().ok().map(Value::Int64),
            "uint64" => number.parse().ok().map(Value::Uint64),
            "double" => number.parse().ok().map(Value::Double),
            "boolean" => number.parse().ok().map(Value::Bool),
            _ => None,
        };
    }
    match text {
        "true" | "false" => Some(Value::Bool(text == "true")),
        _ if text.contains(['.', 'e']) => text.parse().ok().map(Value::Double),
        _ => text.parse().ok().map(Value::Int32),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_paths() {
        let check = |path: &str, name: &str, cgroup: &str| {
            let wish = Wish::parse(path, "id1", "system.slice").unwrap();
            assert_eq!(wish.name, name, "{path}");
            assert_eq!(wish.cgroup("/").unwrap(), Path::new(cgroup), "{path}");
        };
        check("", "wherry-id1.scope", "/system.slice/wherry-id1.scope");
        check(":docker:abc", "docker-abc.scope", "/system.slice/docker-abc.scope");
        check("a-b-c.slice:runc:x", "runc-x.scope", "/a.slice/a-b.slice/a-b-c.slice/runc-x.scope");
        check("-.slice::x", "x.scope", "/x.scope");
        check("m.slice:runc:m-x.slice", "m-x.slice", "/m.slice/m-x.slice");
        let user = Wish::parse(":p:n", "", "user.slice").unwrap();
        let manager = "/user.slice/user-1000.slice/user@1000.service";
        assert_eq!(
            user.cgroup(manager).unwrap(),
            Path::new("/user.slice/user-1000.slice/user@1000.service/user.slice/p-n.scope")
        );
        for bad in [
            "/a/b",
            "a:b",
            "a:b:c",
            "a-.slice:b:c",
            "a.slice:b:c/d",
            "a.slice:..:/../c",
            "a/b.slice:b:c",
            "a:b:c:d",
        ] {
            assert!(Wish::parse(bad, "id1", "system.slice").is_err(), "{bad}");
        }
    }

    #[test]
    fn values_of_annotations() {
        let check = |text: &str, expect: Option<Value>| assert_eq!(parse(text), expect, "{text}");
        check("'inactive-or-failed'", Some(Value::text("inactive-or-failed")));
        check("true", Some(Value::Bool(true)));
        check("uint64 123456789", Some(Value::Uint64(123_456_789)));
        check("-5", Some(Value::Int32(-5)));
        check("['a', 'b']", Some(Value::texts(["a", "b"])));
        check("['a', 1]", None);
        check("'it's'", None);
        check("inactive", None);
        assert_eq!(microseconds(&Value::Double(1.5)), Some(1_500_000));
        assert_eq!(microseconds(&Value::Int32(-1)), None);
    }
}
