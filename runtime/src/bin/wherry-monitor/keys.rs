//! The key sequence that detaches a client from a terminal.

/// Looks for the sequence in what a client types, across reads. Bytes that may be its begin are held back until
/// the next one decides.
#[derive(Debug, Default)]
pub(crate) struct DetachKeys {
    sequence: Vec<u8>,
    matched: usize,
}

impl DetachKeys {
    /// An empty sequence never matches.
    pub(crate) fn new(sequence: Vec<u8>) -> Self {
        Self { sequence, matched: 0 }
    }

    /// Appends to `out` what is input for the program. True if the sequence is complete: the client detaches, and
    /// what it sent behind is dropped.
    pub(crate) fn filter(&mut self, typed: &[u8], out: &mut Vec<u8>) -> bool {
        if self.sequence.is_empty() {
            out.extend_from_slice(typed);
            return false;
        }
        for &byte in typed {
            if self.sequence.get(self.matched) != Some(&byte) {
                out.extend_from_slice(&self.sequence[..self.matched]);
                self.matched = 0;
            }
            if self.sequence.get(self.matched) == Some(&byte) {
                self.matched += 1;
                if self.matched == self.sequence.len() {
                    self.matched = 0;
                    return true;
                }
            } else {
                out.push(byte);
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sequence: &[u8], reads: &[&[u8]], expect: &[u8], detached: bool) {
        let (mut keys, mut out) = (DetachKeys::new(sequence.to_vec()), Vec::new());
        let found = reads.iter().any(|read| keys.filter(read, &mut out));
        assert_eq!((out.as_slice(), found), (expect, detached), "{reads:?}");
    }

    #[test]
    fn finds_the_sequence_across_reads() {
        let ctrl_p_q = &[0x10, 0x11];
        check(ctrl_p_q, &[b"ls\n\x10\x11more"], b"ls\n", true);
        check(ctrl_p_q, &[b"ls\x10", b"\x11"], b"ls", true);
        check(ctrl_p_q, &[b"\x10", b"x", b"\x10\x10\x11"], b"\x10x\x10", true);
        check(ctrl_p_q, &[b"\x10"], b"", false);
        check(ctrl_p_q, &[b"\x10", b"\x10", b"a\x11"], b"\x10\x10a\x11", false);
        check(b"a", &[b"bca"], b"bc", true);
        check(b"", &[b"\x10\x11"], b"\x10\x11", false);
    }
}
