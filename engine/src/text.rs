//! Text as Go writes it, since dockerd's messages are the interface.

pub(crate) use wherry_dockerfile::go_quote;

/// As Go's `strconv.ParseBool`.
pub(crate) fn go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// What `k` stands for where sizes are decimal …
pub(crate) const DECIMAL: f64 = 1000.0;
/// … and where they are binary, as most are.
pub(crate) const BINARY: f64 = 1024.0;

/// A size as people write it, `64m` or `1.5 GiB`, as Docker's go-units reads it; `kilo` is what a `k` stands for.
///
/// # Errors
/// In go-units' words.
pub(crate) fn go_size(text: &str, kilo: f64) -> Result<u64, String> {
    let invalid = || format!("invalid size: '{text}'");
    let last = text.rfind(|c: char| c.is_ascii_digit() || matches!(c, '.' | ' ')).ok_or_else(invalid)?;
    let (number, unit) = text.split_at_checked(last + 1).ok_or_else(invalid)?;
    let number = number.strip_suffix(' ').unwrap_or(number);
    let number: f64 = number
        .parse()
        .map_err(|_| format!("strconv.ParseFloat: parsing {}: invalid syntax", go_quote(number)))?;
    if number < 0.0 {
        return Err(invalid());
    }
    let power = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        "p" | "pb" | "pib" => 5,
        unit => return Err(format!("invalid suffix: '{unit}'")),
    };
    Ok((number * kilo.powi(power)) as u64)
}

/// JSON as Go's encoder writes it: characters that mean something in HTML or JavaScript are escaped.
pub(crate) fn go_json<T: serde::Serialize + ?Sized>(value: &T) -> String {
    let mut text = serde_json::to_string(value).unwrap_or_default();
    let escapes = [
        ('<', "\\u003c"),
        ('>', "\\u003e"),
        ('&', "\\u0026"),
        ('\u{2028}', "\\u2028"),
        ('\u{2029}', "\\u2029"),
    ];
    for (character, escape) in escapes {
        if text.contains(character) {
            text = text.replace(character, escape);
        }
    }
    text
}

/// A system error's text as Go prints it: `no such file or directory`.
pub(crate) fn go_error(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split_once(" (os error").map_or(text.as_str(), |(words, _)| words);
    // libc's texts begin with a capital, Go's own do not, except where a word is spelt in capitals.
    let mut letters = text.chars();
    match letters.next() {
        Some(first) if !letters.as_str().starts_with(|c: char| c.is_ascii_uppercase()) => {
            first.to_lowercase().chain(letters).collect()
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, tens, twos) in [
            ("10m", 10_000_000, 10 << 20),
            ("10", 10, 10),
            ("1.5kB", 1500, 1536),
            ("2 GiB", 2_000_000_000, 2 << 30),
            ("0", 0, 0),
            ("7b", 7, 7),
        ] {
            assert_eq!((go_size(text, DECIMAL), go_size(text, BINARY)), (Ok(tens), Ok(twos)), "{text}");
        }
        for (text, expect) in [
            ("", "invalid size: ''"),
            ("bar", "invalid size: 'bar'"),
            ("-1", "invalid size: '-1'"),
            ("1x", "invalid suffix: 'x'"),
            ("1mbb", "invalid suffix: 'mbb'"),
            ("1.2.3", "strconv.ParseFloat: parsing \"1.2.3\": invalid syntax"),
            ("1  m", "strconv.ParseFloat: parsing \"1 \": invalid syntax"),
        ] {
            assert_eq!(go_size(text, BINARY), Err(expect.to_owned()));
        }
    }
}
