//! Swarm mode, which is off.

use crate::error::Error;

/// dockerd's words to who asks a node outside of a swarm.
pub(crate) const NOT_A_MANAGER: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.";

/// The answer to each swarm path.
pub(super) fn refuse(method: &str, segments: &[&str]) -> Error {
    match (method, segments) {
        ("POST", ["swarm", "init" | "join"]) => {
            Error::NotImplemented("swarm mode is not supported by this engine yet".into())
        }
        ("POST", ["swarm", "leave"]) => Error::Unavailable("This node is not part of a swarm".into()),
        _ => Error::Unavailable(NOT_A_MANAGER.into()),
    }
}
