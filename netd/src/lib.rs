//! Host networking for containers: bridges, endpoints, NAT rules, published ports, names.

pub mod client;
pub mod launch;
pub mod protocol;

pub use client::{Client, ClientError};
pub use launch::{LaunchError, ensure_running};
