//! The client's side of a build: the services that it offers on the connection of `POST /session`, where the roles are
//! reversed and we are the one that calls.

mod content;
mod files;
mod registry;
mod services;

pub use content::Content;
pub use files::{FileTarget, SyncOptions};
pub use registry::{Session, Sessions};

use crate::grpc::Status;

/// What goes wrong with a client's session.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The header that names the session is missing.
    #[error("the session has no id")]
    NoId,
    /// The name is taken.
    #[error("session {0} already exists")]
    Exists(String),
    /// The client did not come, or has gone.
    #[error("no active session for {0}: context deadline exceeded")]
    NotFound(String),
    /// The client does not offer a service.
    #[error("method {0} not supported by the client")]
    Unsupported(&'static str),
    /// The connection broke at its beginning.
    #[error("the session's connection cannot be used: {0}")]
    Handshake(#[from] h2::Error),
    /// The client's answer to a call.
    #[error("{0}")]
    Call(#[from] Status),
    /// A transfer of files failed here.
    #[error(transparent)]
    Sync(#[from] crate::sync::Error),
    /// What was to be sent cannot be read.
    #[error("what is to be sent cannot be read: {0}")]
    Read(#[source] std::io::Error),
    /// The socket of an agent that is forwarded.
    #[error("the forwarded agent's socket: {0}")]
    Agent(#[source] std::io::Error),
    /// More than is taken.
    #[error("{what} is larger than {limit} bytes")]
    TooLarge {
        /// What.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
}
