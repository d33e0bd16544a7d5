//! `wherryd`: serves the Docker API over the image store, the monitors and netd.
//!
//! It is only a control plane: no byte of a running container passes through it, and
//! containers, their logs, networks and attached clients live on when it is killed. All
//! that it knows is on disk (`DATA_ROOT`), in the monitors or in netd; at start it puts
//! these together again. One process, tokio's runtime; owns `DATA_ROOT/containers/*/config.json`
//! and `DATA_ROOT/volumes`.

mod build;
mod clock;
mod config;
mod containers;
mod daemon;
mod engine;
mod error;
mod events;
mod id;
mod images;
mod networks;
mod router;
mod server;
mod system;
mod text;
mod volumes;

/// The newest API version that is served.
const API_VERSION: &str = "1.51";
/// The engine's version as clients see it: that of the dockerd whose behaviour it has.
const ENGINE_VERSION: &str = "28.5.2";
/// The `Server` header.
const SERVER_HEADER: &str = "Docker/28.5.2 (linux)";

fn main() -> std::process::ExitCode {
    daemon::main()
}
