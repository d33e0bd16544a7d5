//! netd's log: lines on standard error, which `--background` sends to `EXEC_ROOT/netd/netd.log`.

use std::fmt::Display;
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

/// Says what happened, with the time in seconds since 1970.
pub(crate) fn note(text: impl Display) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // A log that cannot be written is no reason to end.
    let _ = writeln!(std::io::stderr().lock(), "{}.{:03} netd: {text}", now.as_secs(), now.subsec_millis());
}
