//! Why there is no connection, in Go's words.

use std::io;
use std::net::IpAddr;

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, InvalidMessage};

/// A handshake that failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The other side does not speak TLS.
    #[error("tls: first record does not look like a TLS handshake")]
    NotTls,
    /// Its certificate is not to be trusted.
    #[error("tls: failed to verify certificate: x509: {0}")]
    Certificate(String),
    /// The other side does not want to go on.
    #[error("remote error: tls: {0}")]
    Alert(String),
    /// The other side closed the connection.
    #[error("EOF")]
    Eof,
    /// The other side broke the connection off.
    #[error("read: connection reset by peer")]
    Reset,
    /// Anything else.
    #[error("tls: {0}")]
    Other(io::Error),
}

impl Failure {
    /// What an error of a handshake with `host` means.
    #[must_use]
    pub fn of(error: io::Error, host: &str) -> Self {
        let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
            return match error.kind() {
                io::ErrorKind::UnexpectedEof => Self::Eof,
                io::ErrorKind::ConnectionReset => Self::Reset,
                _ => Self::Other(error),
            };
        };
        match tls {
            rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => Self::NotTls,
            rustls::Error::InvalidCertificate(reason) => Self::Certificate(certificate_text(reason, host)),
            rustls::Error::AlertReceived(alert) => Self::Alert(alert_text(*alert)),
            _ => Self::Other(error),
        }
    }
}

fn certificate_text(error: &CertificateError, host: &str) -> String {
    let invalid = |what: String| format!("certificate has expired or is not yet valid: {what}");
    match error {
        CertificateError::UnknownIssuer => "certificate signed by unknown authority".into(),
        CertificateError::NotValidForName => format!("certificate is not valid for {host}"),
        CertificateError::NotValidForNameContext { presented, .. } => names_text(presented, host),
        CertificateError::ExpiredContext { time, not_after } => {
            invalid(format!("current time {} is after {}", moment(*time), moment(*not_after)))
        }
        CertificateError::NotValidYetContext { time, not_before } => {
            invalid(format!("current time {} is before {}", moment(*time), moment(*not_before)))
        }
        CertificateError::Expired | CertificateError::NotValidYet => {
            "certificate has expired or is not yet valid".into()
        }
        other => format!("{other:?}"),
    }
}

/// The certificate's names are written as webpki does: `DnsName("a.example")`, `IpAddress(192.0.2.1)`.
fn names_text(presented: &[String], host: &str) -> String {
    let within = |kind: &str, open: &str, close: &str| -> Vec<String> {
        let names = presented.iter().filter_map(|name| name.strip_prefix(kind)?.strip_prefix(open));
        names.filter_map(|name| Some(name.strip_suffix(close)?.to_owned())).collect()
    };
    let is_address = host.parse::<IpAddr>().is_ok();
    let names =
        if is_address { within("IpAddress", "(", ")") } else { within("DnsName", "(\"", "\")") }.join(", ");
    if !names.is_empty() {
        format!("certificate is valid for {names}, not {host}")
    } else if is_address {
        format!("cannot validate certificate for {host} because it doesn't contain any IP SANs")
    } else {
        format!("certificate is not valid for any names, but wanted to match {host}")
    }
}

fn moment(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    wherry_rfc3339::trimmed(seconds.saturating_mul(1_000_000_000))
}

fn alert_text(alert: AlertDescription) -> String {
    let text = match alert {
        AlertDescription::UnexpectedMessage => "unexpected message",
        AlertDescription::HandshakeFailure => "handshake failure",
        AlertDescription::BadCertificate => "bad certificate",
        AlertDescription::UnsupportedCertificate => "unsupported certificate",
        AlertDescription::CertificateRevoked => "revoked certificate",
        AlertDescription::CertificateExpired => "expired certificate",
        AlertDescription::CertificateUnknown => "unknown certificate",
        AlertDescription::IllegalParameter => "illegal parameter",
        AlertDescription::UnknownCA => "unknown certificate authority",
        AlertDescription::AccessDenied => "access denied",
        AlertDescription::ProtocolVersion => "protocol version not supported",
        AlertDescription::InsufficientSecurity => "insufficient security level",
        AlertDescription::InternalError => "internal error",
        AlertDescription::UnrecognisedName => "unrecognized name",
        AlertDescription::CertificateRequired => "certificate required",
        AlertDescription::NoApplicationProtocol => "no application protocol",
        other => return format!("alert({})", u8::from(other)),
    };
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let presented =
            ["DnsName(\"a.example\")", "IpAddress(192.0.2.1)", "DnsName(\"*.b.example\")"].map(str::to_owned);
        for (presented, host, expect) in [
            (&presented[..], "c.example", "certificate is valid for a.example, *.b.example, not c.example"),
            (&presented[..], "192.0.2.2", "certificate is valid for 192.0.2.1, not 192.0.2.2"),
            (
                &presented[..1],
                "::1",
                "cannot validate certificate for ::1 because it doesn't contain any IP SANs",
            ),
            (
                &presented[1..2],
                "c.example",
                "certificate is not valid for any names, but wanted to match c.example",
            ),
        ] {
            assert_eq!(names_text(presented, host), expect);
        }
    }

    #[test]
    fn times() {
        let at = |seconds| UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
        let error = CertificateError::ExpiredContext { time: at(1_000_000_000), not_after: at(0) };
        assert_eq!(
            certificate_text(&error, "a"),
            "certificate has expired or is not yet valid: current time 2001-09-09T01:46:40Z is after 1970-01-01T00:00:00Z"
        );
    }
}
