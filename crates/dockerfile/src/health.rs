//! `HEALTHCHECK`.

use crate::flags::{Flags, Takes};
use crate::words::{json_array, options};
use crate::{Error, Result};

/// A health probe; what is 0 was not given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", command]`.
    pub test: Vec<String>,
    /// Between probes, in nanoseconds.
    pub interval_ns: i64,
    /// A probe that takes longer has failed, in nanoseconds.
    pub timeout_ns: i64,
    /// Failures in this time from the start do not count, in nanoseconds.
    pub start_period_ns: i64,
    /// Between probes in the start period, in nanoseconds.
    pub start_interval_ns: i64,
    /// So many failures in a row mean unhealthy.
    pub retries: i64,
}

/// The shortest time that an option takes, in nanoseconds.
const SHORTEST_NS: i64 = 1_000_000;

/// Reads the instruction's arguments.
pub(crate) fn read(text: &str, escape: char) -> Result<Healthcheck> {
    let (given, rest) = options(text, escape);
    let rest = rest.trim();
    let (kind, arguments) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let arguments = arguments.trim_start();
    if kind.is_empty() {
        return Err(Error::AtLeastOne("HEALTHCHECK"));
    }
    let array = json_array(arguments)?;
    let mut check = Healthcheck::default();
    match kind.to_uppercase().as_str() {
        "NONE" if arguments.is_empty() => {
            check.test = vec!["NONE".into()];
            return Ok(check);
        }
        "NONE" => return Err(Error::HealthNone),
        kind => {
            check.set_options(&given)?;
            if kind != "CMD" {
                return Err(Error::HealthType(kind.to_owned()));
            }
        }
    }
    let (kind, command) = match array {
        Some(array) => ("CMD", array),
        None if arguments.is_empty() => ("CMD-SHELL", Vec::new()),
        None => ("CMD-SHELL", vec![arguments.to_owned()]),
    };
    if command.is_empty() {
        return Err(Error::HealthCommand);
    }
    check.test = std::iter::once(kind.to_owned()).chain(command).collect();
    Ok(check)
}

impl Healthcheck {
    fn set_options(&mut self, given: &[String]) -> Result<()> {
        let known = ["interval", "timeout", "start-period", "start-interval", "retries"];
        let flags = Flags::parse(given, &known.map(|name| (name, Takes::Text)))?;
        let time = |name| duration(name, &flags.text(name).unwrap_or_default());
        self.interval_ns = time("interval")?;
        self.timeout_ns = time("timeout")?;
        self.start_period_ns = time("start-period")?;
        self.start_interval_ns = time("start-interval")?;
        self.retries = retries(&flags.text("retries").unwrap_or_default())?;
        Ok(())
    }
}

fn duration(name: &str, text: &str) -> Result<i64> {
    if text.is_empty() {
        return Ok(0);
    }
    match wherry_rfc3339::duration(text)? {
        0 => Ok(0),
        short if short < SHORTEST_NS => Err(Error::HealthInterval(name.to_owned())),
        long => Ok(long),
    }
}

fn retries(text: &str) -> Result<i64> {
    if text.is_empty() {
        return Ok(0);
    }
    let number = text.parse::<i32>().map_err(|error| {
        use std::num::IntErrorKind;
        let reason = match error.kind() {
            IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "value out of range",
            _ => "invalid syntax",
        };
        Error::Number { text: text.to_owned(), reason }
    })?;
    if number < 0 { Err(Error::HealthRetries(number.into())) } else { Ok(number.into()) }
}
