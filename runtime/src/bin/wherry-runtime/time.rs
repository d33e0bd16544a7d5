//! Dates in text.

use std::time::{SystemTime, UNIX_EPOCH};

/// A moment, in seconds and nanoseconds after the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    seconds: u64,
    nanoseconds: u32,
}

/// Now.
pub(crate) fn now() -> Moment {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Moment { seconds: since.as_secs(), nanoseconds: since.subsec_nanos() }
}

impl Moment {
    /// `2026-11-22T02:31:15Z`.
    pub(crate) fn to_rfc3339_seconds(self) -> String {
        let (year, month, day) = civil(self.seconds / 86_400);
        let second = self.seconds % 86_400;
        format!(
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
            second / 3600,
            second / 60 % 60,
            second % 60
        )
    }

    /// `2026-11-22T02:31:15.761423197Z`; without zeros at the end, as Go prints it.
    pub(crate) fn to_rfc3339(self) -> String {
        let mut text = self.to_rfc3339_seconds();
        let fraction = format!(".{:09}", self.nanoseconds);
        let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
        text.insert_str(text.len() - 1, fraction);
        text
    }
}

/// Year, month and day of a number of days after 1970-01-01. Counts in eras of 400 years that begin
/// on a first of March, so that leap days come last.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (seconds, expect) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_795_314_675, "2026-11-22T02:31:15Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(Moment { seconds, nanoseconds: 0 }.to_rfc3339(), expect);
        }
        assert_eq!(Moment { seconds: 1, nanoseconds: 20_000 }.to_rfc3339(), "1970-01-01T00:00:01.00002Z");
    }
}
