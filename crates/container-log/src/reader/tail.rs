//! Finds where the last lines of a log begin, reading backwards.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::files::Part;

/// A place in a log.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct From {
    /// Index in the list of files.
    pub(super) file: usize,
    pub(super) offset: u64,
}

/// Where the last `lines` whole lines of `newest_first` begin; of the newest file, only the first `limit` bytes count.
pub(super) fn find(newest_first: &mut [Part], path: &Path, lines: u64, limit: u64) -> io::Result<From> {
    let mut missing = lines;
    let count = newest_first.len();
    for (index, part) in newest_first.iter_mut().enumerate() {
        let file = part.text(path)?;
        let length = file.metadata()?.len();
        let length = if index == 0 { length.min(limit) } else { length };
        if let Some(offset) = find_in(file, length, &mut missing)? {
            return Ok(From { file: index, offset });
        }
        if missing == 0 {
            return Ok(From { file: index, offset: 0 });
        }
    }
    Ok(From { file: count.saturating_sub(1), offset: 0 })
}

/// Counts `missing` down for each newline before `length`; the one after the last to be counted ends the search.
fn find_in(file: &File, length: u64, missing: &mut u64) -> io::Result<Option<u64>> {
    let mut block = vec![0; super::BLOCK];
    let mut end = length;
    while end > 0 {
        let start = end.saturating_sub(block.len() as u64);
        let bytes = &mut block[..(end - start) as usize];
        match file.read_exact_at(bytes, start) {
            // Truncated by somebody meanwhile: nothing is left here.
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
        for newline in memchr::memrchr_iter(b'\n', bytes) {
            if *missing == 0 {
                return Ok(Some(start + newline as u64 + 1));
            }
            *missing -= 1;
        }
        end = start;
    }
    Ok(None)
}
