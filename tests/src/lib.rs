//! Drives an engine as its users do: through the stock docker client, and by plain HTTP.
//!
//! Every test makes a [`Host`]: network, mount, process and cgroup namespaces of its own (`host.sh`) with
//! one engine in it, which is killed, restarted and asked as the test likes. When the `Host` is dropped it
//! checks that nothing is left behind (`leftovers`), and then all of it ends with its process 1. Which
//! engine, says the variable `ENGINE` ([`engine::Binary`]): ours, or a reference dockerd to check the tests
//! themselves. This crate must not know any other crate of the workspace: it sees what a user sees.

// A failed expectation is the test's result, so here a panic is the right way to end.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::print_stderr)]

mod cli;
pub mod distribution;
pub mod dns;
pub mod engine;
mod host;
pub mod http;
mod init;
mod leftovers;
mod poll;
pub mod registry;
pub mod relay;
mod remote;
mod session;
pub mod tokens;

pub use cli::{CommandLine, Output};
pub use engine::Engine;
pub use host::{HOST_ADDRESS, Host, Servant};
pub use poll::{poll, poll_value};
pub use remote::Remote;
pub use session::Session;
