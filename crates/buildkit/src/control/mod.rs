//! What clients call on the connection of `POST /grpc`: builds, their progress, the cache, the history.
//!
//! buildx builds in three calls that run at once: `Control/Solve` names a build and waits, `Control/Status` streams its
//! progress, and `LLBBridge/Solve` asks the front end to read the Dockerfile (here: [`Backend::plan`]). With
//! `LLBBridge/Return` the client hands the plan back, and the waiting `Control/Solve` builds and exports it
//! ([`Backend::build`]). A `Control/Solve` that goes away takes its build along.

mod backend;
mod bridge;
mod builds;
mod capabilities;
mod documents;
mod history;
mod progress;
mod service;

pub use backend::{Backend, BuildRequest, Outcome, PlanRequest, Planned};
pub use progress::{Part, Progress, Step};
pub use service::Control;
