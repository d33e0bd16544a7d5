//! Reads a log from the tail or from a time on, and goes on as it grows.

mod tail;

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::entry::{Entry, Stream};
use crate::files::Part;
use crate::format::Format;
use crate::{files, parse};

/// Bytes per read.
const BLOCK: usize = 64 << 10;
/// A longer line is not a log entry and is skipped.
const MAX_LINE: usize = 4 << 20;
/// The kernel's clock for files may be that much behind.
const MTIME_MARGIN_NS: i64 = 1_000_000_000;

/// Which entries are wanted.
#[derive(Debug, Clone)]
pub struct Query {
    /// Whether those of standard output are.
    pub stdout: bool,
    /// Whether those of standard error are.
    pub stderr: bool,
    /// Only those at or after this time, in nanoseconds since the epoch.
    pub since_ns: Option<i64>,
    /// Only those up to this time; the first later one ends the reading.
    pub until_ns: Option<i64>,
    /// Only the last ones, counted before the other conditions, as dockerd does; `None` for all.
    pub tail: Option<u64>,
    /// Whether to go on with what is written later. Otherwise the end is where the log ended at [`Reader::open`].
    pub follow: bool,
}

/// Why [`Reader::fill`] stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filled {
    /// The limit was reached; there may be more.
    More,
    /// Nothing more for now; what is written later can be read later.
    UpToDate,
    /// Nothing more will come.
    End,
}

/// A position in a log.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    query: Query,
    /// What is being read; `None` before a log that does not exist yet.
    file: Option<File>,
    /// Where in `file` the bytes after the buffer's begin.
    offset: u64,
    /// Where to stop in the last file.
    limit: u64,
    /// Newer files, the oldest of them first.
    newer: VecDeque<Part>,
    /// The unread part is `start..`.
    buffer: Vec<u8>,
    start: usize,
    text: Vec<u8>,
    ended: bool,
}

impl Reader {
    /// Goes to the first entry that `query` wants in the log whose current file is `path`. A log that does not
    /// exist is an empty one.
    ///
    /// # Errors
    /// Whatever open and read answer.
    pub fn open(path: &Path, query: Query) -> io::Result<Self> {
        let mut newest_first = files::open_all(path)?;
        let limit = match newest_first.first() {
            Some(file) if !query.follow => file.metadata()?.len(),
            _ => u64::MAX,
        };
        let mut offset = 0;
        if let Some(lines) = query.tail {
            let from = tail::find(&mut newest_first, path, lines, limit)?;
            newest_first.truncate(from.file + 1);
            offset = from.offset;
        }
        let mut files: VecDeque<Part> = newest_first.into_iter().rev().collect();
        if let Some(since_ns) = query.since_ns {
            while files.len() > 1 && files.front().is_some_and(|file| ended_before(file, since_ns)) {
                files.pop_front();
                offset = 0;
            }
        }
        let file = files.pop_front().map(|part| part.into_text(path)).transpose()?;
        let (path, ended) = (path.to_owned(), false);
        Ok(Self {
            path,
            query,
            file,
            offset,
            limit,
            newer: files,
            buffer: Vec::new(),
            start: 0,
            text: Vec::new(),
            ended,
        })
    }

    /// The next entry; `None` at the end, or for now if following.
    ///
    /// # Errors
    /// Whatever read answers. A line that does not parse is skipped.
    #[allow(clippy::should_implement_trait, reason = "an entry borrows from the reader")]
    pub fn next(&mut self) -> io::Result<Option<Entry<'_>>> {
        let Some((line, parsed)) = self.next_parsed()? else { return Ok(None) };
        let parse::Parsed { stream, time_ns, attributes } = parsed;
        let attributes = self.buffer.get(line).and_then(|line| line.get(attributes)).unwrap_or_default();
        Ok(Some(Entry { text: &self.text, stream, time_ns, attributes }))
    }

    /// Appends entries to `out` in the given format, until it has at least `limit` bytes or there are no more.
    ///
    /// # Errors
    /// Whatever read answers.
    pub fn fill(&mut self, out: &mut Vec<u8>, format: &Format, limit: usize) -> io::Result<Filled> {
        while out.len() < limit {
            match self.next()? {
                Some(entry) => format.write(&entry, out),
                None => return Ok(if self.ended { Filled::End } else { Filled::UpToDate }),
            }
        }
        Ok(Filled::More)
    }

    /// Nothing more will be written: reading ends where the log ends now.
    pub fn stop_following(&mut self) {
        self.query.follow = false;
    }

    fn next_parsed(&mut self) -> io::Result<Option<(Range<usize>, parse::Parsed)>> {
        while !self.ended {
            let Some(line) = self.next_line()? else { break };
            let bytes = &self.buffer[line.clone()];
            if self
                .query
                .since_ns
                .is_some_and(|since| parse::peek_time(bytes).is_some_and(|time| time < since))
            {
                continue;
            }
            let Some(parsed) = parse::parse(bytes, &mut self.text) else { continue };
            if self.query.until_ns.is_some_and(|until| parsed.time_ns > until) {
                self.ended = true;
                break;
            }
            let wanted = match parsed.stream {
                Stream::Stdout => self.query.stdout,
                Stream::Stderr => self.query.stderr,
            };
            if wanted && self.query.since_ns.is_none_or(|since| parsed.time_ns >= since) {
                return Ok(Some((line, parsed)));
            }
        }
        if self.start == self.buffer.len() {
            // Followers wait here most of their time, and there may be many.
            (self.buffer, self.start, self.text) = (Vec::new(), 0, Vec::new());
        }
        Ok(None)
    }

    /// Where in the buffer the next whole line stands, without its newline.
    fn next_line(&mut self) -> io::Result<Option<Range<usize>>> {
        let mut searched = self.start;
        loop {
            if let Some(newline) = self.buffer.get(searched..).and_then(|rest| memchr::memchr(b'\n', rest)) {
                let line = self.start..searched + newline;
                self.start = line.end + 1;
                return Ok(Some(line));
            }
            if self.buffer.len() - self.start > MAX_LINE {
                self.start = self.buffer.len();
            }
            self.buffer.drain(..self.start);
            self.start = 0;
            searched = self.buffer.len();
            if !self.read_block()? && !self.next_file()? {
                return Ok(None);
            }
            searched = searched.min(self.buffer.len());
        }
    }

    /// Reads on in the current file; false at its end.
    fn read_block(&mut self) -> io::Result<bool> {
        let Some(file) = &self.file else { return Ok(false) };
        let last = self.newer.is_empty();
        let room = if last { self.limit.saturating_sub(self.offset) } else { u64::MAX };
        let length = self.buffer.len();
        self.buffer.resize(length + usize::try_from(room).unwrap_or(BLOCK).min(BLOCK), 0);
        let read = loop {
            match file.read_at(&mut self.buffer[length..], self.offset) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        self.buffer.truncate(length + *read.as_ref().unwrap_or(&0));
        let read = read?;
        self.offset += read as u64;
        Ok(read > 0)
    }

    /// At the end of a file: goes on with what comes after it. False if nothing does, yet.
    fn next_file(&mut self) -> io::Result<bool> {
        let next = match self.newer.pop_front() {
            Some(part) => Next::File(part.into_text(&self.path)?),
            None if self.limit != u64::MAX => Next::Nothing,
            None => self.look_for_rotation()?,
        };
        match next {
            Next::Nothing => {
                self.ended = !self.query.follow;
                return Ok(false);
            }
            Next::Grown => return Ok(true),
            Next::Truncated => {}
            Next::File(file) => self.file = Some(file),
        }
        // What stands behind the last newline of the old file is half a line.
        self.buffer.clear();
        (self.offset, self.start) = (0, 0);
        Ok(true)
    }

    /// What follows the present file, which has been read to its end.
    fn look_for_rotation(&mut self) -> io::Result<Next> {
        let known = match &self.file {
            None => None,
            Some(file) => {
                let metadata = file.metadata()?;
                match std::fs::metadata(&self.path) {
                    Ok(current) if files::identity(&current) == files::identity(&metadata) => {
                        let truncated = metadata.len() < self.offset;
                        return Ok(if truncated { Next::Truncated } else { Next::Nothing });
                    }
                    Ok(_) => {}
                    // The container is gone, or its log is being rotated at this instant.
                    Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Next::Nothing),
                    Err(e) => return Err(e),
                }
                // Asked for again: entries may have come between our last read and the rotation.
                if file.metadata()?.len() > self.offset {
                    return Ok(Next::Grown);
                }
                Some(files::identity(&metadata))
            }
        };
        for part in files::open_all(&self.path)? {
            if Some(part.identity()) == known {
                break;
            }
            self.newer.push_front(part);
        }
        match self.newer.pop_front() {
            Some(part) => Ok(Next::File(part.into_text(&self.path)?)),
            None => Ok(Next::Nothing),
        }
    }
}

/// What comes after the end of a file.
enum Next {
    Nothing,
    /// More of the same.
    Grown,
    /// The same from its begin.
    Truncated,
    File(File),
}

fn ended_before(file: &Part, since_ns: i64) -> bool {
    file.metadata().is_ok_and(|metadata| {
        let modified_ns =
            metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec());
        modified_ns.saturating_add(MTIME_MARGIN_NS) < since_ns
    })
}

#[cfg(test)]
mod tests;
