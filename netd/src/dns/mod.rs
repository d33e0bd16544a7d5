//! Name resolution for containers: names of their own networks are answered here, all others are passed on to
//! the host's resolvers, from the host's network namespace.

pub(crate) mod message;
pub(crate) mod names;
mod patience;
pub(crate) mod service;
mod upstream;
