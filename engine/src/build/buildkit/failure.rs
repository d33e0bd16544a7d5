//! Failures as BuildKit's clients print them: the text, and in the details the place, the step and the exit status.

use wherry_buildkit::errdefs;
use wherry_buildkit::grpc::{Code, Status};
use wherry_buildkit::session;
use wherry_dockerfile::LocatedError;

use super::files::Definition;
use super::watch::Watch;
use crate::build::Failure;
use crate::error::Error;

/// A build that failed.
pub(super) fn of_build(failure: &Failure, definition: &Definition, watch: &Watch) -> Status {
    let mut status = Status::unknown(failure.message.clone());
    let lines = failure.place.map(|place| (place.first_line as usize, place.last_line as usize));
    status.details.push(definition.source(lines.as_slice()));
    if let Some(digest) = failure.step.and_then(|step| watch.digest(step)) {
        status.details.push(errdefs::vertex(digest));
    }
    if let Some(code) = failure.code.and_then(|code| u32::try_from(code).ok()) {
        status.details.push(errdefs::exit(code));
    }
    status
}

/// A Dockerfile that is not understood.
pub(super) fn of_dockerfile(error: &LocatedError, definition: &Definition) -> Status {
    let mut status = Status::unknown(error.to_string());
    status.details.push(errdefs::frontend("dockerfile.v0"));
    let lines: Vec<_> = error.lines.iter().map(|lines| (lines.first, lines.last)).collect();
    if !lines.is_empty() {
        status.details.push(definition.source(&lines));
    }
    status
}

/// An error of the engine's.
pub(super) fn of_engine(error: &Error) -> Status {
    Status::unknown(error.to_string())
}

/// An error of the client's session.
pub(super) fn of_session(error: session::Error) -> Status {
    match error {
        session::Error::Call(status) => status,
        session::Error::NotFound(_) => Status::new(Code::NotFound, error.to_string()),
        other => Status::unknown(other.to_string()),
    }
}
