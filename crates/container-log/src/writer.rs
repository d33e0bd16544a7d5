//! Appends to a log.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::entry::Stream;
use crate::lines::Splitter;
use crate::pack::Packing;
use crate::{escape, files};

/// Entries are collected up to this many bytes before they are written.
const BATCH: usize = 256 << 10;

/// Where a log is, and its limits.
#[derive(Debug, Clone)]
pub struct Options {
    /// The current file.
    pub path: PathBuf,
    /// Once the current file has this many bytes, the next entry begins a new one; `None` never.
    pub max_bytes: Option<u64>,
    /// How many files are kept, the current one included; 0 counts as 1.
    pub max_files: u32,
    /// Whether rotated files are compressed (see [`Writer::compress_step`]).
    pub compress: bool,
    /// Written with each entry.
    pub attributes: BTreeMap<String, String>,
}

/// Writes the log of one container. No error stops it: entries that the disk does not take are dropped
/// and counted, and a line is in the file either whole or not at all.
#[derive(Debug)]
pub struct Writer {
    splitter: Splitter,
    sink: Sink,
}

impl Writer {
    /// Opens the log for appending, with mode 0640, and ends a line that a crash has torn.
    ///
    /// # Errors
    /// Whatever open answers.
    pub fn open(options: Options) -> io::Result<Self> {
        let file = open(&options.path, false)?;
        let size = file.metadata()?.len();
        let mut last = [b'\n'];
        if size > 0 {
            file.read_exact_at(&mut last, size - 1)?;
        }
        let left_behind = files::rotated(&options.path, 1);
        let packing = (options.compress && left_behind.exists()).then(|| Packing::begin(left_behind));
        let sink = Sink {
            compress: options.compress,
            packing: packing.and_then(Result::ok),
            file,
            size,
            torn: last != *b"\n",
            batch: Vec::new(),
            entries: 0,
            dropped: 0,
            attributes: attributes_json(&options.attributes),
            path: options.path,
            max_bytes: options.max_bytes.unwrap_or(u64::MAX),
            max_files: options.max_files.max(1),
        };
        Ok(Self { splitter: Splitter::default(), sink })
    }

    /// Takes the next bytes of a stream and writes the entries that they complete, with one write
    /// system call unless there are very many.
    pub fn write(&mut self, stream: Stream, bytes: &[u8]) {
        self.write_each(stream, bytes, |_, _| {});
    }

    /// As [`Writer::write`]; `also` gets the text and the time of each entry.
    pub fn write_each(&mut self, stream: Stream, bytes: &[u8], mut also: impl FnMut(&[u8], i64)) {
        let sink = &mut self.sink;
        self.splitter.feed(stream, bytes, |text, time| {
            sink.push(stream, text, time);
            also(text, time);
        });
        sink.flush();
    }

    /// A stream has ended: writes what is left of it as an entry without a newline.
    pub fn finish(&mut self, stream: Stream) {
        self.finish_each(stream, |_, _| {});
    }

    /// As [`Writer::finish`]; `also` gets the text and the time of the entry.
    pub fn finish_each(&mut self, stream: Stream, mut also: impl FnMut(&[u8], i64)) {
        let sink = &mut self.sink;
        self.splitter.finish(stream, |text, time| {
            sink.push(stream, text, time);
            also(text, time);
        });
        sink.flush();
    }

    /// Compresses a piece of the file that was rotated last, a few milliseconds' work. True while there is more to
    /// do: to be called again soon, or the next rotation does the rest at once.
    pub fn compress_step(&mut self) -> bool {
        self.sink.compress_step()
    }

    /// Whether [`Writer::compress_step`] has something to do.
    #[must_use]
    pub fn is_compressing(&self) -> bool {
        self.sink.packing.is_some()
    }

    /// The begin of a line of `stream` that is not yet an entry, like a prompt.
    #[must_use]
    pub fn pending(&self, stream: Stream) -> &[u8] {
        self.splitter.pending(stream)
    }

    /// How many entries have been lost because the disk did not take them.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.sink.dropped
    }

    /// Gives unused memory back.
    pub fn shrink(&mut self) {
        self.splitter.shrink();
        self.sink.batch = Vec::new();
    }
}

/// The file, and the entries on their way to it.
#[derive(Debug)]
struct Sink {
    path: PathBuf,
    file: File,
    /// Bytes in the file.
    size: u64,
    max_bytes: u64,
    max_files: u32,
    /// `,"attrs":{…}`, or empty.
    attributes: Vec<u8>,
    compress: bool,
    /// The newest rotated file on its way to being compressed.
    packing: Option<Packing>,
    batch: Vec<u8>,
    /// Entries in the batch.
    entries: u64,
    dropped: u64,
    /// Whether the file ends within a line.
    torn: bool,
}

impl Sink {
    fn push(&mut self, stream: Stream, text: &[u8], time_ns: i64) {
        if self.batch.len() >= BATCH {
            self.flush();
        }
        if self.size + self.batch.len() as u64 >= self.max_bytes {
            self.flush();
            self.rotate_if_full();
        }
        let out = &mut self.batch;
        out.extend_from_slice(b"{\"log\":\"");
        escape::write(text, out);
        out.extend_from_slice(b"\",\"stream\":\"");
        out.extend_from_slice(stream.name().as_bytes());
        out.push(b'"');
        out.extend_from_slice(&self.attributes);
        out.extend_from_slice(b",\"time\":\"");
        wherry_rfc3339::write_trimmed(time_ns, out);
        out.extend_from_slice(b"\"}\n");
        self.entries += 1;
    }

    fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        if self.torn {
            self.batch.insert(0, b'\n');
        }
        let mut written = 0;
        while let Some(rest) = self.batch.get(written..).filter(|rest| !rest.is_empty()) {
            match self.file.write(rest) {
                Ok(0) => break,
                Ok(n) => written += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        self.torn &= written == 0;
        self.size += written as u64;
        if written < self.batch.len() {
            self.drop_rest(written);
        }
        self.entries = 0;
        self.batch.clear();
        // One burst of output must not cost memory for ever.
        if self.batch.capacity() > 2 * BATCH {
            self.batch = Vec::new();
        }
    }

    /// The disk took only the first `written` bytes of the batch: cuts the half line off again.
    fn drop_rest(&mut self, written: usize) {
        let whole = memchr::memrchr(b'\n', &self.batch[..written]).map_or(0, |newline| newline + 1);
        self.dropped += memchr::memchr_iter(b'\n', &self.batch[whole..]).count() as u64;
        let half = (written - whole) as u64;
        if half > 0 {
            match self.file.set_len(self.size - half) {
                Ok(()) => self.size -= half,
                Err(_) => self.torn = true,
            }
        }
    }

    /// Begins a new file. If that fails the current one goes on growing, rather than entries being lost.
    fn rotate_if_full(&mut self) {
        // Somebody may have truncated the file, as people do.
        if let Ok(metadata) = self.file.metadata() {
            self.size = metadata.len();
        }
        if self.size < self.max_bytes {
            return;
        }
        let next = files::suffixed(&self.path, ".next");
        let Ok(file) = open(&next, true) else { return };
        while self.compress_step() {}
        // Up to the first number that is free; if none is, the oldest file is replaced.
        let is_free = |number: &u32| {
            let name = files::rotated(&self.path, *number);
            !name.exists() && !files::packed(&name).exists()
        };
        let free = (1..self.max_files).find(is_free);
        for number in (1..=free.unwrap_or(self.max_files - 1)).rev() {
            // One that fails costs a file of the past, which is better than to lose what comes.
            let (from, to) = (files::rotated(&self.path, number - 1), files::rotated(&self.path, number));
            let _ = std::fs::remove_file(files::packed(&to));
            if number > 1 && std::fs::rename(files::packed(&from), files::packed(&to)).is_ok() {
                let _ = std::fs::remove_file(&to);
                continue;
            }
            let _ = std::fs::rename(from, to);
        }
        if std::fs::rename(&next, &self.path).is_ok() {
            self.file = file;
            self.size = 0;
            self.torn = false;
        }
        if self.compress && self.max_files > 1 {
            self.packing = Packing::begin(files::rotated(&self.path, 1)).ok();
        }
    }

    fn compress_step(&mut self) -> bool {
        let Some(packing) = &mut self.packing else { return false };
        // A file that cannot be compressed stays as it is.
        let more = matches!(packing.step(), Ok(false));
        if !more {
            self.packing = None;
        }
        more
    }
}

fn open(path: &Path, truncate: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true).mode(0o640);
    let file = options.open(path)?;
    if truncate && file.metadata()?.size() > 0 {
        file.set_len(0)?;
    }
    Ok(file)
}

fn attributes_json(attributes: &BTreeMap<String, String>) -> Vec<u8> {
    let mut out = Vec::new();
    for (key, value) in attributes {
        out.extend_from_slice(if out.is_empty() { b",\"attrs\":{\"" } else { b",\"" });
        escape::write(key.as_bytes(), &mut out);
        out.extend_from_slice(b"\":\"");
        escape::write(value.as_bytes(), &mut out);
        out.push(b'"');
    }
    if !out.is_empty() {
        out.push(b'}');
    }
    out
}
