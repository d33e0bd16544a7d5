//! The query string, read as dockerd reads it.

use crate::error::Error;

/// The parameters of a request's URL, percent-decoded.
#[derive(Debug, Default, Clone)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|p| !p.is_empty());
        Self(
            pairs
                .map(|pair| {
                    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decode(name, true), decode(value, true))
                })
                .collect(),
        )
    }

    /// The first value of `name`; `None` when it is missing or empty.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str()).filter(|v| !v.is_empty())
    }

    /// Whether `name` was given at all.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(n, _)| n == name)
    }

    /// All values of `name`.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// A switch: anything but nothing, `0`, `no`, `false` and `none` is true.
    pub(crate) fn flag(&self, name: &str) -> bool {
        let value = self.get(name).unwrap_or("").trim().to_lowercase();
        !matches!(value.as_str(), "" | "0" | "no" | "false" | "none")
    }

    /// A switch with a default for when it is missing.
    pub(crate) fn flag_or(&self, name: &str, default: bool) -> bool {
        if self.has(name) { self.flag(name) } else { default }
    }

    /// A whole number; `None` when missing.
    ///
    /// # Errors
    /// 400 with the words of Go's strconv.
    pub(crate) fn integer(&self, name: &str) -> Result<Option<i64>, Error> {
        let Some(text) = self.get(name) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| {
            Error::InvalidParameter(format!(
                "strconv.Atoi: parsing {}: invalid syntax",
                crate::text::go_quote(text)
            ))
        })
    }
}

/// Undoes percent-encoding (and `+` for a space in queries). What is not valid UTF-8 is replaced.
pub(crate) fn decode(text: &str, plus_is_space: bool) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let hex = |i: usize| tail.get(i).and_then(|b| char::from(*b).to_digit(16));
        match (first, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((high * 16 + low) as u8);
                rest = tail.get(2..).unwrap_or_default();
            }
            (b'+', ..) if plus_is_space => {
                bytes.push(b' ');
                rest = tail;
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded_and_switches_read_as_dockerd_does() {
        let query = Query::parse("a=b%20c+d&flag=1&off=False&e&n=x&bad=%zz%4");
        assert_eq!(query.get("a"), Some("b c d"));
        assert_eq!(query.get("e"), None);
        assert!(query.has("e") && query.flag("flag") && !query.flag("off") && !query.flag("none"));
        assert_eq!(query.get("bad"), Some("%zz%4"));
        assert!(query.integer("n").is_err());
        assert_eq!(query.integer("missing").ok(), Some(None));
    }
}
