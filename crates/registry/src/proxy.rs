//! Proxies, by Go's rules: dockerd's users have them in its environment or in daemon.json.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::Uri;
use hyper::header::HeaderValue;
use ipnetwork::IpNetwork;

use crate::TransportError;

/// The proxies that lead to registries. Empty means none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For `http://` addresses: a URL, or `host:port`.
    pub http: String,
    /// For `https://` addresses.
    pub https: String,
    /// Where none is used: names, `.domains`, addresses and networks, each perhaps with a port, or `*`, with commas.
    pub exceptions: String,
}

/// A proxy to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Proxy {
    /// Whether it is itself spoken to through TLS.
    pub(crate) https: bool,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) authorization: Option<HeaderValue>,
}

impl Proxies {
    /// The settings in the environment: `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`, or the same in lower case.
    #[must_use]
    pub fn from_environment() -> Self {
        let read = |name: &str| {
            let set = |name: String| std::env::var(name).ok().filter(|value| !value.is_empty());
            set(name.to_owned()).or_else(|| set(name.to_lowercase())).unwrap_or_default()
        };
        Self { http: read("HTTP_PROXY"), https: read("HTTPS_PROXY"), exceptions: read("NO_PROXY") }
    }

    /// The proxy on the way to a host.
    pub(crate) fn towards(
        &self,
        https: bool,
        host: &str,
        port: u16,
    ) -> Result<Option<Proxy>, TransportError> {
        let url = if https { &self.https } else { &self.http };
        if url.is_empty() || !self.applies(host, port) { Ok(None) } else { parse(url).map(Some) }
    }

    /// Whether the host is none of the exceptions. The loopback always is one.
    fn applies(&self, host: &str, port: u16) -> bool {
        let host = host.to_lowercase();
        let address: Option<IpAddr> = host.parse().ok();
        if host == "localhost" || address.is_some_and(|address| address.is_loopback()) {
            return false;
        }
        !self.exceptions.split(',').map(str::trim).filter(|e| !e.is_empty()).any(|exception| {
            let exception = exception.to_lowercase();
            exception == "*" || excepted(&exception, &host, address, port)
        })
    }
}

fn excepted(exception: &str, host: &str, address: Option<IpAddr>, port: u16) -> bool {
    if let Ok(network) = exception.parse::<IpNetwork>() {
        return address.is_some_and(|address| network.contains(address));
    }
    let (name, wanted) = match exception.rsplit_once(':') {
        Some((name, number)) if !name.ends_with(':') => match number.parse::<u16>() {
            Ok(number) => (name, Some(number)),
            Err(_) => (exception, None),
        },
        _ => (exception, None),
    };
    if wanted.is_some_and(|wanted| wanted != port) {
        return false;
    }
    let name = name.trim_start_matches('[').trim_end_matches(']');
    if let Ok(excepted) = name.parse::<IpAddr>() {
        return address == Some(excepted);
    }
    // `.example.com` is all below the domain; `example.com` is the domain, too.
    let domain = name.trim_start_matches('*').trim_start_matches('.');
    let below = host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
    below || (host == domain && !name.starts_with(['.', '*']))
}

fn parse(url: &str) -> Result<Proxy, TransportError> {
    let bad = || TransportError::Proxy(format!("invalid proxy address {url:?}"));
    let whole = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    let uri: Uri = whole.parse().map_err(|_| bad())?;
    let https = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        other => {
            return Err(TransportError::Proxy(format!(
                "proxies of the kind {:?} are not supported, only http and https",
                other.unwrap_or_default()
            )));
        }
    };
    let host = uri.host().ok_or_else(bad)?.trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
    let user =
        uri.authority().and_then(|authority| authority.as_str().rsplit_once('@')).map(|(user, _)| user);
    let authorization = user.and_then(|user| {
        let (name, password) = user.split_once(':').unwrap_or((user, ""));
        let pair = format!("{}:{}", percent_decode(name), percent_decode(password));
        let mut value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(pair))).ok()?;
        value.set_sensitive(true);
        Some(value)
    });
    Ok(Proxy { https, host, port, authorization })
}

fn percent_decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let digit = |at: usize| tail.get(at).and_then(|b| char::from(*b).to_digit(16));
        match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                rest = tail.get(2..).unwrap_or_default();
            }
            _ => {
                out.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exceptions_are_gos() {
        let proxies = Proxies {
            http: "p:1".into(),
            exceptions:
                "example.com, .inner.net,10.0.0.0/8,192.0.2.1:5000,*.star.org,port.org:81,2001:db8::1".into(),
            ..Proxies::default()
        };
        let check = |host: &str, port: u16, expect: bool| {
            let found = proxies.towards(false, host, port).ok().flatten().is_some();
            assert_eq!(found, expect, "{host}:{port}");
        };
        check("registry.org", 80, true);
        check("localhost", 80, false);
        check("127.1.2.3", 80, false);
        check("::1", 80, false);
        check("example.com", 80, false);
        check("a.Example.com", 80, false);
        check("notexample.com", 80, true);
        check("inner.net", 80, true);
        check("a.inner.net", 80, false);
        check("10.1.2.3", 80, false);
        check("192.0.2.1", 5000, false);
        check("192.0.2.1", 80, true);
        check("x.star.org", 80, false);
        check("port.org", 81, false);
        check("port.org", 80, true);
        check("2001:db8::1", 80, false);
        let all = Proxies { https: "p:1".into(), exceptions: "*".into(), ..Proxies::default() };
        assert_eq!(all.towards(true, "x.org", 443).ok(), Some(None));
    }

    #[test]
    fn addresses_may_lack_a_scheme_and_have_a_user() {
        let check = |url: &str, expect: Option<(bool, &str, u16, Option<&str>)>| {
            let parsed = parse(url).ok();
            let shown = parsed.as_ref().map(|p| {
                let authorization = p.authorization.as_ref().and_then(|a| a.to_str().ok());
                (p.https, p.host.as_str(), p.port, authorization)
            });
            assert_eq!(shown, expect, "{url}");
        };
        check("proxy:3128", Some((false, "proxy", 3128, None)));
        check("https://proxy", Some((true, "proxy", 443, None)));
        check("http://u:p%40@[::1]:8/", Some((false, "::1", 8, Some("Basic dTpwQA=="))));
        check("socks5://proxy:1080", None);
        check("http://", None);
    }
}
