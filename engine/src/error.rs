//! Everything that a request can fail with, and the one place where it becomes a status and a text.
//!
//! The texts are dockerd's: clients read them. Variants carry their subject; a
//! step that failed inside another crate is wrapped with its source.

use hyper::StatusCode;
use serde_json::json;

use crate::server::response::{self, Response};

/// Why a request failed. `Display` is the `message` that the client sees.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// No such path or method; answered without the usual headers, as dockerd does.
    #[error("page not found")]
    PageNotFound,
    /// 400 with a text chosen where the input was read.
    #[error("{0}")]
    InvalidParameter(String),
    /// 404 with a text chosen where the thing was looked up.
    #[error("{0}")]
    NotFound(String),
    /// 409: the request does not fit the present state.
    #[error("{0}")]
    Conflict(String),
    /// 403: refused whatever the caller's rights.
    #[error("{0}")]
    Forbidden(String),
    /// 304: nothing to do; carries no body.
    #[error("not modified")]
    NotModified,
    /// 501: we do not do this, in plain words.
    #[error("{0}")]
    NotImplemented(String),
    /// 503: it needs something that is off here, such as swarm mode.
    #[error("{0}")]
    Unavailable(String),
    /// 404: no container of that name or id.
    #[error("No such container: {0}")]
    NoSuchContainer(String),
    /// 404: no exec of that id.
    #[error("No such exec instance: {0}")]
    NoSuchExec(String),
    /// 409: it must run for this.
    #[error("container {0} is not running")]
    NotRunning(String),
    /// A file of ours could not be read or written.
    #[error("{step} {subject}: {source}")]
    Io {
        /// What was being done, like "write".
        step: &'static str,
        /// On what.
        subject: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// netd could not be reached or broke off.
    #[error("netd: {0}")]
    Netd(String),
    /// netd refused.
    #[error(transparent)]
    Network(#[from] wherry_netd::protocol::Failure),
    /// A container's monitor could not be reached or broke off.
    #[error("the monitor of container {container}: {reason}")]
    Monitor {
        /// The container's id.
        container: String,
        /// What happened.
        reason: String,
    },
    /// The image store refused or failed.
    #[error(transparent)]
    Store(#[from] wherry_image_store::Error),
    /// 500 (or what `status` says) with a text that dockerd would give.
    #[error("{message}")]
    Docker {
        /// The status.
        status: StatusCode,
        /// The text.
        message: String,
    },
}

impl Error {
    /// An I/O step that failed.
    pub(crate) fn io(
        step: &'static str,
        subject: impl std::fmt::Display,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let subject = subject.to_string();
        move |source| Self::Io { step, subject, source }
    }

    /// A 500 with dockerd's text.
    pub(crate) fn server(message: impl Into<String>) -> Self {
        Self::Docker { status: StatusCode::INTERNAL_SERVER_ERROR, message: message.into() }
    }

    /// The HTTP status.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::PageNotFound | Self::NotFound(_) | Self::NoSuchContainer(_) | Self::NoSuchExec(_) => {
                StatusCode::NOT_FOUND
            }
            Self::InvalidParameter(_) => StatusCode::BAD_REQUEST,
            Self::Conflict(_) | Self::NotRunning(_) => StatusCode::CONFLICT,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::NotModified => StatusCode::NOT_MODIFIED,
            Self::NotImplemented(_) => StatusCode::NOT_IMPLEMENTED,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Io { .. } | Self::Netd(_) | Self::Monitor { .. } => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Network(failure) => network_status(failure),
            Self::Store(error) => store_status(error),
            Self::Docker { status, .. } => *status,
        }
    }

    /// The response that tells it to the client.
    pub(crate) fn into_response(self) -> Response {
        let status = self.status();
        if status == StatusCode::NOT_MODIFIED {
            return response::empty(status);
        }
        if status.is_server_error() {
            tracing::warn!(%status, error = %self, "request failed");
        }
        response::json(status, &json!({ "message": self.to_string() }))
    }
}

fn network_status(failure: &wherry_netd::protocol::Failure) -> StatusCode {
    use wherry_netd::protocol::Failure;
    match failure {
        Failure::NameTaken(_) => StatusCode::CONFLICT,
        Failure::NoSuchNetwork(_) | Failure::NoSuchSandbox(_) => StatusCode::NOT_FOUND,
        Failure::HasEndpoints { .. }
        | Failure::PoolOverlap
        | Failure::AlreadyConnected { .. }
        | Failure::Forbidden(_)
        | Failure::AddressInUse => StatusCode::FORBIDDEN,
        Failure::BadAddress(_) | Failure::Invalid(_) => StatusCode::BAD_REQUEST,
        Failure::NotConnected { .. }
        | Failure::PoolsExhausted
        | Failure::AddressesExhausted { .. }
        | Failure::PortAllocated { .. }
        | Failure::PortBind { .. }
        | Failure::System { .. }
        | Failure::Protocol(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn store_status(error: &wherry_image_store::Error) -> StatusCode {
    use wherry_image_store::Error as Store;
    match error {
        Store::NoSuchImage(_) => StatusCode::NOT_FOUND,
        Store::Reference(_) | Store::TagWithDigest(_) | Store::BadWritableName(_) => StatusCode::BAD_REQUEST,
        // dockerd does not find an image by an ambiguous prefix either.
        Store::Ambiguous(_) => StatusCode::NOT_FOUND,
        Store::Conflict(_) | Store::WritableExists(_) => StatusCode::CONFLICT,
        Store::NoSuchWritable(_)
        | Store::NoSuchLayer(_)
        | Store::Config { .. }
        | Store::ConfigDigest { .. }
        | Store::LayerMismatch(_)
        | Store::IndexVersion { .. }
        | Store::Unpack(_)
        | Store::DiffId { .. }
        | Store::BlobDigest { .. }
        | Store::BlobSize { .. }
        | Store::Load(_)
        | Store::Io { .. }
        | Store::Mount { .. } => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
