//! Values as Go's `fmt` prints them: histories and messages are made so.

use std::fmt::Write;

/// A string in Go's `%q` form.
#[must_use]
pub fn go_quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    text.chars().for_each(|c| escape(c, '"', &mut quoted));
    quoted.push('"');
    quoted
}

/// `["a" "b"]`.
pub(crate) fn quote_all(words: &[String]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| go_quote(word)).collect();
    format!("[{}]", quoted.join(" "))
}

/// A number in Go's `%q` form, which takes it for a character.
pub(crate) fn quote_number(number: i64) -> String {
    let c = u32::try_from(number).ok().and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER);
    let mut quoted = String::from('\'');
    escape(c, '\'', &mut quoted);
    quoted.push('\'');
    quoted
}

fn escape(c: char, delimiter: char, out: &mut String) {
    let short = match c {
        '\u{7}' => Some('a'),
        '\u{8}' => Some('b'),
        '\u{c}' => Some('f'),
        '\n' => Some('n'),
        '\r' => Some('r'),
        '\t' => Some('t'),
        '\u{b}' => Some('v'),
        '\\' => Some('\\'),
        c if c == delimiter => Some(c),
        _ => None,
    };
    // Writing to a string cannot fail.
    let _ = match (short, u32::from(c)) {
        (Some(short), _) => write!(out, "\\{short}"),
        (None, code) if code < 0x20 || code == 0x7f => write!(out, "\\x{code:02x}"),
        (None, code) if c.is_control() || (c.is_whitespace() && c != ' ') => write!(out, "\\u{code:04x}"),
        _ => write!(out, "{c}"),
    };
}

/// A duration: `1m30s`, `1.5s`, `0s`.
pub(crate) fn duration(ns: i64) -> String {
    const SECOND: u64 = 1_000_000_000;
    let sign = if ns < 0 { "-" } else { "" };
    let ns = ns.unsigned_abs();
    if ns == 0 {
        return "0s".into();
    }
    if ns < SECOND {
        let (unit, size) = match ns {
            0..1_000 => ("ns", 1),
            1_000..1_000_000 => ("µs", 1_000),
            _ => ("ms", 1_000_000),
        };
        return format!("{sign}{}{unit}", fraction(ns, size));
    }
    let (hours, minutes) = (ns / SECOND / 3600, ns / SECOND / 60 % 60);
    let seconds = fraction(ns % (60 * SECOND), SECOND);
    match (hours, minutes) {
        (0, 0) => format!("{sign}{seconds}s"),
        (0, minutes) => format!("{sign}{minutes}m{seconds}s"),
        (hours, minutes) => format!("{sign}{hours}h{minutes}m{seconds}s"),
    }
}

/// `value / unit`, without zeros at the end.
fn fraction(value: u64, unit: u64) -> String {
    if unit == 1 || value.is_multiple_of(unit) {
        return (value / unit).to_string();
    }
    let digits = unit.ilog10() as usize;
    let text = format!("{}.{:0digits$}", value / unit, value % unit);
    text.trim_end_matches('0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_go_s() {
        assert_eq!(go_quote("a\"b\\\n\u{1}é'"), "\"a\\\"b\\\\\\n\\x01é'\"");
        assert_eq!(quote_all(&["a".into(), "b c".into()]), "[\"a\" \"b c\"]");
        assert_eq!(quote_number(0), "'\\x00'");
        assert_eq!(
            (quote_number(65), quote_number(39), quote_number(10)),
            ("'A'".into(), "'\\''".into(), "'\\n'".into())
        );
        let check = |ns: i64, expect: &str| assert_eq!(duration(ns), expect);
        check(0, "0s");
        check(90_000_000_000, "1m30s");
        check(1_500_000_000, "1.5s");
        check(3_600_000_000_000, "1h0m0s");
        check(1_500_000, "1.5ms");
        check(-1_000, "-1µs");
    }
}
