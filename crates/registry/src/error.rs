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
    /// A document is no JSON.
    #[error("{0}")]
    Json(String),
    /// A document's fields are not what they should be.
    #[error("invalid manifest: {0}")]
    Manifest(String),
    /// A document can be read as a manifest and as a list: one digest must not have two meanings.
    #[error("{}", if *is_index { "index: expected index but found manifest" } else { "manifest: expected manifest but found index" })]
    Ambiguous {
        /// Whether it calls itself a list.
        is_index: bool,
    },
    /// A manifest in Docker's format of something else than an image.
    #[error("Encountered remote {media_type:?}({class}) when fetching")]
    ManifestClass {
        /// Its configuration's type.
        media_type: String,
        /// What that is.
        class: &'static str,
    },
    /// A format that nobody should use any more.
    #[error(
        "Docker Image Format v1 and Docker Image manifest version 2, schema 1 support has been removed. More information \
         at https://docs.docker.com/go/deprecated-image-specs/"
    )]
    SchemaOne,
    /// A model, not an image.
    #[error("AI models are not yet supported by the Engine, please use \"docker model pull/run\" instead")]
    AiModel,
    /// None of the images of an index is for the platform.
    #[error("no matching manifest for {0} in the manifest list entries")]
    NoMatchingManifest(String),
    /// It is not an image that containers are made of.
    #[error("unsupported media type {0}")]
    MediaType(String),
    /// The configuration of an image cannot be had.
    #[error("error pulling image configuration: {0}")]
    Config(Box<Error>),
    /// A configuration has another digest than it was asked for by.
    #[error("image config verification failed for digest {0}")]
    ConfigDigest(Digest),
    /// It did not work, how often so ever it was tried.
    #[error("download failed after attempts={attempts}: {last}")]
    Attempts {
        /// How often.
        attempts: u32,
        /// The last failure.
        last: Box<Error>,
    },
    /// There is no such blob.
    #[error("unknown blob")]
    BlobUnknown,
    /// An upload has been forgotten by the registry.
    #[error("blob upload unknown")]
    UploadUnknown,
    /// A token server's answer is not JSON of the right shape.
    #[error("unable to decode token response: {0}")]
    TokenAnswer(String),
    /// A token server's answer has no token.
    #[error("authorization server did not include a token in the response")]
    NoToken,
    /// A login was answered, but not well.
    #[error("login attempt to {url} failed with status: {status}")]
    Login {
        /// The address that was tried.
        url: String,
        /// The answer's status.
        status: hyper::StatusCode,
    },
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
    /// The other side does not want to go on.
    #[error("remote error: tls: {0}")]
    Alert(String),
    /// Nothing came in time while TLS was set up.
    #[error("net/http: TLS handshake timeout")]
    TlsTimeout,
    /// Another failure of TLS.
    #[error("tls: {0}")]
    Tls(io::Error),
    /// The connection broke, or what came is no HTTP.
    #[error("{0}")]
    Http(hyper::Error),
    /// The other side closed the connection without an answer.
    #[error("EOF")]
    Eof,
    /// The other side broke the connection off.
    #[error("read: connection reset by peer")]
    Reset,
    /// The other side reads no more.
    #[error("write: broken pipe")]
    BrokenPipe,
    /// Nothing came in time.
    #[error("context deadline exceeded (Client.Timeout exceeded while awaiting headers)")]
    Timeout,
    /// A transfer stood still.
    #[error("net/http: timeout awaiting response body")]
    Stalled,
    /// A transfer ended before its end.
    #[error("unexpected EOF")]
    Truncated,
    /// The answer to a request for a part is another part.
    #[error("the part of the blob does not begin where it was asked for")]
    WrongRange,
    /// No connection to the proxy.
    #[error("proxyconnect tcp: {0}")]
    ProxyDial(DialError),
    /// The proxy refuses, or cannot be used.
    #[error("{0}")]
    Proxy(String),
    /// The registry wants a name and password, and there are none.
    #[error("no basic auth credentials")]
    NoCredentials,
    /// The token server gave none.
    #[error("{0}")]
    Token(Box<Error>),
    /// More redirections than anybody needs.
    #[error("stopped after 10 redirects")]
    Redirects,
    /// An address that is no URL.
    #[error("invalid URL")]
    Url,
}

impl From<hyper::Error> for TransportError {
    fn from(error: hyper::Error) -> Self {
        let source = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<io::Error>());
        match source.map(io::Error::kind) {
            None if error.is_incomplete_message() => Self::Eof,
            Some(io::ErrorKind::ConnectionReset) => Self::Reset,
            Some(io::ErrorKind::BrokenPipe) => Self::BrokenPipe,
            _ => Self::Http(error),
        }
    }
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
    /// `MANIFEST_UNKNOWN`, `DENIED`, …; codes that the specification does not know are `UNKNOWN`.
    pub code: &'static str,
    /// In the registry's words. None if it said no more than the code does.
    pub message: Option<String>,
}

/// The codes of the distribution's specification: what they mean, and the HTTP status that goes with them.
const CODES: [(&str, &str, u16); 20] = [
    ("UNKNOWN", "unknown error", 500),
    ("UNSUPPORTED", "The operation is unsupported.", 405),
    ("UNAUTHORIZED", "authentication required", 401),
    ("DENIED", "requested access to the resource is denied", 403),
    ("UNAVAILABLE", "service unavailable", 503),
    ("TOOMANYREQUESTS", "too many requests", 429),
    ("DIGEST_INVALID", "provided digest did not match uploaded content", 400),
    ("SIZE_INVALID", "provided length did not match content length", 400),
    ("RANGE_INVALID", "invalid content range", 416),
    ("NAME_INVALID", "invalid repository name", 400),
    ("TAG_INVALID", "manifest tag did not match URI", 400),
    ("NAME_UNKNOWN", "repository name not known to registry", 404),
    ("MANIFEST_UNKNOWN", "manifest unknown", 404),
    ("MANIFEST_INVALID", "manifest invalid", 400),
    ("MANIFEST_UNVERIFIED", "manifest failed signature verification", 400),
    ("MANIFEST_BLOB_UNKNOWN", "blob unknown to registry", 400),
    ("BLOB_UNKNOWN", "blob unknown to registry", 404),
    ("BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry", 404),
    ("BLOB_UPLOAD_INVALID", "blob upload invalid", 404),
    ("PAGINATION_NUMBER_INVALID", "invalid number of results requested", 400),
];

impl ApiError {
    /// An entry of an answer. As with dockerd, one that says nothing of its own is only its code.
    pub(crate) fn entry(code: &str, message: String, has_detail: bool) -> Self {
        let (code, usual, _) = described(code);
        let bare = !has_detail && (message.is_empty() || message == usual);
        Self { code, message: (!bare).then_some(message) }
    }

    /// A code with a message of our own, or its usual one.
    pub(crate) fn of(code: &str, message: Option<String>) -> Self {
        let (code, usual, _) = described(code);
        Self { code, message: Some(message.unwrap_or_else(|| usual.to_owned())) }
    }

    /// The HTTP status that goes with its code, whatever the answer's was.
    #[must_use]
    pub fn status(&self) -> u16 {
        described(self.code).2
    }
}

fn described(code: &str) -> (&'static str, &'static str, u16) {
    CODES.iter().find(|(known, ..)| *known == code).copied().unwrap_or(("UNKNOWN", "unknown error", 500))
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.code.to_lowercase().replace('_', " "))?;
        match &self.message {
            Some(message) => write!(f, ": {message}"),
            None => Ok(()),
        }
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
        if let Self::Api(errors) = self { errors.first() } else { None }
    }

    /// Whether the same request may well succeed later: connections break and servers have bad moments, but refusals
    /// stay.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Api(errors) => !errors.first().is_some_and(|error| {
                let refusals = ["UNAUTHORIZED", "UNSUPPORTED", "DENIED", "TOOMANYREQUESTS", "NAME_UNKNOWN"];
                refusals.contains(&error.code)
            }),
            Self::Transport { source, .. } => match source {
                TransportError::NoCredentials | TransportError::Url => false,
                TransportError::Token(error) => error.is_passing(),
                TransportError::Dial(_)
                | TransportError::NotTls
                | TransportError::Certificate(_)
                | TransportError::Alert(_)
                | TransportError::TlsTimeout
                | TransportError::Tls(_)
                | TransportError::Http(_)
                | TransportError::Timeout
                | TransportError::Eof
                | TransportError::Reset
                | TransportError::BrokenPipe
                | TransportError::Stalled
                | TransportError::Truncated
                | TransportError::WrongRange
                | TransportError::ProxyDial(_)
                | TransportError::Proxy(_)
                | TransportError::Redirects => true,
            },
            Self::Status(_) | Self::UploadUnknown | Self::TokenAnswer(_) => true,
            Self::ErrorBody { .. }
            | Self::ManifestDigest(_)
            | Self::Json(_)
            | Self::Manifest(_)
            | Self::Ambiguous { .. }
            | Self::ManifestClass { .. }
            | Self::SchemaOne
            | Self::AiModel
            | Self::NoMatchingManifest(_)
            | Self::MediaType(_)
            | Self::Config(_)
            | Self::ConfigDigest(_)
            | Self::Attempts { .. }
            | Self::BlobUnknown
            | Self::NoToken
            | Self::Login { .. }
            | Self::TooLarge(_) => false,
        }
    }

    /// As dockerd shows it when an upload ends for it: a request that lacked credentials is not named.
    #[must_use]
    pub fn of_upload(&self) -> String {
        match self {
            Self::Transport { source: TransportError::NoCredentials, .. } => {
                TransportError::NoCredentials.to_string()
            }
            other => other.to_string(),
        }
    }
}
