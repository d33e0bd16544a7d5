//! Signals by name or number, as `StopSignal` and `docker kill --signal` give them.

use crate::error::Error;

/// The first and the last realtime signal as C libraries number them (the two below belong to the C library).
const REALTIME: (i32, i32) = (34, 64);

/// Linux's names on the architectures that we run on, by number from 1.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// Reads `SIGTERM`, `term` or `15`.
///
/// # Errors
/// 400 `invalid signal: X`.
pub(crate) fn parse_signal(text: &str) -> Result<i32, Error> {
    let number = match text.parse::<i32>() {
        Ok(0) | Err(_) => by_name(text),
        Ok(number) if number == 1 || (1..=REALTIME.1).contains(&number) => Some(number),
        Ok(_) => None,
    };
    number.ok_or_else(|| Error::InvalidParameter(format!("invalid signal: {text}")))
}

fn by_name(text: &str) -> Option<i32> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(index) = NAMES.iter().position(|n| *n == name) {
        return i32::try_from(index + 1).ok();
    }
    match name {
        "IOT" => return Some(6),
        "CLD" => return Some(17),
        "POLL" => return Some(29),
        "UNUSED" => return Some(31),
        "RTMIN" => return Some(REALTIME.0),
        "RTMAX" => return Some(REALTIME.1),
        _ => {}
    }
    let number = match (name.strip_prefix("RTMIN+"), name.strip_prefix("RTMAX-")) {
        (Some(offset), _) => REALTIME.0 + offset.parse::<i32>().ok().filter(|o| (1..=15).contains(o))?,
        (_, Some(offset)) => REALTIME.1 - offset.parse::<i32>().ok().filter(|o| (1..=14).contains(o))?,
        _ => return None,
    };
    Some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_known_by_name_and_number() {
        let known = [
            ("15", 15),
            ("TERM", 15),
            ("SIGTERM", 15),
            ("sigterm", 15),
            ("KILL", 9),
            ("SIGUSR1", 10),
            ("CLD", 17),
            ("SIGSYS", 31),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("RTMAX", 64),
            ("64", 64),
            ("1", 1),
        ];
        for (text, number) in known {
            assert_eq!(parse_signal(text).ok(), Some(number), "{text}");
        }
        for text in
            ["", "0", "-1", "65", "SIGSIGTERM", "RTMIN+16", "RTMAX-15", "RTMIN+-1", "é", "99999999999"]
        {
            let error = parse_signal(text).unwrap_err().to_string();
            assert_eq!(error, format!("invalid signal: {text}"));
        }
    }
}
