//! How many descriptors this process may have, and who may have how many of them: what comes from outside must not take what
//! containers need.

use rustix::process::{Resource, getrlimit, setrlimit};

/// What is assumed where there is no limit.
const UNLIMITED: usize = 1 << 20;

/// Raises the limit as far as it goes; one that cannot be raised is lived with.
pub(crate) fn raise_descriptors() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}

/// The descriptors that this process may have.
pub(crate) fn descriptors() -> usize {
    let most = getrlimit(Resource::Nofile).current.and_then(|most| usize::try_from(most).ok());
    most.map_or(UNLIMITED, |most| most.min(UNLIMITED))
}
