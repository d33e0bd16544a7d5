//! How many descriptors may be open: as many as possible for us, and as many as we were given for containers.

use std::sync::OnceLock;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};

static GIVEN: OnceLock<Rlimit> = OnceLock::new();

/// Raises our limit as far as it goes: each client, monitor and log takes a descriptor.
pub(super) fn raise() {
    let given = getrlimit(Resource::Nofile);
    let highest = Rlimit { current: given.maximum, maximum: given.maximum };
    // Set once: this runs once. Raising is refused only where it is not ours to raise; then the limit stays.
    let _ = GIVEN.set(given);
    let _ = setrlimit(Resource::Nofile, highest);
}

/// Gives a child, and so the container that it makes, the limit that we were started with: programs that close all
/// descriptors that there may be are slow with a high one.
pub(crate) fn restore(child: Option<u32>) {
    let pid = child.and_then(|id| Pid::from_raw(id.cast_signed()));
    if let (Some(pid), Some(given)) = (pid, GIVEN.get()) {
        // Fails only for a child that is gone.
        let _ = prlimit(Some(pid), Resource::Nofile, *given);
    }
}
