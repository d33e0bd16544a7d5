//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::prelude::{Long, Short};

/// What `--help` prints.
pub(crate) const USAGE: &str = "\
wherry-netd: host networking for Wherry's containers. The engine starts it by itself.

Usage: wherry-netd --exec-root DIR --data-root DIR [--background | --standby]

  --exec-root DIR   state until the next boot; the socket is DIR/netd.sock
  --data-root DIR   networks, in DIR/network
  --background      go on in the background, with the log in EXEC_ROOT/netd/netd.log;
                    the command ends when netd answers
  --standby         wait until the netd that runs dies, and take its place; netd starts it by itself
  --version         print the version
";

/// What the command is to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Run { exec_root: PathBuf, data_root: PathBuf, mode: Mode },
    Help,
    Version,
}

/// How netd is to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Foreground,
    Background,
    Standby,
}

/// Reads the arguments behind the program's name.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Action, lexopt::Error> {
    let mut parser = lexopt::Parser::from_args(args);
    let (mut exec_root, mut data_root, mut mode) = (None, None, Mode::Foreground);
    while let Some(arg) = parser.next()? {
        match arg {
            Long("exec-root") => exec_root = Some(PathBuf::from(parser.value()?)),
            Long("data-root") => data_root = Some(PathBuf::from(parser.value()?)),
            Long("background") => mode = Mode::Background,
            Long("standby") => mode = Mode::Standby,
            Long("version") | Short('v') => return Ok(Action::Version),
            Long("help") | Short('h') => return Ok(Action::Help),
            other => return Err(other.unexpected()),
        }
    }
    let missing = |name: &str| lexopt::Error::from(format!("{name} is missing"));
    Ok(Action::Run {
        exec_root: exec_root.ok_or_else(|| missing("--exec-root"))?,
        data_root: data_root.ok_or_else(|| missing("--data-root"))?,
        mode,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_roots_are_needed() {
        let parse = |text: &str| parse(text.split_ascii_whitespace().map(OsString::from));
        assert!(parse("--exec-root /a").unwrap_err().to_string().contains("--data-root"));
        assert!(parse("--exec-root /a --data-root /b --nosuch").is_err());
        let run = parse("--exec-root /a --data-root=/b --background").unwrap();
        assert_eq!(
            run,
            Action::Run { exec_root: "/a".into(), data_root: "/b".into(), mode: Mode::Background }
        );
    }
}
