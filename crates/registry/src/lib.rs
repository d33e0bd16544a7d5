//! A client of registries: OCI distribution and Docker's schema 2, over HTTP and HTTPS.
//!
//! An async library without processes, threads or files of its own; it reads the host's
//! certificates and `certs.d`. It must not know what becomes of the bytes: no image store,
//! no Docker API. What it knows is which endpoints a name has (mirrors, docker.io, registries that
//! may be spoken to in the clear, proxies), how to get in (Basic, bearer tokens), and how to read and
//! write manifests and blobs. Errors print as dockerd's do, because users search the web for them.

mod auth;
mod blob;
mod catalog;
mod connection;
mod dial;
mod download;
mod endpoint;
mod error;
mod http;
mod login;
mod manifest;
mod outgoing;
mod proxy;
mod refusal;
mod repository;
mod tls;
mod upload;

pub use auth::{Credentials, query_escape};
pub use blob::Blob;
pub use catalog::catalog;
pub use download::Download;
pub use endpoint::{Endpoint, Policy};
pub use error::{ApiError, DialError, Error, Result, TransportError};
pub use http::{Client, Settings};
pub use login::log_in;
pub use manifest::{Descriptor, Manifest, ManifestDocument, Platform, PushedLayer, Selected};
pub use outgoing::Pieces;
pub use proxy::Proxies;
pub use repository::{Access, Repository, Resolved};
pub use upload::{Started, Upload};
