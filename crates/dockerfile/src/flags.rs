//! Options of instructions: `--name=value`.

use crate::suggest::nearest;
use crate::{Error, Result};

/// What an option takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Takes {
    /// Nothing, `true` or `false`.
    Bool,
    /// A value, once.
    Text,
    /// A value, as often as one likes.
    Texts,
}

/// The options that were given to an instruction.
#[derive(Debug)]
pub(crate) struct Flags(Vec<(&'static str, String)>);

impl Flags {
    /// Reads the given options by the known ones.
    pub(crate) fn parse(given: &[String], known: &[(&'static str, Takes)]) -> Result<Self> {
        let mut read: Vec<(&'static str, String)> = Vec::new();
        for option in given {
            let (flag, value) = match option.split_once('=') {
                Some((flag, value)) => (flag, Some(value)),
                None => (option.as_str(), None),
            };
            let name = flag.strip_prefix("--").unwrap_or(flag);
            let Some(&(name, takes)) = known.iter().find(|(known, _)| *known == name) else {
                return Err(unknown(flag, name, known));
            };
            if takes != Takes::Texts && read.iter().any(|(other, _)| *other == name) {
                return Err(Error::DuplicateFlag(flag.to_owned()));
            }
            read.push((name, value_of(flag, value, takes)?));
        }
        Ok(Self(read))
    }

    /// The value of an option, if it was given.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        self.texts(name).next()
    }

    /// All values of an option.
    pub(crate) fn texts(&self, name: &str) -> impl Iterator<Item = String> {
        self.0.iter().filter(move |(given, _)| *given == name).map(|(_, value)| value.clone())
    }

    /// An option that says yes or no, if it was given.
    pub(crate) fn bool(&self, name: &str) -> Option<bool> {
        self.text(name).map(|value| value == "true")
    }

    /// The first option.
    pub(crate) fn first(&self) -> Option<&'static str> {
        self.0.first().map(|(name, _)| *name)
    }
}

fn unknown(flag: &str, name: &str, known: &[(&'static str, Takes)]) -> Error {
    let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
    Error::UnknownFlag(flag.to_owned()).suggest(nearest(name, &names))
}

fn value_of(flag: &str, value: Option<&str>, takes: Takes) -> Result<String> {
    match (takes, value) {
        (Takes::Bool, None) => Ok("true".into()),
        (Takes::Bool, Some(value)) => match value.to_lowercase().as_str() {
            "" => Err(Error::FlagValue(flag.to_owned())),
            "true" => Ok("true".into()),
            "false" => Ok("false".into()),
            _ => Err(Error::FlagBool(flag.to_owned(), value.to_owned())),
        },
        (Takes::Text | Takes::Texts, Some(value)) => Ok(value.to_owned()),
        (Takes::Text | Takes::Texts, None) => Err(Error::FlagValue(flag.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [(&str, Takes); 3] =
        [("from", Takes::Text), ("link", Takes::Bool), ("exclude", Takes::Texts)];

    fn parse(given: &[&str]) -> Result<Flags> {
        let given: Vec<String> = given.iter().map(|option| (*option).to_owned()).collect();
        Flags::parse(&given, &KNOWN)
    }

    #[test]
    fn options_are_read() {
        let flags = parse(&["--from=a=b", "--exclude=x", "--link", "--exclude="]).unwrap();
        assert_eq!(flags.text("from").as_deref(), Some("a=b"));
        assert_eq!(flags.bool("link"), Some(true));
        assert_eq!(flags.texts("exclude").collect::<Vec<_>>(), ["x", ""]);
        assert_eq!(parse(&["--link=False"]).unwrap().bool("link"), Some(false));
        assert_eq!(parse(&[]).unwrap().first(), None);
    }

    #[test]
    fn what_is_wrong_says_so() {
        let fails = |given: &[&str], expect: &str| assert_eq!(parse(given).unwrap_err().to_string(), expect);
        fails(&["--form=x"], "unknown flag: --form (did you mean from?)");
        fails(&["--other"], "unknown flag: --other");
        fails(&["--from"], "missing a value on flag: --from");
        fails(&["--link="], "missing a value on flag: --link");
        fails(&["--link=1"], "expecting boolean value for flag --link, not: 1");
        fails(&["--from=a", "--from=b"], "duplicate flag specified: --from");
    }
}
