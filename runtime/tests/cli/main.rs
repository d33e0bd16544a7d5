//! The command, as containerd and people use it. Shapes, texts and exit codes are runc's. Needs root, and busybox
//! (Debian's busybox-static).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod bundle;
mod debug;
mod flags;
mod life;
mod options;
#[path = "../support/mod.rs"]
mod support;
