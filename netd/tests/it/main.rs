//! netd as its engine sees it: the real binary in fresh network and mount namespaces, driven through the client,
//! with real packets. Needs root.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the whole crate is tests"
)]

mod churn;
mod crowd;
mod dns;
mod firewalld;
mod nftables;
mod ports;
mod relay;
mod restart;
mod sandboxes;
mod support;
mod timing;
