//! The labels and variables that are told with each entry: options `labels`, `labels-regex`, `env`, `env-regex`.

use std::collections::BTreeMap;

use regex_lite::Regex;

use super::Reason;
use crate::containers::record::Record;

/// The attributes of a container.
///
/// # Errors
/// `error parsing regexp: …`.
pub(super) fn of(record: &Record) -> Result<BTreeMap<String, String>, Reason> {
    let options = &record.host_config.log_config.config;
    let list = |name: &str| options.get(name).map_or("", String::as_str).to_owned();
    let labels = Wanted::new(&list("labels"), &list("labels-regex"))?;
    let env = Wanted::new(&list("env"), &list("env-regex"))?;
    let wanted = record.labels().iter().filter(|(name, _)| labels.has(name));
    let mut attributes: BTreeMap<String, String> =
        wanted.map(|(name, value)| (name.clone(), value.clone())).collect();
    for variable in record.config.env.iter().flatten() {
        if let Some((name, value)) = variable.split_once('=').filter(|(name, _)| env.has(name)) {
            attributes.insert(name.to_owned(), value.to_owned());
        }
    }
    Ok(attributes)
}

struct Wanted {
    names: Vec<String>,
    pattern: Option<Regex>,
}

impl Wanted {
    fn new(names: &str, pattern: &str) -> Result<Self, Reason> {
        let names = names.split(',').map(|name| name.trim().to_owned()).collect();
        let pattern = match pattern {
            "" => None,
            pattern => Some(Regex::new(pattern).map_err(|error| syntax(pattern, &error))?),
        };
        Ok(Self { names, pattern })
    }

    fn has(&self, name: &str) -> bool {
        self.names.iter().any(|wanted| wanted == name)
            || self.pattern.as_ref().is_some_and(|pattern| pattern.is_match(name))
    }
}

/// What is wrong with a pattern, in Go's words for what is wrong most often.
fn syntax(pattern: &str, error: &regex_lite::Error) -> Reason {
    let text = error.to_string();
    let reason = if text.contains("character class") {
        let open = pattern.rfind('[').and_then(|at| pattern.get(at..)).unwrap_or(pattern);
        format!("missing closing ]: `{open}`")
    } else if text.contains("group") {
        format!("missing closing ): `{pattern}`")
    } else {
        text
    };
    format!("error parsing regexp: {reason}")
}
