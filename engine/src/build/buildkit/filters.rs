//! containerd's filters, by which BuildKit's clients choose records: `type==regular,inuse`, `description~=make`.

use regex_lite::Regex;

/// A filter: what one of its alternatives chooses.
#[derive(Debug)]
pub(super) struct Filter(Vec<Vec<Condition>>);

/// A field and what is asked of it.
#[derive(Debug)]
struct Condition {
    field: String,
    asked: Asked,
}

#[derive(Debug)]
enum Asked {
    /// It is there.
    Present,
    /// It is there, and this.
    Equal(String),
    /// It is not this; or not there.
    NotEqual(String),
    /// It is like this; what is not there is like nothing.
    Like(Regex),
}

/// Why text is no filter.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum FilterError {
    /// Something is missing, or too much.
    #[error("filters: parse error: [{0}]: invalid argument")]
    Syntax(String),
    /// The pattern is none.
    #[error("filters: invalid pattern {0:?}: invalid argument")]
    Pattern(String),
}

impl Filter {
    /// Reads alternatives; each is made of conditions with commas between them. None: everything is chosen.
    ///
    /// # Errors
    /// [`FilterError`].
    pub(super) fn parse(alternatives: &[String]) -> Result<Self, FilterError> {
        let alternatives = alternatives.iter().map(|text| {
            let parts = text.split(',').filter(|part| !part.is_empty());
            parts.map(Condition::parse).collect::<Result<Vec<_>, _>>()
        });
        alternatives.collect::<Result<_, _>>().map(Self)
    }

    /// Whether it chooses something with these fields; `None` for those that it has not.
    pub(super) fn fits<'a>(&self, field: &dyn Fn(&str) -> Option<&'a str>) -> bool {
        let all = |conditions: &Vec<Condition>| conditions.iter().all(|condition| condition.fits(field));
        self.0.is_empty() || self.0.iter().any(all)
    }
}

impl Condition {
    fn parse(text: &str) -> Result<Self, FilterError> {
        let end = text.find(['=', '!', '~']).unwrap_or(text.len());
        let (field, rest) = text.split_at(end);
        let operator = rest.split_at_checked(2).filter(|(operator, _)| !operator.is_empty());
        let value = |value: &str| {
            let inner = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
            inner.unwrap_or(value).to_owned()
        };
        let asked = match operator {
            _ if field.is_empty() => None,
            _ if rest.is_empty() => Some(Asked::Present),
            Some(("==", rest)) => Some(Asked::Equal(value(rest))),
            Some(("!=", rest)) => Some(Asked::NotEqual(value(rest))),
            Some(("~=", rest)) => {
                let pattern = value(rest);
                let read = Regex::new(&pattern).map_err(|_| FilterError::Pattern(pattern))?;
                Some(Asked::Like(read))
            }
            _ => None,
        };
        let asked = asked.ok_or_else(|| FilterError::Syntax(text.to_owned()))?;
        Ok(Self { field: field.to_owned(), asked })
    }

    fn fits<'a>(&self, field: &dyn Fn(&str) -> Option<&'a str>) -> bool {
        let value = field(&self.field);
        match &self.asked {
            Asked::Present => value.is_some(),
            Asked::Equal(wanted) => value == Some(wanted),
            Asked::NotEqual(other) => value != Some(other),
            Asked::Like(pattern) => value.is_some_and(|value| pattern.is_match(value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_chosen() {
        let field = |name: &str| match name {
            "type" => Some("regular"),
            "description" => Some("RUN make all"),
            "shared" => Some(""),
            _ => None,
        };
        let check = |filters: &[&str], expect: bool| {
            let filters: Vec<String> = filters.iter().map(|text| (*text).to_owned()).collect();
            assert_eq!(Filter::parse(&filters).unwrap().fits(&field), expect, "{filters:?}");
        };
        check(&[], true);
        check(&["type==regular"], true);
        check(&["type==\"regular\",shared"], true);
        check(&["type==regular,inuse"], false);
        check(&["inuse", "shared"], true);
        check(&["description~=make"], true);
        check(&["description~=^make"], false);
        check(&["type!=regular"], false);
        check(&["other!=x"], true);
        // What is only so or not has no value that it could have.
        check(&["shared==true"], false);
        check(&["nothing==x"], false);
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for text in ["==x", "type=x", "type~", "description~=[", "a!b"] {
            assert!(Filter::parse(&[text.to_owned()]).is_err(), "{text}");
        }
    }
}
