//! BuildKit's wire, both ways, so that the stock `docker build`, buildx and Compose find what they expect: the gRPC
//! services that clients call on a connection taken over by `POST /grpc` ([`control`]), and those that the client itself
//! offers on one taken over by `POST /session` ([`session`]): its files, credentials, secrets and agents.
//!
//! It knows nothing of images, containers or Dockerfiles: what a build is, its [`control::Backend`] says. It runs in the
//! engine's tokio runtime and owns no files; [`sync`] writes into and reads from folders that it is given as descriptors.
//!
//! What comes over either connection is written by strangers: messages have a size ([`grpc::MAX_MESSAGE_BYTES`]), names
//! of files are checked and walked by descriptors, and a connection that ends takes along what only it wanted.

pub mod control;
pub mod errdefs;
pub mod grpc;
pub mod pb;
pub mod session;
pub mod sync;
