//! Whom to trust: the host's certificates, and per registry those in `certs.d`.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::Error as PemError;
use wherry_tls::{Failure, Identity, Trust};

use crate::TransportError;

/// The settings for one registry. `folder` (`/etc/docker/certs.d/HOST`) is read now: its `*.crt` are
/// trusted, too, and `NAME.cert` with `NAME.key` is shown to the registry.
///
/// # Errors
/// Only where the library for TLS has no ciphers.
pub(crate) fn config(folder: Option<&Path>, verify: bool) -> Result<Arc<ClientConfig>, TransportError> {
    static PLAIN: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    let files = folder.map(Files::read).unwrap_or_default();
    let plain = verify && files.is_empty();
    if let Some(config) = PLAIN.get().filter(|_| plain) {
        return Ok(config.clone());
    }
    let config = Arc::new(build(files, verify)?);
    Ok(if plain { PLAIN.get_or_init(|| config).clone() } else { config })
}

fn build(files: Files, verify: bool) -> Result<ClientConfig, TransportError> {
    let trust = if verify { Trust::Authorities(files.authorities) } else { Trust::Anybody };
    let wrong = |error| TransportError::Tls(std::io::Error::other(error));
    let mut config = match wherry_tls::config(&trust, files.identity) {
        Ok(config) => config,
        Err(error) => {
            tracing::warn!(%error, "client certificate in certs.d cannot be used");
            wherry_tls::config(&trust, None).map_err(wrong)?
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// What `certs.d` has for a registry.
#[derive(Default)]
struct Files {
    authorities: Vec<CertificateDer<'static>>,
    identity: Option<Identity>,
}

impl Files {
    fn is_empty(&self) -> bool {
        self.authorities.is_empty() && self.identity.is_none()
    }

    fn read(folder: &Path) -> Self {
        let mut files = Self::default();
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let result = match path.extension().and_then(|e| e.to_str()) {
                Some("crt") => wherry_tls::certificates(&path).map(|found| files.authorities.extend(found)),
                Some("cert") => identity(&path).map(|identity| files.identity = Some(identity)),
                _ => Ok(()),
            };
            if let Err(error) = result {
                tracing::warn!(path = %path.display(), %error, "certificate cannot be read");
            }
        }
        files
    }
}

fn identity(path: &Path) -> Result<Identity, PemError> {
    Identity::read(path, &path.with_extension("key"))
}

impl From<Failure> for TransportError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NotTls => Self::NotTls,
            Failure::Certificate(reason) => Self::Certificate(reason),
            Failure::Alert(alert) => Self::Alert(alert),
            Failure::Eof => Self::Eof,
            Failure::Reset => Self::Reset,
            Failure::Other(error) => Self::Tls(error),
        }
    }
}
