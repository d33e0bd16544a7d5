//! Containers as their programs see them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod attacks;
mod descriptors;
mod hooks;
mod life;
mod listener;
mod mount_options;
mod mounts;
mod namespaces;
mod programs;
mod roots;
mod scheduling;
mod seccomp;
#[path = "../support/mod.rs"]
mod support;
mod user_namespaces;
mod wishes;
