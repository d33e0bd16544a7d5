//! Times: nanoseconds since the epoch inside, RFC 3339 as Go writes it outside.

use std::time::{SystemTime, UNIX_EPOCH};

/// Now, in nanoseconds since the epoch.
pub(crate) fn now_ns() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as i64)
}

/// RFC 3339 as Go writes it. 0 or less is Go's zero time, `0001-01-01T00:00:00Z`.
pub(crate) fn rfc3339(ns: i64) -> String {
    if ns <= 0 { ZERO.into() } else { wherry_rfc3339::trimmed(ns) }
}

/// Reads RFC 3339 with any offset, to nanoseconds since the epoch; Go's zero time is 0.
pub(crate) fn parse_rfc3339(text: &str) -> Option<i64> {
    if text == ZERO { Some(0) } else { wherry_rfc3339::parse(text.as_bytes()) }
}

/// Go's zero time.
const ZERO: &str = "0001-01-01T00:00:00Z";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_back_as_written() {
        for ns in [1, 951_782_400_000_000_000, 1_795_311_198_356_332_279, 1_795_311_198_350_000_000] {
            assert_eq!(parse_rfc3339(&rfc3339(ns)), Some(ns), "{}", rfc3339(ns));
        }
        assert_eq!(rfc3339(951_782_400_000_000_000), "2000-02-29T00:00:00Z");
        assert_eq!(parse_rfc3339("2000-02-29T01:30:00.5+01:30"), Some(951_782_400_500_000_000));
        assert_eq!(parse_rfc3339("0001-01-01T00:00:00Z"), Some(0));
        assert_eq!(parse_rfc3339("2000-13-01T00:00:00Z"), None);
    }
}
