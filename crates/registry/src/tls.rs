//! Whom to trust: the host's certificates, and per registry those in `certs.d`.

use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::TransportError;

/// The settings for one registry. `folder` (`/etc/docker/certs.d/HOST`) is read now: its `*.crt` are
/// trusted, too, and `NAME.cert` with `NAME.key` is shown to the registry.
pub(crate) fn config(folder: Option<&Path>, verify: bool) -> Arc<ClientConfig> {
    static PLAIN: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    let files = folder.map(Files::read).unwrap_or_default();
    if verify && files.is_empty() {
        return PLAIN.get_or_init(|| Arc::new(build(system_roots(), Files::default(), true))).clone();
    }
    let roots = if verify { system_roots() } else { RootCertStore::empty() };
    Arc::new(build(roots, files, verify))
}

fn build(mut roots: RootCertStore, files: Files, verify: bool) -> ClientConfig {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone());
    let builder = match builder.with_safe_default_protocol_versions() {
        Ok(builder) => builder,
        // Cannot happen: the provider has suites for all versions. The builder's default needs no choice.
        Err(_) => ClientConfig::builder(),
    };
    roots.add_parsable_certificates(files.authorities);
    let builder = if verify {
        builder.with_root_certificates(roots)
    } else {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(TrustAnybody(provider)))
    };
    let mut config = match files.client {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => match builder.clone().with_client_auth_cert(chain, key) {
            Ok(config) => config,
            Err(error) => {
                tracing::warn!(%error, "client certificate in certs.d cannot be used");
                builder.with_no_client_auth()
            }
        },
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

/// The host's certificates, read once: there are many.
fn system_roots() -> RootCertStore {
    static ROOTS: OnceLock<RootCertStore> = OnceLock::new();
    ROOTS.get_or_init(read_system_roots).clone()
}

fn read_system_roots() -> RootCertStore {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "a system certificate cannot be read");
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    roots
}

/// What `certs.d` has for a registry.
#[derive(Default)]
struct Files {
    authorities: Vec<CertificateDer<'static>>,
    client: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

impl Files {
    fn is_empty(&self) -> bool {
        self.authorities.is_empty() && self.client.is_none()
    }

    fn read(folder: &Path) -> Self {
        let mut files = Self::default();
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let result = match path.extension().and_then(|e| e.to_str()) {
                Some("crt") => certificates(&path).map(|found| files.authorities.extend(found)),
                Some("cert") => client_pair(&path).map(|pair| files.client = Some(pair)),
                _ => Ok(()),
            };
            if let Err(error) = result {
                tracing::warn!(path = %path.display(), %error, "certificate cannot be read");
            }
        }
        files
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, rustls::pki_types::pem::Error> {
    CertificateDer::pem_file_iter(path)?.collect()
}

type ClientPair = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn client_pair(path: &Path) -> Result<ClientPair, rustls::pki_types::pem::Error> {
    Ok((certificates(path)?, PrivateKeyDer::from_pem_file(path.with_extension("key"))?))
}

/// For registries that the administrator calls insecure.
#[derive(Debug)]
struct TrustAnybody(Arc<CryptoProvider>);

impl ServerCertVerifier for TrustAnybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// A failed handshake in Go's words.
pub(crate) fn failure(error: io::Error, host: &str) -> TransportError {
    let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
        return match error.kind() {
            io::ErrorKind::UnexpectedEof => TransportError::Eof,
            io::ErrorKind::ConnectionReset => TransportError::Reset,
            _ => TransportError::Tls(error),
        };
    };
    match tls {
        rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType) => TransportError::NotTls,
        rustls::Error::InvalidCertificate(reason) => {
            TransportError::Certificate(certificate_text(reason, host))
        }
        _ => TransportError::Tls(error),
    }
}

fn certificate_text(error: &CertificateError, host: &str) -> String {
    match error {
        CertificateError::UnknownIssuer => "certificate signed by unknown authority".into(),
        CertificateError::NotValidForName => format!("certificate is not valid for {host}"),
        CertificateError::NotValidForNameContext { presented, .. } => {
            let names: Vec<&str> =
                presented.iter().map(|name| name.split('"').nth(1).unwrap_or(name.as_str())).collect();
            format!("certificate is valid for {}, not {host}", names.join(", "))
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "certificate has expired or is not yet valid".into()
        }
        other => format!("{other:?}"),
    }
}
