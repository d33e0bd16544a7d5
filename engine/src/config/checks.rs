//! What values of repeatable options must look like; each check answers the value in its full form.

use crate::text::go_quote;

/// A list's value that is checked where it is used, or not at all.
pub(super) fn any(text: &str) -> Result<String, String> {
    Ok(text.into())
}

/// `key=value`.
pub(super) fn label(text: &str) -> Result<String, String> {
    if text.contains('=') { Ok(text.into()) } else { Err(format!("bad attribute format: {text}")) }
}

/// A mirror's URL, ended by `/`.
pub(super) fn mirror(text: &str) -> Result<String, String> {
    let quoted = go_quote(text);
    let schemes = "must use either 'https://' or 'http://'";
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(format!("invalid mirror: no scheme specified for {quoted}: {schemes}"));
    };
    if scheme != "http" && scheme != "https" {
        return Err(format!(
            "invalid mirror: unsupported scheme {} in {quoted}: {schemes}",
            go_quote(scheme)
        ));
    }
    if rest.is_empty() || rest.contains(['?', '#']) {
        return Err(format!("invalid mirror: query or fragment at end of the URI {quoted}"));
    }
    if rest.split('/').next().unwrap_or("").contains('@') {
        return Err(format!("invalid mirror: username/password not allowed in URI {quoted}"));
    }
    Ok(format!("{}/", text.trim_end_matches('/')))
}

/// A registry or network; a scheme before it is dropped.
pub(super) fn insecure_registry(text: &str) -> Result<String, String> {
    let lower = text.to_lowercase();
    let scheme = ["http://", "https://"].into_iter().find(|scheme| lower.starts_with(scheme));
    let bare = text.get(scheme.map_or(0, str::len)..).unwrap_or(text);
    if bare.contains("://") {
        return Err(format!("insecure registry {bare} should not contain '://'"));
    }
    if bare.starts_with('-') || bare.ends_with('-') {
        return Err(format!("invalid index name ({bare}). Cannot begin or end with a hyphen"));
    }
    if bare.parse::<ipnetwork::IpNetwork>().is_ok() {
        return Ok(bare.into());
    }
    let port = bare.rsplit_once(':').filter(|_| !bare.ends_with(']')).map(|(_, port)| port);
    let valid = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | ':' | '[' | ']');
    if bare.is_empty() || !valid || !bare.chars().all(plain) {
        return Err(format!("insecure registry {bare} is not valid: invalid host {}", go_quote(bare)));
    }
    Ok(bare.into())
}

/// A search domain; `.` means none.
pub(super) fn domain(text: &str) -> Result<String, String> {
    let label =
        |l: &str| !l.is_empty() && l.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    let trimmed = text.trim().trim_end_matches('.');
    match text.trim() {
        "." => Ok(".".into()),
        _ if trimmed.len() <= 255 && trimmed.split('.').all(label) => Ok(trimmed.into()),
        _ => Err(format!("{text} is not a valid domain")),
    }
}

/// Where to listen, made whole: `unix:///path`, `tcp://address:port`, `fd://` or `fd://name`.
pub(super) fn host(text: &str) -> Result<String, String> {
    let text = text.trim();
    let (scheme, rest) = match text.split_once("://") {
        Some(parts) => parts,
        None if text.is_empty() => ("unix", ""),
        None => ("tcp", text),
    };
    match scheme {
        "fd" => Ok(text.into()),
        "unix" if rest.is_empty() => Ok(super::DEFAULT_HOST.into()),
        "unix" if rest.contains("://") => Err(format!("invalid proto, expected unix: {rest}")),
        "unix" => Ok(format!("unix://{rest}")),
        "tcp" => tcp_host(text, rest),
        _ => Err(format!("invalid bind address ({text}): unsupported proto '{scheme}'")),
    }
}

fn tcp_host(text: &str, rest: &str) -> Result<String, String> {
    let invalid = |why: &str| format!("invalid bind address ({text}): {why}");
    let bare_v6 = rest.starts_with('[') && rest.ends_with(']');
    let (address, port) = match rest.rsplit_once(':') {
        Some((address, port)) if !bare_v6 => (address, port),
        _ => (rest, ""),
    };
    let address = if address.is_empty() { "127.0.0.1" } else { address };
    let port = if port.is_empty() { "2375" } else { port };
    if port.parse::<u16>().is_err() {
        return Err(invalid(&format!("invalid port: {port}")));
    }
    if address.contains('/') || port.contains('/') {
        return Err(invalid("should not contain a path element"));
    }
    Ok(format!("tcp://{address}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::super::value::Kind;
    use super::*;

    #[test]
    fn values_are_completed_or_refused_with_dockerds_words() {
        let check = |kind: Kind, text: &str, expect: Result<&str, &str>| {
            let read = kind.read_flag(text, None).map(|v| v.to_string());
            assert_eq!(read.as_deref().map_err(String::as_str), expect, "{text}");
        };
        check(Kind::List(label), "foo", Err("bad attribute format: foo"));
        check(
            Kind::List(mirror),
            "ftp://foo",
            Err(
                r#"invalid mirror: unsupported scheme "ftp" in "ftp://foo": must use either 'https://' or 'http://'"#,
            ),
        );
        check(Kind::List(mirror), "http://127.0.0.1:5555", Ok("[http://127.0.0.1:5555/]"));
        check(Kind::List(domain), "..", Err(".. is not a valid domain"));
        check(
            Kind::List(host),
            "foo://bar",
            Err("invalid bind address (foo://bar): unsupported proto 'foo'"),
        );
        check(Kind::List(host), "unix://", Ok("[unix:///var/run/docker.sock]"));
        check(Kind::List(host), ":2375", Ok("[tcp://127.0.0.1:2375]"));
        check(Kind::List(host), "tcp://[::1]:80", Ok("[tcp://[::1]:80]"));
        check(Kind::List(host), "fd://", Ok("[fd://]"));
    }
}
