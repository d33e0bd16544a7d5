//! Messages, to standard error or to a log file, as runc writes them.

use std::fs::{File, OpenOptions};
use std::io::Write;

use serde::Serialize;
use wherry_runtime::{Trace, Warning};

use crate::command_line::Global;
use crate::failure::Failure;
use crate::time;

/// Where messages go.
#[derive(Debug, Default)]
pub(crate) struct Log {
    file: Option<File>,
    json: bool,
    debug: bool,
}

#[derive(Serialize)]
struct Entry<'a> {
    level: &'a str,
    msg: &'a str,
    time: String,
}

impl Log {
    /// Opens the log file, if one is asked for.
    pub(crate) fn open(global: &Global) -> Result<Log, Failure> {
        let open = |path| {
            OpenOptions::new().append(true).create(true).open(path).map_err(Failure::file("open", path))
        };
        let file = global.log.as_ref().map(open).transpose()?;
        Ok(Log { file, json: global.log_json, debug: global.debug })
    }

    /// Writes an error: to the file, and in any case for the person at the terminal.
    pub(crate) fn error(&self, message: &str) {
        self.write("error", message);
        if self.file.is_some() {
            let _ = writeln!(std::io::stderr(), "{message}");
        }
    }

    /// Writes what is not as it should be, and does not stop the command.
    pub(crate) fn warning(&self, message: &str) {
        self.write("warning", message);
    }

    /// Writes what is not as it was asked for.
    pub(crate) fn warnings(&self, warnings: &[Warning]) {
        for warning in warnings {
            self.warning(&warning.to_string());
        }
    }

    /// Writes what is being done, with `--debug`.
    pub(crate) fn debug(&self, message: impl FnOnce() -> String) {
        if self.debug {
            self.write("debug", &message());
        }
    }

    /// For the library, which tells each step to `tell`, with `--debug`.
    pub(crate) fn trace<'a>(&self, tell: &'a (dyn Fn(&str) + Sync)) -> Option<Trace<'a>> {
        self.debug.then(|| Trace::new(tell))
    }

    fn write(&self, level: &str, message: &str) {
        let line = self.line(level, message);
        let _ = match self.file.as_ref() {
            Some(mut file) => file.write_all(line.as_bytes()),
            None => std::io::stderr().write_all(line.as_bytes()),
        };
    }

    fn line(&self, level: &str, message: &str) -> String {
        let time = time::now_in_seconds();
        if self.json {
            let entry = serde_json::to_string(&Entry { level, msg: message, time });
            return entry.unwrap_or_default() + "\n";
        }
        format!("time=\"{time}\" level={level} msg={message:?}\n")
    }
}
