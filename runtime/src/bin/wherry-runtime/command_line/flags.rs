//! Options as Go's `flag` package reads them, since that is what runc's callers write: `-name` is `--name`,
//! `--name=value` is `--name value`, and a switch may be given a value (`--tty=false`).

use std::ffi::OsString;

/// What an option takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing: it is there or not.
    Switch,
    /// One text; the last one counts.
    Text,
    /// A whole number; the last one counts.
    Number,
    /// A span of time as Go writes it (`1m30s`, `100ms`).
    Duration,
    /// A text each time that it is given.
    Texts,
    /// A whole number each time that it is given.
    Numbers,
}

/// An option.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flag {
    /// Its name, without dashes.
    pub(crate) name: &'static str,
    /// Its other name, one letter.
    pub(crate) short: Option<&'static str>,
    /// What it takes.
    pub(crate) kind: Kind,
    /// What it does, for the help; an empty one is not shown there.
    pub(crate) usage: &'static str,
    /// What it is without being given, for the help.
    pub(crate) default: Option<&'static str>,
}

impl Flag {
    fn is(&self, name: &str) -> bool {
        self.name == name || self.short == Some(name)
    }
}

/// Where options end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// At the first argument; the rest belongs to somebody else.
    First,
    /// They may stand among the arguments.
    Mixed,
}

/// A text where the command line does not make sense, in the words of Go's `flag`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Misuse(pub(crate) String);

/// What was given.
#[derive(Debug, Default)]
pub(crate) struct Given {
    options: Vec<(&'static str, String)>,
    /// What is no option, in order.
    pub(crate) arguments: Vec<String>,
    /// Whether help was asked for.
    pub(crate) help: bool,
}

impl Given {
    /// Whether that option was given.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.options.iter().any(|(n, _)| *n == name)
    }

    /// Whether that switch is on.
    pub(crate) fn switch(&self, name: &str) -> bool {
        self.text(name).is_some_and(|value| value == "true")
    }

    /// The option's value; an empty one counts as none.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        let last = self.options.iter().rfind(|(n, _)| *n == name);
        last.map(|(_, value)| value.clone()).filter(|value| !value.is_empty())
    }

    /// All its values.
    pub(crate) fn texts(&self, name: &str) -> Vec<String> {
        self.options.iter().filter(|(n, _)| *n == name).map(|(_, value)| value.clone()).collect()
    }

    /// The number, 0 if it was not given. That it is one was checked when it was read.
    pub(crate) fn number(&self, name: &str) -> i64 {
        self.text(name).and_then(|value| value.parse().ok()).unwrap_or(0)
    }
}

/// Reads options and arguments.
pub(crate) fn read(
    flags: &[Flag],
    order: Order,
    args: impl IntoIterator<Item = OsString>,
) -> Result<Given, Misuse> {
    let mut given = Given::default();
    let mut args = args.into_iter().map(text);
    while let Some(arg) = args.next() {
        let arg = arg?;
        let Some(name) = option_name(&arg) else {
            if arg == "--" {
                break;
            }
            given.arguments.push(arg);
            if order == Order::First {
                break;
            }
            continue;
        };
        let (name, value) = match name.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (name, None),
        };
        if matches!(name, "help" | "h") && !flags.iter().any(|flag| flag.is(name)) {
            given.help = true;
            return Ok(given);
        }
        match flags.iter().find(|flag| flag.is(name)) {
            Some(flag) => {
                let value = match (flag.kind, value) {
                    (Kind::Switch, None) => "true".to_owned(),
                    (_, Some(value)) => value,
                    (_, None) => args
                        .next()
                        .unwrap_or_else(|| Err(Misuse(format!("flag needs an argument: -{name}"))))?,
                };
                given.options.push((flag.name, checked(flag.kind, name, value)?));
            }
            // `kill ID -9`
            None if !given.arguments.is_empty() => given.arguments.push(arg),
            None => return Err(Misuse(format!("flag provided but not defined: -{name}"))),
        }
    }
    for arg in args {
        given.arguments.push(arg?);
    }
    Ok(given)
}

fn text(arg: OsString) -> Result<String, Misuse> {
    arg.into_string().map_err(|arg| Misuse(format!("argument is not valid UTF-8: {}", arg.display())))
}

/// `name` of `-name` and `--name`; `-` and `--` are none.
fn option_name(arg: &str) -> Option<&str> {
    let rest = arg.strip_prefix('-')?;
    let name = rest.strip_prefix('-').unwrap_or(rest);
    (!name.is_empty()).then_some(name)
}

fn checked(kind: Kind, name: &str, value: String) -> Result<String, Misuse> {
    let fits = match kind {
        Kind::Text | Kind::Texts => true,
        Kind::Number | Kind::Numbers => value.parse::<i64>().is_ok(),
        Kind::Duration => duration_ms(&value).is_some(),
        Kind::Switch => {
            return match value.as_str() {
                "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok("true".to_owned()),
                "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok("false".to_owned()),
                _ => Err(Misuse(format!("invalid boolean value {value:?} for -{name}: parse error"))),
            };
        }
    };
    if fits {
        Ok(value)
    } else {
        Err(Misuse(format!("invalid value {value:?} for flag -{name}: parse error")))
    }
}

/// Milliseconds of `1h2m3.5s`, `100ms`, `0`; `None` if it is no span of time.
pub(crate) fn duration_ms(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut total = 0.0;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (value, after) = rest.split_at(number);
        let unit = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let factor = match unit {
            "ns" => 1e-6,
            "us" | "µs" => 1e-3,
            "ms" => 1.0,
            "s" => 1e3,
            "m" => 6e4,
            "h" => 3.6e6,
            _ => return None,
        };
        total += value.parse::<f64>().ok()? * factor;
        rest = after;
    }
    (!text.is_empty() && total < 9e15).then_some((sign * total) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: [Flag; 4] = [
        Flag { name: "tty", short: Some("t"), kind: Kind::Switch, usage: "", default: None },
        Flag { name: "env", short: Some("e"), kind: Kind::Texts, usage: "", default: None },
        Flag { name: "limit", short: None, kind: Kind::Number, usage: "", default: None },
        Flag { name: "interval", short: None, kind: Kind::Duration, usage: "", default: None },
    ];

    fn of(order: Order, args: &[&str]) -> Result<Given, Misuse> {
        read(&FLAGS, order, args.iter().map(OsString::from))
    }

    #[test]
    fn as_go_reads_them() {
        let given = of(Order::First, &["-t", "--env=A=1", "-e", "B", "-limit", "-1", "box", "-t", "--x"]);
        let given = given.unwrap();
        assert!(given.switch("tty") && !given.help);
        assert_eq!((given.texts("env"), given.number("limit")), (vec!["A=1".into(), "B".into()], -1));
        assert_eq!(given.arguments, ["box", "-t", "--x"]);
        let mixed = of(Order::Mixed, &["box", "--tty=false", "-9", "--", "-t"]).unwrap();
        assert!(!mixed.switch("tty") && mixed.has("tty"));
        assert_eq!(mixed.arguments, ["box", "-9", "-t"]);
        assert!(of(Order::Mixed, &["-h"]).unwrap().help);
    }

    #[test]
    fn what_makes_no_sense() {
        for (args, message) in [
            (&["--nope"][..], "flag provided but not defined: -nope"),
            (&["-limit", "x"], "invalid value \"x\" for flag -limit: parse error"),
            (&["-limit"], "flag needs an argument: -limit"),
            (&["-t=maybe"], "invalid boolean value \"maybe\" for -t: parse error"),
            (&["--interval", "5"], "invalid value \"5\" for flag -interval: parse error"),
        ] {
            assert_eq!(of(Order::Mixed, args).unwrap_err().0, message);
        }
    }

    #[test]
    fn durations() {
        for (text, ms) in [
            ("100ms", Some(100)),
            ("1m30s", Some(90_000)),
            ("1.5s", Some(1500)),
            ("0", Some(0)),
            ("-1s", Some(-1000)),
            ("", None),
            ("5", None),
            ("1x", None),
            ("s", None),
        ] {
            assert_eq!(duration_ms(text), ms, "{text}");
        }
    }
}
