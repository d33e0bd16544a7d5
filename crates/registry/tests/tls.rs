//! Whom the client trusts. The certificates in `certificates/` are made for these tests: a CA (its key is
//! thrown away), one for 127.0.0.1, and one for another name, both with `server.key`.
#![allow(clippy::unwrap_used, reason = "a test that cannot prepare has failed")]

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use wherry_registry::{Access, Client, Credentials, Endpoint, Repository, Settings};

const CA: &str = include_str!("certificates/ca.crt");
const OWN: &str = include_str!("certificates/server.crt");
const OTHER: &str = include_str!("certificates/other.crt");
const KEY: &str = include_str!("certificates/server.key");

/// A registry that answers every request with `{}`, until the test's process ends.
fn serve(certificate: &str) -> SocketAddr {
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(KEY.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, config) = (stream.unwrap(), config.clone());
            // A client that does not trust us breaks off, as it should.
            std::thread::spawn(move || answer(stream, config));
        }
    });
    address
}

fn answer(stream: TcpStream, config: Arc<ServerConfig>) -> std::io::Result<()> {
    let mut stream = BufReader::new(StreamOwned::new(ServerConnection::new(config).unwrap(), stream));
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        if stream.read_line(&mut line)? == 0 {
            return Ok(());
        }
    }
    stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")?;
    stream.get_mut().flush()
}

async fn connect(address: SocketAddr, certificates: &Path, verify: bool) -> Result<(), String> {
    let client = Client::new(Settings { certificates: certificates.into(), ..Settings::default() });
    let endpoint = Endpoint { url: format!("https://{address}"), mirror: false, verify };
    let connected = Repository::connect(&client, &endpoint, "a", &Credentials::default(), Access::Pull).await;
    connected.map(|_| ()).map_err(|e| e.to_string())
}

#[tokio::test]
async fn an_authority_is_trusted_from_the_moment_that_its_certificate_is_there() {
    let address = serve(OWN);
    let certificates = tempfile::tempdir().unwrap();
    let unknown = format!(
        "Get \"https://{address}/v2/\": tls: failed to verify certificate: x509: certificate signed by unknown authority"
    );
    assert_eq!(connect(address, certificates.path(), true).await, Err(unknown));
    let folder = certificates.path().join(address.to_string());
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("ca.crt"), CA).unwrap();
    assert_eq!(connect(address, certificates.path(), true).await, Ok(()));
}

#[tokio::test]
async fn a_certificate_must_be_for_the_host() {
    let address = serve(OTHER);
    let certificates = tempfile::tempdir().unwrap();
    let folder = certificates.path().join(address.to_string());
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("ca.crt"), CA).unwrap();
    let error = connect(address, certificates.path(), true).await.unwrap_err();
    let reason = "cannot validate certificate for 127.0.0.1 because it doesn't contain any IP SANs";
    assert!(error.ends_with(&format!("x509: {reason}")), "{error}");
    assert_eq!(
        connect(address, certificates.path(), false).await,
        Ok(()),
        "an insecure registry may show any"
    );
}
