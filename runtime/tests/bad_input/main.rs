//! What is wrong is refused in one line that names the field and the reason, with exit code 1, and nothing is left:
//! no cgroup, no state, no mount, no process.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod commands;
mod fields;
mod scene;
mod texts;
