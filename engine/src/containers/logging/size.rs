//! Sizes as people write them: `10m`, `1.5 GiB`.

use super::Reason;

/// In decimal units: `10m` is ten million bytes.
///
/// # Errors
/// `invalid size: 'x'`.
pub(super) fn decimal(text: &str) -> Result<u64, Reason> {
    parse(text, 1000.0)
}

/// In binary units: `10m` is 10 MiB.
///
/// # Errors
/// `invalid size: 'x'`.
pub(super) fn binary(text: &str) -> Result<u64, Reason> {
    parse(text, 1024.0)
}

fn parse(text: &str, base: f64) -> Result<u64, Reason> {
    let refuse = || format!("invalid size: '{text}'");
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits).ok_or_else(refuse)?;
    let number: f64 = number.parse().map_err(|_| refuse())?;
    let unit = unit.trim_start_matches(' ').to_ascii_lowercase();
    let unit = unit.strip_suffix('b').unwrap_or(&unit);
    let power = match unit.strip_suffix('i').unwrap_or(unit) {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(refuse()),
    };
    Ok((number * base.powi(power)) as u64)
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
        ] {
            assert_eq!((decimal(text), binary(text)), (Ok(tens), Ok(twos)), "{text}");
        }
        for text in ["", "bar", "m", "-1", "1x", "1.2.3"] {
            assert_eq!(decimal(text), Err(format!("invalid size: '{text}'")));
        }
    }
}
