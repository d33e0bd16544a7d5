//! Dates in text.

use std::time::{SystemTime, UNIX_EPOCH};

const SECOND_NS: i64 = 1_000_000_000;

/// Now, like `2026-11-22T02:31:15.761423197Z`; without zeros at the end, as Go prints it.
pub(crate) fn now() -> String {
    wherry_rfc3339::trimmed(now_ns())
}

/// Now, like `2026-11-22T02:31:15Z`.
pub(crate) fn now_in_seconds() -> String {
    wherry_rfc3339::trimmed(now_ns() / SECOND_NS * SECOND_NS)
}

fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
