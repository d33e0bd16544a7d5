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
        .or_else(|| wherry_rfc3339::duration(text).ok().map(|ago| clock::now_ns().saturating_sub(ago)))
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
        assert!((clock::now_ns() - 3600 * second - until("1h").unwrap()).abs() < 10 * second);
        let error = until("xx").unwrap_err();
        assert_eq!(error.to_string(), "failed to parse value as time or duration: \"xx\"");
    }
}
