//! How runtimes were broken, tried again with real attackers. The table of what is tried against what is in
//! `integration/results/attacks.md`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod descriptors;
mod devices;
mod identity;
mod procfs;
mod program;
mod races;
mod rootfs;
mod stage;
mod state;
