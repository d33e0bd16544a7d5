//! Durations as Go's `time.ParseDuration` reads them: `1h30m`, `1.5s`, `-2ms`.

use std::fmt;

/// Why text is no duration, in Go's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DurationError {
    /// It has no form of a duration, or is longer than 292 years.
    Invalid(String),
    /// A number has no unit.
    MissingUnit(String),
    /// A unit that there is not.
    UnknownUnit {
        /// The unit.
        unit: String,
        /// All of the text.
        text: String,
    },
}

impl fmt::Display for DurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(text) => write!(f, "time: invalid duration {text:?}"),
            Self::MissingUnit(text) => write!(f, "time: missing unit in duration {text:?}"),
            Self::UnknownUnit { unit, text } => {
                write!(f, "time: unknown unit {unit:?} in duration {text:?}")
            }
        }
    }
}

impl std::error::Error for DurationError {}

/// Reads a duration, in nanoseconds.
///
/// # Errors
/// [`DurationError`].
pub fn duration(text: &str) -> Result<i64, DurationError> {
    let invalid = || DurationError::Invalid(text.to_owned());
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(number_end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(invalid());
        }
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let scale = match unit {
            "" => return Err(DurationError::MissingUnit(text.to_owned())),
            "ns" => 1,
            "us" | "µs" | "μs" => 1000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            unknown => {
                return Err(DurationError::UnknownUnit { unit: unknown.to_owned(), text: text.to_owned() });
            }
        };
        let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| invalid())? };
        // Twelve digits are more than enough: an hour has thirteen of nanoseconds.
        let digits = format!("{fraction:0<13.13}").parse::<i128>().unwrap_or(0);
        total += i128::from(whole) * scale + digits * scale / 10_000_000_000_000;
        rest = tail;
        if total > i128::from(i64::MAX) {
            return Err(invalid());
        }
    }
    let total = i64::try_from(total).map_err(|_| invalid())?;
    Ok(if negative { -total } else { total })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_does() {
        let check = |text: &str, expect: i64| assert_eq!(duration(text), Ok(expect), "{text}");
        check("0", 0);
        check("5s", 5_000_000_000);
        check("1h0m1.5s", 3_601_500_000_000);
        check("-1.5h", -5_400_000_000_000);
        check("+.5ms", 500_000);
        check("1µs", 1000);
        check("1.0000000001s", 1_000_000_000);
        let fails = |text: &str, expect: &str| assert_eq!(duration(text).unwrap_err().to_string(), expect);
        fails("", "time: invalid duration \"\"");
        fails("x", "time: invalid duration \"x\"");
        fails(".s", "time: invalid duration \".s\"");
        fails("5", "time: missing unit in duration \"5\"");
        fails("5q", "time: unknown unit \"q\" in duration \"5q\"");
        fails("9999999h", "time: invalid duration \"9999999h\"");
    }
}
