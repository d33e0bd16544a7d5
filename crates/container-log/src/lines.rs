//! Cuts the bytes of streams into entries, where dockerd cuts them.

use std::time::SystemTime;

use crate::entry::Stream;

/// The most bytes of text in one entry; a longer line is continued in the next.
pub const MAX_ENTRY: usize = 16 << 10;

/// The two output streams, each cut into entries.
#[derive(Debug, Default)]
pub struct Splitter {
    stdout: Lines,
    stderr: Lines,
}

impl Splitter {
    /// Takes the next bytes of a stream. `emit` gets each entry that they complete, and its time.
    pub fn feed(&mut self, stream: Stream, bytes: &[u8], emit: impl FnMut(&[u8], i64)) {
        self.lines(stream).feed(bytes, now_ns, emit);
    }

    /// A stream has ended: what is left of it is an entry without a newline.
    pub fn finish(&mut self, stream: Stream, emit: impl FnMut(&[u8], i64)) {
        self.lines(stream).finish(now_ns, emit);
    }

    /// The begin of a line that is not yet an entry.
    pub(crate) fn pending(&self, stream: Stream) -> &[u8] {
        match stream {
            Stream::Stdout => self.stdout.pending(),
            Stream::Stderr => self.stderr.pending(),
        }
    }

    /// Gives unused memory back.
    pub fn shrink(&mut self) {
        self.stdout.shrink();
        self.stderr.shrink();
    }

    fn lines(&mut self, stream: Stream) -> &mut Lines {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }
}

pub(crate) fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// One output stream, cut into entries at newlines and at [`MAX_ENTRY`].
#[derive(Debug, Default)]
pub(crate) struct Lines {
    /// The begin of a line whose newline has not come; shorter than [`MAX_ENTRY`].
    pending: Vec<u8>,
    /// The time of the first entry of the long line that is being continued.
    continued: Option<i64>,
}

impl Lines {
    /// Takes the next bytes of the stream. `emit` gets each entry that they complete and its time, which is
    /// `now()` at that moment; all entries of one long line have the first one's.
    pub(crate) fn feed(
        &mut self,
        bytes: &[u8],
        mut now: impl FnMut() -> i64,
        mut emit: impl FnMut(&[u8], i64),
    ) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = MAX_ENTRY - self.pending.len();
            let window = rest.get(..room).unwrap_or(rest);
            let (end, whole_line) = match memchr::memchr(b'\n', window) {
                Some(newline) => (newline + 1, true),
                None => (window.len(), false),
            };
            let (piece, after) = rest.split_at(end);
            rest = after;
            if !whole_line && end < room {
                self.pending.extend_from_slice(piece);
                return;
            }
            let time = self.continued.take().unwrap_or_else(&mut now);
            self.continued = (!whole_line).then_some(time);
            if self.pending.is_empty() {
                emit(piece, time);
            } else {
                self.pending.extend_from_slice(piece);
                emit(&self.pending, time);
                self.pending.clear();
            }
        }
    }

    /// The stream has ended: what is left is an entry without a newline.
    pub(crate) fn finish(&mut self, now: impl FnMut() -> i64, mut emit: impl FnMut(&[u8], i64)) {
        let time = self.continued.take();
        if !self.pending.is_empty() {
            emit(&self.pending, time.unwrap_or_else(now));
        }
        self.pending = Vec::new();
    }

    /// The begin of a line that is not yet an entry.
    pub(crate) fn pending(&self) -> &[u8] {
        &self.pending
    }

    pub(crate) fn shrink(&mut self) {
        self.pending.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cut(pieces: &[&[u8]]) -> Vec<(Vec<u8>, i64)> {
        let (mut lines, mut clock, mut entries) = (Lines::default(), 0, Vec::new());
        let mut now = || {
            clock += 1;
            clock
        };
        for piece in pieces {
            lines.feed(piece, &mut now, |text, time| entries.push((text.to_vec(), time)));
        }
        lines.finish(&mut now, |text, time| entries.push((text.to_vec(), time)));
        entries
    }

    #[test]
    fn cuts_at_newlines_and_keeps_the_rest() {
        let expect = |texts: &[&str]| {
            texts.iter().zip(1..).map(|(t, n)| (t.as_bytes().to_vec(), n)).collect::<Vec<_>>()
        };
        assert_eq!(cut(&[b"a\nb", b"c\n\nd"]), expect(&["a\n", "bc\n", "\n", "d"]));
        assert_eq!(cut(&[]), []);
        assert_eq!(cut(&[b"", b"a\n", b""]), expect(&["a\n"]));
    }

    #[test]
    fn long_lines_are_continued_with_the_time_of_their_begin() {
        // The lengths that dockerd 28.5.2 wrote for the same input.
        for (length, expect) in
            [(16_383, vec![16_384]), (16_384, vec![16_384, 1]), (40_000, vec![16_384, 16_384, 7_233])]
        {
            let mut line = vec![b'x'; length];
            line.push(b'\n');
            let entries = cut(&[&line]);
            assert_eq!(entries.iter().map(|(text, _)| text.len()).collect::<Vec<_>>(), expect);
            assert!(entries.iter().all(|&(_, time)| time == 1));
        }
        assert_eq!(
            cut(&[&[b'x'; 16_384], b"y\nz\n"]).iter().map(|e| (e.0.len(), e.1)).collect::<Vec<_>>(),
            [(16_384, 1), (2, 1), (2, 2)]
        );
    }

    proptest! {
        #[test]
        fn however_the_bytes_arrive_the_entries_are_the_same(
            runs in proptest::collection::vec((prop_oneof![2 => Just(b'a'), 1 => Just(b'\n')], 1usize..20_000), 0..8),
            cuts in proptest::collection::vec(0usize..60_000, 0..5),
        ) {
            let text: Vec<u8> = runs.into_iter().flat_map(|(byte, count)| std::iter::repeat_n(byte, if byte == b'a' { count } else { 1 + count / 8000 })).collect();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|at| at.min(text.len())).chain([0, text.len()]).collect();
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect();
            let entries = cut(&pieces);
            prop_assert_eq!(&entries, &cut(&[&text]));
            prop_assert_eq!(entries.concat_texts(), text);
        }
    }

    trait ConcatTexts {
        fn concat_texts(&self) -> Vec<u8>;
    }
    impl ConcatTexts for Vec<(Vec<u8>, i64)> {
        fn concat_texts(&self) -> Vec<u8> {
            self.iter().flat_map(|(text, _)| text.iter().copied()).collect()
        }
    }
}
