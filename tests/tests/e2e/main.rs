//! The end-to-end tests, one module a topic. See `wherry_tests` for how they run.

// A failed expectation is the test's result, in what the tests share, too.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod abuse;
mod api;
mod archives;
mod attach;
mod build;
mod buildkit;
<<<<<<< HEAD
mod buildkit_cache;
=======
mod buildx;
>>>>>>> b3a4ad9 (Tests: each option of the stock buildx, asked of dockerd too; the reference engine has the machine's git)
mod cases;
mod checkpoints;
mod commit;
mod compose;
mod compose_build;
mod compose_v1;
mod copy;
mod crash;
mod daemon;
mod events;
mod exec;
mod health;
mod images;
mod kill;
mod lifecycle;
mod limits;
mod links;
mod listing;
mod log_servers;
mod log_servers_tls;
mod logs;
mod names;
mod netkill;
mod network;
mod network_daemon;
mod network_drivers;
mod network_ipv6;
mod network_options;
mod network_refusals;
mod nftables;
mod options;
mod outage;
mod ports;
mod ports_ipv6;
mod project;
mod pull;
mod refusals;
mod registries;
mod run;
mod runtimes;
mod security;
mod volumes;
mod web;
