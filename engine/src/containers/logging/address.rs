//! Addresses of log servers: `tcp://host:port`, `unix:///path`.

use super::Reason;
use crate::text::go_quote;

/// A URL, as far as it matters here.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Address<'a> {
    /// Empty if there is none.
    pub(super) scheme: &'a str,
    /// `host:port`, both optional.
    pub(super) authority: &'a str,
    /// What follows, with its slash.
    pub(super) path: &'a str,
}

impl<'a> Address<'a> {
    /// Reads a URL.
    ///
    /// # Errors
    /// Go's text for a port that is none.
    pub(super) fn parse(text: &'a str) -> Result<Self, Reason> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Ok(Self { scheme: "", authority: "", path: text });
        };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let address = Self { scheme, authority, path };
        match address.split().1 {
            Some(port) if !port.bytes().all(|b| b.is_ascii_digit()) => Err(format!(
                "parse {}: invalid port {} after host",
                go_quote(text),
                go_quote(&format!(":{port}"))
            )),
            _ => Ok(address),
        }
    }

    /// Host and port.
    fn split(&self) -> (&'a str, Option<&'a str>) {
        match self.authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, Some(port)),
            _ => (self.authority, None),
        }
    }

    /// The host without its brackets, and the port if there is one.
    pub(super) fn host_and_port(&self) -> (&'a str, Option<u16>) {
        let (host, port) = self.split();
        (host.trim_start_matches('[').trim_end_matches(']'), port.and_then(|port| port.parse().ok()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, scheme, host, port, path) in [
            ("udp://127.0.0.1:9", "udp", "127.0.0.1", Some(9), ""),
            ("tcp://[::1]:9/x", "tcp", "::1", Some(9), "/x"),
            ("tcp://[::1]", "tcp", "::1", None, ""),
            ("unix:///run/x", "unix", "", None, "/run/x"),
            ("foo", "", "", None, "foo"),
        ] {
            let address = Address::parse(text).unwrap();
            assert_eq!((address.scheme, address.host_and_port(), address.path), (scheme, (host, port), path));
        }
        let bad = Address::parse("udp://h:x").unwrap_err();
        assert_eq!(bad, "parse \"udp://h:x\": invalid port \":x\" after host");
    }
}
