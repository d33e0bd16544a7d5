//! The command line, read as dockerd's (pflag) reads it.

use std::ffi::OsString;

use super::options::{self, Spec};
use super::{ConfigError, Settings};

/// Reads the arguments (without the program's name).
///
/// # Errors
/// dockerd's texts for unknown flags, missing and wrong values, and arguments that are no flags.
pub(super) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Settings, ConfigError> {
    let mut settings = Settings::default();
    let mut args = args.into_iter().map(|a| a.to_string_lossy().into_owned());
    while let Some(arg) = args.next() {
        if let Some(long) = arg.strip_prefix("--").filter(|l| !l.is_empty()) {
            parse_long(&mut settings, long, &mut args)?;
        } else if let Some(shorts) = arg.strip_prefix('-').filter(|s| !s.is_empty() && arg != "--") {
            parse_shorts(&mut settings, shorts, &mut args)?;
        } else if arg != "--" {
            return Err(ConfigError::Usage(format!(
                "unexpected argument: {arg}: \"wherryd\" accepts no arguments."
            )));
        }
    }
    Ok(settings)
}

/// `--name`, `--name=value`, `--name value`.
fn parse_long(
    settings: &mut Settings,
    long: &str,
    rest: &mut impl Iterator<Item = String>,
) -> Result<(), ConfigError> {
    let (name, given) = match long.split_once('=') {
        Some((name, value)) => (name, Some(value.to_string())),
        None => (long, None),
    };
    let spec = options::by_flag(name).ok_or_else(|| ConfigError::Usage(format!("unknown flag: --{name}")))?;
    let value = match given {
        Some(value) => value,
        None if spec.kind.is_switch() => "true".into(),
        None => rest.next().ok_or_else(|| ConfigError::Usage(format!("flag needs an argument: --{name}")))?,
    };
    set(settings, spec, &value)
}

/// `-D`, `-Dl debug`, `-ldebug`, `-l=debug`.
fn parse_shorts(
    settings: &mut Settings,
    shorts: &str,
    rest: &mut impl Iterator<Item = String>,
) -> Result<(), ConfigError> {
    let mut remaining = shorts;
    while let Some(short) = remaining.chars().next() {
        let after = remaining.strip_prefix(short).unwrap_or_default();
        let spec = options::by_short(short).ok_or_else(|| {
            ConfigError::Usage(format!("unknown shorthand flag: '{short}' in -{remaining}"))
        })?;
        if let Some(value) = after.strip_prefix('=') {
            return set(settings, spec, value);
        }
        if spec.kind.is_switch() {
            set(settings, spec, "true")?;
            remaining = after;
            continue;
        }
        if !after.is_empty() {
            return set(settings, spec, after);
        }
        let needs = || ConfigError::Usage(format!("flag needs an argument: '{short}' in -{remaining}"));
        return set(settings, spec, &rest.next().ok_or_else(needs)?);
    }
    Ok(())
}

fn set(settings: &mut Settings, spec: &'static Spec, text: &str) -> Result<(), ConfigError> {
    let before = settings.take(spec.id());
    let value = spec.kind.read_flag(text, before).map_err(|why| {
        let quoted = crate::text::go_quote(text);
        ConfigError::Usage(format!("invalid argument {quoted} for \"{}\" flag: {why}", spec.shown()))
    })?;
    settings.put(spec.id(), value);
    Ok(())
}

/// The text of `--help`.
pub(super) fn help() -> String {
    let mut text = String::from(
        "\nUsage:\twherryd [OPTIONS]\n\nA drop-in replacement for the Docker daemon, whose containers need no daemon.\n\nOptions:\n",
    );
    for spec in options::OPTIONS.iter().filter(|o| !o.flag.is_empty()) {
        let short = spec.short.map_or("    ".into(), |s| format!("-{s}, "));
        let left = format!("  {short}--{} {}", spec.flag, spec.kind.placeholder());
        text.push_str(&format!("{left:<44}{}\n", spec.help));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(args: &[&str]) -> String {
        parse(args.iter().map(OsString::from)).unwrap_err().to_string()
    }

    #[test]
    fn bad_flags_are_told_in_dockerds_words() {
        let hint = "\nSee 'wherryd --help'.";
        assert_eq!(error(&["--nosuch=1"]), format!("unknown flag: --nosuch{hint}"));
        assert_eq!(error(&["-Dx"]), format!("unknown shorthand flag: 'x' in -x{hint}"));
        assert_eq!(error(&["-l"]), format!("flag needs an argument: 'l' in -l{hint}"));
        assert_eq!(error(&["--storage-driver"]), format!("flag needs an argument: --storage-driver{hint}"));
        assert_eq!(
            error(&["--debug=maybe"]),
            format!(
                "invalid argument \"maybe\" for \"-D, --debug\" flag: strconv.ParseBool: parsing \"maybe\": invalid syntax{hint}"
            )
        );
        assert!(error(&["--debug", "true"]).contains("accepts no arguments"));
    }

    #[test]
    fn all_forms_of_flags_are_read() {
        let args = [
            "-Dl",
            "warn",
            "--live-restore=false",
            "-Htcp://:1",
            "--host",
            "fd://",
            "-b=br7",
            "--mtu",
            "1400",
        ];
        let settings = parse(args.map(OsString::from)).unwrap();
        assert_eq!(settings.flag("debug"), Some(true));
        assert_eq!(settings.text("log-level"), Some("warn"));
        assert_eq!(settings.flag("live-restore"), Some(false));
        assert_eq!(settings.list("hosts"), ["tcp://127.0.0.1:1", "fd://"]);
        assert_eq!(settings.text("bridge"), Some("br7"));
        assert_eq!(settings.int("mtu"), Some(1400));
    }

    #[test]
    fn help_names_each_flag() {
        let help = help();
        for spec in options::OPTIONS.iter().filter(|o| !o.flag.is_empty()) {
            assert!(help.contains(&format!("--{} ", spec.flag)), "{}", spec.flag);
        }
    }
}
