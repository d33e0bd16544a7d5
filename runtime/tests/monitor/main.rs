//! The real `wherry-monitor` with real containers, driven over its sockets as the engine does. Needs root, and
//! busybox (Debian's busybox-static).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod attach;
mod engine;
mod exec;
mod health;
mod lifetime;
mod logs;
mod memory;
mod output;
mod restart;
mod signals;
mod wait;
