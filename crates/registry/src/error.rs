//! What can go wrong, in Go's and dockerd's words.

use std::io;

use wherry_image_ref::Digest;

/// Result of the client's calls.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a registry could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A request got no answer.
    #[error("{method} \"{url}\": {source}")]
    Transport {
        /// `Get`, `Head` …
        method: &'static str,
        /// The whole address.
        url: String,
        /// Why not.
        source: TransportError,
    },
    /// The registry answered with errors in its own format; there is at least one.
    #[error("{}", api_text(.0))]
    Api(Vec<ApiError>),
    /// An answer of the server's, not of the registry's.
    #[error("received unexpected HTTP status: {0}")]
    Status(hyper::StatusCode),
    /// An error without the details that the specification wants.
    #[error("error parsing HTTP {status} response body: {reason}: {body:?}")]
    ErrorBody {
        /// The status.
        status: u16,
        /// What is wrong with it.
        reason: String,
        /// The body, or its beginning.
        body: String,
    },
    /// A manifest has another digest than it was asked for by.
    #[error("manifest verification failed for digest {0}")]
    ManifestDigest(Digest),
    /// A manifest cannot be read, or contradicts itself.
    #[error("invalid manifest: {0}")]
    Manifest(String),
    /// None of the images of an index is for the platform.
    #[error("no matching manifest for {0} in the manifest list entries")]
    NoMatchingManifest(String),
    /// It is not an image that containers are made of.
    #[error("unsupported media type {0}")]
    MediaType(String),
    /// A document is larger than any honest one.
    #[error("the registry's answer is larger than {0} bytes")]
    TooLarge(usize),
}

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// No connection.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The other side does not speak TLS.
    #[error("http: server gave HTTP response to HTTPS client")]
    NotTls,
    /// Its certificate is not to be trusted.
    #[error("tls: failed to verify certificate: x509: {0}")]
    Certificate(String),
    /// Nothing came in time while TLS was set up.
    #[error("net/http: TLS handshake timeout")]
    TlsTimeout,
    /// Another failure of TLS.
    #[error("tls: {0}")]
    Tls(io::Error),
    /// The connection broke, or what came is no HTTP.
    #[error("{0}")]
    Http(#[from] hyper::Error),
    /// Nothing came in time.
    #[error("net/http: timeout awaiting response headers")]
    Timeout,
    /// The registry wants a name and password, and there are none.
    #[error("no basic auth credentials")]
    NoCredentials,
    /// More redirections than anybody needs.
    #[error("stopped after 10 redirects")]
    Redirects,
    /// An address that is no URL.
    #[error("invalid URL")]
    Url,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The name is not known.
    #[error("dial tcp: lookup {host}{}: no such host", server.as_ref().map(|s| format!(" on {s}")).unwrap_or_default())]
    Lookup {
        /// The name.
        host: String,
        /// The resolver that was asked.
        server: Option<String>,
    },
    /// Nobody answers there.
    #[error("dial tcp {address}: {reason}")]
    Connect {
        /// Address and port.
        address: std::net::SocketAddr,
        /// In Go's words.
        reason: String,
    },
}

/// An error in a registry's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// `MANIFEST_UNKNOWN`, `DENIED`, …
    pub code: String,
    /// In the registry's words.
    pub message: String,
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code.to_lowercase().replace('_', " "), self.message)
    }
}

fn api_text(errors: &[ApiError]) -> String {
    match errors {
        [one] => one.to_string(),
        several => {
            let lines: Vec<String> = several.iter().map(ApiError::to_string).collect();
            format!("errors:\n{}\n", lines.join("\n"))
        }
    }
}

impl Error {
    /// The first error that the registry itself gave, if it did.
    #[must_use]
    pub fn api(&self) -> Option<&ApiError> {
        match self {
            Self::Api(errors) => errors.first(),
            Self::Transport { .. }
            | Self::Status(_)
            | Self::ErrorBody { .. }
            | Self::ManifestDigest(_)
            | Self::Manifest(_)
            | Self::NoMatchingManifest(_)
            | Self::MediaType(_)
            | Self::TooLarge(_) => None,
        }
    }
}
