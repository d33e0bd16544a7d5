//! The wire between a client and the engine, both ends in one process over socket pairs.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod builds;
mod client;
mod files;
mod slow;
