//! TLS to log servers, for monitors: a monitor is one small process per container and must not link TLS.
//!
//! A monitor whose container's log goes over TLS starts a process of its own for it (`wherryd log-relay`), one thread with
//! nothing but [`run`]. It ends when the monitor closes its socket, or when the server is gone: the monitor starts another, and
//! still has what was not confirmed. So neither the engine's end nor the relay's loses a line.
//! It must not know containers, formats of logs or Docker's API; it keeps nothing, in files or otherwise.

mod connection;
mod relay;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use rustls::pki_types::pem::Error as PemError;
use wherry_tls::Failure;

pub use connection::Connection;
pub use relay::run;

/// Why nothing can be sent.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file of authorities cannot be read.
    #[error("the CA certificate {} cannot be read: {source}", path.display())]
    ReadAuthorities {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It has no certificates.
    #[error("there is no certificate in {}", path.display())]
    NoAuthorities {
        /// The file.
        path: PathBuf,
    },
    /// The client's certificate or its key cannot be read.
    #[error("{} cannot be read: {source}", path.display())]
    ReadIdentity {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The client's certificate is none.
    #[error("the client's certificate cannot be used: {0}")]
    Certificate(PemError),
    /// The client's key is none.
    #[error("the client's key cannot be used: {0}")]
    Key(PemError),
    /// They do not belong together, or are of an unknown kind.
    #[error("the client's certificate and key cannot be used: {0}")]
    Identity(rustls::Error),
    /// A certificate cannot be for such a name.
    #[error("{0} is no name of a server")]
    Name(String),
    /// No connection.
    #[error("no connection to {address}: {source}")]
    Dial {
        /// The server.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The handshake failed.
    #[error("{0}")]
    Handshake(#[from] Failure),
    /// The connection broke.
    #[error("the connection is lost: {0}")]
    Lost(io::Error),
    /// The server has closed it.
    #[error("the server has closed the connection")]
    Closed,
    /// The monitor cannot be told.
    #[error("the monitor is gone: {0}")]
    Monitor(io::Error),
}
