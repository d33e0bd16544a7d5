//! Error messages, to standard error and to a log file, as runc writes them.

use std::fs::{File, OpenOptions};
use std::io::Write;

use serde::Serialize;

use crate::arguments::Global;
use crate::time;

/// Where messages go.
#[derive(Debug, Default)]
pub(crate) struct Log {
    file: Option<File>,
    json: bool,
}

#[derive(Serialize)]
struct Entry<'a> {
    level: &'a str,
    msg: &'a str,
    time: String,
}

impl Log {
    /// Opens the log file, if one is asked for. One that cannot be opened is told on standard error.
    pub(crate) fn open(global: &Global) -> Log {
        let mut log = Log { file: None, json: global.log_json };
        if let Some(path) = &global.log {
            match OpenOptions::new().append(true).create(true).open(path) {
                Ok(file) => log.file = Some(file),
                Err(error) => log.error(&format!("open log file {}: {error}", path.display())),
            }
        }
        log
    }

    /// Writes an error: to the file, and in any case for the person at the terminal.
    pub(crate) fn error(&self, message: &str) {
        let line = self.line(message);
        if let Some(mut file) = self.file.as_ref() {
            let _ = file.write_all(line.as_bytes());
            let _ = writeln!(std::io::stderr(), "{message}");
        } else {
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
    }

    fn line(&self, message: &str) -> String {
        let time = time::now_in_seconds();
        if self.json {
            let entry = serde_json::to_string(&Entry { level: "error", msg: message, time });
            return entry.unwrap_or_default() + "\n";
        }
        format!("time=\"{time}\" level=error msg={message:?}\n")
    }
}
