//! RFC 3339 times, to and from nanoseconds since the epoch, and durations, as Go writes and reads them.
//!
//! Shared by logs, the API and the runtime's command. Without a calendar library, since it runs once for each
//! line of each container. Pure: it knows no clock.

mod duration;

pub use duration::{DurationError, duration};

const NS: i64 = 1_000_000_000;

/// Appends `time_ns` as Go's `RFC3339Nano` does: trailing zeros of the fraction are left out, and
/// the point with them (`2026-11-22T01:33:09.14205137Z`).
pub fn write_trimmed(time_ns: i64, out: &mut Vec<u8>) {
    let text = fixed(time_ns);
    let digits = text[20..29].iter().rposition(|&b| b != b'0').map_or(0, |last| last + 1);
    out.extend_from_slice(if digits == 0 { &text[..19] } else { &text[..20 + digits] });
    out.push(b'Z');
}

/// [`write_trimmed`] as a string.
#[must_use]
pub fn trimmed(time_ns: i64) -> String {
    let mut out = Vec::with_capacity(30);
    write_trimmed(time_ns, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

/// Appends `time_ns` with nine digits of fraction, as `docker logs --timestamps` shows it.
pub fn write_fixed(time_ns: i64, out: &mut Vec<u8>) {
    out.extend_from_slice(&fixed(time_ns));
}

fn fixed(time_ns: i64) -> [u8; 30] {
    let (seconds, fraction) = (time_ns.div_euclid(NS), time_ns.rem_euclid(NS));
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let mut text = *b"0000-00-00T00:00:00.000000000Z";
    digits(&mut text[0..4], year);
    digits(&mut text[5..7], month);
    digits(&mut text[8..10], day);
    digits(&mut text[11..13], second / 3600);
    digits(&mut text[14..16], second / 60 % 60);
    digits(&mut text[17..19], second % 60);
    digits(&mut text[20..29], fraction);
    text
}

fn digits(place: &mut [u8], mut value: i64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// Year, month and day of a day counted from 1970-01-01. Eras of 400 years begin on 1 March, so that
/// the leap day is the last of its year.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day_of_year - (153 * shifted + 2) / 5 + 1)
}

fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let shifted = if month > 2 { month - 3 } else { month + 9 };
    let day_of_era =
        year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + (153 * shifted + 2) / 5 + day - 1;
    era * 146_097 + day_of_era - 719_468
}

/// Parses an RFC 3339 time with zero to nine digits of fraction, `Z` or an offset. `None` for what is no such time, or
/// does not fit.
pub fn parse(text: &[u8]) -> Option<i64> {
    let [_, _, _, _, b'-', _, _, b'-', _, _, b'T', _, _, b':', _, _, b':', _, _, rest @ ..] = text else {
        return None;
    };
    let (year, month, day) = (number(&text[0..4])?, number(&text[5..7])?, number(&text[8..10])?);
    let (hour, minute, second) = (number(&text[11..13])?, number(&text[14..16])?, number(&text[17..19])?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (fraction, zone) = match rest.split_first() {
        Some((b'.', rest)) => {
            let length = rest.iter().position(|b| !b.is_ascii_digit())?;
            let scale = 9u32.checked_sub(u32::try_from(length).ok()?).filter(|&scale| scale < 9)?;
            (number(&rest[..length])? * 10i64.pow(scale), &rest[length..])
        }
        _ => (0, rest),
    };
    let offset = match zone {
        b"Z" => 0,
        [sign @ (b'+' | b'-'), hours @ .., b':', m1, m2] if hours.len() == 2 => {
            let seconds = number(hours)? * 3600 + number(&[*m1, *m2])? * 60;
            if *sign == b'+' { seconds } else { -seconds }
        }
        _ => return None,
    };
    let seconds = days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset;
    seconds.checked_mul(NS)?.checked_add(fraction)
}

fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0i64, |value, b| b.is_ascii_digit().then(|| value * 10 + i64::from(b - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_what_go_writes() {
        for (time_ns, expect) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400 * NS, "2000-02-29T00:00:00Z"),
            (1_795_311_189_142_051_370, "2026-11-22T01:33:09.14205137Z"),
            (1_795_311_189_000_000_001, "2026-11-22T01:33:09.000000001Z"),
            (1_795_311_189_500_000_000, "2026-11-22T01:33:09.5Z"),
            (-1, "1969-12-31T23:59:59.999999999Z"),
        ] {
            assert_eq!(trimmed(time_ns), expect);
            assert_eq!(parse(expect.as_bytes()), Some(time_ns), "{expect}");
        }
        let mut out = Vec::new();
        write_fixed(1_795_311_189_500_000_000, &mut out);
        assert_eq!(out, b"2026-11-22T01:33:09.500000000Z");
    }

    #[test]
    fn every_day_of_two_eras_goes_there_and_back() {
        for day in (-150_000..150_000).step_by(7) {
            let (year, month, date) = civil(day);
            assert_eq!(days_from_civil(year, month, date), day);
        }
    }

    #[test]
    fn parses_offsets_and_refuses_the_rest() {
        assert_eq!(parse(b"1970-01-01T01:00:00.25+01:00"), Some(250_000_000));
        assert_eq!(parse(b"1969-12-31T23:30:00-00:30"), Some(0));
        for bad in [
            "",
            "1970-01-01",
            "1970-01-01T00:00:00",
            "1970-13-01T00:00:00Z",
            "1970-01-01T00:00:00.Z",
            "1970-01-01T00:00:00.1234567890Z",
            "1970-01-01T0x:00:00Z",
            "1970-01-01T00:00:00+1:00",
        ] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
