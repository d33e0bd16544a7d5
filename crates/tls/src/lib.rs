//! The client's side of TLS: whom to trust, what to show, and failures in the words that Go has for them, since users search
//! the web for those.
//!
//! A library without processes, threads or connections of its own; it reads the host's certificates and files that it is
//! given. It must not know what is said over a connection, nor to whom.

mod failure;
mod verifier;

use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::ring;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

pub use failure::Failure;
use verifier::{Anybody, Trusted};

/// Who may answer.
#[derive(Debug, Clone)]
pub enum Trust {
    /// Whoever has a certificate for its name from the host's authorities, or from these.
    Authorities(Vec<CertificateDer<'static>>),
    /// Whoever answers: what is said is hidden from listeners, but the other side may be anybody.
    Anybody,
}

/// A certificate that the client shows, with those that vouch for it, and its key.
#[derive(Debug)]
pub struct Identity {
    /// The client's own certificate is the first.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its key.
    pub key: PrivateKeyDer<'static>,
}

impl Identity {
    /// Reads both from PEM files.
    ///
    /// # Errors
    /// Those of reading, and of files that have no such thing.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self, PemError> {
        Ok(Self { chain: certificates(certificate)?, key: PrivateKeyDer::from_pem_file(key)? })
    }
}

/// All certificates of a PEM file; other things in it are passed over.
///
/// # Errors
/// Those of reading, and of parts that begin as a certificate and are none.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, PemError> {
    CertificateDer::pem_file_iter(path)?.collect()
}

/// The settings of connections. Reads the host's certificates, once.
///
/// # Errors
/// An identity whose key is not its certificate's, or of an unknown kind.
pub fn config(trust: &Trust, identity: Option<Identity>) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let builder = match trust {
        Trust::Anybody => builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider))),
        Trust::Authorities(own) => {
            let mut roots = system_roots();
            roots.add_parsable_certificates(own.iter().cloned());
            let roots = Arc::new(roots);
            let verifier = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider).build();
            match verifier {
                Ok(verifier) => {
                    let verifier = Trusted { verifier, own: own.clone() };
                    builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
                }
                // There are no authorities at all: everybody is refused.
                Err(_) => builder.with_root_certificates(roots),
            }
        }
    };
    match identity {
        None => Ok(builder.with_no_client_auth()),
        Some(Identity { chain, key }) => builder.with_client_auth_cert(chain, key),
    }
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
