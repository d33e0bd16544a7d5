//! Ports as `EXPOSE` names them.

use std::net::IpAddr;

use crate::lint::{Linter, Rule};
use crate::{Error, Lines, Result};

/// A port that cannot be exposed. Its text is the classic builder's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// What stands before the ports is no address.
    #[error("Invalid ip address: {0}")]
    Address(String),
    /// There is no port.
    #[error("No port specified: {0}<empty>")]
    Missing(String),
    /// The port is no number, or too great.
    #[error("Invalid containerPort: {0}")]
    Container(String),
    /// The host's port is no number, or too great.
    #[error("Invalid hostPort: {0}")]
    Host(String),
    /// Two ranges that have different lengths.
    #[error("Invalid ranges specified for container and host Ports: {0} and {1}")]
    Ranges(String, String),
    /// Neither `tcp` nor `udp` nor `sctp`.
    #[error("Invalid proto: {protocol}")]
    Protocol {
        /// What was given.
        protocol: String,
        /// The whole.
        port: String,
    },
}

impl PortError {
    /// BuildKit's text.
    #[must_use]
    pub fn buildkit(&self) -> String {
        match self {
            Self::Address(address) => format!("invalid IP address: {address}"),
            Self::Missing(port) => format!("invalid port: {port:?}: no port specified"),
            Self::Container(port) => format!("invalid containerPort: {port}"),
            Self::Host(port) => format!("invalid hostPort: {port}"),
            Self::Ranges(container, host) => {
                format!("invalid ranges specified for container and host Ports: {container} and {host}")
            }
            Self::Protocol { protocol, port } => format!("invalid port: {port:?}: invalid proto: {protocol}"),
        }
    }
}

/// Reads `port[/protocol]`, a range, or `[[address:]host:]port` of which only the port counts, into
/// `number/protocol`.
///
/// # Errors
/// [`Error::Port`].
pub fn exposed(text: &str) -> Result<Vec<String>> {
    read(text).map_err(Error::Port)
}

fn read(text: &str) -> std::result::Result<Vec<String>, PortError> {
    let mut parts = text.rsplitn(3, ':');
    let container = parts.next().unwrap_or_default();
    let host = parts.next().unwrap_or_default();
    let address = parts.next().unwrap_or_default();
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    if !bare.is_empty() && bare.parse::<IpAddr>().is_err() {
        return Err(PortError::Address(bare.to_owned()));
    }
    let (port, protocol) = match container.split_once('/') {
        Some(("", _)) => ("", ""),
        Some((port, protocol)) => (port, protocol.split('/').next().unwrap_or_default()),
        None => (container, ""),
    };
    let protocol = if protocol.is_empty() { "tcp".to_owned() } else { protocol.to_lowercase() };
    if port.is_empty() {
        return Err(PortError::Missing(text.to_owned()));
    }
    let (first, last) = range(port).ok_or_else(|| PortError::Container(port.to_owned()))?;
    if !host.is_empty() {
        let (low, high) = range(host).ok_or_else(|| PortError::Host(host.to_owned()))?;
        if last - first != high - low && first != last {
            return Err(PortError::Ranges(port.to_owned(), host.to_owned()));
        }
    }
    if !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
        return Err(PortError::Protocol { protocol, port: text.to_owned() });
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

/// Warns of a port that is more than a number and a protocol in small letters.
pub(crate) fn warn(text: &str, linter: &mut Linter, lines: Lines) {
    let container = text.rsplit(':').next().unwrap_or_default();
    let protocol = container.split_once('/').map_or("", |(_, protocol)| protocol);
    if protocol != protocol.to_lowercase() {
        let message = format!("Defined protocol '{text}' in EXPOSE instruction should be lowercase");
        linter.warn(Rule::ExposeProtoCasing, lines, message);
    }
    if text.trim_start_matches(':').contains(':') {
        let message = format!(
            "EXPOSE instruction should not define an IP address or host-port mapping, found '{text}'"
        );
        linter.warn(Rule::ExposeInvalidFormat, lines, message);
    }
}

fn range(text: &str) -> Option<(u16, u16)> {
    let mut parts = text.split('-');
    let number = |part: &str| part.parse::<u16>().ok().filter(|_| !part.starts_with('+'));
    let first = number(parts.next()?)?;
    let last = parts.next().map_or(Some(first), number)?;
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_as_dockerd_does() {
        let check = |text: &str, expect: &[&str]| assert_eq!(exposed(text).unwrap(), expect, "{text}");
        check("80", &["80/tcp"]);
        check("53/UDP", &["53/udp"]);
        check("100-102/tcp", &["100/tcp", "101/tcp", "102/tcp"]);
        check("8080:80", &["80/tcp"]);
        check("127.0.0.1:8080:80", &["80/tcp"]);
        check("[::1]:8080:80/sctp", &["80/sctp"]);
        let fails = |text: &str, expect: &str| assert_eq!(exposed(text).unwrap_err().to_string(), expect);
        fails("x", "Invalid containerPort: x");
        fails("70000", "Invalid containerPort: 70000");
        fails("9-8", "Invalid containerPort: 9-8");
        fails("80/foo", "Invalid proto: foo");
        fails("", "No port specified: <empty>");
        fails("nowhere:1:80", "Invalid ip address: nowhere");
        fails("x:80", "Invalid hostPort: x");
    }
}
