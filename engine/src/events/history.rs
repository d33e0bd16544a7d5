//! The past events on disk, so that `docker events --since` has no gap over the end of an engine, whatever ended it: an event is
//! written before anybody hears of it. A write reaches the kernel and no further; a power cut may take the last seconds.
//!
//! One line of JSON for each event in `DATA_ROOT/events/current`; once it holds [`KEPT`] of them it becomes `previous`, and the
//! events before are forgotten.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// As many events as are surely kept.
pub(super) const KEPT: usize = 2048;

/// A line of the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Line {
    /// `container`, `image` …
    pub(super) kind: String,
    pub(super) action: String,
    pub(super) id: String,
    pub(super) attributes: BTreeMap<String, String>,
    pub(super) time_ns: i64,
    /// The number that a container's monitor gave it; 0 for the engine's own.
    #[serde(default)]
    pub(super) seq: u64,
}

/// The file, open.
#[derive(Debug)]
pub(super) struct History {
    dir: PathBuf,
    file: File,
    lines: usize,
    /// Whether a failure has been told; one line in the log is enough for a full disk.
    told: bool,
}

impl History {
    /// Opens it below `data_root`, with what it holds, oldest first. Lines that were not written to their end are left out.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn open(data_root: &Path) -> io::Result<(Self, Vec<Line>)> {
        let dir = data_root.join("events");
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        let mut past = read(&dir.join("previous"))?.0;
        let (current, whole) = read(&dir.join("current"))?;
        let lines = current.len();
        past.extend(current);
        past.sort_by_key(|line| line.time_ns);
        let mut file = open(&dir)?;
        if !whole {
            file.write_all(b"\n")?;
        }
        Ok((Self { dir, file, lines, told: false }, past))
    }

    /// Adds an event.
    pub(super) fn append(&mut self, line: &Line) {
        match self.try_append(line) {
            Ok(()) => self.told = false,
            Err(error) if !self.told => {
                self.told = true;
                tracing::error!(%error, "events are not kept over the engine's end");
            }
            Err(_) => {}
        }
    }

    fn try_append(&mut self, line: &Line) -> io::Result<()> {
        if self.lines >= KEPT {
            std::fs::rename(self.dir.join("current"), self.dir.join("previous"))?;
            (self.file, self.lines) = (open(&self.dir)?, 0);
        }
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        self.file.write_all(&text)?;
        self.lines += 1;
        Ok(())
    }
}

fn open(dir: &Path) -> io::Result<File> {
    File::options().append(true).create(true).mode(0o600).open(dir.join("current"))
}

/// The lines of a file, and whether its last one was written to its end.
fn read(path: &Path) -> io::Result<(Vec<Line>, bool)> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), true)),
        Err(error) => return Err(error),
    };
    let lines = bytes.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
    Ok((lines.collect(), bytes.last().is_none_or(|byte| *byte == b'\n')))
}

/// The last number of each container's monitor among these.
pub(super) fn seen(lines: &[Line]) -> HashMap<String, u64> {
    let mut seen = HashMap::new();
    for line in lines.iter().filter(|line| line.seq > 0) {
        let last = seen.entry(line.id.clone()).or_insert(0);
        *last = line.seq.max(*last);
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(id: &str, time_ns: i64, seq: u64) -> Line {
        let (kind, action) = ("container".to_owned(), "die".to_owned());
        Line { kind, action, id: id.into(), attributes: BTreeMap::new(), time_ns, seq }
    }

    #[test]
    fn what_was_added_is_there_again_and_torn_lines_are_not() {
        let root = tempfile::tempdir().unwrap();
        let (mut history, past) = History::open(root.path()).unwrap();
        assert!(past.is_empty());
        history.append(&line("b", 2, 7));
        history.append(&line("a", 1, 0));
        drop(history);
        let path = root.path().join("events/current");
        let whole = std::fs::read(&path).unwrap();
        File::options().append(true).open(&path).unwrap().write_all(br#"{"kind":"cont"#).unwrap();
        let (mut history, past) = History::open(root.path()).unwrap();
        assert_eq!(past, [line("a", 1, 0), line("b", 2, 7)], "in the order of time");
        assert_eq!(seen(&past), HashMap::from([("b".to_owned(), 7)]));
        history.append(&line("c", 3, 0));
        drop(history);
        assert!(std::fs::read(&path).unwrap().starts_with(&whole));
        assert_eq!(History::open(root.path()).unwrap().1.len(), 3);
    }

    #[test]
    fn it_is_bounded() {
        let root = tempfile::tempdir().unwrap();
        let (mut history, _) = History::open(root.path()).unwrap();
        for n in 0..5 * KEPT as i64 / 2 {
            history.append(&line("x", n, 0));
        }
        let (_, past) = History::open(root.path()).unwrap();
        assert_eq!(past.len(), KEPT + KEPT / 2);
        assert_eq!(past.first().unwrap().time_ns, KEPT as i64);
    }
}
