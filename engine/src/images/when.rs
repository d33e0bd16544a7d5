//! Points in time as users give them: a time stamp, or how long ago.

use crate::clock;
use crate::error::Error;

/// Reads the value of an `until` filter, in nanoseconds since the epoch: seconds with an optional
/// fraction, a Go duration before now (`1h30m`), or a date or time, in UTC unless it has a zone.
///
/// # Errors
/// 500 with dockerd's words for what is none of these.
pub(crate) fn until(text: &str) -> Result<i64, Error> {
    unix(text)
        .or_else(|| duration_ns(text).map(|ago| clock::now_ns().saturating_sub(ago)))
        .or_else(|| date(text))
        .ok_or_else(|| {
            Error::server(format!(
                "failed to parse value as time or duration: {}",
                crate::text::go_quote(text)
            ))
        })
}

fn unix(text: &str) -> Option<i64> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
    if seconds.is_empty() || !digits(seconds) || !digits(fraction) {
        return None;
    }
    let nanos: i64 = format!("{fraction:0<9.9}").parse().ok()?;
    seconds.parse::<i64>().ok()?.checked_mul(1_000_000_000)?.checked_add(nanos)
}

/// A duration as Go's `time.ParseDuration` reads it.
fn duration_ns(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    let mut total = 0.0;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(number_end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let scale = match unit {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * scale;
        rest = tail;
    }
    (!text.is_empty()).then_some((sign * total) as i64)
}

/// `2006-01-02`, with `T15`, `T15:04`, `T15:04:05[.9]` and a zone as far as they are given.
fn date(text: &str) -> Option<i64> {
    let (day, time) = text.split_once('T').unwrap_or((text, ""));
    let zone_at = time.find(['Z', '+', '-']).unwrap_or(time.len());
    let (time, zone) = time.split_at(zone_at);
    let full = match time.len() {
        0 => "00:00:00".to_owned(),
        2 => format!("{time}:00:00"),
        5 => format!("{time}:00"),
        _ => time.to_owned(),
    };
    let zone = if zone.is_empty() { "Z" } else { zone };
    clock::parse_rfc3339(&format!("{day}T{full}{zone}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forms_are_read() {
        let second = 1_000_000_000;
        let check = |text: &str, expect: i64| assert_eq!(until(text).unwrap(), expect, "{text}");
        check("12", 12 * second);
        check("12.5", 12 * second + second / 2);
        check("2020-01-03", 1_578_009_600 * second);
        check("2020-01-03T01", 1_578_013_200 * second);
        check("2020-01-03T01:00", 1_578_013_200 * second);
        check("2020-01-03T01:00:00Z", 1_578_013_200 * second);
        check("2020-01-03T02:00:00+01:00", 1_578_013_200 * second);
        assert_eq!(duration_ns("1h0m1.5s"), Some(3_601_500_000_000));
        assert!((clock::now_ns() - 3600 * second - until("1h").unwrap()).abs() < 10 * second);
        let error = until("xx").unwrap_err();
        assert_eq!(error.to_string(), "failed to parse value as time or duration: \"xx\"");
    }
}
