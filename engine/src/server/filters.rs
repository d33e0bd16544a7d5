//! The `filters` parameter of lists, prunes and events, in both of its JSON forms:
//! `{"k":["v"]}` and the older `{"k":{"v":true}}`.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::error::Error;

/// Names and their accepted values. No value for a name means that it does not filter.
#[derive(Debug, Default, Clone)]
pub(crate) struct Filters(BTreeMap<String, Vec<String>>);

#[derive(Deserialize)]
#[serde(untagged)]
enum Values {
    List(Vec<String>),
    Set(BTreeMap<String, bool>),
}

impl Filters {
    /// Reads the parameter; `known` are the names that the endpoint understands.
    ///
    /// # Errors
    /// 400 `invalid filter` for what is not such JSON, `invalid filter 'name'` for an unknown name.
    pub(crate) fn parse(text: Option<&str>, known: &[&str]) -> Result<Self, Error> {
        let Some(text) = text.filter(|t| !t.is_empty()) else { return Ok(Self::default()) };
        let filters = read(text)?;
        match filters.keys().find(|name| !known.contains(&name.as_str())) {
            Some(unknown) => Err(Error::InvalidParameter(format!("invalid filter '{unknown}'"))),
            None => Ok(Self(filters)),
        }
    }

    /// Reads the parameter and leaves names out that the endpoint does not understand (`/events` is so forgiving).
    ///
    /// # Errors
    /// 400 `invalid filter` for what is not such JSON.
    pub(crate) fn parse_known(text: Option<&str>, known: &[&str]) -> Result<Self, Error> {
        let Some(text) = text.filter(|t| !t.is_empty()) else { return Ok(Self::default()) };
        let mut filters = read(text)?;
        filters.retain(|name, _| known.contains(&name.as_str()));
        Ok(Self(filters))
    }

    /// The values given for `name`.
    pub(crate) fn values(&self, name: &str) -> &[String] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// Whether `name` does not filter, or one of its values satisfies `matches`.
    pub(crate) fn any(&self, name: &str, matches: impl Fn(&str) -> bool) -> bool {
        let values = self.values(name);
        values.is_empty() || values.iter().any(|v| matches(v))
    }

    /// Whether `name` does not filter, or one of its values is `text` or, as a regular expression, found in it.
    pub(crate) fn found_in(&self, name: &str, text: &str) -> bool {
        self.any(name, |pattern| {
            pattern == text || regex_lite::Regex::new(pattern).is_ok_and(|regex| regex.is_match(text))
        })
    }

    /// Adds a value.
    pub(crate) fn add(&mut self, name: &str, value: &str) {
        self.0.entry(name.to_owned()).or_default().push(value.to_owned());
    }

    /// A boolean filter such as `dangling`; `None` when it was not given.
    ///
    /// # Errors
    /// 400 `invalid filter 'name=[value]'`.
    pub(crate) fn boolean(&self, name: &str) -> Result<Option<bool>, Error> {
        let mut verdict = None;
        for value in self.values(name) {
            let on = match value.to_lowercase().as_str() {
                "1" | "true" | "t" => true,
                "0" | "false" | "f" => false,
                _ => return Err(Error::InvalidParameter(format!("invalid filter '{name}=[{value}]'"))),
            };
            if verdict.is_some_and(|v| v != on) {
                let values = self.values(name).join(" ");
                return Err(Error::InvalidParameter(format!("invalid filter '{name}=[{values}]'")));
            }
            verdict = Some(on);
        }
        Ok(verdict)
    }

    /// Whether all `label` filters (`key` or `key=value`) agree with `labels`, and not all `label!` filters do.
    pub(crate) fn labels(&self, labels: &BTreeMap<String, String>) -> bool {
        let has = |wanted: &String| match wanted.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|v| v == value),
            None => labels.contains_key(wanted),
        };
        let not = self.values("label!");
        self.values("label").iter().all(has) && (not.is_empty() || !not.iter().all(has))
    }
}

fn read(text: &str) -> Result<BTreeMap<String, Vec<String>>, Error> {
    let parsed: BTreeMap<String, Values> =
        serde_json::from_str(text).map_err(|_| Error::InvalidParameter("invalid filter".into()))?;
    let list = |values| match values {
        Values::List(list) => list,
        Values::Set(set) => set.into_iter().filter(|(_, on)| *on).map(|(value, _)| value).collect(),
    };
    Ok(parsed.into_iter().map(|(name, values)| (name, list(values))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_regular_expressions() {
        let filters = Filters::parse(Some(r#"{"name":["^ab$","x(","y"]}"#), &["name"]).unwrap();
        let found: Vec<&str> =
            ["ab", "abc", "x(", "any"].into_iter().filter(|t| filters.found_in("name", t)).collect();
        assert_eq!(found, ["ab", "x(", "any"]);
    }

    #[test]
    fn both_forms_are_read_and_unknown_names_refused() {
        for text in [r#"{"name":["a","b"]}"#, r#"{"name":{"a":true,"b":true,"c":false}}"#] {
            let filters = Filters::parse(Some(text), &["name"]).unwrap();
            assert_eq!(filters.values("name"), ["a", "b"]);
            assert!(filters.any("name", |v| v == "b") && !filters.any("name", |v| v == "c"));
        }
        let unknown = Filters::parse(Some(r#"{"x":["a"]}"#), &["name"]).unwrap_err();
        assert_eq!(unknown.to_string(), "invalid filter 'x'");
        assert_eq!(Filters::parse(Some("x"), &[]).unwrap_err().to_string(), "invalid filter");
    }
}
