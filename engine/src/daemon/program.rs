//! Where our own executable is, for those who execute it later: a monitor starts `wherryd log-relay` when its container first
//! has something to say.

use std::path::PathBuf;
use std::sync::OnceLock;

static OWN: OnceLock<PathBuf> = OnceLock::new();

/// To be called at start: after an upgrade the kernel no longer tells the path, and what is there then is right.
pub(super) fn note() {
    if let Ok(path) = std::env::current_exe() {
        // Set once: this runs once.
        let _ = OWN.set(path);
    }
}

/// Its path.
pub(crate) fn own() -> PathBuf {
    OWN.get().cloned().unwrap_or_else(|| "wherryd".into())
}
